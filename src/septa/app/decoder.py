"""Decoding in processes of their own: an image that is a bomb neither kills the server nor makes it wait for long."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, ResourceError
from septa.images import Calibration

from .decode_worker import LENGTH

Array = NDArray[Any]
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
        self._memory = min(memory, _measure_memory() // 2)
        self._seconds = seconds
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        self._running: set[_Process] = set()
        self._faults: dict[tuple[str, str], InputError | ResourceError] = {}
        for _ in range(PROCESSES):
            self._idle.put(None)

    def close(self) -> None:
        """End the processes."""
        for process in list(self._running):
            process.kill()

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
                process = _Process(self._memory)
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
                process.kill()
                self._running.discard(process)
                process = None
            raise error from None
        finally:
            self._idle.put(process)
        if "error" in found:
            kind, where, problem, remedy = found["error"]
            raise (ResourceError if kind == "resource" else InputError)(where, problem, remedy)
        return found, values


class _Process:
    """One process, which answers one request at a time."""

    def __init__(self, memory: int) -> None:
        command = [sys.executable, "-m", "septa.app.decode_worker", str(memory)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads},
            start_new_session=True,
        )
        self.is_late = False

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    def ask(self, request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], Array | None]:
        """Send a request and return the answer; EOFError if the process ends or is ended because it is late."""
        watch = threading.Timer(seconds, self._end_late)
        watch.daemon = True
        watch.start()
        try:
            return self._exchange(request)
        except (OSError, ValueError, MemoryError):
            self.kill()
            raise EOFError from None
        finally:
            watch.cancel()

    def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], Array | None]:
        send: Any = self._process.stdin
        receive: Any = self._process.stdout
        text = json.dumps(request).encode()
        send.write(LENGTH.pack(len(text)) + text)
        send.flush()
        head = receive.read(LENGTH.size)
        if len(head) < LENGTH.size:
            raise EOFError
        found: dict[str, Any] = json.loads(receive.read(LENGTH.unpack(head)[0]))
        if "bytes" not in found:
            return found, None
        values = np.empty(found["shape"], np.dtype(found["dtype"]))
        view, done = memoryview(values.reshape(-1).view(np.uint8).data), 0
        while done < found["bytes"]:
            part = receive.readinto(view[done:])
            if not part:
                raise EOFError
            done += part
        return found, values

    def _end_late(self) -> None:
        self.is_late = True
        with suppress(OSError):
            self._process.kill()


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


def _measure_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2 * MEMORY
