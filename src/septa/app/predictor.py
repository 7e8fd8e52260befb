"""Predictions in a process of its own: it keeps the model, and its death is one error line."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, ResourceError, SeptaError
from septa.objects import ConfidenceCurve
from septa.runtime import find_memory_limit

from .edits import Part
from .folder import Marks
from .jobs import Cancelled, Watch
from .models import ModelChoice
from .process import Process
from .thresholds import Thresholds
from .wire import Array

Int32 = NDArray[np.int32]
Show = Callable[[Part, Int32], object]
"""Function that receives a part of an image, and labels of it."""
TILE = 768
"""Side of a tile, pixels: small enough that progress is shown and a job can be cancelled."""
SHARE = 0.75
"""Share of the memory of the machine that a prediction may take."""
_PATIENCE_S = 10.0
"""Seconds that a cancelled prediction may take to stop; then the process is ended."""
_KILLED = -9
_ABORTED = -6


@dataclass(frozen=True, kw_only=True)
class FoundLabels:
    """The labels that a model has found in an image.

    Attributes
    ----------
    number
        Number of the output of the net that the process keeps.
    marks
        Marks of the labels: the model and its classes.
    thresholds
        Thresholds of the model.
    labels_yx
        Object ids or places of classes, int32; empty once they are kept elsewhere.
    classes
        Class of each object.
    probability_yx
        Probability of foreground, or of the class that a pixel has, float32.
    curve
        Curve of confidences.
    lines, warnings
        Notes and warnings, and the warnings alone.
    """

    number: int
    marks: Marks
    thresholds: Thresholds
    labels_yx: Int32
    classes: Mapping[int, int]
    probability_yx: NDArray[np.float32]
    curve: ConfidenceCurve
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def drop_labels(self) -> FoundLabels:
        """Return it without the labels."""
        return replace(self, labels_yx=np.zeros((0, 0), np.int32), classes={})


class Predictor:
    """The process that predicts; it is started when it is needed, and again after its death.

    Methods may be called from several threads.

    Parameters
    ----------
    memory
        Most bytes that it may take; None for `SHARE` of the memory of the machine.
    """

    def __init__(self, memory: int | None = None) -> None:
        self._memory = int(SHARE * find_memory_limit()) if memory is None else memory
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._process: Process | None = None
        self._reader: threading.Thread | None = None
        self._answers: dict[int, queue.SimpleQueue[tuple[dict[str, Any], list[Array]]]] = {}
        self._kept: set[int] = set()
        self._closed = False

    def warm(self, choice: ModelChoice) -> None:
        """Start the process, and let it load a model, without waiting for it."""
        with suppress(SeptaError):
            self._ask({"do": "warm", "path": str(choice.path), "name": choice.name})

    def segment(
        self,
        watch: Watch,
        where: str,
        choice: ModelChoice,
        image_cyx: Array,
        *,
        visible: Part | None = None,
        show: Show | None = None,
    ) -> FoundLabels:
        """Segment an image.

        Parameters
        ----------
        watch
            Receives the progress, and says when to stop.
        where
            Name of the image.
        choice
            Model.
        image_cyx
            Values of the image.
        visible
            Part of the image that is computed first; None for none.
        show
            Receives this part, and the labels that are found in it alone; None if the output of the net is not kept.

        Raises
        ------
        Cancelled
            The watch says so.
        InputError
            The image does not fit the model, or the model cannot be used.
        ResourceError
            The memory is exhausted, or the process has ended.
        """
        part = None if visible is None else [visible.top, visible.left, visible.bottom, visible.right]
        request = {"do": "segment", "where": where, "path": str(choice.path), "name": choice.name, "tile": TILE}
        number = self._ask({**request, "visible": part, "keep": show is not None}, [image_cyx])
        for values, arrays in self._follow(number, where, watch):
            if values["is"] == "progress":
                watch.report(values["share"], values["text"])
            elif values["is"] == "part" and show is not None:
                show(Part(*values["box"]), arrays[0])
            elif values["is"] == "done":
                if show is not None:
                    self._kept.add(number)
                table = tuple((int(value), str(text)) for value, text in values["table"])
                return FoundLabels(
                    number=number,
                    marks=Marks(model=choice.name, classes=table, pixels=values["pixels"]),
                    thresholds=Thresholds.from_json(values["thresholds"]),
                    labels_yx=arrays[0],
                    classes=dict(values["classes"]),
                    probability_yx=arrays[1],
                    curve=ConfidenceCurve.from_json(values["curve"]),
                    lines=tuple(values["lines"]),
                    warnings=tuple(values["warnings"]),
                )
        raise AssertionError("answers end with the labels or an error")

    def keeps(self, number: int) -> bool:
        """Return True if the output of the net of a prediction is kept."""
        return number in self._kept

    def forget(self, number: int) -> None:
        """Drop the output of the net of a prediction."""
        with self._lock:
            self._kept.discard(number)
            with suppress(OSError, ValueError):
                if self._process is not None:
                    self._process.send({"do": "forget", "number": number})

    def decode(self, where: str, number: int, thresholds: Thresholds) -> tuple[Int32, dict[int, int]]:
        """Find the labels again from the kept output of the net: ids of objects and the class of each.

        Raises
        ------
        InputError
            The output is not kept any more.
        ResourceError
            The memory is exhausted, or the process has ended.
        """
        if not self.keeps(number):
            raise InputError(where, "the output of the net is not kept any more", "Segment the image again")
        own = self._ask({"do": "decode", "where": where, "output": number, "thresholds": thresholds.to_json()})
        for values, arrays in self._follow(own, where, None):
            if values["is"] == "done":
                return arrays[0], dict(values["classes"])
        raise AssertionError("answers end with the labels or an error")

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.end()

    # --- messages ---------------------------------------------------------------------------------------------------

    def _ask(self, values: dict[str, Any], arrays: Sequence[Array] = ()) -> int:
        """Send a request, start the process if there is none, and return the number of the request."""
        number = next(self._numbers)
        with self._lock:
            if self._closed:
                raise ResourceError("septa app", "the server stops", "Start it again")
            if self._process is None:
                self._start()
            assert self._process is not None
            self._answers[number] = queue.SimpleQueue()
            with suppress(OSError, ValueError):  # it has ended, which the thread that reads finds out
                self._process.send({**values, "number": number}, arrays)
        return number

    def _start(self) -> None:
        try:
            process = self._process = Process("septa.app.predict_worker", [str(self._memory)])
        except OSError as error:
            problem = f"the process that predicts did not start ({error.strerror})"
            raise ResourceError("septa app", problem, "Close other programs, then segment the image again") from None
        self._reader = threading.Thread(target=self._read, args=(process,), name="septa-answers", daemon=True)
        self._reader.start()

    def _read(self, process: Process) -> None:
        """Hand on the answers of a process until it ends."""
        with suppress(EOFError, OSError, ValueError, MemoryError):
            while True:
                values, arrays = process.receive()
                if (waiting := self._answers.get(values.pop("number"))) is not None:
                    waiting.put((values, arrays))
        code = process.close()
        with self._lock:
            self._process = None
            self._kept.clear()
            answers, self._answers = self._answers, {}
        for one in answers.values():
            one.put(({"is": "end", "code": code}, []))

    def _follow(self, number: int, where: str, watch: Watch | None) -> Any:
        """Yield the answers to a request; errors are raised."""
        answers = self._answers.get(number)
        asked: float | None = None
        try:
            while answers is not None:
                if watch is not None and watch.stop.is_set():
                    asked = self._cancel(number, asked)
                try:
                    values, arrays = answers.get(timeout=0.1)
                except queue.Empty:
                    continue
                if values["is"] == "cancelled" or (asked is not None and values["is"] == "end"):
                    raise Cancelled
                if values["is"] == "end":
                    raise _explain_end(where, values["code"])
                if values["is"] == "error":
                    raise self._explain_error(*values["error"])
                if asked is None:
                    yield values, arrays
                if values["is"] == "done":
                    if asked is not None:
                        self.forget(number)
                        raise Cancelled
                    return
            raise _explain_end(where, None)
        finally:
            self._answers.pop(number, None)

    def _cancel(self, number: int, asked: float | None) -> float:
        """Ask the process to stop a request; one that does not is ended. Return when it was asked."""
        with self._lock:
            process = self._process
            if asked is None and process is not None:
                with suppress(OSError, ValueError):
                    process.send({"do": "cancel", "number": number})
        if asked is None:
            return time.monotonic()
        if process is not None and time.monotonic() - asked > _PATIENCE_S:
            process.end()
        return asked

    def _explain_error(self, kind: str, where: str, problem: str, remedy: str) -> SeptaError:
        if kind == "memory":
            with self._lock:
                process, reader = self._process, self._reader
            if process is not None and reader is not None:
                process.end()  # what it still holds is unknown
                reader.join(_PATIENCE_S)  # the next request needs another process
            problem = f"segmenting it needs more than the {self._memory / 2**30:.1f} GiB of memory that the app allows"
            return ResourceError(where, problem, "Segment a part of it, or use 'septa predict'")
        if kind == "unexpected":
            return SeptaError(where, f"an unexpected error occurred ({problem})", "Report it, with the model and image")
        return (ResourceError if kind == "resource" else InputError)(where, problem, remedy)


def _explain_end(where: str, code: int | None) -> ResourceError:
    """Return the error of a process that has ended by itself."""
    if code in (_KILLED, _ABORTED):
        problem = "the system ended the process that predicts, perhaps because the memory was exhausted"
        return ResourceError(where, problem, "Close other programs, or segment a part of the image")
    problem = f"the process that predicts has ended{'' if code is None else f' with code {code}'}"
    return ResourceError(where, problem, "Segment the image again; the terminal of septa app may say why")
