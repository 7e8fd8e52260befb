"""Saving in the background: after every edit the labels are written by a thread of their own."""

from __future__ import annotations

import queue
import threading

from .document import Document


class Saver:
    """The thread that saves documents, one after the other."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Document | None] = queue.Queue()
        self._waiting: set[Document] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="septa-saver", daemon=True)
        self._thread.start()

    def save(self, document: Document) -> None:
        """Save a document soon; several requests that wait become one."""
        with self._lock:
            if document not in self._waiting:
                self._waiting.add(document)
                self._queue.put(document)

    def flush(self) -> None:
        """Wait until everything is written."""
        self._queue.join()

    def close(self) -> None:
        """Write everything and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            document = self._queue.get()
            if document is None:
                self._queue.task_done()
                return
            with self._lock:
                self._waiting.discard(document)
            if document.version != document.saved_version or document.error is not None:
                document.save()
            self._queue.task_done()
