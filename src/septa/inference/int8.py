"""Nets in 8-bit integers, as OpenVINO runs them; `septa.quantization` makes them.

Weights have a scale for each channel, activations a scale for each tensor. NNCF's post-training quantisation finds
the scales of activations on sample images.

References
----------
Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference"
(arXiv 1712.05877).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from septa.inference.graph import accept_any_size
from septa.inference.openvino_engine import OpenVINOEngine
from septa.inference.protocol import Engine, NetGeometry

_PARTS = ("int8.graph", "int8.weights")


@dataclass(frozen=True, kw_only=True)
class Int8:
    """A net in 8-bit integers, as OpenVINO reads it.

    Attributes
    ----------
    graph
        OpenVINO's XML.
    weights
        Constants of the XML.
    floats
        Names of the layers that compute in float32.
    layers
        Number of layers that can compute in integers, which are the convolutions; it includes ``floats``.
    tuned
        True if the integers were tuned.
    """

    graph: bytes
    weights: bytes
    floats: tuple[str, ...]
    layers: int
    tuned: bool = False

    def engine(self, net: NetGeometry, threads: int | None = None) -> Engine:
        """Return an engine that runs the net with OpenVINO.

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
        """Return the attributes that the header of a model file holds, as JSON values; `tensors` returns the others."""
        return {"floats": list(self.floats), "layers": self.layers, "tuned": self.tuned}

    def tensors(self) -> dict[str, Tensor]:
        """Return graph and weights as uint8 tensors, under names that no weight of a net has."""
        parts = zip(_PARTS, (self.graph, self.weights), strict=True)
        return {name: torch.frombuffer(bytearray(part), dtype=torch.uint8) for name, part in parts}

    @classmethod
    def from_tensors(cls, about: dict[str, Any], tensors: dict[str, Tensor]) -> Int8:
        """Build the net from what `to_json` and `tensors` returned, and remove its tensors from ``tensors``.

        Raises
        ------
        KeyError, TypeError, ValueError
            A value is missing or has another type.
        """
        graph, weights = (tensors.pop(name).numpy().tobytes() for name in _PARTS)
        return cls(
            graph=graph,
            weights=weights,
            floats=tuple(map(str, about["floats"])),
            layers=int(about["layers"]),
            tuned=bool(about.get("tuned")),
        )
