"""The module that is exported: normalisation of constants, nets, activation, and images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from septa.images import Normalization
from septa.inference import fold_norms, make_probe
from septa.model import Model
from septa.nets import UNet, list_members
from septa.tasks import OutputGroup


class ExportNet(nn.Module):
    """A net, or the mean of several, from the values of an image to probabilities or logits.

    Each operation takes its sizes from tensors, so that tracing keeps it for images of any size. The image is padded
    as `UNet.forward` does, but in a way that can be traced.

    Parameters
    ----------
    members
        Nets of one config; the activations of several are averaged.
    normalization
        Normalisation, of which the constants (if its kind is ``dataset``), the curve and the clipping are included.
    groups
        Outputs with their activations; empty for logits.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self, members: Sequence[UNet], normalization: Normalization, groups: Sequence[OutputGroup] = ()
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._activations = tuple((group.activation, len(group.names)) for group in groups)
        self._valid = bool(members[0].margin)
        self._multiple = members[0].multiple
        self._curve, self._clip = normalization.curve, normalization.clip
        offset, scale = (torch.tensor(values).reshape(1, -1, 1, 1) for values in _get_constants(normalization))
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)

    def forward(self, image_bcyx: Tensor) -> Tensor:
        """Compute the outputs ``(B, K, Y, X)`` of images ``(B, C, Y, X)``, both float32."""
        x = self._normalize(image_bcyx)
        height, width = x.shape[2], x.shape[3]
        if not self._valid:
            x = self._pad(x, height, width)
        total: Tensor | None = None
        for member in self.members:
            own = self._activate(member(x))
            total = own if total is None else total + own
        assert total is not None
        if len(self.members) > 1:
            total = total * (1 / len(self.members))
        return total if self._valid else total[:, :, :height, :width]

    def _normalize(self, x: Tensor) -> Tensor:
        if self.offset.numel():
            x = (x - self.offset) / self.scale
        if self._curve:
            y = x * (self._curve / 2)
            # ONNX has asinh, but PyTorch does not export it.
            x = torch.sign(y) * torch.log(y.abs() + torch.sqrt(y * y + 1)) * (2 / math.asinh(self._curve))
        return x if self._clip is None else x.clamp(-self._clip, self._clip)

    def _pad(self, x: Tensor, height: int, width: int) -> Tensor:
        """Pad to the sides of `UNet.pad_size`, which are tensors while the module is traced."""
        sides = (torch.as_tensor(side) for side in (width, height))
        missing = [
            ((side + self._multiple - 1) // self._multiple).clamp(min=2) * self._multiple - side for side in sides
        ]
        return functional.pad(x, (0, missing[0], 0, missing[1]), mode="replicate")  # type: ignore[arg-type]

    def _activate(self, logits_bkyx: Tensor) -> Tensor:
        if not self._activations:
            return logits_bkyx
        parts, first = [], 0
        for kind, count in self._activations:
            part = logits_bkyx[:, first : first + count]
            parts.append(part.softmax(dim=1) if kind == "softmax" else part.sigmoid())
            first += count
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def build_export_net(model: Model, *, logits: bool = False) -> ExportNet:
    """Build the module of a model, with batch norms folded into convolutions.

    Parameters
    ----------
    model
        A trained model.
    logits
        True to leave the activation out; not possible for an ensemble, whose probabilities are averaged.
    """
    members = list_members(model.net)
    probe = make_probe(members[0])
    folded = [fold_norms(member.cpu(), probe) for member in members]
    groups = () if logits else model.task.describe_outputs(model.labels)
    net = ExportNet(folded, model.normalization, groups)  # type: ignore[arg-type]
    return net.eval().requires_grad_(False)


def make_export_probe(model: Model) -> Tensor:
    """Return two images ``(2, C, Y, X)`` of noise, in the range of raw values if the net normalises them."""
    probe = make_probe(model.net)
    probe = torch.cat([probe, probe.flip(3)])
    offset, scale = _get_constants(model.normalization)
    if offset:
        probe = probe * torch.tensor(scale).reshape(1, -1, 1, 1) + torch.tensor(offset).reshape(1, -1, 1, 1)
    return probe


def _get_constants(normalization: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return normalization.offset, normalization.scale
