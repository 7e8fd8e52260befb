"""Scores as HTML for the report: of classes, of objects and of each image, and the thresholds of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from septa.metrics import CALIBRATION_ERROR, HEADERS, LEVEL, OBJECT_METRICS, OBJECTS_POLICY, Evaluation
from septa.report.chart import Series, line_chart
from septa.report.page import BLUE, INK, number, plural, table, text

_MAX_ROWS = 500
_SMALL = (350, 180)


def foreground_names(evaluation: Evaluation) -> tuple[str, ...]:
    """Names of the classes other than background; where classes overlap, of all."""
    return evaluation.class_names if evaluation.multilabel else evaluation.class_names[1:]


def range_text(spread: Mapping[str, float]) -> str:
    """The interval of a mean."""
    return f"{spread['low']:.3f}–{spread['high']:.3f}"


def scores_html(evaluation: Evaluation) -> str:
    """Tables of the scores: of objects where there are any, of each class, and of each image."""
    foreground = foreground_names(evaluation)
    rows = []
    for name in [*foreground, *(name for name in evaluation.class_names if name not in foreground)]:
        spreads = [evaluation.classes[name][metric] for metric in HEADERS]
        cells = [f"<b>{spread['mean']:.3f}</b><small>{range_text(spread)}</small>" for spread in spreads]
        cells[0] = _bar(spreads[0]) + cells[0]
        pooled = f"{evaluation.pooled[name]['dice']:.3f}"
        label = text(name) if name in foreground else f'<span class="soft">{text(name)}</span>'
        rows.append([label, *cells, pooled])
    if len(foreground) > 1:
        means = [f"<b>{evaluation.summary[metric]:.3f}</b>" for metric in HEADERS]
        rows.append([f"mean of {len(foreground)} classes", *means, ""])
    head = ["Class", *HEADERS.values(), "Dice, pooled"]
    pixels = f'<div class="box">{table(head, rows)}</div>{_reading(evaluation)}{_image_scores(evaluation, foreground)}'
    return _objects(evaluation) + pixels


def _objects(evaluation: Evaluation) -> str:
    if not evaluation.objects:
        return ""
    rows = []
    for metric, spread in evaluation.objects.items():
        mean, pooled = (number(float(f"{spread[key]:.4g}")) for key in ("mean", "pooled"))
        rows.append([text(OBJECT_METRICS[metric]), f"<b>{mean}</b><small>{range_text(spread)}</small>", pooled])
    for name, spread in evaluation.object_classes.items():
        counts = f"{spread['truth_count']:.0f} true, {spread['prediction_count']:.0f} predicted"
        cell = f"<b>{spread['mean']:.4g}</b><small>{range_text(spread)}</small>"
        pooled = f"{spread['pooled']:.4g}<small>{counts}</small>"
        rows.append([text(f"{OBJECT_METRICS['f1_50']}, {name}"), cell, pooled])
    head = ["Objects", "mean over images", "all images as one"]
    return f'<div class="box">{table(head, rows)}</div><p class="soft">{text(OBJECTS_POLICY)}</p>'


def thresholds_html(tuning: Mapping[str, Sequence[tuple[float, float]]], chosen: Mapping[str, float]) -> str:
    """A curve for each threshold, the value that was taken ringed."""
    charts = []
    for name, points in tuning.items():
        taken = next((point for point in points if point[0] == chosen.get(name)), None)
        line = [Series("", list(points), BLUE)]
        charts.append(line_chart(name.replace("_", " ").capitalize(), line, x_label="value", mark=taken, size=_SMALL))
    told = "Score of the objects on validation images with each value, the thresholds before it being as chosen."
    return f'<div class="charts">{"".join(charts)}</div><p class="soft">{told}</p>' if charts else ""


def calibration_html(calibration: Mapping[str, Any]) -> str:
    """The reliability curve of the objects with its diagonal, and a table of the bins; empty without objects.

    Parameters
    ----------
    calibration
        What `septa.objects.calibrate` gives, or nothing.
    """
    if not calibration.get("objects"):
        return ""
    bins = [entry for entry in calibration["bins"] if entry["objects"]]
    curve = Series("share that is right", [(entry["confidence"], entry["right"]) for entry in bins], BLUE)
    diagonal = Series("as sure as right", [(0.0, 0.0), (1.0, 1.0)], INK, faint=True)
    chart = line_chart("Reliability", [curve, diagonal], x_label="confidence", include=[0, 1], size=_SMALL)
    rows = [
        [f"{entry['low']:.1f}–{entry['high']:.1f}", str(entry["objects"]), *_bin_cells(entry)]
        for entry in calibration["bins"]
    ]
    told = (
        f"{CALIBRATION_ERROR}: {calibration['expected_calibration_error']:.4f}, the mean distance between confidence "
        f"and share right, over {plural(calibration['objects'], 'predicted object')}. Right is what matches a true "
        "object at IoU 0.5. Below the line the net is surer than it should be."
    )
    head = ["Confidence", "Objects", "Mean confidence", "Share right"]
    return (
        f'<div class="two"><div class="box">{table(head, rows)}</div><div>{chart}</div></div>'
        f'<p class="soft">{text(told)}</p>'
    )


def _bin_cells(entry: Mapping[str, Any]) -> list[str]:
    return [f"{entry[key]:.3f}" if entry["objects"] else "–" for key in ("confidence", "right")]


def _bar(spread: Mapping[str, float]) -> str:
    low, high, mean = (100 * min(max(spread[key], 0.0), 1.0) for key in ("low", "high", "mean"))
    width = max(high - low, 0.0)
    return (
        f'<span class="span"><i style="left:{low:.1f}%;width:{width:.1f}%"></i><b style="left:{mean:.1f}%"></b></span>'
    )


def _reading(evaluation: Evaluation) -> str:
    """How to read the table."""
    scored = len(evaluation.images) - len(evaluation.unscored)
    lines = [
        f"Mean over {plural(scored, 'image')} with its {LEVEL:.0%} bootstrap interval over images.",
        "Pooled: over the pixels of all images together.",
        evaluation.policy,
    ]
    empty = [f"{name} in {count}" for name, count in evaluation.both_empty.items() if count]
    if empty:
        lines.append(f"Absent from both: {', '.join(empty)}.")
    if evaluation.unscored:
        lines.append(f"Left out, as all their pixels are ignored: {', '.join(evaluation.unscored)}.")
    return f'<p class="soft">{text(" ".join(lines))}</p>'


def _image_scores(evaluation: Evaluation, foreground: Sequence[str]) -> str:
    scored = [image for image in evaluation.images if image.name not in evaluation.unscored]
    worst = sorted(
        ((sum(image.classes[name]["dice"] for name in foreground) / len(foreground), image) for image in scored),
        key=lambda item: item[0],
    )
    rows = [
        [
            text(image.name),
            *(f"{image.classes[name]['dice']:.3f}" for name in foreground),
            f"{image.pixel_accuracy:.3f}",
        ]
        for _, image in worst[:_MAX_ROWS]
    ]
    head = ["Image", *(f"Dice, {name}" for name in foreground), "Pixel accuracy"]
    shown = f"Scores of each image, worst first ({len(rows)} of {len(scored)})"
    return f'<details><summary>{shown}</summary><div class="box">{table(head, rows)}</div></details>'
