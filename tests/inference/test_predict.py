from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from septa.data.synthetic import draw_cells
from septa.errors import ResourceError
from septa.images.normalize import Normalization
from septa.inference.engines import Engine, torch_engine
from septa.inference.predict import predict_tiles
from septa.inference.tiling import largest_difference, least_tile, plan
from septa.nets import UNet

HEIGHT, WIDTH = 203, 239


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def cells() -> tuple[NDArray[np.uint16], NDArray[np.int32], Normalization]:
    drawing = draw_cells(256, 256, seed=3)
    image = drawing.image_cyx
    constants = Normalization("dataset", (float(image.mean()),), (float(image.std()),))
    return image, drawing.labels_yx, constants


@cache
def trained(depth: int, up: str, reduction: int = 1) -> UNet:
    """A net whose weights and batch-norm statistics come from a real, if short, training."""
    torch.manual_seed(depth)
    image, labels, constants = cells()
    x, y = torch.from_numpy(constants.apply(image))[None], torch.from_numpy(labels > 0).long()[None]
    net = UNet(1, 2, depth=depth, width=6, up=up, reduction=reduction)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        top, left = torch.randint(0, 256 - 64, (2,)).tolist()
        window = (..., slice(top, top + 64), slice(left, left + 64))
        loss = functional.cross_entropy(net(x[window]), y[window])
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

    tiles = plan(HEIGHT, WIDTH, halo=halo, multiple=net.multiple, tile=tile)
    assert len(tiles) > 1
    predict_tiles(engine, image, constants, tiles, keep)
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
    tile = least_tile(net.halo, net.multiple) + extra
    assert largest_difference(whole, tiled(engine, net, halo=net.halo, tile=tile)) == 0


@pytest.mark.parametrize("up", ["transpose", "bilinear"])
@pytest.mark.parametrize(("depth", "reduction"), [(2, 1), (3, 1), (2, 2)])
def test_a_halo_one_cell_smaller_is_not_enough(depth: int, reduction: int, up: str) -> None:
    net = trained(depth, up, reduction)
    engine = torch_engine(net)
    image, _, constants = cells()
    whole = engine(constants.apply(image[:, :HEIGHT, :WIDTH]))
    tile = least_tile(net.halo, net.multiple) + 32
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
    tiles = plan(40, 50, halo=8, multiple=4, tile=28)
    windows: list[NDArray[np.float32]] = []
    cores: list[tuple[slice, slice]] = []

    def engine(window: NDArray[np.float32]) -> NDArray[np.float32]:
        windows.append(window)
        return np.concatenate([window, -window])

    def keep(core: tuple[slice, slice], logits: NDArray[np.float32]) -> None:
        cores.append(core)
        expected = (image[0][core].astype(np.float64) - 10) / 4
        np.testing.assert_allclose(logits, [expected, -expected], rtol=1e-6)

    predict_tiles(engine, image, Normalization("dataset", (10.0,), (4.0,)), tiles, keep)
    assert cores == [tile.core for tile in tiles]
    assert [window.shape[1:] for window in windows] == [image[0][tile.window].shape for tile in tiles]
    np.testing.assert_array_equal(image, before)


# --- the engine -----------------------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Gives back twice its input, and remembers what it got."""

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
def test_memory_that_does_not_suffice_is_told_with_the_tile_and_a_remedy(error: Exception) -> None:
    with pytest.raises(ResourceError, match=r"memory: does not suffice for a tile of 4 x 6 pixels\. give a smaller"):
        torch_engine(Failing(error))(np.zeros((1, 4, 6), np.float32))


def test_other_failures_are_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="bug"):
        torch_engine(Failing(RuntimeError("bug")))(np.zeros((1, 4, 6), np.float32))
