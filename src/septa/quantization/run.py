"""Quantisation: a model that computes in 8-bit integers, compared with the float model before it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from septa.data import Pair, digest_array, find_pairs, read_pair_image
from septa.errors import InputError
from septa.evaluation import evaluate
from septa.images import MAX_PIXELS
from septa.inference import Int8
from septa.metrics import HEADERS, OBJECT_METRICS, Evaluation
from septa.model import Model
from septa.quantization.quantizer import Quantizer

MOST_DROP = 0.005
"""By how much the score may fall."""
_PATCH = 256
"""Side of sample patches, pixels."""
_IMAGES, _PATCHES = 32, 96
_KEPT = (0, 1, 3, 7)
"""Of the layers that harm the logits most, how many are tried in float32 beside the first and the last."""
MINUTES = 3.0
"""That integers may be tuned."""
_SHOWN = ("f1_50", "mean_accuracy")

Notify = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Quantized:
    """A quantised model, and what both models score on images that neither was made from.

    Attributes
    ----------
    model
        The float model with the net in integers beside its own.
    score
        What the scores are compared by: the mean Dice of the foreground classes, or for instances the mean accuracy of
        objects over IoU 0.5 to 0.95.
    floating, integer
        The evaluations of the float model and of the integers.
    """

    model: Model
    score: str
    floating: Evaluation
    integer: Evaluation

    @property
    def drop(self) -> float:
        """By how much the integers score less; negative where they score more."""
        return self.floating.summary[self.score] - self.integer.summary[self.score]

    def table(self) -> Table:
        """A row for each score."""
        table = Table("Mean over images", "float", "int8", "difference")
        for name, title in _titles(self.floating).items():
            before, after = (evaluation.summary[name] for evaluation in (self.floating, self.integer))
            table.add_row(title, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
        return table


def quantize(
    model: str | Path,
    data: str | Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    most_drop: float = MOST_DROP,
    minutes: float = MINUTES,
    max_pixels: int = MAX_PIXELS,
    notify: Notify = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> Quantized:
    """Quantise a model to 8-bit integers.

    The ranges of activations are found on training images, where the integers are then tuned to give what the float
    net gives; the scores are those of all other images. The first and the last layer stay in float32: they take next to
    no time and do most harm. Where the score drops by more than is allowed, the layers that harm the logits most are
    kept in float32 as well, more and more of them.

    Parameters
    ----------
    model
        File of a trained model.
    data
        What it was trained on; see `septa.data.folder.find_pairs`, also for ``images`` and ``labels``.
    most_drop
        By how much the score may drop.
    minutes
        That the integers of one version may be tuned; not at all when 0. Those of a small net take less.
    max_pixels
        Largest image that is decoded, pixels.
    notify, progress
        Are told what is done, line by line, and how much of a tuning or of the scoring.

    Returns
    -------
    The version that scores best of those that were tried; its drop may be more than what is allowed.

    Raises
    ------
    InputError
        The data hold no training image or no other, or cannot be read; a package is missing.
    """
    loaded = replace(Model.load(model), int8=None)
    samples = _samples(loaded, Path(data), images, labels, max_pixels)
    quantizer = Quantizer(loaded.net, samples)
    tuning = f"; each version is tuned for at most {minutes:g} minutes" if minutes else ""
    notify(f"ranges from {len(samples)} patches of training images, {len(quantizer.layers)} layers{tuning}")

    def score_model(one: Model) -> Evaluation:
        return evaluate(one, data, images=images, labels=labels, device="cpu", max_pixels=max_pixels, progress=progress)

    floating = score_model(loaded)
    score = "mean_accuracy" if "mean_accuracy" in floating.summary else "dice"
    best: Quantized | None = None

    def make_tuned(floats: tuple[str, ...]) -> Int8:
        return quantizer.tune(loaded.task.distillation, minutes, floats, progress)

    for made in _versions(quantizer, make_tuned if minutes else None, notify):
        candidate = replace(loaded, int8=made)
        found = Quantized(candidate, score, floating, score_model(candidate))
        change = found.integer.summary[score] - floating.summary[score]
        how = f"{len(made.floats)} of {made.layers} layers in float32{', tuned' if made.tuned else ''}"
        notify(f"{how}: {_titles(floating)[score]} {change:+.4f}")
        best = found if best is None or found.drop < best.drop else best
        if best.drop <= most_drop:
            break
    assert best is not None
    return replace(best, model=_record_scores(best))


def _versions(quantizer: Quantizer, tuned: Callable[[tuple[str, ...]], Int8] | None, notify: Notify) -> Iterator[Int8]:
    """Nets in integers, one after the other more of it in float32; each tuned, and the first also as it was before."""
    ends = quantizer.layers[0], quantizer.layers[-1]
    ranked: list[str] = []
    for kept in _KEPT:
        if kept and not ranked:
            notify("too much is lost; looking for the layers that lose it")
            ranked = quantizer.rank_layers(ends)
        if kept <= len(ranked):
            floats = (*ends, *ranked[:kept])
            made = quantizer.make(floats) if tuned is None else tuned(floats)
            yield made
            if made.tuned and not kept:
                yield quantizer.make(floats)


def _samples(
    model: Model, data: Path, images: str | None, labels: str | None, max_pixels: int
) -> list[NDArray[np.float32]]:
    """Normalised patches of training images, ``CYX`` of one size."""
    trained = {digest for _, digest in model.provenance.get("train", [])}
    pairs = find_pairs(data, images=images, labels=labels, max_pixels=max_pixels).pairs
    found: list[NDArray[np.float32]] = []
    for pair in pairs:
        image_cyx = read_pair_image(pair)
        if digest_array(image_cyx) in trained:
            found.append(_normalise(model, pair, image_cyx))
        if len(found) == _IMAGES:
            break
    if not found:
        problem = "holds none of the images that the model was trained on"
        raise InputError(data, problem, "give the data that it was trained on")
    return _patches(model, found)


def _normalise(model: Model, pair: Pair, image_cyx: NDArray[Any]) -> NDArray[np.float32]:
    fitted_cyx = model.as_model_input(image_cyx, pair.image)
    return model.normalization.resolve(fitted_cyx).apply(fitted_cyx)


def _patches(model: Model, images: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Patches at random places, equally many of each image; smaller images are repeated at their edges."""
    rng, net = np.random.default_rng(0), model.net
    side = net.valid_size(max(_PATCH, 4 * net.multiple))
    found = []
    for image_cyx in images:
        more = [(0, max(0, side - length)) for length in image_cyx.shape[1:]]
        grown_cyx = np.pad(image_cyx, ((0, 0), *more), "reflect" if min(image_cyx.shape[1:]) > side // 2 else "edge")
        for _ in range(max(1, _PATCHES // len(images))):
            y, x = (int(rng.integers(0, length - side + 1)) for length in grown_cyx.shape[1:])
            found.append(np.ascontiguousarray(grown_cyx[:, y : y + side, x : x + side]))
    return found


def _titles(evaluation: Evaluation) -> dict[str, str]:
    """Of the scores that are compared."""
    if evaluation.objects:
        return {name: OBJECT_METRICS[name] for name in _SHOWN} | {"dice": f"{HEADERS['dice']} of pixels"}
    return dict(HEADERS)


def _record_scores(found: Quantized) -> Model:
    """The model with its scores in its provenance."""
    scores = {
        name: {"float": found.floating.summary[name], "int8": found.integer.summary[name]}
        for name in _titles(found.floating)
    }
    return found.model.with_provenance(int8={"scores": scores, "images": len(found.integer.images)})
