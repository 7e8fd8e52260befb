"""Train and evaluate a preset, and compare the measured figures with the published ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from septa import presets
from septa.display import make_cell, make_evaluation_table, say, show_progress, show_training
from septa.errors import InputError
from septa.evaluation import evaluate, has_neurites
from septa.images import write_text
from septa.metrics import NEURITES, OBJECT_METRICS, Evaluation, NeuriteScores
from septa.presets import PUBLISHED, Drawing, Figure, Published
from septa.runtime import collect_versions
from septa.synthetic import write_dataset
from septa.training import TrainingDone, TrainingRequest, train_steps

MARK = "septa-reproduce.txt"
"""File that marks a folder as written by `reproduce`."""
_SEED = 0
_OBJECTS = ("f1_50", "mean_accuracy", "panoptic_quality", "symmetric_best_dice")
"""Metrics of objects that are listed if the preset segments objects."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One metric: the published and the measured figure.

    Attributes
    ----------
    metric, label
        Key of the metric, and its name in tables.
    published
        Published figure as text.
    measured
        Measured figure; None if it was not measured.
    interval
        95 % bootstrap interval of the measured figure over images; None if there is none.
    source
        Source of the published figure.
    """

    metric: str
    label: str
    published: str
    measured: float | None
    interval: tuple[float, float] | None
    source: str

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return label, published figure, measured figure, interval and source as text."""
        measured = "not measured" if self.measured is None else f"{self.measured:.4f}"
        interval = "" if self.interval is None else "{:.4f} to {:.4f}".format(*self.interval)
        return self.label, self.published, measured, interval, self.source


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The published and the measured figures of a preset.

    Attributes
    ----------
    preset
        Name of the preset.
    rows
        One row for each metric.
    differences, notes
        Sentences about the differences of the protocols, and further remarks.
    """

    preset: str
    rows: tuple[ComparisonRow, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    def table(self) -> Table:
        """Return the rows as a table for a terminal."""
        table = Table(title=f"preset {self.preset}", title_justify="left")
        for header in _HEADERS:
            table.add_column(header, overflow="fold")
        for row in self.rows:
            table.add_row(*map(make_cell, row.cells()))
        return table

    def to_markdown(self) -> str:
        """Return the comparison as a Markdown page."""
        lines = [f"# septa reproduce {self.preset}", "", _format_row(_HEADERS), _format_row(["---"] * len(_HEADERS))]
        lines += [_format_row(row.cells()) for row in self.rows]
        for heading, sentences in (("Differences between the protocols", self.differences), ("Notes", self.notes)):
            if sentences:
                lines += ["", f"## {heading}", "", *(f"- {sentence}" for sentence in sentences)]
        return "\n".join(lines) + "\n"


_HEADERS = ("metric", "published", "measured", "95 % interval", "source of the published figure")


def reproduce(
    console: Console,
    preset: str,
    data: str | Path | None,
    minutes: float,
    output: str | Path,
    overrides: Sequence[str] = (),
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Check the data, train a preset on it, evaluate it on held-out images, and compare with what was published.

    The output folder gets the model ``PRESET.septa``, its run with ``report.html``, ``reproduce.json`` and
    ``reproduce.md``. If no data are given, the drawings go to ``data`` in it.

    Parameters
    ----------
    console
        Console to print on.
    preset
        Name of a preset; see `septa.presets.list_presets`.
    data
        Folder of images and label images. If None, synthetic images are drawn, which not every preset allows.
    minutes
        Time limit of the training.
    output
        Folder to write to.
    overrides
        Assignments ``section.key=value`` that change the preset.
    device
        Name of the device, as for `septa.train`.
    overwrite
        True to replace what an earlier call wrote to the folder.

    Raises
    ------
    RecipeError
        The preset does not exist, or an override is not valid.
    InputError
        The data are missing or cannot be trained on, or the folder is not empty and ``overwrite`` is False.
    """
    presets.load_recipe(preset).with_overrides((f"training.minutes={minutes}", *overrides))
    published, output = PUBLISHED[preset], Path(output)
    drawing = published.drawing if data is None else None
    if data is None and drawing is None:
        remedy = f"Give the folder of {published.data} with --data"
        raise InputError(f"preset {preset}", "this preset needs your own data", remedy)
    _prepare_folder(output, overwrite)
    if drawing is not None:
        data = _draw(console, drawing, output / "data")
    assert data is not None
    changed = (*(drawing.overrides if drawing is not None else ()), *overrides)
    say(console, f"training {preset} on {data} for at most {minutes:g} minutes")
    done = _train(console, preset, Path(data), output, (f"training.minutes={minutes}", *changed), device, overwrite)
    held_out = Path(data) / "held_out" if drawing is not None else Path(data)
    with show_progress(console, "evaluating") as progress:
        neurites = not done.model.task.finds_objects and has_neurites(done.model.labels)
        extra = (NEURITES,) if neurites and _has_neurite_figures(published) else ()
        evaluation = evaluate(done.model, held_out, device=device, extra=extra, progress=progress)
    console.print(make_evaluation_table(evaluation))
    facts = _describe_differences(evaluation, changed, minutes, done, drawing)
    stack = {} if evaluation.neurites is None else asdict(evaluation.neurites)
    # The pixel error of the evaluation is the one of the predicted labels.
    stack.pop("pixel_error", None)
    comparison = compare(preset, published, evaluation, facts, stack)
    _print(console, comparison)
    _write(output, comparison, evaluation.summary | stack, done, data)
    say(console, f"written: {output / 'reproduce.json'}, {output / 'reproduce.md'}")
    say(console, f"report: {done.report}")


def compare(
    preset: str,
    published: Published,
    evaluation: Evaluation,
    differences: Sequence[str] = (),
    more: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare the scores of an evaluation with the published figures.

    Parameters
    ----------
    preset
        Name of the preset, for the heading.
    published
        Published figures, in the order of the rows. Metrics of objects follow if the evaluation has any.
    evaluation
        Scores on images that the model was not trained on.
    differences
        Sentences about this measurement, which precede those about the protocol.
    more
        Further scores by metric.

    Returns
    -------
    Comparison
        One row for each published figure and metric of objects.
    """
    scores = evaluation.summary | dict(more or {})
    objects = (
        Figure(metric=metric, label=OBJECT_METRICS[metric]) for metric in _OBJECTS if metric in evaluation.objects
    )
    rows = tuple(
        ComparisonRow(
            metric=figure.metric,
            label=figure.label,
            published=figure.published,
            measured=scores.get(figure.metric),
            interval=_find_interval(evaluation, figure.metric),
            source=figure.source,
        )
        for figure in (*published.figures, *objects)
    )
    return Comparison(
        preset=preset, rows=rows, differences=(*differences, *published.differences), notes=published.notes
    )


def _find_interval(evaluation: Evaluation, metric: str) -> tuple[float, float] | None:
    """Return the interval of a metric of pixels, of objects, or of a single foreground class; else None."""
    spread = (evaluation.pixels | evaluation.objects).get(metric)
    foreground = evaluation.class_names[0 if evaluation.multilabel else 1 :]
    if spread is None and len(foreground) == 1:
        spread = evaluation.classes[foreground[0]].get(metric)
    return None if spread is None or "low" not in spread else (spread["low"], spread["high"])


def _has_neurite_figures(published: Published) -> bool:
    known = {field.name for field in fields(NeuriteScores)} - {"pixel_error"}
    return any(figure.metric in known for figure in published.figures)


def _prepare_folder(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(output, "the output is a file, not a folder", "Give another folder")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise InputError(output, "the folder is not empty", "Give another folder or --overwrite")
        if not (output / MARK).is_file():
            raise InputError(output, "the folder was not written by 'septa reproduce'", "Give another folder")
        shutil.rmtree(output / "data", ignore_errors=True)
    write_text(output / MARK, "Written by 'septa reproduce', which may replace data/ here.\n")


def _draw(console: Console, drawing: Drawing, folder: Path) -> Path:
    total, size = drawing.count + drawing.held_out, "{} x {}".format(*drawing.size_hw)
    say(
        console,
        f"no data given: drawing {total} images ({drawing.kind}, {size}), {drawing.held_out} held out: {folder}",
    )
    write_dataset(folder, drawing.kind, drawing.count, drawing.size_hw, _SEED, held_out=drawing.held_out)
    return folder


def _train(
    console: Console, preset: str, data: Path, output: Path, overrides: tuple[str, ...], device: str, overwrite: bool
) -> TrainingDone:
    request = TrainingRequest(
        data=data,
        output=output / f"{preset}.septa",
        recipe=presets.load_recipe(preset),
        overrides=overrides,
        overwrite=overwrite,
        device=device,
        command=f"septa reproduce {preset}",
    )
    done = show_training(console, train_steps(request))
    assert done is not None
    return done


def _describe_differences(
    evaluation: Evaluation, changed: Sequence[str], minutes: float, done: TrainingDone, drawing: Drawing | None
) -> tuple[str, ...]:
    facts = done.model.provenance
    steps = f"{facts['steps']:.0f} steps in {facts['minutes']:.1f} of at most {minutes:g} minutes"
    count = len(evaluation.images)
    sentences = [f"This training had {len(facts['train'])} images and took {steps}; {count} other images are scored."]
    if changed:
        sentences.append(f"These settings differ from the preset: {', '.join(changed)}.")
    if drawing is None:
        sentences.append("The best weights were chosen on the scored images, so their scores are slightly too good.")
    elif drawing.note:
        sentences.append(drawing.note)
    return tuple(sentences)


def _print(console: Console, comparison: Comparison) -> None:
    console.print(comparison.table())
    for sentence in (*comparison.differences, *comparison.notes):
        say(console, f"- {sentence}")


def _write(
    output: Path, comparison: Comparison, scores: Mapping[str, float], done: TrainingDone, data: str | Path
) -> None:
    written: dict[str, Any] = asdict(comparison) | {
        "data": str(data),
        "scores": scores,
        "model": str(done.path),
        "weights_sha256": done.model.weights_sha256,
        "report": str(done.report),
        "recipe": done.model.recipe.model_dump(mode="json"),
        "steps": done.model.provenance["steps"],
        "minutes": done.model.provenance["minutes"],
        "versions": collect_versions(),
    }
    write_text(output / "reproduce.json", json.dumps(written, indent=2, allow_nan=False) + "\n")
    write_text(output / "reproduce.md", comparison.to_markdown())


def _format_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
