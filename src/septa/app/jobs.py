"""Long work, one after the other: a thread runs it, reports its progress, and stops when it is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from septa.errors import InputError, ResourceError, SeptaError, is_out_of_memory

State = Literal["running", "done", "failed", "cancelled"]


class Cancelled(Exception):
    """The work was cancelled; it is raised by `Job.report`."""


@dataclass(kw_only=True)
class Job:
    """Work that runs or has ended.

    Attributes
    ----------
    number
        Number of the job, from 1.
    kind
        What is done, such as ``segment``.
    image
        Name of the image that it works on.
    state
        State.
    share
        Share of the work that is done, 0 to 1.
    text
        What is done now.
    error
        Error line, if it has failed.
    lines
        Notes and warnings.
    """

    number: int
    kind: str
    image: str
    state: State = "running"
    share: float = 0.0
    text: str = ""
    error: str = ""
    lines: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def report(self, share: float, text: str) -> None:
        """Report progress.

        Raises
        ------
        Cancelled
            The job was cancelled.
        """
        if self.stop.is_set():
            raise Cancelled
        self.share, self.text = min(1.0, share), text


class Jobs:
    """The job that runs; a second one is refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.last: Job | None = None

    @property
    def running(self) -> bool:
        """True if a job runs."""
        return self.last is not None and self.last.state == "running"

    def start(self, kind: str, image: str, work: Callable[[Job], None]) -> Job:
        """Start work in a thread.

        Raises
        ------
        InputError
            Another job runs.
        """
        with self._lock:
            if self.last is not None and self.running:
                problem = f"septa is busy with {self.last.image}"
                raise InputError("", problem, "Wait until it is done, or cancel it")
            job = Job(number=1 if self.last is None else self.last.number + 1, kind=kind, image=image)
            self.last = job
            self._thread = threading.Thread(target=_run, args=(job, work), name=f"septa-{kind}", daemon=True)
            self._thread.start()
            return job

    def cancel(self) -> None:
        """Ask the running job to stop."""
        if self.last is not None:
            self.last.stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the running job has ended."""
        if self._thread is not None:
            self._thread.join(seconds)


def _run(job: Job, work: Callable[[Job], None]) -> None:
    try:
        work(job)
        job.share, job.state = 1.0, "done"
    except Cancelled:
        job.state = "cancelled"
    except SeptaError as error:
        job.error, job.state = str(error), "failed"
    except Exception as error:
        if is_out_of_memory(error):
            error = ResourceError(job.image, "the memory is exhausted", "Close other programs, or take a smaller image")
        job.error, job.state = str(error) or type(error).__name__, "failed"
