"""Loops over pixels as machine code, compiled by numba when they are first run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Any


class Kernel:
    """A function of arrays and numbers that numba compiles at its first call.

    Neither numba is imported nor anything compiled before: together that takes seconds, which most uses of septa never
    need to spend. Threads that come meanwhile wait. While it runs the interpreter's lock is released. Its machine code
    is kept beside its file, else in the user's cache folder, as Python's own compiled files are.

    Examples
    --------
    >>> import numpy as np
    >>> @Kernel
    ... def double(values):
    ...     for i in range(values.size):
    ...         values[i] *= 2
    >>> values = np.array([1, 2, 3])
    >>> double(values)
    >>> values
    array([2, 4, 6])
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._lock = threading.Lock()
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        if self._compiled is None:
            with self._lock:
                return self._first_call(arguments)
        return self._compiled(*arguments)

    def _first_call(self, arguments: tuple[Any, ...]) -> Any:
        if self._compiled is not None:  # by another thread, meanwhile
            return self._compiled(*arguments)
        import numba

        try:
            compiled = numba.njit(nogil=True, cache=True)(self._function)
            result = compiled(*arguments)
        except Exception:  # whatever ails numba's cache: no folder can be written, the disk is full, a damaged file
            compiled = numba.njit(nogil=True)(self._function)
            result = compiled(*arguments)
        self._compiled = compiled
        return result


def load() -> None:
    """Make numba ready now, for a process that will need it, and not with its first kernel."""
    _nothing()


@Kernel
def _nothing() -> None:
    """The first kernel makes numba load what all need."""
