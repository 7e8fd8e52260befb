"""PyTorch: one image after the other, or batches of tiles that stream through a GPU."""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from septa.errors import InputError, ResourceError
from septa.inference.fold import Stamp, compute_stamp, fold_norms
from septa.inference.graph import is_out_of_memory, make_probe, translate_out_of_memory
from septa.inference.protocol import Engine, SingleImageEngine

Image = NDArray[np.float32]
Forward = Callable[[Tensor], Tensor]
"""From images ``BCYX`` float32 on the device to logits ``BKYX`` float32 there."""

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
COMPILE = "compile"
MODES = (*TYPES, COMPILE)
"""What may follow the name ``torch``: ``torch+bf16+compile``."""
_Copy = tuple[Stamp | None, torch.device, nn.Module]
_copies: weakref.WeakKeyDictionary[nn.Module, _Copy] = weakref.WeakKeyDictionary()
"""The copy of a net on another device, for as long as the weights stay as they are."""
_BATCH = 4 * 2**20
"""Pixels that go through a GPU at once where tiles are smaller."""


def torch_engine(net: nn.Module, device: torch.device | str = "cpu", modes: Iterable[str] = ()) -> Engine:
    """Execute ``net`` with PyTorch on ``device``, in evaluation.

    On the CPU the net itself runs, or where it has batch norms a copy with these folded into its convolutions; on other
    devices always a copy. On a GPU, convolutions use TF32 where PyTorch does by default, and the engine has a method
    ``run_many``: see `GpuEngine`.
    A net tells by ``steady_pixels`` below which size PyTorch's CPU kernels for a single image depend on the size; such
    windows run as a batch of two, which takes the kernels of large ones, so that small tiles are exact as well.

    Parameters
    ----------
    modes
        Of `MODES`: a type for mixed precision (autocast), and ``compile`` for `torch.compile`, which takes its time
        with every new size.

    Raises
    ------
    InputError
        The CPU does not compute in this type; by the engine: PyTorch cannot compile this net here.
    ResourceError
        By the engine: the memory of the device does not suffice for this size.
    """
    device, modes = torch.device(device), tuple(modes)
    if device.type == "cpu" and "fp16" in modes:
        raise InputError("--engine torch+fp16", "runs on a GPU, not on the CPU", "give --engine torch+bf16 or torch")
    forward = _make_forward(_place(net, device), device, modes)
    if device.type == "cuda":
        return GpuEngine(forward, device, even=COMPILE in modes, half="fp16" in modes)
    if device.type == "cpu":
        return _single_image_engine(forward, device, int(getattr(net, "steady_pixels", 0)))
    return _single_image_engine(forward, device, half="fp16" in modes)


def _place(net: nn.Module, device: torch.device) -> nn.Module:
    """What is executed, on the device."""
    own: Any = net.eval()
    if any(parameter.device.type != "cpu" for parameter in net.parameters()):
        own = copy.deepcopy(own).cpu()
    own = own.to(memory_format=torch.channels_last)
    if hasattr(net, "valid_size"):
        own = fold_norms(own, make_probe(own))
    placed: nn.Module = own
    if device.type == "cpu":
        return placed
    stamp = compute_stamp(placed)
    before, where, there = _copies.get(net, (None, device, placed))
    if stamp is None or (before, where) != (stamp, device):
        there = copy.deepcopy(placed).to(device)
        _copies[net] = stamp, device, there
    return there


def _make_forward(net: nn.Module, device: torch.device, modes: tuple[str, ...]) -> Forward:
    kind = next((TYPES[mode] for mode in modes if mode in TYPES), None)
    execute: Any = torch.compile(net, dynamic=False) if COMPILE in modes else net

    def forward(image_bcyx: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, kind, enabled=kind is not None):
            try:
                logits: Tensor = execute(image_bcyx.contiguous(memory_format=torch.channels_last))
            except Exception as error:
                if COMPILE not in modes or is_out_of_memory(error):
                    raise
                problem = "torch.compile cannot compile this net on this machine"
                remedy = "Install a C++ compiler, or remove +compile from the engine"
                raise InputError("--engine", problem, remedy) from error
        return logits.float()

    return forward


def _single_image_engine(
    forward: Forward, device: torch.device, steady_pixels: int = 0, *, half: bool = False
) -> Engine:
    def compute(image_cyx: Image) -> Image:
        image_bcyx = torch.from_numpy(np.ascontiguousarray(image_cyx))[None].to(device)
        with translate_out_of_memory(image_cyx.shape), torch.inference_mode():
            if image_bcyx[0, 0].numel() < steady_pixels:
                image_bcyx = image_bcyx.expand(2, -1, -1, -1)
            out: Image = forward(image_bcyx)[0].contiguous().cpu().numpy()
        return _check_range(out) if half else out

    return SingleImageEngine(compute)


def _check_range(logits_kyx: Image) -> Image:
    """The same logits, if float16 has held all values on the way to them."""
    if not np.isfinite(logits_kyx).all():
        problem = "a value is larger than float16 holds, 65504, and the logits are not finite"
        raise InputError("--engine", problem, "give torch+bf16, or torch")
    return logits_kyx


@dataclass(frozen=True)
class _PendingBatch:
    """A batch on its way: the logits as they will be on this side, and what must live until they are."""

    logits_bkyx: Tensor
    images: int
    done: Any
    held: tuple[Tensor, ...]


class GpuEngine:
    """An engine for a GPU. Small tiles of one size go through it together; while it computes a batch, the next one is
    read and copied to it, and the logits of the last are copied back and used.

    Parameters
    ----------
    forward
        Executes the net.
    device
        Where; the CPU serves for tests.
    even
        Whether a batch that is smaller than the one before is filled up with images whose logits are thrown away.
    half
        Whether values may exceed what float16 holds, so that logits are looked at.
    pixels
        Largest batch; a single image may be larger.
    """

    def __init__(
        self, forward: Forward, device: torch.device, *, even: bool = False, half: bool = False, pixels: int = _BATCH
    ) -> None:
        self._forward, self._device, self._even, self._half, self._pixels = forward, device, even, half, pixels
        self._module = torch.get_device_module(device)
        self._pinned = device.type != "cpu"
        where = {"device": device} if self._pinned else {}
        self._into, self._back = self._module.Stream(**where), self._module.Stream(**where)

    def __call__(self, image_cyx: Image) -> Image:
        """Logits of one image, as of any engine."""
        return next(self.run_many([image_cyx]))

    def run_many(self, images: Iterable[Image]) -> Iterator[Image]:
        """Logits of images, in their order. Of the images a batch more is taken than logits are given."""
        pending: deque[_PendingBatch] = deque()
        before: tuple[int, tuple[int, ...]] = 0, ()
        for batch in self._batches(images):
            size, shape = len(batch), batch[0].shape
            if self._even and shape == before[1]:
                size = max(size, before[0])
            before = size, shape
            pending += self._submit(batch, size)
            while len(pending) > 1:
                yield from self._collect(pending.popleft())
        while pending:
            yield from self._collect(pending.popleft())

    def _batches(self, images: Iterable[Image]) -> Iterator[list[Image]]:
        batch: list[Image] = []
        for image_cyx in images:
            if batch and image_cyx.shape != batch[0].shape:
                yield batch
                batch = []
            batch.append(image_cyx)
            if len(batch) >= self._pixels // (image_cyx.shape[1] * image_cyx.shape[2]):
                yield batch
                batch = []
        if batch:
            yield batch

    def _submit(self, batch: list[Image], size: int) -> list[_PendingBatch]:
        """Set a batch off, filled up to a size; where memory does not suffice for that, parts of half the size."""
        shape = batch[0].shape
        try:
            with translate_out_of_memory(shape):
                return [self._start(batch, size)]
        except ResourceError:
            if size == 1:
                raise
            half = size // 2
            self._pixels = half * shape[1] * shape[2]
        parts = [batch[begin : begin + half] for begin in range(0, len(batch), half)]
        return [batch for part in parts for batch in self._submit(part, half if self._even else len(part))]

    def _start(self, batch: list[Image], size: int) -> _PendingBatch:
        host_bcyx = torch.zeros((size, *batch[0].shape), pin_memory=self._pinned)
        for place_cyx, image_cyx in zip(host_bcyx, batch, strict=False):
            place_cyx.copy_(torch.from_numpy(np.ascontiguousarray(image_cyx)))
        here, (arrived, computed, done) = (
            self._module.current_stream(self._device),
            (self._module.Event() for _ in range(3)),
        )
        with self._module.stream(self._into):
            image_bcyx = host_bcyx.to(self._device, non_blocking=True)
            arrived.record(self._into)
        here.wait_event(arrived)
        logits_bkyx = self._forward(image_bcyx)
        computed.record(here)
        with self._module.stream(self._back):
            self._back.wait_event(computed)
            back_bkyx = torch.empty(logits_bkyx.shape, pin_memory=self._pinned)
            back_bkyx.copy_(logits_bkyx, non_blocking=True)
            done.record(self._back)
        return _PendingBatch(back_bkyx, len(batch), done, (host_bcyx, image_bcyx, logits_bkyx))

    def _collect(self, batch: _PendingBatch) -> Iterator[Image]:
        batch.done.synchronize()
        for logits_kyx in batch.logits_bkyx[: batch.images]:
            yield _check_range(logits_kyx.numpy()) if self._half else logits_kyx.numpy()
