from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from septa.errors import InputError, ResourceError
from septa.images.normalize import Normalization
from septa.images.window import cut_mirrored
from septa.inference import _torch
from septa.inference._torch import MODES, GpuEngine, torch_engine
from septa.inference.engines import make_engine, parse_modes
from septa.inference.predict import predict_tiles
from septa.inference.protocol import Engine
from septa.inference.tiling import plan_tiles_for, smallest_tile_for
from septa.nets import UNet

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
Image = NDArray[np.float32]


def net_of(**settings: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(1, 2, **{"depth": 2, "width": 4, **settings}).eval()


def noise(*shape: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def in_tiles(net: UNet, engine: Engine, image: Image, tile: int) -> Image:
    """Return the logits of an image, assembled from tiles."""
    _, height, width = image.shape
    out, unit = np.full((2, height, width), np.nan, np.float32), Normalization("dataset", (0.0,), (1.0,))

    def keep(core: tuple[slice, slice], logits: Image) -> None:
        out[(slice(None), *core)] = logits

    predict_tiles(engine, partial(cut_mirrored, image), unit, plan_tiles_for(net, height, width, tile), keep)
    return out


def numbered(sizes: list[tuple[int, int]]) -> list[Image]:
    """Return images that are filled with their number."""
    return [np.full((1, *size), number, np.float32) for number, size in enumerate(sizes)]


class Forward:
    """A function that squares images, records the sizes of batches, and has memory for ``room`` images at once."""

    def __init__(self, room: int = 1000) -> None:
        self.room, self.batches = room, list[int]()

    def __call__(self, image_bcyx: Tensor) -> Tensor:
        if len(image_bcyx) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(image_bcyx))
        return image_bcyx**2


# --- batches ------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([(4, 6), (6, 4), (2, 2)]), max_size=12),
    st.integers(1, 100),
    st.integers(1, 4),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_every_image_gets_its_own_logits_in_order(
    sizes: list[tuple[int, int]], pixels: int, room: int, even: bool
) -> None:
    images = numbered(sizes)
    found = list(GpuEngine(Forward(room), CPU, pad_batches=even, pixels=pixels).run_many(iter(images)))
    assert len(found) == len(images)
    for image, logits in zip(images, found, strict=True):
        np.testing.assert_array_equal(logits, image**2)


def test_tiles_of_one_size_go_together_up_to_the_limit() -> None:
    forward = Forward()
    list(GpuEngine(forward, CPU, pixels=3 * 16).run_many(numbered([(4, 4)] * 7 + [(4, 2)] * 2 + [(40, 40)] * 2)))
    assert forward.batches == [3, 3, 1, 2, 1, 1]


def test_a_last_batch_is_padded_only_after_a_larger_one() -> None:
    forward = Forward()
    list(GpuEngine(forward, CPU, pad_batches=True, pixels=3 * 16).run_many(numbered([(4, 4)] * 2)))
    list(GpuEngine(forward, CPU, pad_batches=True, pixels=3 * 16).run_many(numbered([(4, 4)] * 4 + [(4, 2)])))
    assert forward.batches == [2, 3, 3, 1]


def test_padded_batches_have_one_size() -> None:
    forward = Forward()
    found = list(GpuEngine(forward, CPU, pad_batches=True, pixels=3 * 16).run_many(numbered([(4, 4)] * 4)))
    assert forward.batches == [3, 3]
    assert [float(logits[0, 0, 0]) for logits in found] == [0, 1, 4, 9]


def test_a_batch_that_does_not_fit_is_halved_for_good() -> None:
    forward = Forward(room=2)
    found = list(GpuEngine(forward, CPU, pixels=8 * 16).run_many(numbered([(4, 4)] * 12)))
    assert [float(logits[0, 0, 0]) for logits in found] == [number**2 for number in range(12)]
    assert forward.batches == [2] * 6


def test_a_batch_is_also_halved_if_its_copy_is_out_of_memory() -> None:
    class Other(Forward):
        def __call__(self, image_bcyx: Tensor) -> Tensor:
            if len(image_bcyx) > self.room:
                raise RuntimeError("CUDA error: out of memory")
            return super().__call__(image_bcyx)

    forward = Other(room=2)
    assert len(list(GpuEngine(forward, CPU, pixels=8 * 16).run_many(numbered([(4, 4)] * 5)))) == 5
    assert forward.batches == [2, 2, 1]


def test_values_that_exceed_float16_are_reported() -> None:
    images = [np.zeros((1, 4, 4), np.float32), np.full((1, 4, 4), 300, np.float32)]

    def forward(image_bcyx: Tensor) -> Tensor:
        return (image_bcyx.half() ** 2).float()

    assert np.isinf(list(GpuEngine(forward, CPU).run_many(images))[1]).all()
    found = GpuEngine(forward, CPU, check_range=True, pixels=1).run_many(images)
    assert not next(found).any()
    with pytest.raises(
        InputError, match=r"^--engine: a value exceeds 65504, .*\. Give --engine torch\+bf16 or torch\.$"
    ):
        next(found)


def test_a_net_is_copied_once_to_another_device() -> None:
    net, there = net_of(), torch.device("meta")
    first = _torch._place(net, there)
    assert next(first.parameters()).device == there
    assert next(net.parameters()).device == CPU
    assert _torch._place(net, there) is first
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    assert _torch._place(net, there) is not first


def test_a_single_image_that_does_not_fit_is_reported() -> None:
    with pytest.raises(ResourceError, match="4 x 6 pixels"):
        GpuEngine(Forward(room=0), CPU)(np.zeros((1, 4, 6), np.float32))


def test_the_next_batch_is_read_and_started_before_the_last_is_yielded() -> None:
    events: list[str] = []

    def images() -> Iterator[Image]:
        for number, image in enumerate(numbered([(4, 4)] * 6)):
            events.append(f"read {number}")
            yield image

    def forward(image_bcyx: Tensor) -> Tensor:
        events.append(f"net {[int(image[0, 0, 0]) for image in image_bcyx]}")
        return image_bcyx

    found = GpuEngine(forward, CPU, pixels=2 * 16).run_many(images())
    events.extend(f"yield {int(logits[0, 0, 0])}" for logits in found)
    assert events == [
        *("read 0", "read 1", "net [0, 1]", "read 2", "read 3", "net [2, 3]", "yield 0", "yield 1"),
        *("read 4", "read 5", "net [4, 5]", "yield 2", "yield 3", "yield 4", "yield 5"),
    ]


class Device:
    """A replacement of ``torch.cuda`` that records what each stream waits for."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.streams, self.events, self.now = 0, 0, "compute"

    def Stream(self) -> _Stream:
        self.streams += 1
        return _Stream(self, "into" if self.streams == 1 else "back")

    def Event(self) -> _Event:
        self.events += 1
        return _Event(self, f"{('arrived', 'computed', 'done')[(self.events - 1) % 3]} {(self.events - 1) // 3}")

    def current_stream(self, device: torch.device) -> _Stream:
        return _Stream(self, "compute")

    @contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        before, self.now = self.now, stream.name
        yield
        self.now = before


@dataclass
class _Stream:
    device: Device
    name: str

    def wait_event(self, event: _Event) -> None:
        self.device.log.append(f"{self.name} waits for {event.name}")


@dataclass
class _Event:
    device: Device
    name: str

    def record(self, stream: _Stream) -> None:
        self.device.log.append(f"{self.name} on {stream.name}")

    def synchronize(self) -> None:
        self.device.log.append(f"here {self.name}")


def test_each_stream_waits_for_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(torch, "get_device_module", lambda which: device)

    def forward(image_bcyx: Tensor) -> Tensor:
        device.log.append(f"net on {device.now}")
        return image_bcyx

    for _ in GpuEngine(forward, CPU, pixels=16).run_many(numbered([(4, 4)] * 2)):
        device.log.append("yield")

    def batch(n: int) -> list[str]:
        before = [
            f"arrived {n} on into",
            f"compute waits for arrived {n}",
            "net on compute",
            f"computed {n} on compute",
        ]
        return [*before, f"back waits for computed {n}", f"done {n} on back"]

    assert device.log == [*batch(0), *batch(1), "here done 0", "yield", "here done 1", "yield"]


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_tiles_of_an_image_in_batches_are_those_of_single_images(padding: str) -> None:
    net = net_of(padding=padding, norm="none")
    image = noise(1, 150, 131)
    sizes: list[int] = []

    def forward(image_bcyx: Tensor) -> Tensor:
        sizes.append(len(image_bcyx))
        with torch.inference_mode():
            out: Tensor = net(image_bcyx)
        return out

    found = [
        in_tiles(net, engine, image, smallest_tile_for(net) + 16)
        for engine in (torch_engine(net), GpuEngine(forward, CPU))
    ]
    assert max(sizes) > 1
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


# --- modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["torch+", "torch+int8", "torch+bf16+bf16", "torch+bf16+fp16", "openvino+bf16", "+bf16"]
)
def test_an_unknown_mode_is_refused(name: str) -> None:
    assert parse_modes(name) is None
    with pytest.raises(InputError, match=r"\+bf16, \+fp16, \+compile") as caught:
        make_engine(net_of(), "cpu", name)
    assert str(caught.value).startswith(f"--engine {name}: this engine is not known. Use auto, ")


def test_the_cpu_does_not_take_fp16() -> None:
    with pytest.raises(
        InputError, match=r"^--engine torch\+fp16: float16 runs on a GPU, .*\. Give --engine torch\+bf16"
    ):
        make_engine(net_of(), "cpu", "torch+fp16")


def test_a_net_is_compiled_in_one_piece(family: dict[str, Any]) -> None:
    net = net_of(**family)
    side = net.valid_size(64)
    with torch.inference_mode():
        explained = torch._dynamo.explain(net)(torch.zeros(1, 1, side, side))
    torch._dynamo.reset()
    assert explained.graph_count == 1, explained.break_reasons


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_logits_are_the_nets() -> None:
    net, image = net_of(depth=1, width=2), noise(1, 32, 48)
    np.testing.assert_allclose(make_engine(net, "cpu", "torch+compile")(image), torch_engine(net)(image), atol=1e-4)


def test_a_net_that_cannot_be_compiled_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(net: Callable[..., Tensor], **how: Any) -> Callable[..., Tensor]:
        def fail(image_bcyx: Tensor) -> Tensor:
            raise RuntimeError("no C++ compiler\nfound")

        return fail

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(InputError) as caught:
        make_engine(net_of(), "cpu", "torch+compile")(noise(1, 16, 16))
    assert str(caught.value) == (
        "--engine: torch.compile cannot compile this net on this machine. "
        "Install a C++ compiler, or remove +compile from the engine."
    )


# --- a GPU -----------------------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("modes", [(), *((mode,) for mode in MODES)])
def test_logits_of_a_gpu_are_the_cpus(modes: tuple[str, ...]) -> None:
    net, image = net_of(), noise(1, 200, 136)
    expected = torch_engine(net)(image)
    engine = torch_engine(net, "cuda", modes)
    assert isinstance(engine, GpuEngine)
    np.testing.assert_allclose(engine(image), expected, atol=2e-2 * np.abs(expected).max())
    assert all(parameter.device.type == "cpu" for parameter in net.parameters())


@needs_gpu
def test_many_tiles_on_a_gpu_are_computed_in_their_order() -> None:
    engine = torch_engine(net_of(), "cuda")
    assert isinstance(engine, GpuEngine)
    images = [noise(1, 64, 64, seed=seed) for seed in range(300)]
    for image, logits in zip(images, engine.run_many(iter(images)), strict=True):
        np.testing.assert_allclose(logits, engine(image), atol=1e-2)
