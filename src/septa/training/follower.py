"""The progress of a training, for callbacks."""

from __future__ import annotations

from septa.progress_bar import ProgressCallback, ProgressEvent
from septa.recipe import TrainingSettings
from septa.training.state import HistoryRow


class TrainingFollower:
    """Reports the rows of the history of a training, over all its folds, to a callback.

    Parameters
    ----------
    callback
        Function that gets the events; None for no events.
    folds
        Number of nets that are trained.
    """

    def __init__(self, callback: ProgressCallback | None, folds: int) -> None:
        self.callback = callback
        self._folds = folds
        self._fold = 1
        self._training = TrainingSettings()
        self._values: HistoryRow = {}

    def begin(self, training: TrainingSettings, fold: int) -> None:
        """Begin the training of a fold, counted from 1."""
        self._training, self._fold = training, fold

    def follow(self, row: HistoryRow) -> None:
        """Report a row of the history, with the newest values of the rows before it."""
        self._values = self._values | row
        share = row["step"] / self._training.steps
        if self._training.minutes is not None:
            share = max(share, row.get("minutes", 0.0) / self._training.minutes)
        done = (self._fold - 1) * self._training.steps + int(row["step"])
        # The model is made after the last step, so the work is not done yet.
        self._report(done, min(0.99, (self._fold - 1 + min(1.0, share)) / self._folds))

    def finish(self) -> None:
        """Report that the model is written."""
        self._report((self._fold - 1) * self._training.steps + int(self._values.get("step", 0)), 1.0)

    def _report(self, done: int, share: float) -> None:
        if self.callback is not None:
            total = self._folds * self._training.steps
            self.callback(ProgressEvent(stage="train", done=done, total=total, share=share, values=self._values))
