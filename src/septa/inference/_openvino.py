"""OpenVINO on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.inference._graph import Run


def load(graph: bytes, threads: int) -> Run:
    """Compile a graph (ONNX bytes) for images ``CYX`` of any size of its grid.

    In float32: what OpenVINO takes by default on CPUs that know bfloat16 keeps three digits.
    """
    import openvino

    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()

    def run(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        request.infer([image_cyx[None]], share_inputs=True)
        logits: NDArray[np.float32] = request.get_output_tensor(0).data[0].copy()
        return logits

    return run
