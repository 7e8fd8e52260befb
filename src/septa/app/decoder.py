"""Decoding in processes of their own: an image that is a bomb neither kills the server nor makes it wait for long."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from septa.errors import InputError, ResourceError
from septa.images import Calibration
from septa.runtime import find_memory_limit

from .process import Process
from .wire import Array

MEMORY = 4 * 2**30
"""Most bytes that a process reserves to decode an image; half of the machine's memory if that is less."""
SECONDS = 30.0
"""Longest time that a request may take, seconds."""
PROCESSES = 2
"""Number of processes: while one is busy with a large file, the other one serves tiles."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of an image.

    Attributes
    ----------
    images
        Number of images in the file; if it is above 1 and none was chosen, the rest is empty.
    axes
        ``ZT`` if the planes of a frame are not next to each other in the file, else ``TZ``.
    shape
        Sizes of T, C, Z, Y, X.
    dtype
        Type of the values, as numpy writes it.
    levels
        (height, width) of each level, the full size first.
    chunk
        (height, width) of the pixels that are decoded at once.
    calibration, names
        Scale, and the name of each channel.
    color
        True if the channels are red, green and blue.
    """

    images: int
    axes: str = "TZ"
    shape: tuple[int, int, int, int, int] = (1, 1, 1, 1, 1)
    dtype: str = "|u1"
    levels: tuple[tuple[int, int], ...] = ()
    chunk: tuple[int, int] = (1, 1)
    calibration: Calibration = field(default_factory=Calibration)
    names: tuple[str, ...] = ()
    color: bool = False

    @property
    def pages(self) -> int:
        """Number of planes."""
        return self.shape[0] * self.shape[2]

    def find_plane(self, page: int) -> tuple[int, int]:
        """Return the numbers (t, z) of a page, which are counted in the order of the file."""
        frames, planes = self.shape[0], self.shape[2]
        return (page % frames, page // frames) if self.axes == "ZT" else (page // planes, page % planes)


class Decoders:
    """The processes that decode; they are started when they are needed.

    Methods may be called from several threads.

    Parameters
    ----------
    memory, seconds
        Limits of one request; see `MEMORY` and `SECONDS`.
    """

    def __init__(self, memory: int = MEMORY, seconds: float = SECONDS) -> None:
        self._memory = min(memory, find_memory_limit() // 2)
        self._seconds = seconds
        self._idle: queue.LifoQueue[_Decoder | None] = queue.LifoQueue()
        self._running: set[_Decoder] = set()
        self._faults: dict[tuple[str, str], InputError | ResourceError] = {}
        for _ in range(PROCESSES):
            self._idle.put(None)

    def close(self) -> None:
        """End the processes."""
        for process in list(self._running):
            process.close()

    def describe(self, path: Path, image: int | None = None) -> Header:
        """Read the header of a file.

        Raises
        ------
        InputError, ResourceError
            The file is not an image, is damaged, or exceeds the limits.
        """
        found, _ = self._ask(path, do="describe", image=image)
        if "shape" not in found:
            return Header(images=found["images"])
        return Header(
            images=found["images"],
            axes=found["axes"],
            shape=tuple(found["shape"]),
            dtype=found["dtype"],
            levels=tuple((int(height), int(width)) for height, width in found["levels"]),
            chunk=tuple(found["chunk"]),
            calibration=Calibration.from_json(found["calibration"]),
            names=tuple(found["names"]),
            color=found["color"],
        )

    def read(
        self, path: Path, image: int | None, plane: tuple[int, int], level: int, box: tuple[int, ...], shrink: int = 1
    ) -> Array:
        """Read a window of a plane (t, z), as (top, left, bottom, right) of a level, ``CYX``.

        With ``shrink``, each pixel is the mean of ``shrink`` x ``shrink`` pixels. Errors as for `describe`.
        """
        request = {"image": image, "level": level, "t": plane[0], "z": plane[1], "box": box, "shrink": shrink}
        found = self._ask(path, do="read", **request)[1]
        assert found is not None
        return found

    def read_labels(self, path: Path, page: int = 0) -> tuple[str, int, Array]:
        """Return the kind of a label file, its number of pages, and the values of one of them; errors as for `read`."""
        found, values = self._ask(path, do="labels", page=page)
        assert values is not None
        return found["kind"], found["pages"], values

    def _ask(self, path: Path, **request: Any) -> tuple[dict[str, Any], Array | None]:
        stamp = make_stamp(path)
        if (fault := self._faults.get((str(path), stamp))) is not None:
            raise fault.with_traceback(None)
        process = self._idle.get()
        try:
            if process is None:
                process = _Decoder(self._memory)
                self._running.add(process)
            found, values = process.ask({**request, "path": str(path), "stamp": stamp}, self._seconds)
        except EOFError:
            if process is not None and process.is_late:
                problem = f"decoding takes longer than the {self._seconds:.0f} s that the app allows"
            else:
                problem = "decoding it ended the process that decodes, or needs more memory than the app allows"
            error = ResourceError(path, problem, "Save the image in tiles, or in parts")
            self._faults[str(path), stamp] = error
            if process is not None:
                process.close()
                self._running.discard(process)
                process = None
            raise error from None
        finally:
            self._idle.put(process)
        if "error" in found:
            kind, where, problem, remedy = found["error"]
            raise (ResourceError if kind == "resource" else InputError)(where, problem, remedy)
        return found, values


class _Decoder:
    """One process, which answers one request at a time."""

    def __init__(self, memory: int) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = Process("septa.app.decode_worker", [str(memory)], threads)
        self.is_late = False

    def ask(self, request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], Array | None]:
        """Send a request and return the answer; EOFError if the process ends or is ended because it is late."""
        watch = threading.Timer(seconds, self._end_late)
        watch.daemon = True
        watch.start()
        try:
            self.process.send(request)
            found, arrays = self.process.receive()
        except (EOFError, OSError, ValueError, MemoryError):
            self.close()
            raise EOFError from None
        finally:
            watch.cancel()
        return found, arrays[0] if arrays else None

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def _end_late(self) -> None:
        self.is_late = True
        self.process.end()


def make_stamp(path: Path) -> str:
    """Return a text that changes when a file does.

    Raises
    ------
    InputError
        The file does not exist any more.
    """
    try:
        status = path.stat()
    except OSError:
        raise InputError(path.name, "the file does not exist any more", "Reload the page") from None
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
