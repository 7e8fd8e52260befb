"""The engine that runs a net with OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import ModelError, is_out_of_memory
from septa.inference import _cache
from septa.inference.graph import translate_engine_errors

_LARGEST = 64 * 2**20
"""Size in bytes, with all weights, up to which a compiled graph is kept for other processes."""
_SHAPES = 8
"""Number of image sizes for which compiled graphs are kept, in this process and for others."""


def import_openvino() -> Any:
    """Import the package without its telemetry, which would report each import to the makers of OpenVINO."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVINOEngine:
    """Engine for images of any size on the grid of the net that the graph was made of.

    The graph computes in float32: on a CPU with bfloat16, OpenVINO would use that by default, which keeps three
    digits. It is compiled for each size of image, and the result is kept in the cache for the next process. A graph
    compiled for any size is slower, and OpenVINO 2026.4 computes 8-bit integers wrongly with it.

    Parameters
    ----------
    graph
        ONNX bytes, or OpenVINO's XML if ``weights`` are given.
    threads
        Number of threads.
    weights
        Constants of the XML.
    """

    def __init__(self, graph: bytes, threads: int, weights: bytes | None = None) -> None:
        self._graph = graph
        self._weights = weights
        self._openvino = import_openvino()
        self._core = self._openvino.Core()
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        cpu = [self._core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        digests = [sha256(part).hexdigest() for part in (graph, weights or b"")]
        version = self._openvino.get_version()
        self._key = " ".join(map(str, ["openvino", version, *digests, self._settings, *cpu]))
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._kept: set[tuple[int, ...]] = set()

    def __call__(self, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the logits of one image; see `Engine`.

        Raises
        ------
        ModelError
            This version of OpenVINO cannot read the 8-bit integers.
        """
        with translate_engine_errors("openvino"):
            request = self._request_for(image_cyx.shape)
            request.infer([image_cyx[None]], share_inputs=True)
            logits_kyx: NDArray[np.float32] = request.get_output_tensor(0).data[0].copy()
        return logits_kyx

    def run_many(self, images: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each image; see `Engine`."""
        return map(self, images)

    def _request_for(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            while len(self._requests) >= _SHAPES:
                self._requests.popitem(last=False)
            self._requests[shape] = self._compile(shape).create_infer_request()
        self._requests.move_to_end(shape)
        return self._requests[shape]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        key = f"{self._key} {shape}"
        if (found := _cache.find(key)) is not None:
            with suppress(RuntimeError):  # OpenVINO may refuse a graph that another build compiled
                return self._core.import_model(found, "CPU", self._settings)
        sized = self._net.clone()
        sized.reshape([1, *shape])
        compiled = self._core.compile_model(sized, "CPU", self._settings)
        # Images of many sizes rarely come back to one of them, so that keeping them all would only fill the cache.
        if shape not in self._kept and len(self._kept) < _SHAPES:
            self._kept.add(shape)
            blob = compiled.export_model().getvalue()
            if len(blob) <= _LARGEST:
                _cache.keep(key, blob)
        return compiled

    @cached_property
    def _net(self) -> Any:
        """The graph as OpenVINO has read it."""
        if self._weights is None:
            return self._core.read_model(self._graph)
        try:
            return self._core.read_model(self._graph, self._weights)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            problem = f"OpenVINO {self._openvino.get_version()} cannot read its 8-bit integers"
            raise ModelError("model", problem, "Run 'septa quantize' again, or give --engine torch") from error
