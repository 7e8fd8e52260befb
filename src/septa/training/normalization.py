"""The normalisation of a training's images: that of its recipe, of its checkpoint, or of the model it starts from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from septa.data import Fingerprint, ImageFacts
from septa.images import CLIP, Normalization
from septa.model import Model
from septa.nets import ChannelStatistics, imagenet_statistics
from septa.recipe import Recipe

_CURVE = 20.0
"""Strength of data.normalization=asinh. An object with 5 % of the largest intensity gets 1/4 of the largest value."""


def choose_normalization(
    recipe: Recipe, fingerprint: Fingerprint, expected: ChannelStatistics | None, saved: Mapping[str, Any] | None
) -> Normalization:
    """Make the normalisation of a new training, or return that of the checkpoint that continues.

    Parameters
    ----------
    recipe
        Recipe, for the kind.
    fingerprint
        Facts of the training images, for the constants.
    expected
        Statistics that the encoder expects of its input; None for those of ImageNet.
    saved
        Header of the checkpoint that continues; None for a new training.
    """
    if saved is None:
        return _make_normalization(recipe, fingerprint, expected)
    if "normalization" in saved:
        return Normalization.from_json(saved["normalization"])
    # Checkpoints of septa 0.1.0 before the robust constants: mean and standard deviation of all pixels, no clipping.
    scale = tuple(deviation if deviation > 0 else 1.0 for deviation in fingerprint.std)
    old = replace(fingerprint, offset=fingerprint.mean, scale=scale)
    return replace(_make_normalization(recipe, old, expected), clip=None, flatten_noise=False)


def _make_normalization(recipe: Recipe, fingerprint: Fingerprint, expected: ChannelStatistics | None) -> Normalization:
    kind = recipe.data.normalization
    if kind in ("image", "asinh"):
        curve = _CURVE if kind == "asinh" else 0.0
        invert = recipe.data.invert_light
        return Normalization("image", curve=curve, clip=CLIP, invert_light=invert, flatten_noise=True)
    if kind == "dataset":
        return Normalization("dataset", fingerprint.offset, fingerprint.scale, clip=CLIP)
    channels = fingerprint.channels
    full = _find_full_scale(fingerprint)
    if kind == "unit":
        return Normalization("dataset", (0.0,) * channels, (full,) * channels, clip=CLIP)
    mean, deviation = imagenet_statistics(channels, expected)
    offset, scale = tuple(full * m for m in mean), tuple(full * d for d in deviation)
    return Normalization("dataset", offset, scale, clip=CLIP)


def _find_full_scale(fingerprint: Fingerprint) -> float:
    """Return the image value that becomes 1: the largest of an integer dtype, or the largest 99.5 percentile."""
    dtype = np.dtype(fingerprint.dtype)
    if dtype.kind in "ui":
        return float(np.iinfo(dtype).max)
    return max((high for *_, high in fingerprint.percentiles), default=1.0) or 1.0


def inherit_normalization(model: Model, recipe: Recipe, facts: Sequence[ImageFacts]) -> Normalization | None:
    """Return the normalisation with which images have the values for a net that it had for its own training images.

    Parameters
    ----------
    model
        Model whose net is trained further.
    recipe
        Recipe of the new training.
    facts
        Facts of the new training images.

    Returns
    -------
    Normalization or None
        The rule of the model that finds constants in each image; or its constants, if the values of all new images are
        like those of its training images, perhaps at another bit depth. None if the constants must be found in the new
        images, as those of the model were found in its own, or if the recipe has another normalisation.
    """
    own = model.normalization
    own = replace(own, clip=CLIP if own.clip is None else own.clip)
    wanted, known = recipe.data, model.recipe.data
    if (wanted.normalization, wanted.invert_light) != (known.normalization, known.invert_light):
        return None
    if own.kind == "image":
        return own
    if model.training_values is None or any(item.channels != model.channels for item in facts):
        return None
    checks = [model.training_values.compare(item.value_facts, scaled=False) for item in facts]
    # An image without objects has no factor.
    factor, count = Counter(check.factor for check in checks).most_common(1)[0]
    warned = any(notice.warning for check in checks for notice in check.notices)
    return None if warned or 2 * count <= len(checks) else own.rescale(factor)
