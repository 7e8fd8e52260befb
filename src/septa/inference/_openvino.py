"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.inference._graph import Run

_SHAPES = 8
"""Sizes of images for which compiled graphs are kept."""


def library() -> Any:
    """The package, which does not tell its makers that it is used: it would with every import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def load(graph: bytes, threads: int, weights: bytes | None = None) -> Run:
    """Load a graph for images ``CYX`` of any size of its grid: ONNX bytes, or OpenVINO's own XML with its weights.

    In float32: what OpenVINO takes by default on CPUs that know bfloat16 keeps three digits. It is compiled for each
    size anew, which takes a fraction of a second: graphs for any size are slower, and 2026.4 computes those of 8-bit
    integers wrongly.
    """
    openvino = library()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    core = openvino.Core()
    model = core.read_model(graph) if weights is None else core.read_model(graph, weights)
    requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def request_for(shape: tuple[int, ...]) -> Any:
        if shape not in requests:
            while len(requests) >= _SHAPES:
                requests.popitem(last=False)
            sized = model.clone()
            sized.reshape([1, *shape])
            requests[shape] = core.compile_model(sized, "CPU", settings).create_infer_request()
        requests.move_to_end(shape)
        return requests[shape]

    def run(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        request = request_for(image_cyx.shape)
        request.infer([image_cyx[None]], share_inputs=True)
        logits: NDArray[np.float32] = request.get_output_tensor(0).data[0].copy()
        return logits

    return run
