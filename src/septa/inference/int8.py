"""A net in 8-bit integers: what OpenVINO executes of it, and how that is made.

Weights get a scale for each channel, activations one for each tensor, found on sample images by NNCF's post-training
quantisation; see Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference. Before it the ranges of channels are made more equal, and after it the integers may be tuned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from septa.inference.graph import GridNet, accept_any_size
from septa.inference.openvino_engine import OpenVINOEngine
from septa.inference.protocol import Engine

_PARTS = ("int8.graph", "int8.weights")


@dataclass(frozen=True)
class Int8:
    """A net in 8-bit integers, as OpenVINO reads it.

    Attributes
    ----------
    graph, weights
        OpenVINO's XML and the constants that it points into.
    floats
        Names of the layers that compute in float32.
    layers
        Number of all layers that could compute in integers: the convolutions.
    tuned
        Whether the integers were tuned.
    """

    graph: bytes
    weights: bytes
    floats: tuple[str, ...]
    layers: int
    tuned: bool = False

    def engine(self, net: GridNet, threads: int | None = None) -> Engine:
        """Return an engine that runs it with OpenVINO.

        Its logits do not depend on how an image is cut into tiles: a sum of integers is the same in any order.

        Parameters
        ----------
        net
            The float net, of which only the sizes are used.
        threads
            Number of threads; PyTorch's if None.
        """
        return accept_any_size(net, OpenVINOEngine(self.graph, threads or torch.get_num_threads(), self.weights))

    def to_json(self) -> dict[str, Any]:
        """What of it goes into the header of a model file; the rest are `tensors`."""
        return {"floats": list(self.floats), "layers": self.layers, "tuned": self.tuned}

    def tensors(self) -> dict[str, Tensor]:
        """Its bytes, under names that no weight of a net has."""
        parts = zip(_PARTS, (self.graph, self.weights), strict=True)
        return {name: torch.frombuffer(bytearray(part), dtype=torch.uint8) for name, part in parts}

    @classmethod
    def from_tensors(cls, about: dict[str, Any], tensors: dict[str, Tensor]) -> Int8:
        """What `to_json` and `tensors` gave; its tensors are from_tensors out of the others.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is not that.
        """
        graph, weights = (tensors.pop(name).numpy().tobytes() for name in _PARTS)
        floats, tuned = tuple(map(str, about["floats"])), bool(about.get("tuned"))
        return cls(graph, weights, floats, int(about["layers"]), tuned)
