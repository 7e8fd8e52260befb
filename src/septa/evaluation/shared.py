"""Steps that the evaluations of models and of label files share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import RawLabels
from septa.labels import MASK_VALUES, LabelMapping, count_regions
from septa.metrics import NEURITES, PER_IMAGE, Evaluation, Labels, score_stack
from septa.notices import Notices


def has_neurites(labels: LabelMapping) -> bool:
    """Return True if labels are two classes of all pixels, as membrane and cell interior are."""
    return labels.kind != "multilabel" and labels.classes == 2 and labels.ignore is None


def check_extra(extra: Sequence[str], labels: LabelMapping, instances: bool) -> None:
    """Raise InputError if a family of metrics is not known or does not fit the labels."""
    for family in extra:
        where = f"--metrics {family}"
        if family not in (*PER_IMAGE, NEURITES):
            known = ", ".join([*PER_IMAGE, NEURITES])
            raise InputError(where, "this family of metrics is not known", f"Choose from {known}")
        if family == "glands" and not instances:
            remedy = "Give a model that finds objects, or --task instances"
            raise InputError(where, "these metrics score objects, not classes", remedy)
        if family == NEURITES and (instances or not has_neurites(labels)):
            problem = "these metrics need two classes of all pixels, membrane and cell interior"
            raise InputError(where, problem, "Leave them out")


def add_neurites(evaluation: Evaluation, stack: Sequence[tuple[Labels, NDArray[np.float32]]]) -> Evaluation:
    """Add the scores of the ISBI 2012 challenge for the stack, each at its best threshold."""
    scores = score_stack(stack)
    titles = {
        "V-Rand": scores.v_rand,
        "V-Info": scores.v_info,
        "Rand error": scores.rand_error,
        "Warping error": scores.warping_error,
        "Pixel error, 1 - F": scores.pixel_f_error,
    }
    more = {f"{title} (neurites, stack)": {"mean": value} for title, value in titles.items()}
    return replace(evaluation, more=evaluation.more | more, neurites=scores)


def note_mask(mapping: LabelMapping, raw: RawLabels, where: str | Path, notices: Notices) -> None:
    """Report a mask whose foreground has another value, and one where objects should be numbered."""
    value = mapping.read_mask(raw)
    if value is not None:
        notices.add(where, f"the mask holds 0 and {value}, and septa reads {value} as {mapping.class_names[1]}")
        return
    unsure = mapping.kind == "instances" and raw.kind == "index" and raw.objects is None
    one = unsure and count_label_values(raw) == 1
    if one and raw.array.max() in MASK_VALUES and count_regions(raw.array) > 1:
        text = "the label image holds one value in several regions, and septa reads these as one object"
        notices.add(where, text, "Number the objects", warning=True)


def count_label_values(raw: RawLabels) -> int:
    """Count the values of a label image other than 0."""
    return len(np.unique(raw.array[raw.array != 0]))


def require_size(name: str, truth_yx: NDArray[Any], size: tuple[int, ...], path: Path) -> None:
    """Raise InputError if a prediction or an image does not have the size of the labels ``YX``."""
    if truth_yx.shape != size:
        height, width = truth_yx.shape
        problem = f"the size is {size[0]} x {size[1]} pixels, but the labels of {name} are {height} x {width}"
        raise InputError(path, problem, "Give both in the same size")
