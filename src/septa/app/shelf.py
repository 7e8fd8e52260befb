"""Things that are open: each is made once, also if several threads ask for it, and the oldest are put away."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shelf(Generic[T]):
    """Values by their keys; making one keeps nobody from the others.

    Parameters
    ----------
    is_full
        Function from the values, the oldest first, to True if the oldest one that can go must go.
    can_go
        Function from a key and its value to False if the value must stay.
    close
        Function that receives each value that has left.
    """

    def __init__(
        self,
        is_full: Callable[[list[T]], bool],
        can_go: Callable[[Hashable, T], bool] = lambda key, value: True,
        close: Callable[[T], None] = lambda value: None,
    ) -> None:
        self._is_full = is_full
        self._can_go = can_go
        self._close = close
        self._lock = threading.RLock()
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._gates: dict[Hashable, threading.Lock] = {}

    def find(self, key: Hashable) -> T | None:
        """Return a value that is there, and make it the newest; None if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key; it is made if it is not there, and errors of this are raised."""
        found = self.find(key)
        if found is not None:
            return found
        with self._lock:
            gate = self._gates.setdefault(key, threading.Lock())
        with gate:
            found = self.find(key)
            if found is None:
                found = make()
                with self._lock:
                    self._values[key] = found
                    self._gates.pop(key, None)
                self._put_away(key)
            return found

    def drop(self, key: Hashable) -> None:
        """Put a value away."""
        with self._lock:
            value = self._values.pop(key, None)
        if value is not None:
            self._close(value)

    def _put_away(self, newest: Hashable) -> None:
        with self._lock:
            for key, value in list(self._values.items()):
                if not self._is_full(list(self._values.values())):
                    return
                if key != newest and self._can_go(key, value):
                    del self._values[key]
                    self._close(value)
