"""Pixel losses of raw logits, with optional weights of classes and pixels; ignored pixels do not count.

The weight of a pixel is the product of the weight of its class and its own weight, or 0 where it is ignored. The cross
entropies are weighted means over pixels, ``sum(w * loss) / sum(w)``. If no pixel counts, a loss is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from septa.recipe import IGNORE


def cross_entropy(
    logits_bkyx: Tensor,
    target_byx: Tensor,
    *,
    class_weights_k: Tensor | None = None,
    weights_byx: Tensor | None = None,
) -> Tensor:
    """Compute the softmax cross entropy: equation 1 of the U-Net paper as a weighted mean.

    Parameters
    ----------
    logits_bkyx
        Raw scores, ``(B, K, Y, X)``, float.
    target_byx
        Class indices 0..K-1, ``(B, Y, X)``, int64; `IGNORE` where a pixel does not count.
    class_weights_k
        Weight of each class, ``(K,)``.
    weights_byx
        Weight of each pixel, ``(B, Y, X)``.

    Returns
    -------
    Tensor
        Scalar, at least 0.

    Examples
    --------
    >>> logits = torch.zeros(1, 2, 1, 2)
    >>> round(cross_entropy(logits, torch.tensor([[[0, IGNORE]]])).item(), 4)
    0.6931
    """
    losses = functional.cross_entropy(logits_bkyx, target_byx, ignore_index=IGNORE, reduction="none")
    weights = (target_byx != IGNORE).to(losses.dtype)
    if class_weights_k is not None:
        weights = weights * class_weights_k.to(losses.dtype)[target_byx.clamp(min=0)]
    if weights_byx is not None:
        weights = weights * weights_byx
    return _average(losses, weights)


def binary_cross_entropy(
    logits_bkyx: Tensor,
    target_bkyx: Tensor,
    *,
    valid_byx: Tensor | None = None,
    class_weights_k: Tensor | None = None,
    weights_byx: Tensor | None = None,
) -> Tensor:
    """Compute the cross entropy of independent classes, each with a sigmoid, averaged over classes and pixels.

    Parameters
    ----------
    logits_bkyx, target_bkyx
        Raw scores and {0, 1} targets, ``(B, K, Y, X)``, float.
    valid_byx
        False where a pixel is ignored, ``(B, Y, X)``, bool.
    class_weights_k, weights_byx
        Weight of each class ``(K,)`` and of each pixel ``(B, Y, X)``.

    Returns
    -------
    Tensor
        Scalar, at least 0.
    """
    losses = functional.binary_cross_entropy_with_logits(logits_bkyx, target_bkyx, reduction="none")
    weights = torch.ones_like(losses)
    if valid_byx is not None:
        weights = weights * valid_byx[:, None]
    if class_weights_k is not None:
        weights = weights * class_weights_k.to(losses.dtype)[None, :, None, None]
    if weights_byx is not None:
        weights = weights * weights_byx[:, None]
    return _average(losses, weights)


def soft_dice(
    probabilities_bkyx: Tensor,
    target_bkyx: Tensor,
    *,
    valid_byx: Tensor | None = None,
    class_weights_k: Tensor | None = None,
    weights_byx: Tensor | None = None,
    smooth: float = 1.0,
) -> Tensor:
    """Compute one minus the soft Dice coefficient of each class over the whole batch, averaged over classes.

    Of each class it is ``1 - (2 sum(w p t) + smooth) / (sum(w p) + sum(w t) + smooth)``. A class that is absent from
    prediction and target costs 0.

    Parameters
    ----------
    probabilities_bkyx, target_bkyx
        Probabilities in [0, 1] and {0, 1} targets, ``(B, K, Y, X)``, float.
    valid_byx, class_weights_k, weights_byx
        As for `binary_cross_entropy`; class weights apply to the mean over classes.
    smooth
        Number of pixels added to numerator and denominator, so that empty classes have a value.

    Returns
    -------
    Tensor
        Scalar in [0, 1].

    References
    ----------
    Milletari, Navab, Ahmadi 2016, "V-Net" (arXiv 1606.04797), section 3; with the plain sum in the denominator as in
    Sudre et al. 2017 (arXiv 1707.03237).
    """
    if valid_byx is not None:
        weights_byx = valid_byx if weights_byx is None else weights_byx * valid_byx
    probabilities, target = probabilities_bkyx, target_bkyx
    if weights_byx is not None:
        weights = weights_byx[:, None].to(probabilities.dtype)
        probabilities, target = probabilities * weights, target * weights
    axes = (0, 2, 3)
    overlap = (probabilities * target_bkyx).sum(axes)
    total = probabilities.sum(axes) + target.sum(axes)
    losses = 1 - (2 * overlap + smooth) / (total + smooth)
    return losses.mean() if class_weights_k is None else _average(losses, class_weights_k.to(losses.dtype))


def _average(losses: Tensor, weights: Tensor) -> Tensor:
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)
