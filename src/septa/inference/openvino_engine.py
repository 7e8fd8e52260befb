"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import ModelError
from septa.inference import _cache
from septa.inference.graph import Run

_LARGEST = 64 * 2**20
"""Bytes of a compiled graph, with all weights, beyond which it is not kept for other processes."""
_SHAPES = 8
"""Sizes of images for which compiled graphs are kept, in this process and for others."""


def library() -> Any:
    """The package, which does not tell its makers that it is used: it would with every import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def load(graph: bytes, threads: int, weights: bytes | None = None) -> Run:
    """Load a graph for images ``CYX`` of any size of its grid: ONNX bytes, or OpenVINO's own XML with its weights.

    In float32: what OpenVINO takes by default on CPUs that know bfloat16 keeps three digits. It is compiled for each
    size anew, and what comes of that kept for the next process: graphs for any size are slower, and 2026.4 computes
    those of 8-bit integers wrongly.
    """
    openvino = library()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    core = openvino.Core()
    cpu = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    digests = [sha256(part).hexdigest() for part in (graph, weights or b"")]
    key = " ".join(map(str, ["openvino", openvino.get_version(), *digests, settings, *cpu]))

    @cache
    def model() -> Any:
        if weights is None:
            return core.read_model(graph)
        try:
            return core.read_model(graph, weights)
        except RuntimeError as error:
            why = " ".join(str(error).split())[:160]
            problem = f"OpenVINO {openvino.get_version()} does not read its integers ({why})"
            raise ModelError("model", problem, "run 'septa quantize' again, or give --engine torch") from error

    requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
    known: set[tuple[int, ...]] = set()

    def compiled(shape: tuple[int, ...]) -> Any:
        if (found := _cache.find(f"{key} {shape}")) is not None:
            with suppress(RuntimeError):  # it does not take its own any more
                return core.import_model(found, "CPU", settings)
        sized = model().clone()
        sized.reshape([1, *shape])
        made = core.compile_model(sized, "CPU", settings)
        if shape not in known and len(known) < _SHAPES:  # who has images of all sizes does not come back to them
            known.add(shape)
            blob = made.export_model().getvalue()
            if len(blob) <= _LARGEST:
                _cache.keep(f"{key} {shape}", blob)
        return made

    def request_for(shape: tuple[int, ...]) -> Any:
        if shape not in requests:
            while len(requests) >= _SHAPES:
                requests.popitem(last=False)
            requests[shape] = compiled(shape).create_infer_request()
        requests.move_to_end(shape)
        return requests[shape]

    def run(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        request = request_for(image_cyx.shape)
        request.infer([image_cyx[None]], share_inputs=True)
        logits: NDArray[np.float32] = request.get_output_tensor(0).data[0].copy()
        return logits

    return run
