"""Work in a thread of its own, for a window that shows its progress. Nothing here needs napari or Qt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from septa.errors import ResourceError, SeptaError, is_out_of_memory
from septa.napari.segmentation import Report, Segmentation


class WorkCancelled(Exception):
    """The work was cancelled."""


@dataclass(kw_only=True)
class BackgroundWork:
    """Work in a thread of its own, which a window asks for its progress.

    Attributes
    ----------
    share, text
        Share of the work that is done, 0 to 1, and what is done now.
    result
        Result of the work, when it is done.
    error
        Error line, if it has failed.
    cancelled
        True if it was cancelled before it was done.
    """

    share: float = 0.0
    text: str = ""
    result: Segmentation | None = None
    error: str = ""
    cancelled: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, work: Callable[[Report], Segmentation]) -> None:
        """Start work, which receives the function that reports progress."""
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """True until the work has ended."""
        return self._thread is not None and self._thread.is_alive()

    def cancel(self) -> None:
        """Ask the work to stop; it does after the tile that is computed now."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Wait until the work has ended, or some seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def report(self, share: float, text: str) -> None:
        """Report progress; raise `WorkCancelled` if the work was cancelled."""
        if self._stop.is_set():
            raise WorkCancelled
        self.share, self.text = min(1.0, share), text

    def _run(self, work: Callable[[Report], Segmentation]) -> None:
        try:
            self.result = work(self.report)
        except WorkCancelled:
            self.cancelled = True
        except SeptaError as error:
            self.error = str(error)
        except Exception as error:
            if is_out_of_memory(error):
                problem = "the image does not fit into memory"
                self.error = str(ResourceError("", problem, "Choose a smaller part"))
            else:
                self.error = f"an unexpected {type(error).__name__} occurred: {error}"
