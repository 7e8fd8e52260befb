"""The process that predicts for the server, within a limit of memory; see `septa.app.predictor`.

It reads requests from its standard input and writes answers to its standard output; see `septa.app.wire`. The last
model stays loaded. Segmentations are computed one after the other; objects are found again by other thresholds
meanwhile.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from septa import runtime
from septa.errors import ResourceError, SeptaError, is_out_of_memory
from septa.notices import Notices

from .edits import Part
from .thresholds import Thresholds
from .wire import Array, read_message, write_message

if TYPE_CHECKING:
    from .segmentation import LoadedModel, NetOutput

_WARM_UP = 128
"""Side of the image that is segmented when a model is loaded ahead of its use, pixels."""
_DISPENSABLE = 500
"""Score by which Linux ends this process before the server when the memory of the machine is exhausted."""


class Stopped(Exception):
    """The server has cancelled a request."""


class Worker:
    """Answers to requests.

    Parameters
    ----------
    target
        Pipe to the server.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._stops: dict[int, threading.Event] = {}
        self._loaded: tuple[tuple[str, int], LoadedModel] | None = None
        self._outputs: dict[int, NetOutput] = {}
        self._net = ThreadPoolExecutor(1)
        self._decoding = ThreadPoolExecutor(1)

    def serve(self, source: BinaryIO) -> None:
        """Answer requests until the source ends."""
        with suppress(EOFError):
            while True:
                request, arrays = read_message(source)
                number, action = request.pop("number"), request.pop("do")
                if action == "cancel":
                    if number in self._stops:
                        self._stops[number].set()
                elif action == "forget":
                    self._outputs.pop(number, None)
                elif action == "decode":
                    self._decoding.submit(self._answer, number, self._decode, request, arrays)
                else:
                    self._stops[number] = threading.Event()
                    do = {"segment": self._segment, "warm": self._warm}[action]
                    self._net.submit(self._answer, number, do, request, arrays)

    def _send(self, number: int, values: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
        with self._lock:
            write_message(self._target, {"number": number, **values}, arrays)

    def _answer(self, number: int, do: Callable[..., None], request: dict[str, Any], arrays: list[Array]) -> None:
        """Do what a request asks; an error becomes an answer."""
        where = str(request.get("where", "image"))
        try:
            do(number, request, arrays)
        except Stopped:
            self._send(number, {"is": "cancelled"})
        except BrokenPipeError:
            pass
        except SeptaError as error:
            kind = "resource" if isinstance(error, ResourceError) else "input"
            self._send(number, {"is": "error", "error": [kind, str(error.where), error.problem, error.remedy]})
        except Exception as error:
            kind = "memory" if is_out_of_memory(error) else "unexpected"
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self._send(number, {"is": "error", "error": [kind, where, text, ""]})
        finally:
            self._stops.pop(number, None)

    def _load(self, path: str, name: str) -> LoadedModel:
        from .segmentation import LoadedModel

        key = path, Path(path).stat().st_mtime_ns
        if self._loaded is None or self._loaded[0] != key or self._loaded[1].name != name:
            self._loaded = None  # two models need not be in memory
            self._loaded = key, LoadedModel.load(Path(path), name)
        return self._loaded[1]

    def _warm(self, number: int, request: dict[str, Any], arrays: list[Array]) -> None:
        """Load a model, and segment a small image of noise, so that everything is compiled; unless a request waits."""
        from .segmentation import NetRun

        loaded = self._load(request["path"], request["name"])
        if len(self._stops) > 1:  # somebody waits already
            return
        noise = np.random.default_rng(0).integers(0, 255, (loaded.model.channels, _WARM_UP, _WARM_UP), np.uint8)
        segmentation = NetRun(where="image", tile=_WARM_UP)
        output = segmentation.run(loaded, noise, self._make_report(number), Notices(), lambda *_: None)
        output.decode(output.first_thresholds)
        self._send(number, {"is": "done"})

    def _segment(self, number: int, request: dict[str, Any], arrays: list[Array]) -> None:
        from .segmentation import NetRun

        report = self._make_report(number)
        report(0, "reading the model")
        visible = None if request["visible"] is None else Part(*request["visible"])
        segmentation = NetRun(where=request["where"], tile=request["tile"], visible=visible)
        loaded, notices = self._load(request["path"], request["name"]), Notices()

        def show(box: Part, labels_yx: Array) -> None:
            self._send(number, {"is": "part", "box": [box.top, box.left, box.bottom, box.right]}, [labels_yx])

        output = segmentation.run(loaded, arrays[0], report, notices, show)
        labels_yx, classes = output.decode(output.first_thresholds)
        report(1, "finding the objects")
        if request["keep"]:
            self._outputs[number] = output
        marks = output.marks
        found = {
            "classes": list(classes.items()),
            "table": marks.classes,
            "pixels": marks.pixels,
            "thresholds": output.first_thresholds.to_json(),
            "curve": output.model.confidence_curve.to_json(),
            "lines": notices.lines(),
            "warnings": notices.warnings(),
        }
        self._send(number, {"is": "done", **found}, [labels_yx, output.probability_yx])

    def _make_report(self, number: int) -> Callable[[float, str], None]:
        stop = self._stops[number]

        def report(share: float, text: str) -> None:
            if stop.is_set():
                raise Stopped
            self._send(number, {"is": "progress", "share": share, "text": text})

        return report

    def _decode(self, number: int, request: dict[str, Any], arrays: list[Array]) -> None:
        output = self._outputs[request["output"]]
        labels_yx, classes = output.decode(Thresholds.from_json(request["thresholds"]))
        self._send(number, {"is": "done", "classes": list(classes.items())}, [labels_yx])


def limit_allocations(more: int) -> None:
    """Let this process allocate at most ``more`` bytes beyond what it has, on systems that can limit it.

    Only memory that is written counts, since GPUs reserve addresses beyond all memory.
    """
    with suppress(ImportError, AttributeError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + more
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_DISPENSABLE), encoding="ascii")


def run_predictor() -> None:
    """Serve the parent process; what libraries print goes to the standard error."""
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    runtime.prepare()
    limit_allocations(int(sys.argv[1]))
    with suppress(BrokenPipeError, KeyboardInterrupt):
        Worker(target).serve(sys.stdin.buffer)
    os._exit(0)  # what is still computed is of no use to anyone


if __name__ == "__main__":
    run_predictor()
