"""A progress bar for the terminal, or for a notebook."""

from __future__ import annotations

import html
import sys
from types import TracebackType
from typing import Any, Self

from septa.progress_bar.event import ProgressEvent


def is_notebook() -> bool:
    """Return True if this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class ProgressBar:
    """A bar that shows each `ProgressEvent` that it is called with, for use as ``callback=``.

    A notebook shows it as HTML below the cell, a terminal in its last line, on stderr. Where there is neither, nothing
    is shown. The bar of a terminal disappears when it is closed, which happens by itself when the work is done.
    """

    def __init__(self) -> None:
        self._display: Any = None
        self._terminal: Any = None
        self._task: Any = None

    def __call__(self, event: ProgressEvent) -> None:
        """Show the state of the work."""
        if is_notebook():
            self._show_html(event)
        else:
            self._show_line(event)

    def __enter__(self) -> Self:
        """Return the bar."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar from the terminal; that of a notebook stays."""
        if self._terminal is not None:
            self._terminal.stop()
        self._terminal = self._task = self._display = None

    def _show_html(self, event: ProgressEvent) -> None:
        from IPython.display import HTML, display

        text = html.escape(event.describe())
        bar = HTML(f'<progress max="1" value="{event.share:.4f}"></progress> {text}')
        if self._display is None:
            self._display = display(bar, display_id=True)
        else:
            self._display.update(bar)

    def _show_line(self, event: ProgressEvent) -> None:
        if self._terminal is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            console = Console(stderr=True)
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
            self._terminal = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
            self._terminal.start()
            self._task = self._terminal.add_task("", total=1.0)
        self._terminal.update(self._task, description=event.describe(), completed=event.share)
        if event.share >= 1 and event.stage != "check":
            self.close()


def progress() -> ProgressBar:
    """Make a progress bar, for ``callback=`` of `septa.train` and of the predictions of a model.

    Returns
    -------
    ProgressBar
        Callable that shows each event, in a notebook or on a terminal. It is also a context manager.

    Examples
    --------
    >>> import septa
    >>> model = septa.train("cells", "cells.septa", callback=septa.progress())  # doctest: +SKIP
    >>> labels = model(["a.tif", "b.tif"], callback=septa.progress())  # doctest: +SKIP
    """
    return ProgressBar()
