"""The streams stdout and stderr: no name, no full disk and no closed stream may change how a command ends."""

from __future__ import annotations

import io
import os
import sys
import warnings
from contextlib import suppress
from typing import TextIO

from septa import errors


def accept_any_text() -> None:
    """Make stdout and stderr write characters that their encoding lacks as backslash escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_error(error: errors.SeptaError) -> None:
    """Print an error as one line on stderr; if stderr cannot be written, the exit code alone reports the error."""
    if sys.stderr is None:  # it was closed before the start, and print would write to stdout
        return
    try:
        print(f"error: {error}", file=sys.stderr, flush=True)
    except OSError:
        discard_output(sys.stderr)


def print_warnings() -> None:
    """Print each of septa's Python warnings once, as one line on stderr."""
    show = warnings.showwarning

    def print_one(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, errors.SeptaWarning):
            show(message, category, filename, lineno, file, line)
        elif sys.stderr is not None:  # it was closed before the start
            with suppress(OSError):
                print(message, file=sys.stderr, flush=True)

    warnings.simplefilter("once", errors.SeptaWarning)
    warnings.showwarning = print_one


def discard_output(stream: TextIO) -> None:
    """Drop what is still buffered for a stream, which Python would try to write again at its end."""
    # Where the stream is not a file, as in a notebook, there is nothing to do.
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
