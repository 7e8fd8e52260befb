"""When a training ends: by its steps, by its minutes, or by a signal."""

from __future__ import annotations

import signal
import time
from types import FrameType

from septa.recipe import TrainingSettings
from septa.training.state import State

_RESERVE = 0.03


class Signals:
    """Notes SIGINT and SIGTERM instead of dying from them; a second one acts as it would without this."""

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> Signals:
        self._before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller's handlers stay
                break
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


class Clock:
    """Time spent since ``started`` (of `time.monotonic`), and the progress that follows where minutes are given."""

    def __init__(self, training: TrainingSettings, started: float, state: State) -> None:
        self.training = training
        self.begin = time.monotonic() - state.elapsed
        self.setup = 0.0 if state.elapsed else self.begin - started
        self.validating, self.longest = 0.0, 0.0
        self.last_row = (time.monotonic(), state.step, 0.0)

    def elapsed(self) -> float:
        """Seconds of training, over all its runs."""
        return time.monotonic() - self.begin

    def progress(self, state: State) -> float:
        """Share of the training that is done, 0 to 1: of the steps, or of the minutes where these end first."""
        share = state.step / self.training.steps
        if self.training.minutes is None:
            return min(1.0, share)
        budget = 60 * self.training.minutes
        # The last validation, the model's final evaluation and the report come after the last step.
        reserve = max(3.5 * self.longest, _RESERVE * budget)
        return min(1.0, max(share, self.elapsed() / max(1e-9, budget - self.setup - reserve)))
