"""The verdict on a finished training: whether the model can be used at all, and the likely causes if not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from septa.data import DatasetCheck
from septa.errors import format_count
from septa.metrics import Evaluation, compute_mean
from septa.report import Fold
from septa.training.state import HistoryRow

FEW_STEPS = 50
"""Number of steps below which a training has hardly begun."""
_NOTHING = 0.01
"""Score below which nothing was found."""
_CHANCE = 0.05
"""F1 of objects below which those found are there by chance."""


def find_verdict(evaluation: Evaluation, steps: int, check: DatasetCheck) -> str:
    """Return why the model of a training is not usable, with the likely causes; empty if it may be usable.

    Parameters
    ----------
    evaluation
        Scores of the validation images.
    steps
        Number of optimiser steps.
    check
        Check of the dataset, whose warnings may be causes.

    Returns
    -------
    str
        Two sentences.
    """
    problem = _describe_failure(evaluation)
    if not problem:
        return ""
    causes = []
    if steps < FEW_STEPS:
        causes.append(f"the training had only {format_count(steps, 'step')} (give more --minutes or training.steps)")
    if check.problems:
        warnings = format_count(len(check.problems), "warning")
        causes.append(f"the data have {warnings} (run 'septa check {check.data}')")
    causes.append("the labels do not lie on the objects (look at the pictures of the report)")
    causes.append("the learning rate is too high (lower training.lr)")
    return f"the model is not usable: {problem}. Likely causes: {'; '.join(causes)}."


def describe_choice(thresholds: bool) -> str:
    """Return one line about what the scored images have chosen, so that their scores are not taken for a test.

    Parameters
    ----------
    thresholds
        True if the task has thresholds.
    """
    chosen = "weights and thresholds" if thresholds else "weights"
    return f"the validation images also chose the best {chosen}: scores on new images may be lower"


def find_first_score(history: Sequence[HistoryRow]) -> float | None:
    """Return the validation score before the first step; None if it was not measured."""
    return next((row["score"] for row in history if "score" in row and not row["step"]), None)


def describe_gain(
    parent: Mapping[str, Any] | None,
    history: Sequence[HistoryRow],
    best: Mapping[str, Any],
    images: int,
    averaged: float | None = None,
) -> str:
    """Return a printable line that compares the weights of the model with those that the training started from.

    Both scores are validation scores with the same thresholds.

    Parameters
    ----------
    parent
        Facts of the model that the training started from; None for new weights.
    history
        History of the training.
    best
        ``step`` and ``score`` of the weights that the model has.
    images
        Number of validation images.
    averaged
        Score of the mean of these weights and those of the parent, if the model has the mean.

    Returns
    -------
    str
        One line; empty if there is no parent.
    """
    if parent is None:
        return ""
    first = find_first_score(history)
    name = parent["name"]
    if first is None:
        return f"start: {name}, which has no score on the validation images, since it has other outputs"
    if averaged is not None:
        line = f"start: the weights are the mean of those of {name} and the fine-tuned ones, which forgets less; "
        others = f"before fine-tuning {first:.4f}, fine-tuned alone {best['score']:.4f}"
        line += f"validation scores: {averaged:.4f}, {others}"
    elif best["step"]:
        line = f"start: the validation score is {best['score']:.4f}, and that of {name} before fine-tuning {first:.4f}"
    else:
        line = f"start: fine-tuning found no object more than {name}, with a score of {first:.4f}: its weights are kept"
    if parent["saw_validation"]:
        seen = f"{len(parent['saw_validation'])} of {format_count(images, 'validation image')}"
        line += f"; {name} was trained on {seen}, so the scores are too high"
    return line


def describe_cross_validation(evaluation: Evaluation, folds: Sequence[Fold]) -> str:
    """Return one line about how the images of folds were scored, and what they have chosen; empty without folds."""
    if not folds:
        return ""
    thresholds = ", with thresholds chosen on the other folds" if evaluation.objects else ""
    best, last = (compute_mean([getattr(fold, name) for fold in folds]) for name in ("best_score", "last_score"))
    scored = f"each of {len(evaluation.images)} images was scored by the net of its fold, which was not trained on it"
    chosen = f"its fold chose only the step of the net (mean validation score {best:.4f}, {last:.4f} at the last step)"
    return f"{scored}{thresholds}; {chosen}"


def _describe_failure(evaluation: Evaluation) -> str:
    """Return what is wrong with all predictions; empty if some are right."""
    if evaluation.objects:
        found, f1 = (evaluation.objects[metric]["pooled"] for metric in ("prediction_count", "f1_50"))
        if not evaluation.objects["truth_count"]["pooled"]:
            return ""
        if not found:
            return "it finds no object in any validation image"
        return f"its F1 of objects is {f1:.2f} on the validation images" if f1 < _CHANCE else ""
    names = evaluation.class_names if evaluation.multilabel else evaluation.class_names[1:]
    best = max(evaluation.pooled[name]["dice"] for name in names)
    if best < _NOTHING and not evaluation.multilabel and evaluation.pooled[evaluation.class_names[0]]["recall"] == 1:
        return f"it labels every pixel of the validation images as {evaluation.class_names[0]}"
    if best < _NOTHING:
        return f"the Dice of its foreground is {best:.2f} on the validation images"
    if evaluation.multilabel:
        return ""
    background = evaluation.pooled[evaluation.class_names[0]]
    if background["recall"] < _NOTHING and len(names) == 1:
        return f"it labels every pixel of the validation images as {names[0]}"
    return ""
