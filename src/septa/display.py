"""Output of the command line: lines, progress bars, a live view of a training, and tables of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from septa.errors import escape_controls, format_count
from septa.recipe import TrainingSettings

if TYPE_CHECKING:  # commands show their progress without waiting for torch or scipy
    from septa.data import DatasetCheck
    from septa.metrics import Evaluation
    from septa.report import Fold
    from septa.training import FoldDone, HistoryRow, TrainingDone, TrainingEvent, TrainingPlan

_ROWS = 12
"""Validations that the live table of a training shows."""
_WARNINGS = 5
"""Warnings about the data that are printed before a training; the others are only counted."""
_COUNTS = ("truth_count", "prediction_count", "count_difference", "splits", "merges")


def say(console: Console, line: str, style: str | None = None) -> None:
    r"""Print one line as it is: markup has no effect, and control characters are shown escaped.

    Parameters
    ----------
    console
        Console to print on.
    line
        Text, which may contain names of files and classes.
    style
        Style of the whole line, such as ``"yellow"``.

    Examples
    --------
    >>> say(Console(), "[bold]a\nb.png: 3 cells")
    [bold]a\nb.png: 3 cells
    """
    console.print(escape_controls(line), style=style, highlight=False, markup=False, emoji=False)


def make_cell(text: str) -> Text:
    """Return a table cell that shows a text as `say` does."""
    return Text(escape_controls(text))


@contextmanager
def show_progress(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, and nothing elsewhere.

    Yields
    ------
    Callable
        Function to call with the number of items that are done and their total.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_training(console: Console, events: Iterator[TrainingEvent]) -> TrainingDone | None:
    """Print the plan of a training, then a live table (on a terminal) or a line for each validation.

    Parameters
    ----------
    console
        Console to print on.
    events
        Events of `septa.training.train_steps`.

    Returns
    -------
    TrainingDone or None
        Result of the training; None if it was finished before.
    """
    from septa.training import AlreadyTrained, FoldDone, TrainingDone, TrainingPlan

    done, live = None, None
    screen = _Screen()
    planned = False
    try:
        for event in events:
            if isinstance(event, TrainingPlan):
                if not planned:
                    print_plan(console, event)
                if event.fold:
                    sizes = f"{len(event.train)} images for training, {len(event.validation)} held out"
                    say(console, f"fold {event.fold} of {len(event.check.folds)}: {sizes}")
                planned = True
                screen = _Screen()
                screen.training = event.choice.recipe.training
                live = Live(screen.make_table(), console=console, refresh_per_second=4) if console.is_terminal else None
                if live is not None:
                    live.start()
            elif isinstance(event, TrainingDone):
                done = event
            elif isinstance(event, FoldDone):
                if live is not None:
                    live.stop()
                    live = None
                say(console, _describe_fold(event))
            elif isinstance(event, AlreadyTrained):
                say(console, f"{event.path}: this training is finished, its model is here")
            else:
                screen.add(event)
                if live is not None:
                    live.update(screen.make_table())
                elif "score" in event:
                    say(console, screen.format_line(event))
    finally:
        if live is not None:
            live.stop()
    return done


def _describe_fold(event: FoldDone) -> str:
    line = f"fold {event.fold} of {event.folds}"
    if event.evaluation is None:
        return f"{line}: finished by an earlier run"
    names = ("f1_50", "mean_accuracy") if event.evaluation.objects else ("dice",)
    from septa.metrics import HEADERS, OBJECT_METRICS

    scores = (f"{(OBJECT_METRICS | HEADERS)[name]} {event.evaluation.summary[name]:.4f}" for name in names)
    return f"{line}: {', '.join(scores)} on its validation images"


def make_folds_table(evaluation: Evaluation, folds: Sequence[Fold]) -> Table:
    """Return the scores of the folds of a cross-validation as a table, with their mean and spread in the last row."""
    from septa.report import list_fold_rows

    head, rows = list_fold_rows(evaluation, folds, details=False)
    table = Table()
    for number, title in enumerate(head):
        table.add_column(title, justify="right" if number else "left")
    for number, row in enumerate(rows):
        table.add_row(*map(make_cell, row), end_section=number == len(rows) - 2)
    return table


def print_plan(console: Console, plan: TrainingPlan) -> None:
    """Print what was found in the data and what will be trained."""
    for note in plan.check.notes:
        say(console, note)
    print_warnings(console, plan.check)
    for warning in plan.choice.warnings:
        say(console, f"warning: {warning}", style="yellow")
    for note in (*plan.choice.notes, *plan.notes):
        say(console, note, style="cyan")
    recipe = plan.choice.recipe
    limit = f"{recipe.training.steps} steps"
    if recipe.training.minutes is not None:
        limit = f"{recipe.training.minutes:g} minutes, at most {limit}"
    net, patch = recipe.net, "{} x {}".format(*recipe.sampling.patch)
    say(
        console,
        f"training U-Net depth {net.depth}, width {net.width} on {plan.device}: {limit}, "
        f"batches of {recipe.training.batch} patches of {patch}, precision {recipe.training.amp}",
    )
    say(console, f"recipe, log and report: {plan.folder}")


def print_result(console: Console, done: TrainingDone) -> None:
    """Print the scores of a trained model, its files, and what is to be known about the scores."""
    from septa.training import describe_choice, describe_cross_validation

    console.print(make_evaluation_table(done.evaluation))
    if done.folds:
        console.print(make_folds_table(done.evaluation, done.folds))
    say(console, f"model: {done.path} (weights sha256 {done.model.weights_sha256})")
    say(console, f"report: {done.report}")
    if done.start:
        say(console, done.start)
    if done.thresholds:
        say(console, done.thresholds)
    if done.joining:
        say(console, done.joining)
    thresholds = done.model.task.has_thresholds
    say(console, describe_cross_validation(done.evaluation, done.folds) or describe_choice(thresholds))
    if done.verdict:
        say(console, f"verdict: {done.verdict}", style="red")


def print_warnings(console: Console, check: DatasetCheck) -> None:
    """Print the first warnings of a dataset check without errors, and the number of the others."""
    warnings = [str(problem) for problem in check.problems]
    for warning in warnings[:_WARNINGS]:
        say(console, f"warning: {warning}", style="yellow")
    if len(warnings) > _WARNINGS:
        more = len(warnings) - _WARNINGS
        say(console, f"{more} more warnings: 'septa check {check.data}' lists them", style="yellow")


def make_evaluation_table(evaluation: Evaluation) -> RenderableType:
    """Return the scores as tables for a terminal.

    The table of classes has one row for each class: the mean over images, its interval, and the value over all pixels.
    The tables of objects and of further metrics have one row for each metric.
    """
    tables = [_make_objects_table(evaluation)] if evaluation.objects else []
    return Group(*tables, _make_classes_table(evaluation), *([_make_more_table(evaluation)] if evaluation.more else []))


def _make_more_table(evaluation: Evaluation) -> Table:
    from septa.metrics import LEVEL, format_interval

    table = Table("Also")
    for header in ("mean over images", f"{LEVEL:.0%} interval"):
        table.add_column(header, justify="right", no_wrap=True)
    for title, spread in evaluation.more.items():
        table.add_row(make_cell(title), f"{spread['mean']:.4f}", format_interval(spread))
    return table


def _make_objects_table(evaluation: Evaluation) -> Table:
    from septa.metrics import CALIBRATION_ERROR, LEVEL, OBJECT_METRICS, OBJECTS_POLICY, format_interval

    table = Table("Objects", caption=OBJECTS_POLICY, caption_justify="left", caption_style="")
    for header in ("mean over images", f"{LEVEL:.0%} interval", "all images as one"):
        table.add_column(header, justify="right", no_wrap=True)
    for metric, spread in evaluation.objects.items():
        digits = 1 if metric in _COUNTS else 4
        mean, pooled = (f"{spread[key]:.{digits}f}" for key in ("mean", "pooled"))
        whole = f"{spread['pooled']:.0f}" if metric in _COUNTS else pooled
        table.add_row(OBJECT_METRICS[metric], mean, format_interval(spread, digits), whole)
    for name, spread in evaluation.object_classes.items():
        mean, pooled = (f"{spread[key]:.4f}" for key in ("mean", "pooled"))
        table.add_row(make_cell(f"{OBJECT_METRICS['f1_50']}, {name}"), mean, format_interval(spread), pooled)
    if evaluation.calibration.get("objects"):
        table.add_row(CALIBRATION_ERROR, "", "", f"{evaluation.calibration['expected_calibration_error']:.4f}")
    return table


def _make_classes_table(evaluation: Evaluation) -> Table:
    from septa.metrics import HEADERS

    table = Table(caption=_make_caption(evaluation), caption_justify="left", caption_style="", show_lines=True)
    table.add_column("Class", overflow="fold")
    for header in HEADERS.values():
        table.add_column(header, justify="right", no_wrap=True)
    for name in evaluation.class_names:
        spreads, pooled = evaluation.classes[name], evaluation.pooled[name]
        table.add_row(make_cell(name), *(_format_spread(spreads[metric], pooled[metric]) for metric in HEADERS))
    if len(evaluation.class_names) > (1 if evaluation.multilabel else 2):
        table.add_row("foreground\nmean", *(f"{evaluation.summary[metric]:.4f}" for metric in HEADERS))
    return table


def _make_caption(evaluation: Evaluation) -> Text:
    from septa.metrics import LEVEL, format_interval

    lines = []
    for metric, spread in evaluation.pixels.items():
        interval = f" ({format_interval(spread)})" if "low" in spread else ""
        title = metric.replace("_", " ").capitalize()
        lines.append(f"{title}: {spread['mean']:.4f}{interval}, pooled {spread['pooled']:.4f}.")
    scored = len(evaluation.images) - len(evaluation.unscored)
    interval = f", its {LEVEL:.0%} bootstrap interval over images," if scored > 1 else ""
    lines.append(f"Mean over {format_count(scored, 'image')}{interval} and the pooled value over all pixels.")
    empty = ", ".join(f"{name} in {count}" for name, count in evaluation.both_empty.items() if count)
    lines.append(evaluation.policy + (f" Absent from both: {empty} of {scored} images." if empty else ""))
    if evaluation.unscored:
        lines.append(
            f"{len(evaluation.unscored)} more without any counted pixel (all are ignored) are left out of the means."
        )
    return Text("\n".join(map(escape_controls, lines)))


def _format_spread(spread: Mapping[str, float], pooled: float) -> str:
    from septa.metrics import format_interval

    interval = format_interval(spread)
    return "\n".join([f"{spread['mean']:.4f}", *([interval] if interval else []), f"pooled {pooled:.4f}"])


class _Screen:
    """The live view of a training: the latest rows of its history as a table."""

    def __init__(self) -> None:
        self.training = TrainingSettings()
        self.rows: list[HistoryRow] = []
        self.latest: HistoryRow = {}

    def add(self, row: HistoryRow) -> None:
        if "score" in row:
            self.rows.append(self.latest | row)
        else:
            self.latest = row

    def _format_remaining_time(self, row: HistoryRow) -> str:
        minutes, step = row.get("minutes", 0.0), row.get("step", 0)
        if not step:
            return ""
        left = minutes * (self.training.steps / step - 1)
        if self.training.minutes is not None:
            left = min(left, self.training.minutes - minutes)
        return f"{max(0.0, left):.1f} min left"

    def format_line(self, row: HistoryRow) -> str:
        row = self.latest | row
        loss = f"loss {row['loss']:.4f}  " if "loss" in row else ""
        line = f"step {row['step']:.0f}  {loss}validation score {row['score']:.4f}"
        return f"{line}  {self._format_remaining_time(row)}".rstrip()

    def make_table(self) -> Group:
        table = Table("step", "loss", "validation score", "learning rate", "images/s", "waiting for data", "minutes")
        best = max((row["score"] for row in self.rows), default=0.0)
        for row in [*self.rows[-_ROWS:], self.latest]:
            score = f"{row['score']:.4f}" if "score" in row else ""
            table.add_row(
                f"{row.get('step', 0):.0f}",
                f"{row['loss']:.4f}" if "loss" in row else "",
                f"[bold]{score}[/bold]" if score and row["score"] == best else score,
                f"{row['lr']:.2e}" if "lr" in row else "",
                f"{row['images_per_s']:.1f}" if "images_per_s" in row else "",
                f"{row['data_wait']:.0%}" if "data_wait" in row else "",
                f"{row.get('minutes', 0):.1f}",
            )
        return Group(table, self._format_remaining_time(self.latest))
