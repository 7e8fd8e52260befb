"""What the command line shows while a training runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from septa.recipe import TrainingSettings

if TYPE_CHECKING:  # commands show their progress without waiting for torch or scipy
    from septa.metrics import Evaluation
    from septa.training import HistoryRow, TrainingDone, TrainingEvent, TrainingPlan

_SHOWN = 12
_COUNTS = ("truth_count", "prediction_count", "count_difference", "splits", "merges")


@contextmanager
def progress_bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere; give the function it yields the done and the total."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_training(console: Console, events: Iterator[TrainingEvent]) -> TrainingDone | None:
    """Print the plan, then a live table (on a terminal) or a line for each validation; returns what was trained."""
    from septa.training import AlreadyTrained, TrainingDone, TrainingPlan

    done, live = None, None
    screen = _Screen()
    try:
        for event in events:
            if isinstance(event, TrainingPlan):
                print_plan(console, event)
                screen.training = event.choice.recipe.training
                live = Live(screen.table(), console=console, refresh_per_second=4) if console.is_terminal else None
                if live is not None:
                    live.start()
            elif isinstance(event, TrainingDone):
                done = event
            elif isinstance(event, AlreadyTrained):
                told = f"{event.path}: this training is finished, its model is here"
                console.print(told, highlight=False, markup=False)
            else:
                screen.take(event)
                if live is not None:
                    live.update(screen.table())
                elif "score" in event:
                    console.print(screen.line(event), highlight=False)
    finally:
        if live is not None:
            live.stop()
    return done


def print_plan(console: Console, plan: TrainingPlan) -> None:
    """What was found in the data and what will be trained."""
    for note in plan.check.notes:
        console.print(note, highlight=False, markup=False)
    warnings = [str(problem) for problem in plan.check.problems]
    for warning in warnings[:5]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    if len(warnings) > 5:
        more = f"{len(warnings) - 5} more warnings: 'septa check {plan.check.data}' lists them"
        console.print(more, style="yellow", markup=False)
    for note in (*plan.choice.notes, *plan.notes):
        console.print(note, style="cyan", highlight=False, markup=False)
    recipe = plan.choice.recipe
    end = f"{recipe.training.steps} steps"
    if recipe.training.minutes is not None:
        end = f"{recipe.training.minutes:g} minutes, at most {end}"
    net, patch = recipe.net, "{} x {}".format(*recipe.sampling.patch)
    console.print(
        f"training U-Net depth {net.depth}, width {net.width} on {plan.device}: {end}, "
        f"batches of {recipe.training.batch} patches of {patch}, precision {recipe.training.amp}",
        highlight=False,
    )
    console.print(f"recipe, log and report: {plan.folder}", highlight=False, markup=False)


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """One row for each class: mean over images, its interval, and the value over all pixels; for instances, below
    it one row for each metric of objects.
    """
    tables = [_objects_table(evaluation)] if evaluation.objects else []
    return Group(*tables, _classes_table(evaluation), *([_more_table(evaluation)] if evaluation.more else []))


def _more_table(evaluation: Evaluation) -> Table:
    from septa.metrics import LEVEL

    table = Table("Also")
    for header in ("mean over images", f"{LEVEL:.0%} interval"):
        table.add_column(header, justify="right", no_wrap=True)
    for title, spread in evaluation.more.items():
        interval = f"{spread['low']:.4f}–{spread['high']:.4f}" if "low" in spread else ""
        table.add_row(Text(title), f"{spread['mean']:.4f}", interval)
    return table


def _objects_table(evaluation: Evaluation) -> Table:
    from septa.metrics import CALIBRATION_ERROR, LEVEL, OBJECT_METRICS, OBJECTS_POLICY

    table = Table("Objects", caption=OBJECTS_POLICY, caption_justify="left", caption_style="")
    for header in ("mean over images", f"{LEVEL:.0%} interval", "all images as one"):
        table.add_column(header, justify="right", no_wrap=True)
    for metric, spread in evaluation.objects.items():
        digits = 1 if metric in _COUNTS else 4
        mean, low, high, pooled = (f"{spread[key]:.{digits}f}" for key in ("mean", "low", "high", "pooled"))
        whole = f"{spread['pooled']:.0f}" if metric in _COUNTS else pooled
        table.add_row(OBJECT_METRICS[metric], mean, f"{low}–{high}", whole)
    for name, spread in evaluation.object_classes.items():
        mean, interval, _ = _cell(spread, spread["pooled"]).split("\n")
        table.add_row(Text(f"{OBJECT_METRICS['f1_50']}, {name}"), mean, interval, f"{spread['pooled']:.4f}")
    if evaluation.calibration.get("objects"):
        table.add_row(CALIBRATION_ERROR, "", "", f"{evaluation.calibration['expected_calibration_error']:.4f}")
    return table


def _classes_table(evaluation: Evaluation) -> Table:
    from septa.metrics import HEADERS

    table = Table(caption=_caption(evaluation), caption_justify="left", caption_style="", show_lines=True)
    table.add_column("Class", overflow="fold")
    for header in HEADERS.values():
        table.add_column(header, justify="right", no_wrap=True)
    for name in evaluation.class_names:
        cells = [_cell(evaluation.classes[name][metric], evaluation.pooled[name][metric]) for metric in HEADERS]
        table.add_row(Text(name), *cells)
    if len(evaluation.class_names) > (1 if evaluation.multilabel else 2):
        table.add_row("foreground\nmean", *(f"{evaluation.summary[metric]:.4f}" for metric in HEADERS))
    return table


def _caption(evaluation: Evaluation) -> Text:
    from septa.metrics import LEVEL

    lines = []
    for metric, spread in evaluation.pixels.items():
        mean, interval, pooled = _cell(spread, spread["pooled"]).split("\n")
        lines.append(f"{metric.replace('_', ' ').capitalize()}: {mean} ({interval}), {pooled}.")
    scored = len(evaluation.images) - len(evaluation.unscored)
    lines.append(
        f"Mean over {scored} image{'s' if scored != 1 else ''}, below it its {LEVEL:.0%} bootstrap "
        "interval over images; pooled: over all pixels."
    )
    empty = ", ".join(f"{name} in {count}" for name, count in evaluation.both_empty.items() if count)
    lines.append(evaluation.policy + (f" Absent from both: {empty} of {scored} images." if empty else ""))
    if evaluation.unscored:
        lines.append(f"{len(evaluation.unscored)} more without any counted pixel (all ignored) left out of the means.")
    return Text("\n".join(lines))


def _cell(spread: Mapping[str, float], pooled: float) -> str:
    return f"{spread['mean']:.4f}\n{spread['low']:.4f}–{spread['high']:.4f}\npooled {pooled:.4f}"


class _Screen:
    """The last rows of the history as a table."""

    training = TrainingSettings()

    def __init__(self) -> None:
        self.rows: list[HistoryRow] = []
        self.latest: HistoryRow = {}

    def take(self, row: HistoryRow) -> None:
        if "score" in row:
            self.rows.append(self.latest | row)
        else:
            self.latest = row

    def _left(self, row: HistoryRow) -> str:
        minutes, step = row.get("minutes", 0.0), row.get("step", 0)
        if not step:
            return ""
        left = minutes * (self.training.steps / step - 1)
        if self.training.minutes is not None:
            left = min(left, self.training.minutes - minutes)
        return f"{max(0.0, left):.1f} min left"

    def line(self, row: HistoryRow) -> str:
        row = self.latest | row
        loss = f"loss {row['loss']:.4f}  " if "loss" in row else ""
        return f"step {row['step']:.0f}  {loss}validation score {row['score']:.4f}  {self._left(row)}".rstrip()

    def table(self) -> Group:
        table = Table("step", "loss", "validation score", "learning rate", "images/s", "waiting for data", "minutes")
        best = max((row["score"] for row in self.rows), default=0.0)
        for row in [*self.rows[-_SHOWN:], self.latest]:
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
        return Group(table, self._left(self.latest))
