"""Keep the last large chunk, so that the windows of one chunk do not decode it again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

LARGE_BYTES = 8 * 2**20
"""Bytes above which a decoded chunk is kept."""


class LargeChunk:
    """The last decoded chunk of an image whose chunks are large.

    Threads wait for each other, so that one chunk is decoded at a time. The old chunk is freed before the next one is
    decoded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: Hashable = None
        self._chunk: Any = None

    def get(self, key: Hashable, decode: Callable[[], Any]) -> Any:
        """Return the chunk of a key that is not None; ``decode`` is called unless it was the last one."""
        with self._lock:
            if self._key != key:
                self.clear()
                self._chunk = decode()
                self._key = key
            return self._chunk

    def clear(self) -> None:
        """Forget the chunk."""
        self._key = self._chunk = None
