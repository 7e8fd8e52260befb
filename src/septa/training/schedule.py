"""The learning rate as a function of progress."""

from __future__ import annotations

import math
from collections.abc import Sequence

from septa.recipe import TrainingSettings


def compute_lr_factor(progress: float, training: TrainingSettings, drops: int = 0) -> float:
    """Compute the factor, 0 to 1, by which the learning rate is multiplied.

    Parameters
    ----------
    progress
        Share of the training that is done, 0 to 1: of the steps or of the minutes, whichever is larger.
    training
        Settings, of which ``schedule`` and ``warmup`` are used. During the warm-up the factor rises linearly from 0
        to 1. After it, with t the share of the remaining training that is done: ``cosine`` falls as half a cosine to 0,
        ``polynomial`` as (1 - t)**0.9, ``plateau`` is divided by 10 at each drop, and ``constant`` stays 1.
    drops
        Result of `count_drops`, for ``plateau``.

    References
    ----------
    Cosine: Loshchilov, Hutter 2017, "SGDR" (arXiv 1608.03983), equation 5 without restarts.
    Polynomial: Chen et al. 2017, "DeepLab" (arXiv 1606.00915), section 4.1.2.

    Examples
    --------
    >>> [round(compute_lr_factor(p, TrainingSettings(warmup=0.1)), 3) for p in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    warmup = training.warmup
    if progress < warmup:
        return progress / warmup
    time = min(1.0, (progress - warmup) / (1 - warmup))
    if training.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * time))
    if training.schedule == "polynomial":
        return float((1 - time) ** 0.9)
    if training.schedule == "plateau":
        return float(0.1**drops)
    return 1.0


def count_drops(scores: Sequence[float], patience: int) -> int:
    """Count how often the schedule ``plateau`` divides the rate by 10.

    It does so where PyTorch's ``ReduceLROnPlateau(optimizer, "max", patience=patience)`` does with its other defaults.
    Only PyTorch stops at a rate of 1e-8, from which nothing is learned.

    Parameters
    ----------
    scores
        Scores of all validations so far. A score is better than an earlier one if it is larger by 0.01 % of it.
    patience
        Validations without a better score that change nothing.

    Examples
    --------
    >>> [count_drops([0.5, 0.7, 0.7, 0.6, 0.5, 0.5][:count], patience=1) for count in range(7)]
    [0, 0, 0, 0, 1, 1, 2]
    """
    best, stale, drops = -math.inf, 0, 0
    for score in scores:
        if score > best * (1 + 1e-4):
            best, stale = score, 0
        else:
            stale += 1
        if stale > patience:
            drops, stale = drops + 1, 0
    return drops
