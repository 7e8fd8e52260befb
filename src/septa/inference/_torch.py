"""Engines that run a net with PyTorch: one image after the other, or batches of tiles on a GPU."""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from septa.errors import InputError, ResourceError, is_out_of_memory
from septa.inference.bf16 import round_for_bf16
from septa.inference.fold import fold_norms
from septa.inference.graph import make_probe, translate_out_of_memory
from septa.inference.protocol import Engine, SingleImageEngine
from septa.inference.stamp import compute_stamp, reuse

Forward = Callable[[Tensor], Tensor]
"""Function from images ``(B, C, Y, X)`` to logits ``(B, K, Y, X)``, both float32 and on the same device."""
ForwardWithStatistics = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function that returns the logits, and the statistics of `septa.nets.pool_statistics`."""
Float32 = NDArray[np.float32]
_Output = TypeVar("_Output")

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
COMPILE = "compile"
MODES = (*TYPES, COMPILE)
"""Words that may follow ``torch`` in the name of an engine, as in ``torch+bf16+compile``."""
_copies: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, nn.Module]] = weakref.WeakKeyDictionary()
"""Copy of each net on another device, valid until a weight changes."""
_BATCH = 4 * 2**20
"""Largest batch on a GPU, pixels; a single image may be larger."""


def torch_engine(net: nn.Module, device: torch.device | str = "cpu", modes: Iterable[str] = ()) -> Engine:
    """Return an engine that runs a net with PyTorch, in evaluation mode.

    A net with batch norms is copied, and the norms are folded into the convolutions of the copy. Without batch norms,
    the CPU runs the net itself, and other devices run a copy. On a GPU, convolutions use TF32 where PyTorch does so
    by default; see `GpuEngine`.

    PyTorch's CPU kernels for a single image depend on its size if it is small. A net gives the limit as
    ``steady_pixels``. Smaller windows run as a batch of two, which uses the kernels of large windows. Small tiles
    are therefore exact too.

    Parameters
    ----------
    net
        Net from images ``(B, C, Y, X)`` to logits ``(B, K, Y, X)``, usually a `septa.nets.UNet`.
    device
        Device that runs the net.
    modes
        Words of `MODES`: a type for mixed precision (autocast), and ``compile`` for `torch.compile`, which compiles
        for each new size of image. In bfloat16 the first and the last layer stay in float32; see `round_for_bf16`.

    Raises
    ------
    InputError
        The CPU does not compute in this type. The engine raises it if PyTorch cannot compile the net.
    ResourceError
        The engine raises it if the memory of the device does not hold an image of this size.
    """
    device = torch.device(device)
    modes = tuple(modes)
    if device.type == "cpu" and "fp16" in modes:
        problem = "float16 runs on a GPU, not on the CPU"
        raise InputError("--engine torch+fp16", problem, "Give --engine torch+bf16 or torch")
    placed = _place(net, device)
    if "bf16" in modes:
        placed = round_for_bf16(placed)
    forward = _make_forward(placed, device, modes)
    if device.type == "cuda":
        return GpuEngine(forward, device, pad_batches=COMPILE in modes, check_range="fp16" in modes)
    if device.type == "cpu":
        return _single_image_engine(
            forward,
            device,
            steady_pixels=int(getattr(net, "steady_pixels", 0)),
            with_statistics=_make_forward_with_statistics(placed, device, modes),
        )
    return _single_image_engine(forward, device, check_range="fp16" in modes)


def _place(net: nn.Module, device: torch.device) -> nn.Module:
    """Return the module that the engine runs, on the device."""
    own: Any = net.eval()
    if any(parameter.device.type != "cpu" for parameter in net.parameters()):
        own = copy.deepcopy(own).cpu()
    own = own.to(memory_format=torch.channels_last)
    if hasattr(net, "valid_size"):
        own = fold_norms(own, make_probe(own))
    folded: nn.Module = own
    if device.type == "cpu":
        return folded
    stamp = compute_stamp(folded)
    key = None if stamp is None else (stamp, device)
    return reuse(_copies, net, key, lambda: copy.deepcopy(folded).to(device))


def _make_forward(net: nn.Module, device: torch.device, modes: tuple[str, ...]) -> Forward:
    execute: Any = torch.compile(net, dynamic=False) if COMPILE in modes else net

    def forward(image_bcyx: Tensor) -> Tensor:
        with _set_up_pass(device, modes):
            try:
                logits_bkyx: Tensor = execute(image_bcyx.contiguous(memory_format=torch.channels_last))
            except Exception as error:
                if COMPILE not in modes or is_out_of_memory(error):
                    raise
                problem = "torch.compile cannot compile this net on this machine"
                remedy = "Install a C++ compiler, or remove +compile from the engine"
                raise InputError("--engine", problem, remedy) from error
        return logits_bkyx.float()

    return forward


def _make_forward_with_statistics(
    net: Any, device: torch.device, modes: tuple[str, ...]
) -> ForwardWithStatistics | None:
    """Return a function that also returns the statistics of a `septa.nets.UNet`; None if the net has none."""
    if COMPILE in modes or not hasattr(net, "forward_with_statistics"):
        return None

    def forward(image_bcyx: Tensor) -> tuple[Tensor, Tensor]:
        with _set_up_pass(device, modes):
            channels_last = image_bcyx.contiguous(memory_format=torch.channels_last)
            logits_bkyx, statistics_bcyx = net.forward_with_statistics(channels_last)
        return logits_bkyx.float(), statistics_bcyx

    return forward


@contextmanager
def _set_up_pass(device: torch.device, modes: tuple[str, ...]) -> Iterator[None]:
    dtype = next((TYPES[mode] for mode in modes if mode in TYPES), None)
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
        yield


def compute_statistics(net: nn.Module, device: torch.device | str, image_cyx: Float32) -> Float32:
    """Compute the statistics of the features of a `septa.nets.UNet` for one image, without its logits.

    Parameters
    ----------
    net
        The net, of which a copy runs, as in `torch_engine`.
    device
        Device that runs it.
    image_cyx
        Normalised image ``(C, Y, X)``, float32, of a size that the net accepts.

    Returns
    -------
    ndarray
        Statistics ``(C, Y, X)``, float32, as of `septa.nets.pool_statistics`.
    """
    device = torch.device(device)
    placed: Any = _place(net, device)
    image_bcyx = torch.from_numpy(np.ascontiguousarray(image_cyx))[None].to(device)
    with translate_out_of_memory(image_cyx.shape), _set_up_pass(device, ()):
        statistics_bcyx = placed.compute_statistics(image_bcyx.contiguous(memory_format=torch.channels_last))
    statistics_cyx: Float32 = statistics_bcyx[0].contiguous().cpu().numpy()
    return statistics_cyx


def _single_image_engine(
    forward: Forward,
    device: torch.device,
    *,
    steady_pixels: int = 0,
    check_range: bool = False,
    with_statistics: ForwardWithStatistics | None = None,
) -> Engine:
    def run(image_cyx: Float32, execute: Callable[[Tensor], _Output]) -> _Output:
        image_bcyx = torch.from_numpy(np.ascontiguousarray(image_cyx))[None].to(device)
        with translate_out_of_memory(image_cyx.shape), torch.inference_mode():
            if image_bcyx[0, 0].numel() < steady_pixels:
                image_bcyx = image_bcyx.expand(2, -1, -1, -1)
            return execute(image_bcyx)

    def finish(logits_bkyx: Tensor) -> Float32:
        logits_kyx: Float32 = logits_bkyx[0].contiguous().cpu().numpy()
        return _check_range(logits_kyx) if check_range else logits_kyx

    def compute(image_cyx: Float32) -> Float32:
        return finish(run(image_cyx, forward))

    def compute_both(image_cyx: Float32) -> tuple[Float32, Float32]:
        assert with_statistics is not None
        logits_bkyx, statistics_bcyx = run(image_cyx, with_statistics)
        return finish(logits_bkyx), statistics_bcyx[0].contiguous().cpu().numpy()

    return SingleImageEngine(compute, None if with_statistics is None else compute_both)


def _check_range(logits_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits unchanged, or raise InputError if a value on the way to them was too large for float16."""
    if not np.isfinite(logits_kyx).all():
        problem = "a value exceeds 65504, the largest of float16, and the logits are not finite"
        raise InputError("--engine", problem, "Give --engine torch+bf16 or torch")
    return logits_kyx


@dataclass(frozen=True)
class _PendingBatch:
    """A batch that the GPU computes.

    Attributes
    ----------
    logits_bkyx
        Logits in the memory of the CPU, complete when ``done`` has occurred.
    images
        Number of images; further logits belong to padding.
    done
        Event after the copy of the logits.
    held
        Tensors that must not be freed before.
    """

    logits_bkyx: Tensor
    images: int
    done: Any
    held: tuple[Tensor, ...]


class GpuEngine:
    """Engine for a GPU, which computes small tiles of one size together.

    While the GPU computes a batch, the next batch is read and copied to it, and the logits of the last batch are
    copied back and used.

    Parameters
    ----------
    forward
        Function that runs the net.
    device
        Device that runs it; tests use the CPU.
    pad_batches
        If True, a batch that is smaller than the last one of its size of image is padded with zeros to the same
        number of images, so that a compiled net sees one shape.
    check_range
        If True, logits that are not finite raise InputError, because a value may have exceeded float16.
    pixels
        Largest batch, pixels; a single image may be larger.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        *,
        pad_batches: bool = False,
        check_range: bool = False,
        pixels: int = _BATCH,
    ) -> None:
        self._forward = forward
        self._device = device
        self._pad_batches = pad_batches
        self._check_range = check_range
        self._pixels = pixels
        self._module = torch.get_device_module(device)
        self._pinned = device.type != "cpu"
        where = {"device": device} if self._pinned else {}
        self._copy_in = self._module.Stream(**where)
        self._copy_out = self._module.Stream(**where)

    def __call__(self, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the logits of one image; see `Engine`."""
        return next(self.run_many([image_cyx]))

    def run_many(self, images: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each image, in the order of the images; see `Engine`.

        Images are read one batch ahead.
        """
        pending: deque[_PendingBatch] = deque()
        last_size = 0
        last_shape: tuple[int, ...] = ()
        for batch in self._batches(images):
            size = len(batch)
            shape = batch[0].shape
            if self._pad_batches and shape == last_shape:
                size = max(size, last_size)
            last_size = size
            last_shape = shape
            pending += self._submit(batch, size)
            while len(pending) > 1:
                yield from self._collect(pending.popleft())
        while pending:
            yield from self._collect(pending.popleft())

    def _batches(self, images: Iterable[NDArray[np.float32]]) -> Iterator[list[NDArray[np.float32]]]:
        """Yield successive images of one size in lists of at most ``pixels``."""
        batch: list[NDArray[np.float32]] = []
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

    def _submit(self, batch: list[NDArray[np.float32]], size: int) -> list[_PendingBatch]:
        """Start a batch, padded to ``size`` images; if it is out of memory, halve all batches from now on."""
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
        return [pending for part in parts for pending in self._submit(part, half if self._pad_batches else len(part))]

    def _start(self, batch: list[NDArray[np.float32]], size: int) -> _PendingBatch:
        host_bcyx = torch.zeros((size, *batch[0].shape), pin_memory=self._pinned)
        for slot_cyx, image_cyx in zip(host_bcyx, batch, strict=False):
            slot_cyx.copy_(torch.from_numpy(np.ascontiguousarray(image_cyx)))
        compute = self._module.current_stream(self._device)
        arrived, computed, done = (self._module.Event() for _ in range(3))
        with self._module.stream(self._copy_in):
            image_bcyx = host_bcyx.to(self._device, non_blocking=True)
            arrived.record(self._copy_in)
        compute.wait_event(arrived)
        logits_bkyx = self._forward(image_bcyx)
        computed.record(compute)
        with self._module.stream(self._copy_out):
            self._copy_out.wait_event(computed)
            back_bkyx = torch.empty(logits_bkyx.shape, pin_memory=self._pinned)
            back_bkyx.copy_(logits_bkyx, non_blocking=True)
            done.record(self._copy_out)
        return _PendingBatch(back_bkyx, len(batch), done, (host_bcyx, image_bcyx, logits_bkyx))

    def _collect(self, batch: _PendingBatch) -> Iterator[NDArray[np.float32]]:
        """Wait for a batch and yield the logits of its images."""
        batch.done.synchronize()
        for logits_kyx in batch.logits_bkyx[: batch.images]:
            yield _check_range(logits_kyx.numpy()) if self._check_range else logits_kyx.numpy()
