"""The process that decodes images for the server, within limits of memory; see `septa.app.decoder`.

It reads requests from its standard input and writes answers to its standard output; see `septa.app.wire`.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.errors import ResourceError, SeptaError, is_out_of_memory
from septa.images import Selection, Source, count_images, open_source, read_info, read_labels

from .wire import read_message, write_message

Array = NDArray[Any]
_OPEN = 8
"""Number of files that stay open."""


class Files:
    """The files that are open in this process."""

    def __init__(self) -> None:
        self._sources: OrderedDict[tuple[Any, ...], Source] = OrderedDict()

    def describe(self, path: Path, image: int | None, **_: Any) -> tuple[dict[str, Any], None]:
        """Describe the header of a file, or of one of its images."""
        count = count_images(path)
        if image is None and count > 1:
            return {"images": count}, None
        with open_source(path, Selection(image=image)) as source:
            axes = "TZ" if path.is_dir() else read_info(path, image=image).page_axes
            found = {
                "images": count,
                "axes": "ZT" if axes == "ZT" else "TZ",
                "shape": source.shape,
                "dtype": source.dtype.str,
                "levels": source.levels,
                "chunk": source.chunk,
                "calibration": source.calibration.to_json(),
                "names": source.channel_names,
                "color": source.channel_names == ("red", "green", "blue"),
            }
            return found, None

    def read(
        self, path: Path, image: int | None, stamp: str, level: int, t: int, z: int, box: list[int], shrink: int = 1
    ) -> tuple[dict[str, Any], Array]:
        """Read a window, rows and columns as (top, left, bottom, right); each ``shrink`` x ``shrink`` becomes one."""
        key = (path, image, stamp, level)
        if key not in self._sources:
            self._sources[key] = open_source(path, Selection(level=level, image=image))
            while len(self._sources) > _OPEN:
                self._sources.popitem(last=False)[1].close()
        self._sources.move_to_end(key)
        top, left, bottom, right = box
        values_cyx = self._sources[key].read((top, bottom), (left, right), t=t, z=z)
        return {}, values_cyx if shrink == 1 else shrink_image(values_cyx, shrink)

    def labels(self, path: Path, page: int, **_: Any) -> tuple[dict[str, Any], Array]:
        """Read a page of a label file."""
        raw = read_labels(path, page)
        return {"kind": raw.kind, "pages": read_info(path).pages}, raw.array


def shrink_image(image_cyx: Array, factor: int) -> Array:
    """Return an image in which each pixel is the mean of ``factor`` x ``factor`` pixels, fewer at the far edges."""
    _, height, width = image_cyx.shape
    size = -(-width // factor), -(-height // factor)
    padded = np.pad(image_cyx, ((0, 0), (0, size[1] * factor - height), (0, size[0] * factor - width)), mode="edge")
    kept = padded.dtype if padded.dtype in (np.uint8, np.uint16, np.float32) else np.dtype(np.float64)
    planes = [cv2.resize(plane.astype(kept, copy=False), size, interpolation=cv2.INTER_AREA) for plane in padded]
    return np.stack(planes).astype(image_cyx.dtype)


def limit_memory(more: int) -> None:
    """Let this process reserve at most ``more`` bytes beyond what it has, on systems that can limit it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def answer(files: Files, request: dict[str, Any]) -> tuple[dict[str, Any], Array | None]:
    """Do what a request asks; an error becomes an answer."""
    where = Path(request["path"])
    action: Callable[..., tuple[dict[str, Any], Array | None]] = getattr(files, request.pop("do"))
    try:
        return action(**{**request, "path": where})
    except SeptaError as error:
        kind = "resource" if isinstance(error, ResourceError) else "input"
        return {"error": [kind, str(error.where), error.problem, error.remedy]}, None
    except Exception as error:
        if is_out_of_memory(error):
            problem = "decoding it needs more memory than the app allows"
            return {"error": ["resource", str(where), problem, "Save the image in tiles, or in parts"]}, None
        problem = f"the image cannot be decoded ({type(error).__name__})"
        return {"error": ["input", str(where), problem, "Export it again"]}, None


def answer_requests(source: BinaryIO, target: BinaryIO) -> None:
    """Answer requests until the source ends."""
    files = Files()
    with suppress(EOFError):
        while True:
            request, _ = read_message(source)
            found, values = answer(files, request)
            write_message(target, found, [] if values is None else [values])


def main() -> None:
    """Serve the parent process; what libraries print goes to the standard error."""
    limit_memory(int(sys.argv[1]))
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(BrokenPipeError, KeyboardInterrupt):
        answer_requests(sys.stdin.buffer, target)


if __name__ == "__main__":
    main()
