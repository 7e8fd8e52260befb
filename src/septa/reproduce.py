"""A preset trained and evaluated on its data, with the published figures beside the measured ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from septa import presets
from septa.display import evaluation_table, progress_bar, show_training
from septa.errors import InputError
from septa.evaluation import evaluate, has_neurites
from septa.images import write_text
from septa.metrics import NEURITES, OBJECT_METRICS, Evaluation, NeuriteScores
from septa.presets import PUBLISHED, Drawing, Figure, Published
from septa.runtime import versions
from septa.synthetic import write_dataset
from septa.training import TrainingDone, TrainingRequest, train_steps

MARK = "septa-reproduce.txt"
"""File that tells a folder to be written by `reproduce`."""
_SEED = 0
_OBJECTS = ("f1_50", "mean_accuracy", "panoptic_quality", "symmetric_best_dice")
"""Metrics of objects that are told where objects are segmented."""


@dataclass(frozen=True)
class ComparisonRow:
    """One metric: what was published and what was measured, with its 95 % bootstrap interval over images."""

    metric: str
    label: str
    published: str
    measured: float | None
    interval: tuple[float, float] | None
    source: str

    def cells(self) -> tuple[str, str, str, str, str]:
        """Label, published, measured, interval and source as text."""
        measured = "not measured" if self.measured is None else f"{self.measured:.4f}"
        interval = "" if self.interval is None else "{:.4f} to {:.4f}".format(*self.interval)
        return self.label, self.published, measured, interval, self.source


@dataclass(frozen=True)
class Comparison:
    """Published figures beside measured ones; ``differences`` and ``notes`` are sentences."""

    preset: str
    rows: tuple[ComparisonRow, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    def table(self) -> Table:
        """The rows for a terminal."""
        table = Table(title=f"preset {self.preset}", title_justify="left")
        for header in _HEADERS:
            table.add_column(header, overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row.cells()))
        return table

    def to_markdown(self) -> str:
        """All of it as a page."""
        lines = [f"# septa reproduce {self.preset}", "", _pipes(_HEADERS), _pipes(["---"] * len(_HEADERS))]
        lines += [_pipes(row.cells()) for row in self.rows]
        for heading, sentences in (("How the protocols differ", self.differences), ("Notes", self.notes)):
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

    Writes the model ``PRESET.septa``, its run with ``report.html``, ``reproduce.json`` and ``reproduce.md`` to the
    output folder, and the drawings to ``data`` in it where none are given.

    Parameters
    ----------
    console
        Where everything is told.
    preset
        Name of a preset; see `septa.presets.list_names`.
    data
        Folder of images and labels. None draws synthetic images, for the presets that can be shown on such.
    minutes
        Time budget of the training.
    output
        Folder to write to.
    overrides
        ``section.key=value`` assignments on top of the preset.
    device
        As for `septa.train`.
    overwrite
        Replace what an earlier call wrote to the folder.

    Raises
    ------
    RecipeError
        There is no such preset, or an override is wrong.
    InputError
        The data cannot be trained on or are missing, or the folder is not empty and ``overwrite`` is not set.
    """
    presets.load_recipe(preset).with_overrides((f"training.minutes={minutes}", *overrides))
    published, output = PUBLISHED[preset], Path(output)
    drawing = published.drawing if data is None else None
    if data is None and drawing is None:
        raise InputError(f"preset {preset}", "needs your data", f"give with --data the folder of {published.data}")
    _begin(output, overwrite)
    if drawing is not None:
        data = _draw(console, drawing, output / "data")
    assert data is not None
    changed = (*(drawing.overrides if drawing is not None else ()), *overrides)
    console.print(f"training {preset} on {data}, at most {minutes:g} minutes", highlight=False, markup=False)
    done = _train(console, preset, Path(data), output, (f"training.minutes={minutes}", *changed), device, overwrite)
    held_out = Path(data) / "held_out" if drawing is not None else Path(data)
    with progress_bar(console, "evaluating") as progress:
        neurites = not done.model.task.finds_objects and has_neurites(done.model.labels)
        extra = (NEURITES,) if neurites and _asks_for_neurites(published) else ()
        evaluation = evaluate(done.model, held_out, device=device, extra=extra, progress=progress)
    console.print(evaluation_table(evaluation))
    facts = _differences(evaluation, changed, minutes, done, drawing)
    stack = {} if evaluation.neurites is None else asdict(evaluation.neurites)
    stack.pop("pixel_error", None)  # that of the evaluation is of the labels as predicted
    comparison = compare(preset, published, evaluation, facts, stack)
    _tell(console, comparison)
    _write(output, comparison, evaluation.summary | stack, done, data)
    console.print(f"written: {output / 'reproduce.json'}, {output / 'reproduce.md'}", highlight=False, markup=False)
    console.print(f"report: {done.report}", highlight=False, markup=False)


def compare(
    preset: str,
    published: Published,
    evaluation: Evaluation,
    differences: Sequence[str] = (),
    more: Mapping[str, float] | None = None,
) -> Comparison:
    """Put the scores of an evaluation beside the published figures.

    Parameters
    ----------
    preset
        Name, for the heading.
    published
        Its figures, in the order of the rows; metrics of objects, where the evaluation has some, come after them.
    evaluation
        Scores on images that were not trained on.
    differences
        Sentences about this measurement, told before those about the protocol.
    more
        Further scores by their metric.
    """
    scores = evaluation.summary | dict(more or {})
    objects = (
        Figure(metric=metric, label=OBJECT_METRICS[metric]) for metric in _OBJECTS if metric in evaluation.objects
    )
    rows = tuple(
        ComparisonRow(
            figure.metric,
            figure.label,
            figure.published,
            scores.get(figure.metric),
            _interval(evaluation, figure.metric),
            figure.source,
        )
        for figure in (*published.figures, *objects)
    )
    return Comparison(preset, rows, (*differences, *published.differences), published.notes)


def _interval(evaluation: Evaluation, metric: str) -> tuple[float, float] | None:
    """Only of what is one spread over images: pixels, objects, and a single foreground class."""
    spread = (evaluation.pixels | evaluation.objects).get(metric)
    foreground = evaluation.class_names[0 if evaluation.multilabel else 1 :]
    if spread is None and len(foreground) == 1:
        spread = evaluation.classes[foreground[0]].get(metric)
    return None if spread is None else (spread["low"], spread["high"])


def _asks_for_neurites(published: Published) -> bool:
    known = {field.name for field in fields(NeuriteScores)} - {"pixel_error"}
    return any(figure.metric in known for figure in published.figures)


def _begin(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(output, "is a file, not a folder", "give another folder")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise InputError(output, "is not empty", "give another folder or --overwrite")
        if not (output / MARK).is_file():
            raise InputError(output, "was not written by 'septa reproduce'", "give another folder")
        shutil.rmtree(output / "data", ignore_errors=True)
    write_text(output / MARK, "Written by 'septa reproduce', which may replace data/ here.\n")


def _draw(console: Console, drawing: Drawing, folder: Path) -> Path:
    total, size = drawing.count + drawing.held_out, "{} x {}".format(*drawing.size_hw)
    told = f"no data given: drawing {total} images ({drawing.kind}, {size}), {drawing.held_out} held out: {folder}"
    console.print(told, highlight=False, markup=False)
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


def _differences(
    evaluation: Evaluation, changed: Sequence[str], minutes: float, done: TrainingDone, drawing: Drawing | None
) -> tuple[str, ...]:
    facts = done.model.provenance
    steps = f"{facts['steps']:.0f} steps in {facts['minutes']:.1f} of at most {minutes:g} minutes"
    count = len(evaluation.images)
    told = [f"This training had {len(facts['train'])} images and took {steps}; {count} other images are scored."]
    if changed:
        told.append(f"Settings differ from the preset: {', '.join(changed)}.")
    if drawing is None:
        told.append("The scored images also chose the best weights, which makes their scores a little too good.")
    elif drawing.note:
        told.append(drawing.note)
    return tuple(told)


def _tell(console: Console, comparison: Comparison) -> None:
    console.print(comparison.table())
    for sentence in (*comparison.differences, *comparison.notes):
        console.print(f"- {sentence}", highlight=False, markup=False)


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
        "versions": versions(),
    }
    write_text(output / "reproduce.json", json.dumps(written, indent=2, allow_nan=False) + "\n")
    write_text(output / "reproduce.md", comparison.to_markdown())


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
