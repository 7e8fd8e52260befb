"""Where the time of a training goes: one epoch of it, timed and traced."""

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

from septa.images import write_bytes, write_text
from septa.report import plural

PHASES = ("data", "transfer", "forward", "backward", "optimiser")
"""What a step consists of; ``data`` is the wait for samples, which other threads prepare, ``forward`` ends with the
loss."""
WARM_UP = 5
"""Steps before the profile: in the first ones kernels are chosen and memory is taken."""
_MOST_STEPS = 100
_OPERATORS = 20


@dataclass(frozen=True)
class Profiled:
    """A profile that was written: ``trace`` for chrome://tracing or ui.perfetto.dev, ``text`` with the tables.

    ``seconds`` are those of `PHASES`, of the ``rest`` of the steps and of one ``validation``, for ``steps`` steps.
    """

    steps: int
    seconds: Mapping[str, float]
    trace: Path
    text: Path

    def table(self) -> Table:
        """Seconds and share of each phase."""
        total = sum(self.seconds.values())
        table = Table(f"{plural(self.steps, 'step')} and a validation")
        for header in ("seconds", "share", "ms a step"):
            table.add_column(header, justify="right", no_wrap=True)
        for name, seconds in self.seconds.items():
            each = "" if name == "validation" else f"{1000 * seconds / self.steps:.1f}"
            table.add_row(name, f"{seconds:.3f}", f"{seconds / total:.1%}", each)
        table.add_row("all", f"{total:.3f}", "", "")
        return table


class Profile:
    """Times the phases of the steps of one epoch, at most 100, after a warm-up; without a ``folder`` it does nothing.

    On a GPU every phase waits for the device while the profile runs: seconds are true, overlap is lost.
    """

    def __init__(self, folder: Path | None, device: torch.device, epoch: int) -> None:
        self._folder, self._device = folder, device
        self._last = WARM_UP + min(epoch, _MOST_STEPS)
        self._begun = 0
        self._started = 0.0
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._recorder: profile | None = None

    @property
    def running(self) -> bool:
        """Whether steps are being timed."""
        return self._recorder is not None

    @property
    def complete(self) -> bool:
        """Whether the last step to be timed is over and `finish` is to be called."""
        return self.running and self._begun == self._last

    def next_step(self) -> None:
        """To be called before every step; starts the profile when the warm-up is over."""
        if self._folder is not None and self._begun == WARM_UP:
            self._recorder = profile()
            self._recorder.start()
            self._started = self._now()
        self._begun += 1

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time what is done inside, as one of `PHASES`."""
        return self._timed(name) if self.running else nullcontext()

    def finish(self, validate: Callable[[], object], *, write: bool) -> Profiled:
        """End the trace, time a validation, and write ``profile.json.gz`` and ``profile.txt`` if this process writes.

        Raises
        ------
        ResourceError, InputError
            As for `septa.images.write.write_atomic`.
        """
        assert self._folder is not None
        assert self._recorder is not None
        seconds = self._seconds | {"rest": self._now() - self._started - sum(self._seconds.values())}
        recorder, steps = self._recorder, self._begun - WARM_UP
        self.close()
        begin = self._now()
        validate()
        seconds["validation"] = self._now() - begin
        trace, text = self._folder / "profile.json.gz", self._folder / "profile.txt"
        profiled = Profiled(steps, seconds, trace, text)
        if write:
            with tempfile.TemporaryDirectory() as folder:
                recorder.export_chrome_trace(str(Path(folder, trace.name)))
                write_bytes(trace, Path(folder, trace.name).read_bytes())
            screen = Console(file=io.StringIO(), width=110)
            screen.print(f"Training on {self._device}.", profiled.table(), _operators(recorder), sep="\n")
            assert isinstance(screen.file, io.StringIO)
            write_text(text, screen.file.getvalue())
        return profiled

    def close(self) -> None:
        """Stop timing; what was timed is kept for `finish` alone."""
        if self._recorder is not None:
            self._recorder.stop()
        self._recorder = None

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        with record_function(name):
            begin = self._now()
            yield
            self._seconds[name] += self._now() - begin

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()


def _operators(recorder: profile) -> Table:
    """The operators that took the most time of their own: of the GPU where there is one, else of the CPU."""
    rows = [(event, event.self_device_time_total or 0.0) for event in recorder.key_averages()]
    if not any(spent for _, spent in rows):
        rows = [(event, event.self_cpu_time_total) for event, _ in rows]
    rows = sorted((row for row in rows if row[0].key not in PHASES), key=lambda row: -row[1])
    total = sum(spent for _, spent in rows) or 1.0
    table = Table("operator", "calls", "seconds", "share")
    for event, spent in rows[:_OPERATORS]:
        table.add_row(event.key, str(event.count), f"{spent / 1e6:.3f}", f"{spent / total:.1%}")
    return table
