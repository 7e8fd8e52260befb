"""A process of the app that works for the server: it reads messages, answers them, and ends with the server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .wire import Array, read_message, write_message


class Process:
    """A process that runs a module of the app.

    It has a session of its own, so that Ctrl-C in the terminal reaches only the server. What it prints goes to the
    standard error of the server.

    Parameters
    ----------
    module
        Name of the module, which reads messages from its standard input and writes them to its standard output.
    arguments
        Its arguments.
    environment
        Variables that it gets besides those of the server.

    Raises
    ------
    OSError
        The system cannot start it.
    """

    def __init__(self, module: str, arguments: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Number of the process in the system."""
        return self._process.pid

    def send(self, values: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
        """Send a message; OSError or ValueError if the process has ended."""
        assert self._process.stdin is not None
        write_message(self._process.stdin, values, arrays)  # type: ignore[arg-type]

    def receive(self) -> tuple[dict[str, Any], list[Array]]:
        """Wait for a message; EOFError, OSError or ValueError if the process has ended."""
        assert self._process.stdout is not None
        return read_message(self._process.stdout)  # type: ignore[arg-type]

    def end(self) -> None:
        """Ask the system to end the process at once; whoever waits for a message gets an error."""
        with suppress(OSError):
            self._process.kill()

    def close(self) -> int:
        """End the process, close its pipes, and return its exit code: the negative number of a signal that ended it."""
        with suppress(OSError, ValueError):  # what is buffered cannot be written any more
            if self._process.stdin is not None:
                self._process.stdin.close()
        self.end()
        code = self._process.wait()
        with suppress(OSError, ValueError):
            if self._process.stdout is not None:
                self._process.stdout.close()
        return code
