"""The comparison of an image's features with those of the training images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from os import PathLike
from typing import Any

import torch
from numpy.typing import NDArray

from septa.images import Normalization, cut_mirrored
from septa.inference import FeatureSums, TrainingFeatures, compute_statistics
from septa.nets import UNet
from septa.notices import Notices

_UNLIKE = "the image is unlike the training images: it is {} times as far from them as they are from each other"
_REMEDY = "Look at its labels, or train on such images too"
_WINDOWS = 2
"""Number of windows along each side of a large image that are measured."""


def cut_windows(image_cyx: NDArray[Any], side: int) -> Iterator[NDArray[Any]]:
    """Yield the image itself, or four windows that are spread over it if it is larger than they are together.

    Parameters
    ----------
    image_cyx
        Image ``(C, Y, X)``.
    side
        Side of a window, pixels.
    """
    height, width = image_cyx.shape[1:]
    if height * width <= (_WINDOWS * side) ** 2:
        yield image_cyx
        return
    tall, wide = min(height, side), min(width, side)
    tops, lefts = (
        sorted({round((2 * place + 1) * (length - part) / (2 * _WINDOWS)) for place in range(_WINDOWS)})
        for length, part in ((height, tall), (width, wide))
    )
    for top, left in product(tops, lefts):
        yield image_cyx[:, top : top + tall, left : left + wide]


def measure_windows(
    net: UNet,
    windows: Iterable[NDArray[Any]],
    normalization: Normalization,
    device: torch.device | str,
    sums: FeatureSums,
) -> None:
    """Measure the features of some windows of an image with PyTorch, without computing logits.

    Parameters
    ----------
    net
        Net whose features are measured.
    windows
        Raw values ``(C, Y, X)`` with the channels of the net.
    normalization
        Constants of the image; see `septa.images.Normalization.resolve`.
    device
        Device that runs the net.
    sums
        Receives the features.
    """
    for window_cyx in windows:
        height, width = window_cyx.shape[1:]
        if net.margin:  # a valid net reads only some sizes
            before = [(net.valid_size(side) - side) // 2 for side in (height, width)]
            begin = -before[0], -before[1]
            end = begin[0] + net.valid_size(height), begin[1] + net.valid_size(width)
            window_cyx = cut_mirrored(window_cyx, begin, end)
        sums.add(compute_statistics(net, device, normalization.apply(window_cyx)))


def report_distance(
    features: TrainingFeatures, sums: FeatureSums, where: str | PathLike[str], notices: Notices
) -> None:
    """Add a warning about the file ``where`` if the features of its image are unlike those of the training images."""
    times = features.compare(sums.summarize())
    if times:
        notices.add(where, _UNLIKE, _REMEDY, warning=True, amount=times)
