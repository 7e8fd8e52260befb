"""The engine that runs a net with ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from septa.inference.graph import translate_engine_errors


class OnnxRuntimeEngine:
    """Engine for images of any size on the grid of the net that the graph was made of.

    Parameters
    ----------
    graph
        ONNX bytes.
    threads
        Number of threads.

    Raises
    ------
    InputError
        ONNX Runtime cannot run this graph.
    """

    def __init__(self, graph: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait would spin otherwise, and take a core from the threads that read and write.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with translate_engine_errors("onnxruntime"):
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        (self._input,) = (one.name for one in self._session.get_inputs())

    def __call__(self, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the logits of one image; see `Engine`."""
        with translate_engine_errors("onnxruntime"):
            logits_kyx: NDArray[np.float32] = self._session.run(None, {self._input: image_cyx[None]})[0][0]
        return logits_kyx

    def run_many(self, images: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each image; see `Engine`."""
        return map(self, images)
