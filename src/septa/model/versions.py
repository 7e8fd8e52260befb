"""Rotated and mirrored versions of an image, over which probabilities are averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.inference import SYMMETRIES, apply_symmetry, undo_symmetry
from septa.tasks import Task


def check_versions(versions: int) -> int:
    """Return a number of versions; InputError if it is not 1 to 8."""
    if not 1 <= versions <= SYMMETRIES:
        problem = f"the number of versions must be 1 to {SYMMETRIES}, got {versions}"
        raise InputError("--tta", problem, f"Give --tta {SYMMETRIES} for all symmetries of the square")
    return versions


def average_versions(
    image_cyx: NDArray[Any], versions: int, task: Task, compute: Callable[[NDArray[Any]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return the logits ``(K, Y, X)`` of the averaged probabilities of the first versions of an image ``(C, Y, X)``.

    Parameters
    ----------
    image_cyx
        Raw values.
    versions
        Number of versions, from 1; see `check_versions`.
    task
        Task, which turns logits into probabilities and back.
    compute
        Function from one version of the image to its logits.
    """
    sum_kyx: NDArray[np.float32] | None = None
    for index in range(versions):
        part_kyx = undo_symmetry(task.activations(compute(apply_symmetry(image_cyx, index))), index)
        sum_kyx = part_kyx if sum_kyx is None else sum_kyx + part_kyx
    assert sum_kyx is not None
    return task.as_logits(sum_kyx * np.float32(1 / versions))
