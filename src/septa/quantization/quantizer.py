"""Make integer versions of a net with NNCF."""

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

from septa.errors import InputError
from septa.inference import Int8, OpenVINOEngine, export_graph, fold_norms, import_openvino, make_probe, pad_to_grid
from septa.quantization.equalize import equalize_channels
from septa.quantization.tune import Distillation, Simulation

Image = NDArray[np.float32]
_TYPES = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")
_NEEDS = ("openvino", "onnx", "nncf")
_LOOKED_AT = 8
"""Images on which layers, and tuned integers with others, are compared; at most."""


class Quantizer:
    """Makes integer versions of one net.

    Parameters
    ----------
    net
        As `septa.nets.UNet`.
    images
        Normalised sample images ``CYX`` float32, from which the ranges of activations are taken, and on which integers
        are tuned. Of equal size, and not large: tuning holds all activations of two in memory, several times.

    Raises
    ------
    InputError
        A package is not installed, or the net cannot be written as a graph.
    """

    def __init__(self, net: Any, images: Sequence[Image]) -> None:
        if lacking := next((name for name in _NEEDS if find_spec(name) is None), None):
            raise InputError("quantize", f"{lacking} is not installed", "pip install 'septa[openvino]'")
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
        """The net in integers but for some layers."""
        return self._pack(self._quantize(floats), floats)

    def tune(
        self,
        distillation: Distillation,
        minutes: float,
        floats: Sequence[str] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Int8:
        """What `make` gives, with integers that were tuned until its logits were more nearly the float net's.

        Parameters
        ----------
        distillation
            From its logits ``BKYX`` and the float net's to a scalar that is least where they agree.
        minutes
            It may take.
        floats
            As for `make`.
        progress
            Is told what is done, and the total.

        Returns
        -------
        As `make` gives it where nothing was won, on images that it was not tuned on if there are several.

        Raises
        ------
        ResourceError
            The memory does not suffice.
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
            graph, weights = Path(folder, "net.xml"), Path(folder, "net.bin")
            import_openvino().serialize(model, graph, weights)
            return Int8(
                graph=graph.read_bytes(), weights=weights.read_bytes(), floats=tuple(floats), layers=len(self._names)
            )

    def rank_layers(self, floats: Sequence[str] = ()) -> list[str]:
        """All other layers, that which harms the logits most first.

        A layer is judged by what is left of the error (root mean square over logits) when it alone computes in
        float32 beside ``floats``.
        """
        open_layers = [name for name in self._names if name not in floats]
        errors = {name: self._error(self.make([*floats, name]), functional.mse_loss) for name in open_layers}
        return sorted(open_layers, key=lambda name: errors[name])

    def _error(self, made: Int8, loss: Distillation) -> float:
        """A loss of logits against the float net's, summed over some of the images."""
        engine = OpenVINOEngine(made.graph, torch.get_num_threads(), made.weights)
        total = 0.0
        for image_bcyx, expected in zip(self._images[:: self._stride], self._expected, strict=True):
            total += loss(torch.from_numpy(engine(image_bcyx[0]))[None], expected).item()
        return total

    @cached_property
    def _expected(self) -> list[Tensor]:
        """The float net's logits of some of the images."""
        with torch.inference_mode():
            return [self._net(torch.from_numpy(image_bcyx)) for image_bcyx in self._images[:: self._stride]]

    @property
    def _stride(self) -> int:
        """Of so many images one is looked at."""
        return -(-len(self._images) // _LOOKED_AT)

    def _quantize(self, floats: Sequence[str]) -> Any:
        with redirect_stdout(io.StringIO()):  # its progress bars
            import nncf
            from nncf.quantization.advanced_parameters import OverflowFix

            nncf.set_log_level(logging.ERROR)
            scope = nncf.IgnoredScope(names=[self._names[name] for name in floats])
            # NNCF would give the first layer half of the integers, for CPUs whose sums saturate: it takes it for that
            # which reads the image, but this one stays in float32.
            settings = nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.DISABLE)
            mixed = nncf.QuantizationPreset.MIXED  # what is never negative has all 256 values above 0
            return nncf.quantize(
                self._model, nncf.Dataset(self._images), preset=mixed, subset_size=len(self._images),
                ignored_scope=scope, advanced_parameters=settings,
            )  # fmt: skip


def _read_graph(graph: bytes) -> Any:
    return import_openvino().Core().read_model(graph)


def _name_layer(op: Any, number: int) -> str:
    """A name that is the same each time: OpenVINO numbers what has none."""
    name = op.get_friendly_name()
    if not name.startswith("/"):
        return f"layer {number + 1}"
    parts = [part for part in name.split("/") if part and part not in ("Conv", "WithoutBiases")]
    return ".".join(part for part, after in zip(parts, [*parts[1:], ""]) if not after.startswith(f"{part}."))
