"""Confidence of objects: a soft IoU from the foreground probability of the net."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel
from septa.objects.runs import Array, Reals, Runs, check_arrays, find_runs


def confidence(labels_yx: Array, foreground_yx: Array) -> Reals:
    """Compute the confidence of each object, a soft IoU, from the net's foreground probability p.

    The confidence is the sum of p over the object, divided by its area plus the sum of p over background pixels within
    2 pixels of it. This is the expected IoU with the ground truth, if the probabilities are right and the true object
    does not extend further. It is near 1 only if the net is sure of the inside and p drops at the outline. Pixels of
    other objects and pixels below 0 are not background. Without background around it, an object has its mean p.

    Parameters
    ----------
    labels_yx
        Instance ids, as for `measure_objects`.
    foreground_yx
        Foreground probability, float in 0..1, of the same size.

    Returns
    -------
    ndarray
        float64 in 0..1, one value per object by ascending id.

    Raises
    ------
    ValueError
        As for `measure_objects`; or a probability lies outside 0..1.

    Examples
    --------
    >>> confidence(np.array([[0, 0, 0, 5, 5]]), np.array([[1.0, 0.5, 0.0, 0.8, 0.7]]))
    array([0.6])
    """
    check_arrays(labels_yx)
    return compute_confidence(find_runs(labels_yx), labels_yx, foreground_yx)


def compute_confidence(runs: Runs, labels_yx: Array, foreground_yx: Array) -> Reals:
    """Compute the `confidence` of each object from runs that are known."""
    if foreground_yx.shape != labels_yx.shape or foreground_yx.dtype.kind != "f":
        got = f"{foreground_yx.shape} of {foreground_yx.dtype}"
        raise ValueError(f"probabilities must be floats of the labels' shape {labels_yx.shape}, got {got}")
    if not runs.ids.size:
        return np.zeros(0)
    low, high = float(foreground_yx.min()), float(foreground_yx.max())
    if not -1e-5 <= low <= high <= 1 + 1e-5:  # averages over several passes are rounded
        raise ValueError(f"probabilities must be in 0..1, got {low} to {high}")
    objects_yx = runs.draw(*labels_yx.shape)
    rims = np.zeros(runs.ids.size)
    _add_rims(np.pad(objects_yx, 2, constant_values=-2), np.ascontiguousarray(foreground_yx, np.float32), rims)
    return np.clip(runs.totals(foreground_yx.reshape(-1)) / (runs.areas + rims), 0.0, 1.0)


@Kernel
def _add_rims(objects: npt.NDArray[np.int32], foreground: npt.NDArray[np.float32], rims: Reals) -> None:
    """Add the probability of each background pixel to every object at most 2 pixels away, once."""
    latest = np.full(rims.size, -1, np.int64)  # last background pixel added to each object
    for y in range(foreground.shape[0]):
        for x in range(foreground.shape[1]):
            if objects[y + 2, x + 2] != -1:
                continue
            pixel = y * foreground.shape[1] + x
            for dy in range(-2, 3):
                for dx in range(abs(dy) - 2, 3 - abs(dy)):  # y² + x² <= 4
                    near = objects[y + 2 + dy, x + 2 + dx]
                    if near >= 0 and latest[near] != pixel:
                        latest[near] = pixel
                        rims[near] += foreground[y, x]
