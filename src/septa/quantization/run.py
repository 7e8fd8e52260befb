"""Quantisation: a model in 8-bit integers or float16, compared with the float model before it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from septa.data import Pair, digest_array, find_pairs, read_pair_image, thin_sketches
from septa.errors import InputError
from septa.evaluation import evaluate
from septa.images import MAX_PIXELS
from septa.inference import Int8
from septa.metrics import HEADERS, OBJECT_METRICS, Evaluation
from septa.model import Model
from septa.nets import UNet
from septa.quantization.quantizer import Quantizer

MOST_DROP = 0.005
"""Default of the largest drop of the score."""
MINUTES = 3.0
"""Default of the longest tuning of a version, minutes."""
_PATCH = 256
"""Side of sample patches, pixels."""
_IMAGES = 32
"""Largest number of training images from which patches are cut."""
_PATCHES = 96
"""Number of patches, about."""
_KEPT = (0, 1, 3, 7)
"""Numbers of the most harmful layers that are tried in float32, in addition to the first and the last layer."""
_SHOWN = ("f1_50", "mean_accuracy")
"""Scores of objects that are reported."""

Notify = Callable[[str], None]


@dataclass(frozen=True)
class QuantizedModel:
    """A quantised model, and the scores of both models on images that neither was made from.

    Attributes
    ----------
    model
        The float model, with its net in integers in addition; or the model with its weights rounded to float16.
    score
        Name of the score that decides: the mean Dice of the foreground classes, or for instances the mean accuracy of
        objects over IoU 0.5 to 0.95.
    floating
        Evaluation of the float model.
    reduced
        Evaluation of the model in integers or in float16.
    kind
        ``int8`` or ``float16``.
    """

    model: Model
    score: str
    floating: Evaluation
    reduced: Evaluation
    kind: Literal["int8", "float16"] = "int8"

    @property
    def drop(self) -> float:
        """Score of the float model minus that of the quantised model; negative if that scores more."""
        return self.floating.summary[self.score] - self.reduced.summary[self.score]

    def table(self) -> Table:
        """Build a table with a row for each score."""
        table = Table("Mean over images", "float", self.kind, "difference")
        for name, title in _titles(self.floating).items():
            before, after = (evaluation.summary[name] for evaluation in (self.floating, self.reduced))
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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QuantizedModel:
    """Quantise a model to 8-bit integers.

    Training images give the ranges of activations, and the integers are tuned on them to approach the logits of the
    float net. All other images give the scores. The first and the last layer stay in float32, because they take little
    time and lose most. While the score drops by more than ``most_drop``, more of the layers whose rounding harms the
    logits most are kept in float32.

    Parameters
    ----------
    model
        Path of a trained model.
    data
        Folder of the data that it was trained on; see `septa.data.find_pairs`, also for ``images`` and ``labels``.
    most_drop
        Largest acceptable drop of the score.
    minutes
        Longest tuning of each version, minutes; 0 for no tuning. A small net takes less.
    max_pixels
        Largest image that is decoded, pixels.
    notify
        Function that receives a line about each version.
    progress
        Function that receives the number of tuning steps or scored images done, and their total.

    Returns
    -------
    QuantizedModel
        The version with the best score. Its drop may exceed ``most_drop``.

    Raises
    ------
    InputError
        The model is an ensemble, the data contain no training image or no other image, or cannot be read, or a package
        is missing.
    ResourceError
        The memory does not hold the activations.
    """
    loaded = replace(Model.load(model), int8=None)
    net = _require_one_net(loaded, model)
    samples = _sample_patches(loaded, Path(data), images, labels, max_pixels)
    quantizer = Quantizer(net, samples)
    tuning = f"; each version is tuned for at most {minutes:g} minutes" if minutes else ""
    notify(f"ranges from {len(samples)} patches of training images, {len(quantizer.layers)} layers{tuning}")

    def score_model(one: Model) -> Evaluation:
        return evaluate(one, data, images=images, labels=labels, device="cpu", max_pixels=max_pixels, progress=progress)

    floating = score_model(loaded)
    score = _choose_score(floating)
    best: QuantizedModel | None = None

    def make_tuned(floats: tuple[str, ...]) -> Int8:
        return quantizer.tune(loaded.task.distillation, minutes, floats, progress)

    for made in _make_versions(quantizer, make_tuned if minutes else None, notify):
        candidate = replace(loaded, int8=made)
        found = QuantizedModel(candidate, score, floating, score_model(candidate))
        change = found.reduced.summary[score] - floating.summary[score]
        how = f"{len(made.floats)} of {made.layers} layers in float32{', tuned' if made.tuned else ''}"
        notify(f"{how}: {_titles(floating)[score]} {change:+.4f}")
        best = found if best is None or found.drop < best.drop else best
        if best.drop <= most_drop:
            break
    assert best is not None
    return replace(best, model=_record_scores(best))


def _require_one_net(model: Model, path: str | Path) -> UNet:
    """Return the net of a model; InputError if it is an ensemble."""
    if not isinstance(model.net, UNet):
        problem = f"the model is an ensemble of {model.members} nets, and septa quantises single nets only"
        raise InputError(path, problem, "Train without --folds, and quantise that model")
    return model.net


def round_to_float16(
    model: str | Path,
    data: str | Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QuantizedModel:
    """Round the weights of a model to float16, and compare both models on images that it was not trained on.

    Parameters are those of `quantize`. The result is stored by ``Model.save(path, half=True)``.

    Raises
    ------
    InputError
        The data contain only training images, or cannot be read, or a weight is too large for float16.
    """
    given = Model.load(model)
    loaded = replace(given, int8=None)
    rounded = make_small(loaded)
    floating, reduced = (
        evaluate(one, data, images=images, labels=labels, device="cpu", max_pixels=max_pixels, progress=progress)
        for one in (loaded, rounded)
    )
    made = QuantizedModel(rounded, _choose_score(floating), floating, reduced, kind="float16")
    return replace(made, model=replace(_record_scores(made), int8=given.int8))


def make_small(model: Model) -> Model:
    """Return a model as a file in float16 holds it: rounded, and with smaller sketches of its training images.

    Raises
    ------
    InputError
        A weight is too large for float16.
    """
    return replace(model.round_to_half(), provenance=thin_sketches(model.provenance))


def _choose_score(evaluation: Evaluation) -> str:
    return "mean_accuracy" if "mean_accuracy" in evaluation.summary else "dice"


def _make_versions(
    quantizer: Quantizer, tuned: Callable[[tuple[str, ...]], Int8] | None, notify: Notify
) -> Iterator[Int8]:
    """Yield versions of the net in integers, with more and more layers in float32.

    Each version is tuned; the first one is also yielded without tuning.
    """
    ends = (quantizer.layers[0], quantizer.layers[-1])
    ranked: list[str] = []
    for kept in _KEPT:
        if kept and not ranked:
            notify("the score drops too much; ranking the layers by the error that they cause")
            ranked = quantizer.rank_layers(ends)
        if kept <= len(ranked):
            floats = (*ends, *ranked[:kept])
            made = quantizer.make(floats) if tuned is None else tuned(floats)
            yield made
            if made.tuned and not kept:
                yield quantizer.make(floats)


def _sample_patches(
    model: Model, data: Path, images: str | None, labels: str | None, max_pixels: int
) -> list[NDArray[np.float32]]:
    """Return normalised patches ``(C, Y, X)`` of training images, of one size."""
    trained = {digest for _, digest in model.provenance.get("train", [])}
    windows = {digest: tuple(window) for digest, window, _ in model.provenance.get("parts", [])}
    pairs = find_pairs(data, images=images, labels=labels, max_pixels=max_pixels).pairs
    found: list[NDArray[np.float32]] = []
    for pair in pairs:
        image_cyx = read_pair_image(pair, model.channels)
        digest = digest_array(image_cyx)
        if digest in windows:
            image_cyx = read_pair_image(replace(pair, window=windows[digest]), model.channels)
        if digest in trained:
            found.append(_normalise(model, pair, image_cyx))
        if len(found) == _IMAGES:
            break
    if not found:
        problem = "the data contain no image that the model was trained on"
        raise InputError(data, problem, "Give the data that it was trained on")
    return _cut_patches(model, found)


def _normalise(model: Model, pair: Pair, image_cyx: NDArray[Any]) -> NDArray[np.float32]:
    input_cyx = model.as_model_input(image_cyx, pair.image)
    return model.normalization.resolve(input_cyx).apply(input_cyx)


def _cut_patches(model: Model, images: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return patches at random places, equally many of each image; a smaller image is padded."""
    rng = np.random.default_rng(0)
    side = model.net.valid_size(max(_PATCH, 4 * model.net.multiple))
    found = []
    for image_cyx in images:
        padding = [(0, max(0, side - length)) for length in image_cyx.shape[1:]]
        reflects = min(image_cyx.shape[1:]) > side // 2
        padded_cyx = np.pad(image_cyx, ((0, 0), *padding), "reflect" if reflects else "edge")
        for _ in range(max(1, _PATCHES // len(images))):
            y, x = (int(rng.integers(0, length - side + 1)) for length in padded_cyx.shape[1:])
            found.append(np.ascontiguousarray(padded_cyx[:, y : y + side, x : x + side]))
    return found


def _titles(evaluation: Evaluation) -> dict[str, str]:
    """Return the title of each score in the table."""
    if evaluation.objects:
        return {name: OBJECT_METRICS[name] for name in _SHOWN} | {"dice": f"{HEADERS['dice']} of pixels"}
    return dict(HEADERS)


def _record_scores(found: QuantizedModel) -> Model:
    """Return the model with both scores in its provenance."""
    scores = {
        name: {"float": found.floating.summary[name], found.kind: found.reduced.summary[name]}
        for name in _titles(found.floating)
    }
    return found.model.with_provenance(**{found.kind: {"scores": scores, "images": len(found.reduced.images)}})
