"""The training report: one HTML file with scores, curves, images, recipe and data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from septa.errors import format_count
from septa.images import CLASS_COLORS, write_text
from septa.metrics import LEVEL, OBJECT_METRICS, Evaluation, format_interval
from septa.report.chart import Series, draw_line_chart
from septa.report.folds import Fold, render_fold_curves, render_folds
from septa.report.gallery import Panel, render_gallery
from septa.report.page import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    Color,
    adapt_color,
    escape_html,
    format_number,
    render_cards,
    render_notes,
    render_page,
    render_sections,
    render_table,
)
from septa.report.scoreboard import (
    list_foreground,
    render_calibration,
    render_scores,
    render_thresholds,
)

__all__ = ["Panel", "write_report"]

_MAX_CURVES = 8
_SMALL = (350, 180)
_SMOOTHED_FROM = 40
_LOG_RATIO = 30
_GAP = 1.3
"""Ratio of the losses as predicted and as trained from which the report mentions it."""

HistoryRow = Mapping[str, float]
Points = list[tuple[float, float]]


def write_report(
    path: str | PathLike[str],
    *,
    title: str,
    command: str,
    versions: dict[str, str],
    recipe_yaml: str,
    fingerprint: dict[str, Any],
    history: Sequence[HistoryRow],
    evaluation: Evaluation | None,
    gallery: Sequence[Panel],
    notes: Sequence[str],
    tuning: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    chosen: Mapping[str, float] | None = None,
    score: str = "score",
    verdict: str = "",
    folds: Sequence[Fold] = (),
    fold_histories: Mapping[int, Sequence[HistoryRow]] | None = None,
) -> None:
    """Write the report of a training as one HTML file that loads nothing from elsewhere.

    It shows, from top to bottom: the score; notes about the run; curves of loss, validation score, learning rate,
    throughput and waiting for data; scores of each class with intervals, and of each image; the tuned thresholds, if
    there are some; for objects, the calibration of confidences; validation images, worst first, each with ground
    truth, prediction and error map; the recipe with its reasons; facts about the dataset, versions and the command.
    It follows the reader's light or dark setting and works without JavaScript. All text is escaped. The file is
    written atomically.

    Parameters
    ----------
    path
        The ``.html`` file to write. Missing folders are created.
    title
        Heading, such as the name of the model.
    command
        The command line that started the training.
    versions
        Name of each program or library to its version.
    recipe_yaml
        Resolved recipe. The text after ``  # `` on a line is shown as the reason.
    fingerprint
        Facts about the dataset; may be nested.
    history
        Rows in order of ``step``. Rows of training have ``loss``, ``lr``, ``images_per_s``, ``data_wait`` (share of
        the time, 0 to 1) and ``minutes``. Rows of validation have ``score``, ``val_loss`` and ``dice_<class>``, and
        ``loss_as_trained`` and ``loss_as_predicted`` if the net has batch norm. Keys may be missing, and values that
        are not finite are omitted.
    evaluation
        Scores of the validation images, or None without validation images.
    gallery
        Validation images with labels and predictions. The worst 24 are shown.
    notes
        Lines to show first.
    tuning
        Thresholds tuned after the training: for each, the values tried and their scores.
    chosen
        Chosen value of each threshold.
    score
        Name of the score of ``tuning``.
    verdict
        Why the model is not usable, shown before everything else; empty if it may be usable.
    folds
        Folds of a cross-validation, whose scores and spread are shown; empty without folds.
    fold_histories
        History of each fold by its number, shown instead of ``history``.

    Raises
    ------
    InputError, ResourceError
        The file cannot be written.
    """
    curves = render_fold_curves(fold_histories) if fold_histories else _curves(history, evaluation)
    fold_of = {image: fold.number for fold in folds for image in fold.images}
    scores = "" if evaluation is None else render_scores(evaluation, fold_of)
    bits = len(evaluation.class_names) if evaluation is not None and evaluation.multilabel else 0
    colors = {} if evaluation is not None and evaluation.objects else _class_colors(evaluation)  # objects: one each
    images = render_gallery(gallery, colors, bits)
    facts = _facts(fingerprint, versions, command)
    parts = {
        "Folds": "" if evaluation is None else render_folds(evaluation, folds),
        "Curves": curves,
        "Scores": scores,
        "Thresholds": render_thresholds(tuning or {}, chosen or {}, score),
        "Calibration": "" if evaluation is None else render_calibration(evaluation.calibration),
        "Images": images,
        "Recipe": _recipe(recipe_yaml),
        "Data and set-up": facts,
    }
    first = render_notes([verdict] if verdict else [], hints=True)
    top = [first, _cards(history, evaluation), render_notes(notes), render_notes(_hints(history), hints=True)]
    summary = _summary(history, evaluation) if not folds else _summarise_folds(folds)
    write_text(Path(path), render_page(title, render_sections(title, summary, top, parts)))


def _column(history: Iterable[HistoryRow], key: str, factor: float = 1.0) -> Points:
    """Return every finite value of a key, with its step."""
    points = []
    for row in history:
        step, value = _finite(row.get("step")), _finite(row.get(key))
        if step is not None and value is not None:
            points.append((step, value * factor))
    return points


def _finite(value: object) -> float | None:
    plain = float(value) if isinstance(value, int | float | np.integer | np.floating) else math.nan
    return plain if math.isfinite(plain) else None


def _best(history: Sequence[HistoryRow]) -> tuple[float, float] | None:
    """Return step and score of the best validation; the first one in a tie."""
    return max(_column(history, "score"), key=lambda point: point[1], default=None)


def _class_colors(evaluation: Evaluation | None) -> dict[str, tuple[int, int, int]]:
    """Return the gallery's colour of each foreground class."""
    names = () if evaluation is None else list_foreground(evaluation)
    return {name: CLASS_COLORS[i % len(CLASS_COLORS)] for i, name in enumerate(names)}


def _summary(history: Sequence[HistoryRow], evaluation: Evaluation | None) -> str:
    steps = max((step for step, _ in _column(history, "step")), default=0)
    minutes = max((value for _, value in _column(history, "minutes")), default=0)
    parts = ["Training report"]
    if steps:
        parts.append(f"{format_number(steps)} steps" + (f" in {_duration(minutes)}" if minutes > 0 else ""))
    if evaluation is not None:
        parts.append(f"scored on {format_count(len(evaluation.images), 'validation image')}")
    return ", ".join(parts) + "."


def _summarise_folds(folds: Sequence[Fold]) -> str:
    images = format_count(sum(len(fold.images) for fold in folds), "image")
    minutes = sum(fold.minutes for fold in folds)
    return f"Training report, {len(folds)} folds in {_duration(minutes)}, {images} each scored once."


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes // 60:.0f} h {minutes % 60:.0f} min"


def _describe_interval(spread: Mapping[str, float], otherwise: str) -> str:
    return f"{LEVEL:.0%} interval {format_interval(spread, 3)}" if "low" in spread else otherwise


def _cards(history: Sequence[HistoryRow], evaluation: Evaluation | None) -> str:
    entries: list[tuple[str, str, str]] = []
    best = _best(history)
    if evaluation is not None:
        names = list_foreground(evaluation)
        of_classes = f"mean of {len(names)} classes"
        for metric, title in (("dice", "Dice on validation images"), ("iou", "IoU")):
            spread = evaluation.classes[names[0]][metric] if len(names) == 1 else {}
            below = _describe_interval(spread, "one image" if spread else of_classes)
            entries.append((title, f"{evaluation.summary[metric]:.3f}", below))
        for metric in ("f1_50", "mean_accuracy") if evaluation.objects else ():
            spread = evaluation.objects[metric]
            entries.append((OBJECT_METRICS[metric], f"{spread['mean']:.3f}", _describe_interval(spread, "one image")))
        below = _describe_interval(evaluation.pixels.get("pixel_accuracy", {}), "share of correct pixels")
        entries.append(("Pixel accuracy", f"{evaluation.summary['pixel_accuracy']:.3f}", below))
    if best is not None:
        last = max(step for step, _ in _column(history, "step"))
        entries.append(
            ("Best validation score", f"{best[1]:.3f}", f"at step {format_number(best[0])} of {format_number(last)}")
        )
    rates, waits = _column(history, "images_per_s"), _column(history, "data_wait", 100)
    if rates:
        below = f"{median(share for _, share in waits):.0f}% of the time waiting for data" if waits else "median"
        entries.append(("Images per second", format_number(float(f"{median(rate for _, rate in rates):.3g}")), below))
    return render_cards(entries)


def _hints(history: Sequence[HistoryRow]) -> list[str]:
    """List conclusions from the curves that a newcomer might miss."""
    hints = []
    scores, best = _column(history, "score"), _best(history)
    if best is not None and len(scores) >= 4:
        earlier = max(score for _, score in scores[: -(len(scores) // 4)])
        if best == scores[-1] and best[1] - earlier > 0.005:
            hints.append("The score was still rising at the end: more steps (training.steps) may improve it.")
        elif best[1] - scores[-1][1] > 0.02:
            hints.append(
                f"The score fell after step {format_number(best[0])}, from {best[1]:.3f} to {scores[-1][1]:.3f}: "
                "fewer steps, stronger augmentation or more labelled images may help. The best weights were kept."
            )
    waits = [share for _, share in _column(history, "data_wait")]
    if waits and median(waits) > 0.2:
        hints.append(
            f"The net waited for data {median(waits):.0%} of the time: more workers (training.workers) may make "
            "training faster."
        )
    trained, predicted = (_column(history, f"loss_as_{mode}") for mode in ("trained", "predicted"))
    if trained and predicted and predicted[-1][1] > _GAP * trained[-1][1]:
        hints.append(
            f"The loss of the same training patches is {predicted[-1][1]:.3f} as the net predicts, and "
            f"{trained[-1][1]:.3f} as it was trained, with the batch norm statistics of each batch: a larger "
            "training.freeze_statistics or training.batch may help."
        )
    return hints


def _curves(history: Sequence[HistoryRow], evaluation: Evaluation | None) -> str:
    if not history:
        return "<p>No step was recorded.</p>"
    loss, rate = _column(history, "loss"), _column(history, "images_per_s")
    losses = [*_smooth("training", loss, BLUE), Series("validation", _column(history, "val_loss"), ORANGE)]
    values = [value for line in losses for _, value in line.points]
    log = bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_RATIO
    wait = _column(history, "data_wait", 100)
    modes = [
        Series("as trained", _column(history, "loss_as_trained"), BLUE),
        Series("as predicted", _column(history, "loss_as_predicted"), ORANGE),
    ]
    charts = [
        draw_line_chart("Loss", losses, log=log),
        draw_line_chart("Validation score", _score_lines(history, evaluation), mark=_best(history)),
        draw_line_chart("Learning rate", [Series("", _column(history, "lr"), BLUE)], include=[0], size=_SMALL),
        draw_line_chart("Images per second", _smooth("", rate, GREEN), include=[0], size=_SMALL),
        draw_line_chart("Waiting for data", _smooth("", wait, ORANGE), unit="%", include=[0, 10], size=_SMALL),
    ]
    if any(line.points for line in modes):
        charts.append(draw_line_chart("Loss of the same patches", modes, size=_SMALL))
    return f'<div class="charts"><div class="half">{"".join(charts[:2])}</div>{"".join(charts[2:])}</div>'


def _smooth(name: str, points: Points, color: Color) -> list[Series]:
    """Return the values and, if there are many, a moving average over 1/20 of them in front."""
    if len(points) < _SMOOTHED_FROM:
        return [Series(name, points, color)]
    values = np.array([value for _, value in points])
    window = np.ones(2 * (len(points) // 40) + 1)
    means = np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
    smooth = [(step, float(mean)) for (step, _), mean in zip(points, means, strict=True)]
    return [Series(f"{name} (raw)".strip(), points, color, faint=True), Series(name, smooth, color)]


def _score_lines(history: Sequence[HistoryRow], evaluation: Evaluation | None) -> list[Series]:
    score = _column(history, "score")
    keys = dict.fromkeys(key for row in history for key in row if key.startswith("dice_"))
    names = [key.removeprefix("dice_") for key in keys]
    colors = _class_colors(evaluation)
    kept = [name for name in names if evaluation is None or name in colors]
    shades = [adapt_color(colors.get(name, CLASS_COLORS[i % len(CLASS_COLORS)])) for i, name in enumerate(kept)]
    lines = [Series(name, _column(history, f"dice_{name}"), shade) for name, shade in zip(kept, shades, strict=True)]
    lines = [line for line in lines if line.points]
    if len(lines) == 1 and lines[0].points == score:  # with one class, the score is its Dice
        lines = []
    worst = sorted(lines, key=lambda line: line.points[-1][1])[:_MAX_CURVES]
    return [Series("score", score, INK if lines else BLUE), *(line for line in lines if line in worst)]


def _recipe(recipe_yaml: str) -> str:
    lines = []
    for line in recipe_yaml.rstrip().splitlines():
        setting, mark, reason = line.partition("  # ")
        setting = (
            f'<span class="top">{escape_html(setting)}</span>'
            if setting.rstrip().endswith(":")
            else escape_html(setting)
        )
        lines.append(setting + (f'<span class="why">{escape_html(mark + reason)}</span>' if mark else ""))
    return "<pre>" + "\n".join(lines) + "</pre>" if lines else ""


def _facts(fingerprint: Mapping[str, Any], versions: Mapping[str, str], command: str) -> str:
    facts = render_table(
        ["Dataset", ""], [[escape_html(key), escape_html(value)] for key, value in _flat(fingerprint)], names=2
    )
    software = render_table(
        ["Version", ""], [[escape_html(name), escape_html(version)] for name, version in versions.items()], names=2
    )
    boxes = [
        f'<div class="box">{facts}</div>' if fingerprint else "",
        f'<div class="box">{software}</div>' if versions else "",
    ]
    command_html = f'<p class="soft">Command</p><pre class="wrap">{escape_html(command)}</pre>' if command else ""
    return f'<div class="two">{"".join(boxes)}</div>{command_html}' if any(boxes) or command_html else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            yield name, _format_value(value)


def _format_value(value: Any) -> str:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        return format_number(float(value))
    if isinstance(value, list | tuple):
        more = f", … ({len(value)} in all)" if len(value) > 12 else ""
        return (
            ", ".join(
                f"({_format_value(item)})" if isinstance(item, list | tuple) else _format_value(item)
                for item in value[:12]
            )
            + more
        )
    return "–" if value is None else str(value)
