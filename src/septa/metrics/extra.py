"""Optional metrics, computed by name: a few numbers per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.metrics.boundaries import score_boundaries
from septa.metrics.glands import score_glands

Labels = npt.NDArray[Any]

PER_IMAGE = {
    "boundaries": "surface distances and boundary F1 of each class",
    "glands": "the GlaS challenge's object scores",
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
    family: str, truth_yx: Labels, prediction_yx: Labels, class_names: Sequence[str], ignore: int = -1, *, bits: bool
) -> dict[str, float]:
    """Compute the metrics of one family for one image, by titles that name their class.

    Parameters
    ----------
    family
        ``boundaries``: average symmetric and 95 % surface distance in pixels, and boundary F1 at 2 pixels, of each
        foreground class; labels are classes, or bit fields if ``bits``. ``glands``: object F1, object Dice and object
        Hausdorff distance in pixels; labels are object ids.
    truth_yx, prediction_yx
        Labels, integers YX, equal shapes.
    class_names
        Names of the classes, class 0 first; of each bit for bit fields.
    ignore
        Ignore label in the ground truth.
    bits
        True if labels are bit fields of overlapping classes.

    Raises
    ------
    ValueError
        The family is unknown.
    """
    if family == "glands":
        scores = score_glands(truth_yx, prediction_yx).to_json()
        return {title: float(scores[key]) for title, key in _GLANDS.items()}
    if family != "boundaries":
        raise ValueError(f"metrics are {', '.join([*PER_IMAGE, NEURITES])}, not {family}")
    counted, found = truth_yx != ignore, {}
    for index, name in list(enumerate(class_names))[0 if bits else 1 :]:
        truth, prediction = (
            np.asarray((labels_yx >> index & 1 if bits else labels_yx == index) & counted, bool)
            for labels_yx in (truth_yx, prediction_yx)
        )
        surfaces = score_boundaries(truth, prediction)
        found[f"{name}: average surface distance, pixels"] = surfaces.assd
        found[f"{name}: 95 % surface distance, pixels"] = surfaces.hd95
        found[f"{name}: boundary F1 at 2 pixels"] = surfaces.f1
    return found
