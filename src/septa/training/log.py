"""The history of a training on disk: a CSV table and, if asked for, TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from septa.errors import InputError
from septa.images import write_text
from septa.training.plan import TrainingRequest
from septa.training.state import HistoryRow, TrainingState

_TRAINING_COLUMNS = ("step", "minutes", "loss", "lr", "images_per_s", "data_wait")
COLUMNS = (*_TRAINING_COLUMNS, "score", "val_loss", "loss_as_trained", "loss_as_predicted")
"""Columns of ``log.csv``."""


@contextmanager
def open_history_log(request: TrainingRequest, state: TrainingState) -> Iterator[Callable[[HistoryRow], None]]:
    """Open the log of a training and yield a function that writes a row.

    The function writes to ``log.csv``, which first gets the history so far, and to TensorBoard if the request asks for
    it.

    Raises
    ------
    InputError
        TensorBoard is asked for but not installed.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(state.history)
    path = request.folder / "log.csv"
    write_text(path, text.getvalue())
    board = _open_tensorboard(request.folder) if request.tensorboard else None
    with path.open("a", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")

        def write(row: HistoryRow) -> None:
            table.writerow(row)
            file.flush()
            if board is not None:
                for name in row.keys() - {"step"}:
                    board.add_scalar(name, row[name], int(row["step"]))

        try:
            yield write
        finally:
            if board is not None:
                board.close()


def _open_tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard", "TensorBoard is not installed", "Run pip install 'septa[track]'") from None
    return SummaryWriter(str(folder / "tensorboard"))
