"""The streams stdout and stderr: no name, no full disk and no closed stream may change how a command ends."""

from __future__ import annotations

import io
import os
import sys
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


def discard_output(stream: TextIO) -> None:
    """Drop what is still buffered for a stream, which Python would try to write again at its end."""
    # Where the stream is not a file, as in a notebook, there is nothing to do.
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
