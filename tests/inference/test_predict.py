from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from septa.errors import ResourceError
from septa.images.normalize import Normalization
from septa.images.window import cut_mirrored
from septa.inference.engines import torch_engine
from septa.inference.predict import predict_tiles
from septa.inference.protocol import Engine, SingleImageEngine
from septa.inference.tiling import (
    ImageTile,
    TileSpan,
    largest_difference,
    plan_tiles,
    plan_tiles_for,
    smallest_tile,
    smallest_tile_for,
)
from septa.nets import UNet
from septa.synthetic.dataset import draw_cells

HEIGHT, WIDTH = 203, 239


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def cells() -> tuple[NDArray[np.uint16], NDArray[np.int32], Normalization]:
    drawing = draw_cells(256, 256, seed=3)
    image = drawing.image_cyx
    constants = Normalization("dataset", (float(image.mean()),), (float(image.std()),))
    return image, drawing.labels_yx, constants


@cache
def trained(depth: int, up: str, reduction: int = 1, padding: str = "same") -> UNet:
    """Return a net whose weights and batch-norm statistics come from a real, short training."""
    torch.manual_seed(depth)
    image, labels, constants = cells()
    x, y = torch.from_numpy(constants.apply(image))[None], torch.from_numpy(labels > 0).long()[None]
    net = UNet(1, 2, depth=depth, width=6, up=up, reduction=reduction, padding=padding)
    side = net.input_size(64 if padding == "same" else 48)
    inside = slice(net.margin, side - net.margin)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        top, left = torch.randint(0, 256 - side, (2,)).tolist()
        window = (..., slice(top, top + side), slice(left, left + side))
        loss = functional.cross_entropy(net(x[window]), y[window][..., inside, inside])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 1.5
    return net.eval()


def tiled(engine: Engine, net: UNet, *, halo: int, tile: int) -> NDArray[np.float32]:
    image, _, constants = cells()
    image = image[:, :HEIGHT, :WIDTH]
    out = np.full((2, HEIGHT, WIDTH), np.nan, np.float32)

    def keep(core: tuple[slice, slice], logits: NDArray[np.float32]) -> None:
        assert np.isnan(out[(slice(None), *core)]).all()
        out[(slice(None), *core)] = logits

    tiles = plan_tiles(HEIGHT, WIDTH, halo=halo, multiple=net.multiple, tile=tile)
    assert len(tiles) > 1
    predict_tiles(engine, partial(cut_mirrored, image), constants, tiles, keep)
    return out


@pytest.mark.parametrize("extra", [12, 32, 77])
@pytest.mark.parametrize("up", ["transpose", "bilinear"])
@pytest.mark.parametrize(("depth", "reduction"), [(2, 1), (3, 1), (2, 2)])
def test_tiles_equal_the_whole_image_bit_for_bit(depth: int, reduction: int, up: str, extra: int) -> None:
    net = trained(depth, up, reduction)
    engine = torch_engine(net)
    image, _, constants = cells()
    whole = engine(constants.apply(image[:, :HEIGHT, :WIDTH]))
    assert whole.std() > 0.1
    tile = smallest_tile(net.halo, net.multiple) + extra
    # Exact: tiles promise the values of the whole image for one engine, and so do those of valid nets below.
    assert largest_difference(whole, tiled(engine, net, halo=net.halo, tile=tile)) == 0


@pytest.mark.parametrize("up", ["transpose", "bilinear"])
@pytest.mark.parametrize(("depth", "reduction"), [(2, 1), (3, 1), (2, 2)])
def test_a_halo_one_cell_smaller_is_not_enough(depth: int, reduction: int, up: str) -> None:
    net = trained(depth, up, reduction)
    engine = torch_engine(net)
    image, _, constants = cells()
    whole = engine(constants.apply(image[:, :HEIGHT, :WIDTH]))
    tile = smallest_tile(net.halo, net.multiple) + 32
    assert largest_difference(whole, tiled(engine, net, halo=net.halo - net.multiple, tile=tile)) > 1e-5


def test_cores_off_the_grid_are_not_enough() -> None:
    net = trained(2, "transpose")
    engine = torch_engine(net)
    image, _, constants = cells()
    normalised = constants.apply(image)
    whole = engine(normalised)
    shifted = engine(np.ascontiguousarray(normalised[:, 1:, :]))
    assert largest_difference(whole[:, 101:150], shifted[:, 100:149]) > 1e-3


def test_each_window_is_normalised_and_run_and_each_core_kept_in_the_plans_order() -> None:
    image = np.arange(40 * 50, dtype=np.uint16).reshape(1, 40, 50)
    before = image.copy()
    tiles = plan_tiles(40, 50, halo=8, multiple=4, tile=28)
    windows: list[NDArray[np.float32]] = []
    cores: list[tuple[slice, slice]] = []

    def compute(window: NDArray[np.float32]) -> NDArray[np.float32]:
        windows.append(window)
        return np.concatenate([window, -window])

    def keep(core: tuple[slice, slice], logits: NDArray[np.float32]) -> None:
        cores.append(core)
        expected = (image[0][core].astype(np.float64) - 10) / 4
        np.testing.assert_allclose(logits, [expected, -expected], rtol=1e-6)

    engine = SingleImageEngine(compute)
    predict_tiles(engine, partial(cut_mirrored, image), Normalization("dataset", (10.0,), (4.0,)), tiles, keep)
    assert cores == [tile.core for tile in tiles]
    sizes = [tuple(end - begin for begin, end in zip(tile.begin, tile.end)) for tile in tiles]
    assert [window.shape[1:] for window in windows] == sizes
    np.testing.assert_array_equal(image, before)


# --- valid nets -----------------------------------------------------------------------------------------------------


def whole_by_mirroring(net: UNet, image_cyx: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the logits of the whole image as one tile of the paper: mirrored all around, run once, and cropped."""
    _, _, constants = cells()
    padded_cyx = image_cyx
    for axis, side in enumerate(image_cyx.shape[1:], 1):
        after = net.input_size(side) - side - net.margin
        turns = [place if place < side else 2 * (side - 1) - place for place in range(max(1, 2 * (side - 1)))]
        padded_cyx = np.take(padded_cyx, [turns[at % len(turns)] for at in range(-net.margin, side + after)], axis)
    logits_kyx = torch_engine(net)(constants.apply(padded_cyx))
    return logits_kyx[:, : image_cyx.shape[1], : image_cyx.shape[2]]


def in_tiles(net: UNet, image_cyx: NDArray[np.uint16], tiles: Sequence[ImageTile]) -> NDArray[np.float32]:
    _, _, constants = cells()
    out = np.full((2, *image_cyx.shape[1:]), np.nan, np.float32)

    def keep(core: tuple[slice, slice], logits: NDArray[np.float32]) -> None:
        place = (slice(None), *core)
        assert np.isnan(out[place]).all()
        if logits.shape != out[place].shape:
            raise ValueError(f"a core of {out[place].shape} got logits of {logits.shape}")
        out[place] = logits

    predict_tiles(torch_engine(net), partial(cut_mirrored, image_cyx), constants, tiles, keep)
    return out


VALID = [(1, "transpose"), (2, "transpose"), (2, "bilinear"), (3, "transpose")]
SOME = (slice(None), slice(0, 101), slice(40, 173))


@cache
def valid_net(depth: int, up: str) -> UNet:
    return trained(depth, up, padding="valid")


@pytest.mark.parametrize(("depth", "up"), VALID)
def test_tiles_of_a_valid_net_equal_the_mirrored_whole_bit_for_bit(depth: int, up: str) -> None:
    net = valid_net(depth, up)
    image = cells()[0][SOME]
    whole = whole_by_mirroring(net, image)
    assert whole.std() > 0.1
    for extra in (24, 61, 1000):
        tiles = plan_tiles_for(net, *image.shape[1:], smallest_tile_for(net) + extra)
        assert (len(tiles) == 1) == (extra == 1000)
        assert largest_difference(whole, in_tiles(net, image, tiles)) == 0


@pytest.mark.parametrize(("depth", "up"), VALID)
@pytest.mark.parametrize("size", [(1, 150), (150, 1), (1, 1), (2, 3), (7, 90), (40, 6)])
def test_images_smaller_than_the_margin_are_mirrored_again_and_again(
    depth: int, up: str, size: tuple[int, int]
) -> None:
    net = valid_net(depth, up)
    image = cells()[0][:, 60 : 60 + size[0], 50 : 50 + size[1]]
    assert min(size) <= net.margin
    whole = whole_by_mirroring(net, image)
    for extra in (0, 40):
        tiles = plan_tiles_for(net, *size, smallest_tile_for(net) + extra)
        assert len(tiles) > 1 or max(size) <= 40 + net.multiple
        assert largest_difference(whole, in_tiles(net, image, tiles)) == 0


def test_the_inside_of_a_valid_net_s_logits_needs_no_mirroring() -> None:
    """Beyond its margin, an image that was cut from a larger one has the logits of the larger one."""
    net = valid_net(2, "transpose")
    image = cells()[0]
    step, margin = 8 * net.multiple, net.margin
    large = in_tiles(net, image, plan_tiles_for(net, 256, 256, 2000))
    cut = in_tiles(net, image[:, step:], plan_tiles_for(net, 256 - step, 256, smallest_tile_for(net) + 50))
    assert largest_difference(large[:, step + margin :], cut[:, margin:]) == 0
    assert largest_difference(large[:, step : step + margin], cut[:, :margin]) > 1e-3


@pytest.mark.parametrize(("depth", "up"), VALID)
def test_a_margin_one_step_smaller_gives_no_or_wrong_logits(depth: int, up: str) -> None:
    net = valid_net(depth, up)
    image = cells()[0][SOME]
    surplus = net.output_size(net.input_size(1)) % net.multiple
    known = {"halo": 0, "multiple": net.multiple, "surplus": surplus, "tile": smallest_tile_for(net) + 40}
    with pytest.raises(ValueError, match="a core of"):
        in_tiles(net, image, plan_tiles(*image.shape[1:], margin=net.margin - net.multiple, **known))
    right = plan_tiles(*image.shape[1:], margin=net.margin, **known)
    whole = whole_by_mirroring(net, image)
    assert largest_difference(whole, in_tiles(net, image, right)) == 0

    def nearer(span: TileSpan) -> TileSpan:
        """Shift a window by one step, at the same length, so that the net still accepts it."""
        begin, end = span.window
        return TileSpan(span.core, (begin + net.multiple, end + net.multiple), net.margin - net.multiple)

    wrong = [ImageTile(nearer(tile.y), nearer(tile.x)) for tile in right]
    assert largest_difference(whole, in_tiles(net, image, wrong)) > 1e-2


# --- the engine -----------------------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """A net that doubles its input and records the shapes that it gets."""

    steady_pixels = 100

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return self.dropout(2 * x)


@pytest.mark.parametrize(("side", "batch"), [(9, 2), (10, 1), (11, 1)])
def test_the_engine_runs_small_windows_as_a_batch_of_two(side: int, batch: int) -> None:
    net = Recorder()
    image = np.random.default_rng(1).normal(size=(3, side, 10)).astype(np.float32)
    kept = image.copy()
    out = torch_engine(net)(image)
    np.testing.assert_array_equal(out, 2 * image)
    np.testing.assert_array_equal(image, kept)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert net.shapes == [(batch, 3, side, 10)]
    assert not net.training


def test_the_engine_takes_views() -> None:
    image = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    np.testing.assert_array_equal(torch_engine(Recorder())(image.T), 2 * image.T)


class Failing(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CPUAllocator: not enough memory"),
    ],
)
def test_out_of_memory_is_reported_with_the_size_of_the_tile_and_a_remedy(error: Exception) -> None:
    with pytest.raises(
        ResourceError, match=r"^memory: there is not enough for a tile of 4 x 6 pixels\. Give a smaller"
    ):
        torch_engine(Failing(error))(np.zeros((1, 4, 6), np.float32))


def test_other_failures_are_not_mistaken_for_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="bug"):
        torch_engine(Failing(RuntimeError("bug")))(np.zeros((1, 4, 6), np.float32))
