"""Statistics of the features of a net, by which an image is compared with the training images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from septa.nets.blocks import crop_centre

STATISTICS_LEVELS = (0, 1)
"""Levels of the contracting path whose features are measured.

They hold the texture of an image. Measured on images of foreign modalities, they distinguish better than the lowest
level, whose features mean objects and are silent where there are none, and they need fewer training images; see
``benchmarks/unlike.md``.
"""
_STEP = 2
"""Every second row and column of a feature is measured, which takes a quarter of the time."""


def pool_statistics(features: Sequence[Tensor]) -> Tensor:
    """Compute means and mean squares of features in the area of each pixel of the lowest level.

    Sums of them over a part of the image are therefore sums over its features, wherever the image is cut.

    Parameters
    ----------
    features
        Feature of each level, ``(B, C, Y, X)``, full resolution first; of a valid net, whose levels cover different
        areas, only the common centre is measured.

    Returns
    -------
    Tensor
        float32, ``(B, 2 C, Y, X)`` with Y and X of the lowest level: the means of all channels of `STATISTICS_LEVELS`,
        then their mean squares.
    """
    height, width = features[-1].shape[2:]
    means, squares = [], []
    for level in STATISTICS_LEVELS:
        side = 1 << (len(features) - 1 - level)
        step = min(_STEP, side)
        feature_bcyx = crop_centre(features[level], height * side, width * side)[..., ::step, ::step].float()
        means.append(functional.avg_pool2d(feature_bcyx, side // step))
        squares.append(functional.avg_pool2d(feature_bcyx.square(), side // step))
    return torch.cat([*means, *squares], dim=1)


def count_statistics(channels: Sequence[int]) -> int:
    """Return the number of channels of `pool_statistics`, given those of each level's features."""
    return 2 * sum(channels[level] for level in STATISTICS_LEVELS)
