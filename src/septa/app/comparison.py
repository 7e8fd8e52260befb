"""Scores of several models on the same images, which none of them was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

from septa.data import KnownImages, Pair, find_pairs, read_pair_image, read_pair_labels
from septa.errors import SeptaWarning, format_count, shorten_list
from septa.labels import LabelMapping
from septa.metrics import LabelPair, evaluate_labels
from septa.model import Model
from septa.notices import Notices


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """Scores of models.

    Attributes
    ----------
    images
        Names of the images that were scored.
    scores
        Name of each model to its scores, 0 to 1: ``f1``, that of all objects together at an IoU of 0.5, and
        ``accuracy``, the mean over images of the accuracy at IoU 0.5 to 0.95; for classes of pixels ``dice`` and
        ``iou``, means over the classes other than background. Empty if no image could be scored.
    text
        Sentence about the images.
    """

    images: tuple[str, ...] = ()
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    text: str = ""


def compare_models(
    data: Path, models: Mapping[str, Model], ignore: int | None, classes: Sequence[tuple[int, str]] = ()
) -> ModelComparison:
    """Score models on the images of a folder that none of them was trained on.

    Parameters
    ----------
    data
        Folder of images and labels.
    models
        Models by their names; the one that was trained on this folder is the last.
    ignore
        Value of pixels of labels that do not count; None if all count.
    classes
        Value and name of each class of pixels; empty if labels number objects. Models of other classes are left out.
    """
    mapping = LabelMapping("instances", ("background", "object"), (0,), ignore)
    if classes:
        values, names = zip(*classes)
        mapping = LabelMapping("index", names, values, ignore)
        models = {name: model for name, model in models.items() if model.labels.class_names == names}
    notices = Notices()
    pairs = find_pairs(data).pairs
    known = [
        KnownImages(model.provenance, channels=model.channels, every=False, notices=notices)
        for model in models.values()
    ]
    parts = [part for pair in pairs if (part := _find_part(pair, known)) is not None]
    scores: dict[str, dict[str, float]] = {}
    for name, model in models.items() if parts else ():
        evaluation = evaluate_labels(
            _segment(model, parts, mapping), mapping.class_names, instances=mapping.task == "instances"
        )
        if classes:
            found_scores = {key: evaluation.summary[key] for key in ("dice", "iou")}
            if all(map(isfinite, found_scores.values())):  # there is none if all classes are absent
                scores[name] = found_scores
        else:
            found = evaluation.objects
            scores[name] = {"f1": found["f1_50"]["pooled"], "accuracy": found["mean_accuracy"]["mean"]}
    return ModelComparison(
        images=tuple(part.name for part in parts), scores=scores, text=_describe(parts, len(pairs), list(models))
    )


def _find_part(pair: Pair, known: Sequence[KnownImages]) -> Pair | None:
    """Return the part of a pair that no model knows; None if there is none."""
    found = [one.find_unknown(pair) for one in known]
    parts = {None if part is None else part[0].window for part in found}
    if any(part is None for part in found) or len(parts - {pair.window}) > 1:
        return None
    return next((part[0] for part in found if part is not None and part[0].window != pair.window), pair)


def _segment(model: Model, parts: Sequence[Pair], mapping: LabelMapping) -> Iterator[LabelPair]:
    for part in parts:
        notices = Notices()
        image_cyx = read_pair_image(part, channels=model.channels, notices=notices)
        raw = read_pair_labels(replace(part, classes=None), notices)
        if mapping.task == "instances":
            truth_yx = mapping.encode_objects(raw, part.labels_location).ids_yx
        else:
            truth_yx = mapping.encode(raw, part.labels_location)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SeptaWarning)
            yield LabelPair(part.name, truth_yx, model.segment(image_cyx))


def _describe(parts: Sequence[Pair], count: int, names: Sequence[str]) -> str:
    """Return a sentence about the images of a comparison."""
    new = names[-1]
    if not parts:
        seen = "all were used for a training of one of the models"
        return f"No image could be held out for a comparison: of {format_count(count, 'checked image')}, {seen}."
    if any(part.window is not None for part in parts):
        held_out = f"only a strip of {shorten_list([part.name for part in parts])} was held out"
        return f"Too few images are checked to hold one out: {held_out}, which also chose the weights of {new}."
    images = f"{format_count(len(parts), 'image')} of {count} ({shorten_list([part.name for part in parts])})"
    return f"Held out: {images}, on which no model was trained, but which chose weights and thresholds of {new}."
