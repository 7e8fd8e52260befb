"""The quantizer, which makes integer versions of a net with NNCF."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from septa.errors import InputError, ResourceError, is_out_of_memory
from septa.inference import (
    Int8,
    OpenVINOEngine,
    export_graph,
    fold_norms,
    import_openvino,
    make_probe,
    pad_to_grid,
)
from septa.quantization.equalize import equalize_channels
from septa.quantization.tune import Distillation, Simulation

_TYPES = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")
_NEEDS = ("openvino", "onnx", "nncf")
_COMPARED = 8
"""Largest number of images on which layers, or tuned and untuned integers, are compared."""


class Quantizer:
    """A maker of integer versions of one net.

    Parameters
    ----------
    net
        A `septa.nets.UNet`.
    images
        Normalised sample images ``(C, Y, X)``, float32, of one size. They give the ranges of activations, and integers
        are tuned on them. They must be small, because tuning holds all activations of two images several times.

    Raises
    ------
    InputError
        A package is not installed, PyTorch cannot export the net, or NNCF cannot quantise it.
    """

    def __init__(self, net: Any, images: Sequence[NDArray[np.float32]]) -> None:
        if missing := next((name for name in _NEEDS if find_spec(name) is None), None):
            raise InputError("quantize", f"the package {missing} is not installed", "Run pip install 'septa[openvino]'")
        self._images = [pad_to_grid(net, image_cyx)[None] for image_cyx in images]
        self._net = fold_norms(net, make_probe(net))
        self._net = equalize_channels(self._net, _read_graph(export_graph(self._net)), self._images)
        self._model = _read_graph(export_graph(self._net))
        ops = [op for op in self._model.get_ordered_ops() if op.get_type_name() in _TYPES]
        self._names = {_name_layer(op, number): op.get_friendly_name() for number, op in enumerate(ops)}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the convolutions, in the order in which they run."""
        return tuple(self._names)

    def make(self, floats: Sequence[str] = ()) -> Int8:
        """Make a version in integers, in which the layers ``floats`` compute in float32."""
        return self._pack(self._quantize(floats), floats)

    def tune(
        self,
        distillation: Distillation,
        minutes: float,
        floats: Sequence[str] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Int8:
        """Make a version as `make` does, and tune its integers so that its logits approach the float net's.

        Parameters
        ----------
        distillation
            Loss from its logits ``(B, K, Y, X)`` and the float net's to a scalar; it is smallest where they agree.
        minutes
            Longest duration of the tuning.
        floats
            Names of the layers that compute in float32.
        progress
            Function that receives the number of steps done and their total.

        Returns
        -------
        Int8
            The tuned version; the untuned one if its loss is not larger. They are compared on images that were not
            used for tuning, if there are several images.

        Raises
        ------
        ResourceError
            The memory does not hold the activations.
        """
        model = self._quantize(floats)
        before = self._pack(model, floats)
        simulation = Simulation(self._net, self._model, model)
        unseen = [image for number, image in enumerate(self._images) if number % self._stride]
        simulation.tune(unseen or self._images, distillation, minutes, progress)
        simulation.write()
        after = replace(self._pack(model, floats), tuned=True)
        return min(before, after, key=lambda made: self._error(made, distillation))

    def _pack(self, model: Any, floats: Sequence[str]) -> Int8:
        with TemporaryDirectory() as folder:
            graph = Path(folder, "net.xml")
            weights = Path(folder, "net.bin")
            import_openvino().serialize(model, graph, weights)
            return Int8(
                graph=graph.read_bytes(), weights=weights.read_bytes(), floats=tuple(floats), layers=len(self._names)
            )

    def rank_layers(self, floats: Sequence[str] = ()) -> list[str]:
        """Rank the other layers by the error that their rounding causes, the most harmful layer first.

        The rank of a layer is the remaining error (mean square over logits) when it computes in float32 together with
        ``floats``.
        """
        open_layers = [name for name in self._names if name not in floats]
        errors = {name: self._error(self.make([*floats, name]), functional.mse_loss) for name in open_layers}
        return sorted(open_layers, key=lambda name: errors[name])

    def _error(self, made: Int8, loss: Distillation) -> float:
        """Return the loss of the logits against the float net's, summed over the compared images."""
        engine = OpenVINOEngine(made.graph, torch.get_num_threads(), made.weights)
        total = 0.0
        for image_bcyx, expected in zip(self._images[:: self._stride], self._expected, strict=True):
            total += loss(torch.from_numpy(engine(image_bcyx[0]))[None], expected).item()
        return total

    @cached_property
    def _expected(self) -> list[Tensor]:
        """Logits of the float net for the compared images."""
        with torch.inference_mode():
            return [self._net(torch.from_numpy(image_bcyx)) for image_bcyx in self._images[:: self._stride]]

    @property
    def _stride(self) -> int:
        """Step from one compared image to the next."""
        return -(-len(self._images) // _COMPARED)

    def _quantize(self, floats: Sequence[str]) -> Any:
        """Return OpenVINO's graph in integers, in which the layers ``floats`` compute in float32."""
        with redirect_stdout(io.StringIO()):  # NNCF prints progress bars
            import nncf
            from nncf.quantization.advanced_parameters import OverflowFix

            nncf.set_log_level(logging.ERROR)
            # On CPUs whose sums saturate, NNCF would give half of the integers to the layer that it takes for the first
            # one. The first layer stays in float32 here, so it would take another one.
            settings = nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.DISABLE)
            try:
                return nncf.quantize(
                    self._model,
                    nncf.Dataset(self._images),
                    preset=nncf.QuantizationPreset.MIXED,  # activations without negative values use all 256 integers
                    subset_size=len(self._images),
                    ignored_scope=nncf.IgnoredScope(names=[self._names[name] for name in floats]),
                    advanced_parameters=settings,
                )
            except Exception as error:
                if is_out_of_memory(error):
                    remedy = "Use a machine with more memory"
                    raise ResourceError("memory", "there is not enough to quantise the net", remedy) from error
                remedy = "Use the model without 8-bit integers"
                raise InputError("quantize", "NNCF cannot quantise this net", remedy) from error


def _read_graph(graph: bytes) -> Any:
    return import_openvino().Core().read_model(graph)


def _name_layer(op: Any, number: int) -> str:
    """Return a name that is the same in each process, which OpenVINO's own names of unnamed operations are not."""
    name = op.get_friendly_name()
    if not name.startswith("/"):
        return f"layer {number + 1}"
    parts = [part for part in name.split("/") if part and part not in ("Conv", "WithoutBiases")]
    return ".".join(part for part, after in zip(parts, [*parts[1:], ""]) if not after.startswith(f"{part}."))
