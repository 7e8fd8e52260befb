"""The curves of a training."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from septa.errors import InputError
from septa.plot.panels import import_pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOSSES = {"loss": "training", "val_loss": "validation"}
_LOG = "log.csv"
_WIDE = 20
"""Ratio of the largest to the smallest loss from which the axis is logarithmic."""

Row = Mapping[str, float]


def curves(run: str | PathLike[str] | Iterable[Row], *, size: float = 4.0) -> Figure:
    """Show the curves of a training: loss, validation score with the Dice of each class, and learning rate.

    Parameters
    ----------
    run
        Folder ``NAME-run`` of a training, its ``log.csv``, or the model file ``NAME.septa`` beside it; or rows of the
        history, as `septa.progress_bar.ProgressEvent.values` has them.
    size
        Width of each of the three charts, inches.

    Returns
    -------
    Figure
        Figure of matplotlib; notebooks show it.

    Raises
    ------
    InputError
        matplotlib is not installed, or there is no log.
    """
    pyplot = import_pyplot()
    rows = _read_log(Path(fspath(run))) if isinstance(run, str | PathLike) else list(run)
    if not rows:
        raise InputError("run", "the history has no rows", "Give the log of a training that has begun")
    figure, axes = pyplot.subplots(1, 3, figsize=(3 * size, 0.75 * size), layout="constrained")
    scores = {"score": "score"} | {key: key for row in rows for key in row if key.startswith("dice_")}
    for axis, title, lines in zip(
        axes, ("Loss", "Validation score", "Learning rate"), (_LOSSES, scores, {"lr": ""}), strict=True
    ):
        axis.set_title(title)
        axis.set_xlabel("step")
        for key, name in lines.items():
            _draw_line(axis, _collect_points(rows, key), name)
        if axis.lines and any(lines.values()):
            axis.legend()
    axes[1].set_ylim(0, 1)
    losses = [value for line in axes[0].lines for value in line.get_ydata()]
    if losses and min(losses) > 0 and max(losses) > _WIDE * min(losses):
        axes[0].set_yscale("log")
    pyplot.close(figure)  # a notebook would show it twice
    return cast("Figure", figure)


def _draw_line(axis: Any, points: Sequence[tuple[float, float]], name: str) -> None:
    if points:
        axis.plot(*zip(*points), label=name.removeprefix("dice_"), marker="." if len(points) < 30 else None)


def _collect_points(rows: Iterable[Row], key: str) -> list[tuple[float, float]]:
    found = [(float(row["step"]), float(row[key])) for row in rows if key in row and "step" in row]
    return [point for point in found if all(map(math.isfinite, point))]


def _read_log(path: Path) -> list[dict[str, float]]:
    """Read the rows of a log; empty cells are left out."""
    if path.suffix == ".septa":
        path = path.with_name(f"{path.stem}-run")
    if path.is_dir():
        path = path / _LOG
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except OSError as error:
        problem = f"the log cannot be read ({error.strerror or 'unknown error'})"
        raise InputError(path, problem, "Give the folder NAME-run of a training") from None
    except (ValueError, TypeError, UnicodeDecodeError):
        raise InputError(path, "the file is not a log of a training", "Give the folder NAME-run") from None
    return rows
