"""Segments separated by membranes: border thinning, and warping that preserves topology.

Cell interior is 4-connected, membrane 8-connected. Numba compiles the loops over pixels at first use.

References
----------
Soille and Vincent 1990, Determining watersheds in digital pictures via flooding simulations, doi 10.1117/12.24211.
Jain et al. 2010, Boundary learning by optimization with topological constraints, doi 10.1109/CVPR.2010.5539950.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel

Mask = npt.NDArray[np.bool_]
Segments = npt.NDArray[np.int32]

_QUEUED, _DAM, _OUTSIDE = -1, -2, -3


def thin_borders(segments_yx: npt.NDArray[Any]) -> Segments:
    """Grow segments into the membrane until lines of about one pixel remain between them.

    This is the flooding of Soille and Vincent 1990 on two levels, as in the challenge's scripts. Membrane pixels are
    visited breadth first from the segments, in raster order, over 4-neighbours. A pixel that touches one segment joins
    it. A pixel that touches several segments, or only pixels of a line, becomes part of a line. So segments that were
    not 4-adjacent stay so, and segments neither merge nor split.

    Parameters
    ----------
    segments_yx
        Segment ids, integer YX below 2**31; 0 is membrane. Without segments, nothing grows.

    Returns
    -------
    ndarray
        int32 YX: 0 on the lines, ids elsewhere.

    Examples
    --------
    >>> thin_borders(np.array([[5, 0, 0, 0, 8]]))
    array([[5, 5, 0, 8, 8]], dtype=int32)
    """
    padded_yx = np.pad(np.asarray(segments_yx, np.int32), 1, constant_values=_OUTSIDE)
    _flood(padded_yx.reshape(-1), padded_yx.shape[1])
    return np.maximum(padded_yx[1:-1, 1:-1], 0)


def warp_mask(truth_yx: Mask, prediction_yx: Mask, sureness_yx: npt.NDArray[Any] | None = None) -> Mask:
    """Warp the ground truth towards a prediction without changing its topology.

    Pixels in which the two differ are flipped in the ground truth if they are simple: if the flip changes neither the
    number of 4-connected components of the interior nor that of 8-connected components of the membrane. Passes repeat
    until no pixel can be flipped. Pixels beyond the image count as membrane. Like the plugin of the ISBI 2012
    challenge, this is greedy: the best warping (Jain et al. 2010) may leave fewer differences.

    Parameters
    ----------
    truth_yx, prediction_yx
        bool YX, equal shapes, True in cell interior.
    sureness_yx
        Priority of each pixel, largest first, ties in raster order. The default is raster order.

    Returns
    -------
    ndarray
        bool YX, the warped ground truth. Where it differs from the prediction, the prediction has another topology.

    Raises
    ------
    ValueError
        The shapes differ or are not YX, or a mask is not bool.

    Examples
    --------
    >>> truth_yx = np.array([[1, 1, 0, 1, 1]], bool)
    >>> warp_mask(truth_yx, np.array([[1, 1, 1, 0, 1]], bool)).astype(int)  # the membrane is a pixel off
    array([[1, 1, 1, 0, 1]])
    >>> warp_mask(truth_yx, np.array([[1, 1, 1, 1, 1]], bool)).astype(int)  # the membrane is gone
    array([[1, 1, 0, 1, 1]])
    """
    sureness = np.zeros(truth_yx.shape, np.float32) if sureness_yx is None else sureness_yx
    shapes = truth_yx.shape, prediction_yx.shape, sureness.shape
    if len(set(shapes)) > 1 or truth_yx.ndim != 2:
        raise ValueError(f"ground truth, prediction and sureness must be YX and of equal shape, got {shapes}")
    if truth_yx.dtype != bool or prediction_yx.dtype != bool:
        raise ValueError(f"ground truth and prediction must be bool, got {truth_yx.dtype} and {prediction_yx.dtype}")
    warped_yx = np.pad(truth_yx, 1)
    mismatches = np.flatnonzero(warped_yx != np.pad(prediction_yx, 1))
    order = mismatches[np.argsort(-np.pad(sureness, 1).ravel()[mismatches], kind="stable")]
    _flip_simple(warped_yx.reshape(-1), order, _simple_points(), warped_yx.shape[1])
    return warped_yx[1:-1, 1:-1].copy()


@functools.cache
def _simple_points() -> Mask:
    """Return for each of the 256 neighbourhoods whether its centre is simple.

    Bit k of a neighbourhood is its k-th neighbour, counter-clockwise. A pixel is simple if and only if exactly one
    4-connected interior part meets in it, by Yokoi's formula.
    """
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    sides = [bits[:, k] - bits[:, k] * bits[:, k + 1] * bits[:, (k + 2) % 8] for k in (0, 2, 4, 6)]
    simple: Mask = np.sum(sides, axis=0) == 1
    return simple


@Kernel
def _flood(labels: Segments, width: int) -> None:
    """Flood flat padded labels in place until no pixel is 0."""
    queue = np.empty(labels.size, np.int64)
    steps = (-width, -1, 1, width)
    head = tail = 0
    for p in range(width, labels.size - width):
        if labels[p] == 0:
            for step in steps:
                if labels[p + step] > 0:
                    labels[p] = _QUEUED
                    queue[tail] = p
                    tail += 1
                    break
    while head < tail:
        p = queue[head]
        head += 1
        found = 0
        for step in steps:
            label = labels[p + step]
            if label > 0 and label != found:
                found = label if found == 0 else _DAM
            elif label == 0:
                labels[p + step] = _QUEUED
                queue[tail] = p + step
                tail += 1
        labels[p] = found if found != 0 else _DAM


@Kernel
def _flip_simple(warped: Mask, order: npt.NDArray[np.int64], simple: Mask, width: int) -> None:
    """Flip simple pixels of a flat padded mask in place, in the given order, until a pass flips none."""
    ring = (1, 1 - width, -width, -1 - width, -1, width - 1, width, width + 1)
    left, before = order.size, -1
    while left != before:
        before, left = left, 0
        for k in range(before):
            p = order[k]
            index = 0
            for bit in range(8):
                if warped[p + ring[bit]]:
                    index |= 1 << bit
            if simple[index]:
                warped[p] = not warped[p]
            else:
                order[left] = p
                left += 1
