"""Optional metrics, computed by name: a few numbers per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.metrics.boundaries import score_boundaries
from septa.metrics.glands import score_glands
from septa.metrics.neurites import score_regions

Labels = npt.NDArray[Any]

PER_IMAGE = {
    "boundaries": "surface distances and boundary F1 of each class",
    "glands": "the GlaS challenge's object scores",
    "regions": "V-Rand and V-Info of objects, or of the regions of each class",
}
"""Families of metrics computed per image, each with its description."""
_GLANDS = {
    "Object F1 (GlaS)": "f1",
    "Object Dice (GlaS)": "object_dice",
    "Object Hausdorff (GlaS), pixels": "object_hausdorff",
}
NEURITES = "neurites"
"""Family of metrics computed for a whole stack: those of the ISBI 2012 challenge."""


def compute_extra_metrics(
    family: str,
    truth_yx: Labels,
    prediction_yx: Labels,
    class_names: Sequence[str],
    ignore: int = -1,
    *,
    bits: bool,
    objects: bool = False,
) -> dict[str, float]:
    """Compute the metrics of one family for one image, by titles that name their class.

    Parameters
    ----------
    family
        ``boundaries``: average symmetric and 95 % surface distance in pixels, and boundary F1 at 2 pixels, of each
        foreground class; all objects are foreground. ``glands``: object F1, object Dice and object Hausdorff distance
        in pixels; labels are object ids. ``regions``: V-Rand and V-Info of the objects, or of the 4-connected regions
        of each foreground class; see `septa.metrics.score_regions`.
    truth_yx, prediction_yx
        Labels, integers YX, equal shapes.
    class_names
        Names of the classes of pixels, class 0 first; of each bit for bit fields.
    ignore
        Ignore label in the ground truth.
    bits
        True if labels are bit fields of overlapping classes.
    objects
        True if labels are object ids.

    Raises
    ------
    ValueError
        The family is unknown.
    """
    if family == "glands":
        scores = score_glands(truth_yx, prediction_yx).to_json()
        return {title: float(scores[key]) for title, key in _GLANDS.items()}
    if family not in PER_IMAGE:
        raise ValueError(f"metrics are {', '.join([*PER_IMAGE, NEURITES])}, not {family}")
    if family == "regions" and objects:
        return _score_regions("objects", np.maximum(truth_yx, 0), np.maximum(prediction_yx, 0))
    if objects:
        truth_yx, prediction_yx = (np.clip(labels_yx, ignore, 1) for labels_yx in (truth_yx, prediction_yx))
    counted_yx = truth_yx != ignore
    found: dict[str, float] = {}
    for index, name in list(enumerate(class_names))[0 if bits else 1 :]:
        truth, prediction = (
            np.asarray((labels_yx >> index & 1 if bits else labels_yx == index) & counted_yx, bool)
            for labels_yx in (truth_yx, prediction_yx)
        )
        found |= (_score_regions if family == "regions" else _score_surfaces)(name, truth, prediction)
    return found


def _score_regions(name: str, truth_yx: Labels, prediction_yx: Labels) -> dict[str, float]:
    scores = score_regions(truth_yx, prediction_yx)
    return {f"{name}: V-Rand": scores.v_rand, f"{name}: V-Info": scores.v_info}


def _score_surfaces(name: str, truth_yx: Labels, prediction_yx: Labels) -> dict[str, float]:
    surfaces = score_boundaries(truth_yx, prediction_yx)
    return {
        f"{name}: average surface distance, pixels": surfaces.assd,
        f"{name}: 95 % surface distance, pixels": surfaces.hd95,
        f"{name}: boundary F1 at 2 pixels": surfaces.f1,
    }
