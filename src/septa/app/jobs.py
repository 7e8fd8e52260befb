"""Predictions: one runs at a time, the others wait in a queue, which a restart of the server does not lose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from septa.errors import InputError, ResourceError, SeptaError, is_out_of_memory
from septa.images import write_text

from .turns import Turns

Kind = Literal["segment", "suggest", "suspects"]
State = Literal["waiting", "running", "done", "failed", "cancelled"]
_ENDED = 20
"""Number of jobs that have ended and are still listed."""


class Cancelled(Exception):
    """The work was cancelled; it is raised by `Watch.report`."""


class JobOrder(BaseModel):
    """A prediction that was ordered; it never changes.

    Attributes
    ----------
    kind
        ``segment`` for an image; ``suggest`` and ``suspects`` for a search in all images.
    model
        Name of the model.
    image
        Name of the image; empty for a search.
    visible
        Part of the image that is computed first: first row and column, and the ones after the last.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Kind
    model: str
    image: str = ""
    visible: tuple[int, int, int, int] | None = None


class _Queue(BaseModel):
    """The file of a queue: the orders that are not done, the first one first."""

    orders: list[JobOrder]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A watch over work that runs.

    Attributes
    ----------
    report
        Function that receives the share of the work that is done, 0 to 1, and what is done now; it raises `Cancelled`
        if the work is to stop.
    stop
        Set when the work is to stop.
    """

    report: Callable[[float, str], None]
    stop: threading.Event


@dataclass(kw_only=True)
class Job:
    """A prediction that waits, runs or has ended.

    Attributes
    ----------
    number
        Number of the job, from 1.
    order
        What was ordered.
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
    stop
        Set when the work is to stop.
    """

    number: int
    order: JobOrder
    state: State = "waiting"
    share: float = 0.0
    text: str = ""
    error: str = ""
    lines: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def is_active(self) -> bool:
        """True if the job waits or runs."""
        return self.state in ("waiting", "running")

    def watch(self, number: int = 0, count: int = 1, name: str = "") -> Watch:
        """Return the watch of the work, or of one image of several, by its number from 0, their count, and its name."""

        def report(share: float, text: str) -> None:
            if self.stop.is_set():
                raise Cancelled
            self.share = min(1.0, (number + share) / count)
            self.text = text if count == 1 and not name else f"image {number + 1} of {count}, {name}"

        return Watch(report=report, stop=self.stop)


class Jobs:
    """The queue of predictions.

    Orders that were not done when the server ended are ordered again. Methods may be called from several threads.

    Parameters
    ----------
    path
        File of the queue.
    work
        Function that does the work of a job; it may raise `Cancelled` or an error.
    """

    def __init__(self, path: Path, work: Callable[[Job], None]) -> None:
        self._path = path
        self._work = work
        self._turns = Turns("septa-predictions", self._take, self._run)
        self._jobs: list[Job] = []
        self._count = 0

    def restore(self) -> None:
        """Order again what the file of the queue holds."""
        try:
            orders = _Queue.model_validate_json(self._path.read_bytes()).orders
        except FileNotFoundError:
            return
        except (OSError, ValidationError):
            orders = []
        with self._turns.change:
            for order in orders:
                self._append(order)
            self._save()
        self._turns.wake()

    def list_jobs(self) -> list[Job]:
        """List all jobs: some that have ended, the one that runs, and those that wait, the first one first."""
        with self._turns.change:
            return list(self._jobs)

    def find(self, kind: Kind, image: str = "") -> Job | None:
        """Return the job of a kind and an image that waits or runs; None if there is none."""
        with self._turns.change:
            found = (job for job in self._jobs if (job.order.kind, job.order.image) == (kind, image) and job.is_active)
            return next(found, None)

    def add(self, order: JobOrder) -> Job:
        """Order a prediction; it begins when those before it are done.

        Raises
        ------
        InputError
            The same is ordered already.
        """
        with self._turns.change:
            if self.find(order.kind, order.image) is not None:
                problem = "the image is segmented already, or waits for it"
                if order.kind != "segment":
                    problem = "this search runs already, or waits for its turn"
                raise InputError(order.image, problem, "Wait until it is done, or cancel it")
            job = self._append(order)
            self._save()
            self._turns.wake()
            return job

    def cancel(self, number: int) -> Job:
        """Cancel a job that waits or runs.

        Raises
        ------
        InputError
            There is none of this number.
        """
        with self._turns.change:
            job = next((one for one in self._jobs if one.number == number), None)
            if job is None:
                raise InputError(f"job {number}", "there is no such job", "Reload the page")
            job.stop.set()
            if job.state == "waiting":
                job.state = "cancelled"
                self._save()
            return job

    def wait(self, seconds: float) -> None:
        """Wait until no job waits or runs."""
        with self._turns.change:
            self._turns.change.wait_for(lambda: not any(job.is_active for job in self._jobs), seconds)

    def close(self) -> None:
        """Stop the job that runs, and wait for its end; it and all that wait stay in the file of the queue."""

        def stop() -> None:
            for job in self._jobs:
                if job.state == "running":
                    job.stop.set()

        self._turns.close(stop)

    # --- the queue --------------------------------------------------------------------------------------------------

    def _append(self, order: JobOrder) -> Job:
        self._count += 1
        job = Job(number=self._count, order=order)
        self._jobs.append(job)
        return job

    def _save(self) -> None:
        """Write the queue; on a full disk it would only be lost by a restart, and labels say that the disk is full."""
        orders = [job.order for job in self._jobs if job.is_active]
        with suppress(SeptaError, OSError):
            if orders:
                write_text(self._path, _Queue(orders=orders).model_dump_json(indent=1) + "\n")
            else:
                self._path.unlink(missing_ok=True)

    def _take(self) -> Job | None:
        job = next((one for one in self._jobs if one.state == "waiting"), None)
        if job is not None:
            job.state = "running"
        return job

    def _run(self, job: Job) -> None:
        state: State
        try:
            self._work(job)
            job.share, state = 1.0, "done"
        except Cancelled:
            state = "cancelled"
        except SeptaError as error:
            job.error, state = str(error), "failed"
        except Exception as error:
            if is_out_of_memory(error):
                remedy = "Close other programs, or take a smaller image"
                error = ResourceError(job.order.image, "the memory is exhausted", remedy)
            job.error, state = str(error) or type(error).__name__, "failed"
        with self._turns.change:
            if self._turns.closing and state != "done":
                return  # the next server orders it again
            job.state = state
            ended = [one for one in self._jobs if not one.is_active]
            for one in ended[:-_ENDED]:
                self._jobs.remove(one)
            self._save()
            self._turns.change.notify_all()
