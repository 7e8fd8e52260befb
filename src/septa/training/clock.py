"""The end of a training: by its steps, by its minutes, or by a signal."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from septa.recipe import TrainingSettings
from septa.training.state import TrainingState

_RESERVE = 0.03
"""Least share of the minutes that is kept for the work after the last step."""
_RESERVED_VALIDATIONS = 3.5
"""Durations of a validation that are kept for the work after the last step."""


class SignalCatcher:
    """Context that records SIGINT and SIGTERM instead of ending the process; a second signal acts as usual.

    Attributes
    ----------
    received
        Number of the signal; 0 if none was received.
    """

    def __init__(self) -> None:
        self.received = 0
        self._closed = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalCatcher:
        """Set the signal handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._record)
            except ValueError:  # only the main thread can set handlers; in others the caller's handlers stay
                break
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the earlier signal handlers.

        A training that was abandoned ends when Python collects it: in any thread, perhaps while another one runs.
        Handlers that are not its own then stay as they are.
        """
        self._closed = True
        self._restore_handlers()

    def _record(self, number: int, _frame: FrameType | None) -> None:
        self._restore_handlers()
        if not self._closed:
            self.received = number
            return
        # A training that began later has put this handler back.
        signal.signal(number, self._previous[number])
        signal.raise_signal(number)

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._record:
                with suppress(ValueError):
                    signal.signal(number, handler)


class TrainingClock:
    """Clock of a training, and its progress by steps and minutes.

    Parameters
    ----------
    training
        Settings, of which ``steps`` and ``minutes`` are used.
    started
        Value of `time.monotonic` when the command began; from it the minutes count.
    state
        State at the first step of this run.

    Attributes
    ----------
    begin
        Value of `time.monotonic` at the first step, less the seconds of earlier runs.
    setup
        Seconds between the start of the command and the first step; 0 for a resumed training.
    validating, longest
        Seconds spent in validations of this run, and in the longest one.
    last_row
        Value of `time.monotonic`, number of steps and seconds of waiting for samples at the last row of the history.
    """

    def __init__(self, training: TrainingSettings, started: float, state: TrainingState) -> None:
        self.training = training
        self.begin = time.monotonic() - state.elapsed
        self.setup = 0.0 if state.elapsed else self.begin - started
        self.validating = 0.0
        self.longest = 0.0
        self.last_row = (time.monotonic(), state.step, 0.0)

    def read_elapsed(self) -> float:
        """Return the seconds of training, over all its runs."""
        return time.monotonic() - self.begin

    def add_validation(self, seconds: float) -> None:
        """Count a validation, and exclude its seconds from the speed of the next row of the history."""
        self.validating += seconds
        self.longest = max(self.longest, seconds)
        time_of_row, step, waited = self.last_row
        self.last_row = (time_of_row + seconds, step, waited)

    def compute_progress(self, state: TrainingState) -> float:
        """Return the share of the training that is done, 0 to 1: of steps or of minutes, whichever is larger."""
        share = state.step / self.training.steps
        if self.training.minutes is None:
            return min(1.0, share)
        budget = 60 * self.training.minutes
        # The last validation, the final evaluation of the model and the report follow the last step.
        reserve = max(_RESERVED_VALIDATIONS * self.longest, _RESERVE * budget)
        return min(1.0, max(share, self.read_elapsed() / max(1e-9, budget - self.setup - reserve)))
