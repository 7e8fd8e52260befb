"""The tuning of decoding thresholds on the validation images, after a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.data import Examples, Fingerprint
from septa.labels import choose_reduction
from septa.model import Model
from septa.tasks import MOST_TUNED_REACH, Curve, Decoding, Prior
from septa.training.automatic import fit_fingerprint

_MOST_PIXELS = 4_000_000
"""Largest number of validation pixels that are used, so that the search takes seconds."""
_INHERITED_LUCK = 2
"""Number of objects by which scores must differ to change thresholds that were tuned on the images of the parent.

Drawn among 2 to 8 held-out images of the sources of `nuclei`, its validation images chose worse thresholds than it has,
by up to 0.028 in mean accuracy; with a luck of 2 by up to 0.012, and 40 images gained as much as with 1.
"""
_MOST_LEAST_REACH = 64
"""Largest reach that is asked for without need, pixels: blocks of a stream overlap by as much."""


@dataclass(frozen=True)
class Tuning:
    """The result of a tuning.

    Attributes
    ----------
    decoding
        Chosen thresholds.
    curves
        For each threshold, the values that were tried and the score of each, with the other thresholds as they were
        then. `septa.tasks.Task.tuned_score` names the score.
    logits
        Logits of the images that were used, float32 ``KYX``, by their index, for later use.
    """

    decoding: Decoding
    curves: dict[str, Curve]
    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def describe(self, score: str, earlier: Decoding) -> str:
        """Return one line with the chosen thresholds and their score; empty without thresholds."""
        if not self.curves:
            return ""
        chosen, old = self.decoding.to_json(), earlier.to_json()
        values = ", ".join(f"{name} {chosen[name]:g}" for name in self.curves)
        best = max(dict(curve)[chosen[name]] for name, curve in self.curves.items())
        if len(self.curves) > 1:
            return f"thresholds: {values} ({score} {best:.3f} on the validation images)"
        ((name, curve),) = self.curves.items()
        others = f"{max(score for _, score in curve):.3f} at best, {dict(curve)[old[name]]:.3f} at {old[name]:g}"
        return f"threshold: {values} ({score} {best:.3f} on the validation images, {others})"


def find_prior(model: Model, fingerprint: Fingerprint, parent: Mapping[str, Any] | None) -> Prior:
    """Return what is known of the thresholds of a model before they are tuned.

    Parameters
    ----------
    model
        Model, for its recipe and task.
    fingerprint
        Fingerprint of all labelled images.
    parent
        Facts of the model that the training started from, as of `septa.training.parent.collect_facts`; None without.

    Returns
    -------
    Prior
        An object may reach as far from its seed as half of the 95 percentile of the diameters, but at most 64 pixels,
        and as objects of the parent do if its thresholds are inherited.
    """
    if not model.task.finds_objects:
        return Prior()
    largest = model.recipe.data.largest
    if largest is None:
        _, _, large = fit_fingerprint(fingerprint, model.recipe, objects=True).diameter_percentiles
    else:  # an image is reduced by its typical object, not by its largest ones
        _, median, large = fingerprint.diameter_percentiles
        large /= choose_reduction(median, largest)
    reach = min(_MOST_LEAST_REACH, math.ceil(large / 2))
    if parent is None or "reach" not in parent:
        return Prior(least_reach=reach)
    return Prior(least_reach=max(reach, parent["reach"] or MOST_TUNED_REACH), luck=_INHERITED_LUCK)


def tune_model(model: Model, examples: Examples, device: str, prior: Prior | None = None) -> Tuning:
    """Choose the thresholds of decoding; see `septa.tasks.Task.tune`.

    Parameters
    ----------
    model
        Model whose task has thresholds.
    examples
        Validation images with their labels. At most four megapixels of them are used, but at least one image.
    device
        As for `Model.segment`.
    prior
        What is known before.
    """
    logits = _compute_logits(model, examples, device, _MOST_PIXELS)
    images = [(logits_kyx, examples[index].labels_yx) for index, logits_kyx in logits.items()]
    decoding, curves = model.task.tune(images, prior)
    return Tuning(decoding, curves, logits)


@dataclass(frozen=True)
class FoldTuning:
    """Thresholds of a cross-validation.

    Attributes
    ----------
    decoding, curves
        Thresholds that suit the images of all folds best, and the scores of those tried; see `Tuning`.
    others
        For each fold, the thresholds that suit the images of the other folds best.
    logits
        For each fold, logits of the images that were used, each computed by the net that was not trained on it.
    """

    decoding: Decoding
    curves: dict[str, Curve]
    others: tuple[Decoding, ...]
    logits: tuple[dict[int, NDArray[np.float32]], ...]


def tune_folds(
    models: Sequence[Model], examples: Sequence[Examples], device: str, prior: Prior | None = None
) -> FoldTuning:
    """Choose thresholds from images that the nets were not trained on; see `septa.tasks.Task.tune`.

    An image is later scored with thresholds that neither it nor another image of its fold has chosen.

    Parameters
    ----------
    models
        Model of each fold.
    examples
        Images that each fold held out. At most four megapixels of all are used, but at least one image of each.
    device
        As for `Model.segment`.
    prior
        What is known before; sizes of objects may be those of all folds.
    """
    task = models[0].task
    if not task.has_thresholds:
        return FoldTuning(task.decoding, {}, (task.decoding,) * len(models), ({},) * len(models))
    share = _MOST_PIXELS // len(models)
    logits = [_compute_logits(model, own, device, share) for model, own in zip(models, examples, strict=True)]
    images = [
        [(logits_kyx, own[index].labels_yx) for index, logits_kyx in found.items()]
        for own, found in zip(examples, logits, strict=True)
    ]

    def tune(parts: Sequence[Sequence[tuple[NDArray[np.float32], NDArray[np.int32]]]]) -> tuple[Decoding, Any]:
        return task.tune([image for part in parts for image in part], prior)

    decoding, curves = tune(images)
    others = tuple(tune([*images[:at], *images[at + 1 :]])[0] for at in range(len(images)))
    return FoldTuning(decoding, curves, others, tuple(logits))


def _compute_logits(model: Model, examples: Examples, device: str, most: int) -> dict[int, NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    pixels = 0
    engine = model.engine(device, "torch")
    # In the order of the names, the images of one source would come first and choose for all others.
    for index in map(int, np.random.default_rng(0).permutation(len(examples))):
        example = examples[index]
        if found and pixels + example.labels_yx.size > most:
            continue
        pixels += example.labels_yx.size
        found[index] = model.logits(example.image_cyx, engine=engine)
    return found
