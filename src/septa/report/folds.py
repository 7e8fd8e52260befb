"""The folds of a cross-validation: their scores, their spread, and both as HTML for the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

from septa.metrics import HEADERS, OBJECT_METRICS, Evaluation, ImageScores, compute_mean
from septa.report.chart import Series, draw_line_chart
from septa.report.page import BLUE, GREEN, INK, ORANGE, Color, escape_html, render_table
from septa.report.scoreboard import list_object_scores

_COLORS: tuple[Color, ...] = (
    BLUE,
    ORANGE,
    GREEN,
    ("#8a3ffc", "#be95ff"),
    ("#b3261e", "#ff8a80"),
    ("#6b6b00", "#d6d65c"),
    INK,
)
"""Colours of the curves of folds, in turn."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A fold: the images that were held out, and the net that was not trained on them.

    Attributes
    ----------
    number
        Number of the fold, from 1.
    images
        Names of the images that were held out.
    steps, minutes
        Optimiser steps of the net, and minutes of its training.
    best_score, last_score
        Validation score of the weights that were kept, and of those after the last step.
    thresholds
        Thresholds that suit the images of this fold best, by their names; empty if the task has none.
    """

    number: int
    images: tuple[str, ...]
    steps: int
    minutes: float
    best_score: float
    last_score: float
    thresholds: Mapping[str, float]


def score_fold(evaluation: Evaluation, images: Iterable[str]) -> dict[str, float]:
    """Return the main scores of some images of an evaluation, each as the mean over these images, by their titles.

    Objects have F1 and accuracy, and all tasks have the Dice of the foreground. Images without a counted pixel do not
    count; without any other image the result is empty.
    """
    wanted = set(images).difference(evaluation.unscored)
    found = [_score_image(image, evaluation) for image in evaluation.images if image.name in wanted]
    return {title: compute_mean([scores[title] for scores in found]) for title in (found[0] if found else ())}


def _score_image(image: ImageScores, evaluation: Evaluation) -> dict[str, float]:
    names = evaluation.class_names if evaluation.multilabel else evaluation.class_names[1:]
    scores = {HEADERS["dice"]: compute_mean([image.classes[name]["dice"] for name in names])}
    if image.objects is None:
        return scores | {HEADERS["iou"]: compute_mean([image.classes[name]["iou"] for name in names])}
    objects = {OBJECT_METRICS[name]: value for name, value in list_object_scores(image.objects).items()}
    return objects | scores


def list_fold_rows(
    evaluation: Evaluation, folds: Sequence[Fold], *, details: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table of folds; the last row has the mean and the spread between folds.

    Without ``details``, there are only the numbers of images and the scores.
    """
    scores = [score_fold(evaluation, fold.images) for fold in folds]
    titles = list(dict.fromkeys(title for row in scores for title in row))
    names = list(dict.fromkeys(name for fold in folds for name in fold.thresholds)) if details else []
    rows = [
        [
            str(fold.number),
            str(len(fold.images)),
            *([str(fold.steps), f"{fold.minutes:.1f}"] if details else []),
            *(f"{row[title]:.4f}" if title in row else "–" for title in titles),
            *(f"{fold.thresholds[name]:.4g}" if name in fold.thresholds else "–" for name in names),
        ]
        for fold, row in zip(folds, scores, strict=True)
    ]
    spread = [_format_spread([row[title] for row in scores if title in row]) for title in titles]
    images = str(sum(len(fold.images) for fold in folds))
    training = ["", f"{sum(fold.minutes for fold in folds):.1f}"] if details else []
    rows.append(["mean ± sd", images, *training, *spread, *("" for _ in names)])
    columns = ["Fold", "Images", *(["Steps", "Minutes"] if details else [])]
    head = [*columns, *titles, *(name.replace("_", " ").capitalize() for name in names)]
    return head, rows


def _format_spread(values: Sequence[float]) -> str:
    return f"{compute_mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else ""


def render_folds(evaluation: Evaluation, folds: Sequence[Fold]) -> str:
    """Return the table of folds, and a sentence that says how images were scored; empty without folds."""
    if not folds:
        return ""
    head, rows = list_fold_rows(evaluation, folds)
    table = render_table(head, [[escape_html(cell) for cell in row] for row in rows])
    text = (
        "Scores are means over the images that a fold held out, of the net that was not trained on them; the last row "
        "has the mean of these means and their standard deviation. Thresholds are those that suit the images of the "
        "fold best: they show how much thresholds vary, and no image is scored with thresholds that it chose."
    )
    return f'<div class="box">{table}</div><p class="soft">{escape_html(text)}</p>'


def render_fold_curves(histories: Mapping[int, Sequence[Mapping[str, float]]]) -> str:
    """Return the curves of loss and validation score, with one line for each fold; rows are those of its history."""
    charts = []
    for title, key in (("Loss", "loss"), ("Validation loss", "val_loss"), ("Validation score", "score")):
        lines = [
            Series(
                f"fold {number}", [(row["step"], row[key]) for row in rows if key in row], _COLORS[at % len(_COLORS)]
            )
            for at, (number, rows) in enumerate(histories.items())
        ]
        charts.append(draw_line_chart(title, lines))
    return f'<div class="charts">{"".join(charts)}</div>' if histories else ""
