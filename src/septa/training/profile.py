"""The profiler of a training: it times and traces the phases of the steps of one epoch."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import profile, record_function

from septa.errors import format_count
from septa.images import write_bytes, write_text

PHASES = ("data", "transfer", "forward", "backward", "optimiser")
"""Phases of a step. ``data`` is the wait for samples, which other threads prepare; ``forward`` includes the loss."""
WARM_UP = 5
"""Steps before the profile. During the first ones kernels are chosen and memory is allocated."""
_MOST_STEPS = 100
_OPERATORS = 20
"""Operators that the table lists."""


@dataclass(frozen=True, kw_only=True)
class TrainingProfile:
    """A profile that was written to files.

    Attributes
    ----------
    steps
        Number of steps that were timed.
    seconds
        Seconds of each of `PHASES`, of the ``rest`` of the steps, and of one ``validation``.
    trace
        Trace for ui.perfetto.dev or chrome://tracing.
    text
        Text file with the tables.
    """

    steps: int
    seconds: Mapping[str, float]
    trace: Path
    text: Path

    def table(self) -> Table:
        """Make a table with the seconds and the share of each phase."""
        total = sum(self.seconds.values())
        table = Table(f"{format_count(self.steps, 'step')} and a validation")
        for header in ("seconds", "share", "ms per step"):
            table.add_column(header, justify="right", no_wrap=True)
        for name, seconds in self.seconds.items():
            each = "" if name == "validation" else f"{1000 * seconds / self.steps:.1f}"
            table.add_row(name, f"{seconds:.3f}", f"{seconds / total:.1%}", each)
        table.add_row("all", f"{total:.3f}", "", "")
        return table


class Profiler:
    """Timer of the phases of the steps of one epoch, at most 100, after a warm-up.

    On a GPU every phase waits for the device while the profiler runs. The seconds are then true, but the phases do not
    overlap as they otherwise do.

    Parameters
    ----------
    folder
        Folder for the files; the profiler does nothing if it is None.
    device
        Device of the net.
    epoch
        Number of steps of one epoch.
    """

    def __init__(self, folder: Path | None, device: torch.device, epoch: int) -> None:
        self._folder = folder
        self._device = device
        self._last = WARM_UP + min(epoch, _MOST_STEPS)
        self._steps = 0
        self._started = 0.0
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._recorder: profile | None = None

    @property
    def running(self) -> bool:
        """True while steps are timed."""
        return self._recorder is not None

    @property
    def complete(self) -> bool:
        """True if the last step to be timed is done; then call `finish`."""
        return self.running and self._steps == self._last

    def next_step(self) -> None:
        """Count a step, and start the recording if the warm-up is over; call it before every step."""
        if self._folder is not None and self._steps == WARM_UP:
            self._recorder = profile()
            self._recorder.start()
            self._started = self._now()
        self._steps += 1

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return a context that times its body as one of `PHASES`."""
        return self._time_phase(name) if self.running else nullcontext()

    def finish(self, validate: Callable[[], object], *, write: bool) -> TrainingProfile:
        """End the recording, time a validation, and write ``profile.json.gz`` and ``profile.txt``.

        Parameters
        ----------
        validate
            Function that runs a validation.
        write
            True if this process writes the files.

        Raises
        ------
        ResourceError, InputError
            As for `septa.images.write.write_atomic`.
        """
        assert self._folder is not None
        assert self._recorder is not None
        seconds = self._seconds | {"rest": self._now() - self._started - sum(self._seconds.values())}
        recorder = self._recorder
        self.close()
        begin = self._now()
        validate()
        seconds["validation"] = self._now() - begin
        result = TrainingProfile(
            steps=self._steps - WARM_UP,
            seconds=seconds,
            trace=self._folder / "profile.json.gz",
            text=self._folder / "profile.txt",
        )
        if write:
            self._write(result, recorder)
        return result

    def close(self) -> None:
        """Stop the recording."""
        if self._recorder is not None:
            self._recorder.stop()
        self._recorder = None

    def _write(self, result: TrainingProfile, recorder: profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, result.trace.name)
            recorder.export_chrome_trace(str(path))
            write_bytes(result.trace, path.read_bytes())
        screen = Console(file=io.StringIO(), width=110)
        screen.print(f"Training on {self._device}.", result.table(), _make_operator_table(recorder), sep="\n")
        assert isinstance(screen.file, io.StringIO)
        write_text(result.text, screen.file.getvalue())

    @contextmanager
    def _time_phase(self, name: str) -> Iterator[None]:
        with record_function(name):
            begin = self._now()
            yield
            self._seconds[name] += self._now() - begin

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()


def _make_operator_table(recorder: profile) -> Table:
    """Make a table of the operators that took the most time themselves, on the GPU if it was used, else on the CPU."""
    rows = [(event, event.self_device_time_total or 0.0) for event in recorder.key_averages()]
    if not any(spent for _, spent in rows):
        rows = [(event, event.self_cpu_time_total) for event, _ in rows]
    rows = sorted((row for row in rows if row[0].key not in PHASES), key=lambda row: -row[1])
    total = sum(spent for _, spent in rows) or 1.0
    table = Table("operator", "calls", "seconds", "share")
    for event, spent in rows[:_OPERATORS]:
        table.add_row(event.key, str(event.count), f"{spent / 1e6:.3f}", f"{spent / total:.1%}")
    return table
