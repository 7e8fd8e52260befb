"""A queue whose work is done one piece after the other, by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """The thread of a queue; it starts with the first work.

    Parameters
    ----------
    name
        Name of the thread.
    take
        Function that returns the next piece of work, which begins with this; None if nothing waits. It runs with
        `change` held.
    work
        Function that does it, and raises nothing.

    Attributes
    ----------
    change
        Lock of whatever the queue consists of.
    closing
        True once the queue is closed.
    """

    def __init__(self, name: str, take: Callable[[], T | None], work: Callable[[T], None]) -> None:
        self._name = name
        self._take = take
        self._work = work
        self.change = threading.Condition()
        self.closing = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Let the thread look for work."""
        with self.change:
            if self._thread is None and not self.closing:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self.change.notify_all()

    def close(self, stop: Callable[[], None]) -> None:
        """Begin nothing more, and wait for the end of the work, after it was asked to stop."""
        with self.change:
            self.closing = True
            stop()
            self.change.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self.change:
                if self.closing:
                    return
                one = self._take()
                if one is None:
                    self.change.wait()
                    continue
            self._work(one)
