"""Scores as HTML for the report: classes, objects, images, thresholds and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from septa.errors import format_count
from septa.metrics import (
    CALIBRATION_ERROR,
    HEADERS,
    LEVEL,
    OBJECT_METRICS,
    OBJECTS_POLICY,
    Evaluation,
    ObjectScores,
    format_interval,
)
from septa.report.chart import Series, draw_line_chart
from septa.report.page import BLUE, INK, escape_html, format_number, render_table

_MAX_ROWS = 500
_SMALL = (350, 180)


def list_foreground(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the names of all classes except background; all names if classes overlap."""
    return evaluation.class_names if evaluation.multilabel else evaluation.class_names[1:]


def list_object_scores(objects: ObjectScores | None) -> dict[str, float]:
    """Return the main scores of the objects of an image by the keys of `OBJECT_METRICS`; empty without objects."""
    return {} if objects is None else {"f1_50": objects.f1[0], "mean_accuracy": objects.mean_accuracy}


def render_scores(evaluation: Evaluation, fold_of: Mapping[str, int] | None = None) -> str:
    """Return the tables of scores: objects (if any), classes and images; ``fold_of`` is the fold of each image."""
    foreground = list_foreground(evaluation)
    rows = []
    for name in [*foreground, *(name for name in evaluation.class_names if name not in foreground)]:
        spreads = [evaluation.classes[name][metric] for metric in HEADERS]
        cells = [f"<b>{spread['mean']:.3f}</b><small>{format_interval(spread, 3)}</small>" for spread in spreads]
        cells[0] = _bar(spreads[0]) + cells[0]
        pooled = f"{evaluation.pooled[name]['dice']:.3f}"
        label = escape_html(name) if name in foreground else f'<span class="soft">{escape_html(name)}</span>'
        rows.append([label, *cells, pooled])
    if len(foreground) > 1:
        means = [f"<b>{evaluation.summary[metric]:.3f}</b>" for metric in HEADERS]
        rows.append([f"mean of {len(foreground)} classes", *means, ""])
    head = ["Class", *HEADERS.values(), "Dice, pooled"]
    classes = f'<div class="box">{render_table(head, rows)}</div>'
    return _objects(evaluation) + classes + _reading(evaluation) + _image_scores(evaluation, foreground, fold_of or {})


def _objects(evaluation: Evaluation) -> str:
    if not evaluation.objects:
        return ""
    rows = []
    for metric, spread in evaluation.objects.items():
        mean, pooled = (format_number(float(f"{spread[key]:.4g}")) for key in ("mean", "pooled"))
        rows.append(
            [escape_html(OBJECT_METRICS[metric]), f"<b>{mean}</b><small>{format_interval(spread, 3)}</small>", pooled]
        )
    for name, spread in evaluation.object_classes.items():
        counts = f"{spread['truth_count']:.0f} in the ground truth, {spread['prediction_count']:.0f} predicted"
        cell = f"<b>{spread['mean']:.4g}</b><small>{format_interval(spread, 3)}</small>"
        pooled = f"{spread['pooled']:.4g}<small>{counts}</small>"
        rows.append([escape_html(f"{OBJECT_METRICS['f1_50']}, {name}"), cell, pooled])
    head = ["Objects", "mean over images", "all images pooled"]
    return f'<div class="box">{render_table(head, rows)}</div><p class="soft">{escape_html(OBJECTS_POLICY)}</p>'


def render_thresholds(
    tuning: Mapping[str, Sequence[tuple[float, float]]], chosen: Mapping[str, float], score: str
) -> str:
    """Return a curve of the named score for each threshold, with a ring at the chosen value."""
    charts = []
    for name, points in tuning.items():
        best = next((point for point in points if point[0] == chosen.get(name)), None)
        line = [Series("", list(points), BLUE)]
        charts.append(
            draw_line_chart(name.replace("_", " ").capitalize(), line, x_label="value", mark=best, size=_SMALL)
        )
    caption = f"{score} on the validation images for each value; earlier thresholds have their chosen values."
    caption = escape_html(caption[:1].upper() + caption[1:])
    return f'<div class="charts">{"".join(charts)}</div><p class="soft">{caption}</p>' if charts else ""


def render_calibration(calibration: Mapping[str, Any]) -> str:
    """Return the reliability curve of the objects with its diagonal, and a table of bins; empty without objects.

    Parameters
    ----------
    calibration
        Result of `septa.objects.calibrate`, or an empty mapping.
    """
    if not calibration.get("objects"):
        return ""
    bins = [entry for entry in calibration["bins"] if entry["objects"]]
    curve = Series("share correct", [(entry["confidence"], entry["right"]) for entry in bins], BLUE)
    diagonal = Series("perfect calibration", [(0.0, 0.0), (1.0, 1.0)], INK, faint=True)
    chart = draw_line_chart("Reliability", [curve, diagonal], x_label="confidence", include=[0, 1], size=_SMALL)
    rows = [
        [f"{entry['low']:.1f}–{entry['high']:.1f}", str(entry["objects"]), *_bin_cells(entry)]
        for entry in calibration["bins"]
    ]
    caption = (
        f"{CALIBRATION_ERROR}: {calibration['expected_calibration_error']:.4f}, the mean distance between confidence "
        f"and share correct, over {format_count(calibration['objects'], 'predicted object')}. An object is correct if "
        "it matches a ground-truth object at IoU 0.5. Below the diagonal the net is overconfident."
    )
    head = ["Confidence", "Objects", "Mean confidence", "Share correct"]
    return (
        f'<div class="two"><div class="box">{render_table(head, rows)}</div><div>{chart}</div></div>'
        f'<p class="soft">{escape_html(caption)}</p>'
    )


def _bin_cells(entry: Mapping[str, Any]) -> list[str]:
    return [f"{entry[key]:.3f}" if entry["objects"] else "–" for key in ("confidence", "right")]


def _bar(spread: Mapping[str, float]) -> str:
    places = (spread.get(key, spread["mean"]) for key in ("low", "high", "mean"))
    low, high, mean = (100 * min(max(place, 0.0), 1.0) for place in places)
    width = max(high - low, 0.0)
    return (
        f'<span class="span"><i style="left:{low:.1f}%;width:{width:.1f}%"></i><b style="left:{mean:.1f}%"></b></span>'
    )


def _reading(evaluation: Evaluation) -> str:
    """Explain the table in a paragraph."""
    scored = len(evaluation.images) - len(evaluation.unscored)
    lines = [
        f"Mean over {scored} images with its {LEVEL:.0%} bootstrap interval over images."
        if scored > 1
        else "Scores of one image, which say little about others.",
        "Pooled values are computed over the pixels of all images together.",
        evaluation.policy,
    ]
    empty = [f"{name} in {count}" for name, count in evaluation.both_empty.items() if count]
    if empty:
        lines.append(f"Classes absent from both: {', '.join(empty)}.")
    if evaluation.unscored:
        lines.append(f"Images omitted because all pixels are ignored: {', '.join(evaluation.unscored)}.")
    return f'<p class="soft">{escape_html(" ".join(lines))}</p>'


def _image_scores(evaluation: Evaluation, foreground: Sequence[str], fold_of: Mapping[str, int]) -> str:
    scored = [image for image in evaluation.images if image.name not in evaluation.unscored]
    worst = sorted(
        ((sum(image.classes[name]["dice"] for name in foreground) / len(foreground), image) for image in scored),
        key=lambda item: item[0],
    )
    rows = [
        [
            escape_html(image.name),
            *((str(fold_of[image.name]),) if fold_of else ()),
            *(f"{score:.3f}" for score in list_object_scores(image.objects).values()),
            *(f"{image.classes[name]['dice']:.3f}" for name in foreground),
            f"{image.pixel_accuracy:.3f}",
        ]
        for _, image in worst[:_MAX_ROWS]
    ]
    titles = [OBJECT_METRICS[name] for name in (list_object_scores(scored[0].objects) if scored else ())]
    head = [
        "Image",
        *(["Fold"] if fold_of else []),
        *titles,
        *(f"Dice, {name}" for name in foreground),
        "Pixel accuracy",
    ]
    shown = f"Scores of each image, worst first ({len(rows)} of {len(scored)})"
    return f'<details><summary>{shown}</summary><div class="box">{render_table(head, rows)}</div></details>'
