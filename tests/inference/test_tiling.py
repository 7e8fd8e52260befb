from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from septa.images.normalize import Normalization
from septa.images.window import cut_mirrored
from septa.inference.engines import torch_engine
from septa.inference.predict import predict_tiles
from septa.inference.tiling import (
    ImageTile,
    align_region,
    choose_tile,
    compute_overhead,
    largest_difference,
    plan_tiles,
    plan_tiles_for,
    smallest_tile,
    smallest_tile_for,
)
from septa.nets import UNet


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    multiple = 2 ** draw(st.integers(1, 4))
    halo = multiple * draw(st.integers(1, 6))
    tile = smallest_tile(halo, multiple) + draw(st.integers(0, 100))
    return draw(st.integers(1, 120)), draw(st.integers(1, 120)), halo, multiple, tile


@settings(max_examples=60, deadline=None)
@given(plans())
@example((120, 90, 24, 4, 52))
@example((53, 52, 24, 4, 52))
@example((1, 300, 8, 2, 18))
def test_cores_cover_every_pixel_once_and_windows_hold_the_halo(case: tuple[int, int, int, int, int]) -> None:
    height, width, halo, multiple, tile = case
    tiles = plan_tiles(height, width, halo=halo, multiple=multiple, tile=tile)
    count = np.zeros((height, width), np.int64)
    numbers = np.arange(height * width).reshape(height, width)
    for one in tiles:
        count[one.core] += 1
        window = cut_mirrored(numbers, one.begin, one.end)
        np.testing.assert_array_equal(window[one.core_in_output], numbers[one.core])
        for span, size in ((one.y, height), (one.x, width)):
            assert span.core[0] < span.core[1]
            assert span.core[0] % multiple == span.window[0] % multiple == 0
            assert span.core[1] % multiple == 0 or span.core[1] == size
            assert span.window[0] == 0 or span.window[0] <= span.core[0] - halo
            assert span.window[1] == size or span.window[1] >= span.core[1] + halo
            assert span.window[1] % multiple == 0 or span.window[1] == size
            assert 0 <= span.window[0] < span.window[1] <= size
            assert span.window[1] - span.window[0] <= tile
    assert (count == 1).all()
    corners = [(one.y.core[0], one.x.core[0]) for one in tiles]
    assert corners == sorted(corners)
    read = sum((one.end[0] - one.begin[0]) * (one.end[1] - one.begin[1]) for one in tiles)
    assert compute_overhead(tiles) == read / numbers.size >= 1


@settings(deadline=None)
@given(plans())
def test_windows_are_of_one_size_and_no_fewer_would_do(case: tuple[int, int, int, int, int]) -> None:
    height, _, halo, multiple, tile = case
    rows = plan_tiles(height, 1, halo=halo, multiple=multiple, tile=tile)
    widest = (tile - 2 * halo) // multiple * multiple
    assert len(rows) == (1 if height <= tile else -(-(height - 2 * halo) // widest))
    sizes = {-(-(one.y.window[1] - one.y.window[0]) // multiple) for one in rows}
    assert len(sizes) == 1
    smaller = (sizes.pop() - 1) * multiple  # as many windows of this size would not cover the image
    assert len(rows) == 1 or len(rows) * (smaller - 2 * halo) < height - 2 * halo


def test_an_image_within_a_tile_is_read_whole() -> None:
    (one,) = plan_tiles(100, 64, halo=96, multiple=16, tile=100)
    assert one.core == (slice(0, 100), slice(0, 64))
    assert (one.begin, one.end) == ((0, 0), (100, 64))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_image_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        plan_tiles(*size, halo=8, multiple=2, tile=64)


@pytest.mark.parametrize("tile", [-1, 0, 1, 47, 48, 51])
def test_a_tile_without_room_is_refused_and_the_least_is_named(tile: int) -> None:
    with pytest.raises(ValueError, match=f"tile of {tile} pixels .* needs 52"):
        plan_tiles(200, 200, halo=24, multiple=4, tile=tile)
    assert smallest_tile(24, 4) == 52
    assert len(plan_tiles(200, 1, halo=24, multiple=4, tile=52)) == 38  # (200 - 48) / 4


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 10**4), st.integers(0, 2**33))
def test_a_chosen_tile_fills_the_memory_but_holds_a_core(halos: int, depth: int, each: int, memory: int) -> None:
    multiple = 2**depth
    halo = halos * multiple
    side = choose_tile(halo=halo, multiple=multiple, bytes_per_pixel=each, memory=memory)
    assert side >= smallest_tile(halo, multiple)
    assert side % multiple == 0
    assert side == smallest_tile(halo, multiple) or side**2 * each <= memory
    assert (side + multiple) ** 2 * each > memory


def test_wider_nets_get_smaller_tiles() -> None:
    sides = [choose_tile(halo=96, multiple=16, bytes_per_pixel=width) for width in (8, 64)]
    assert sides[0] > sides[1] >= smallest_tile(96, 16)


# --- regions --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(plans(), st.data())
def test_cores_of_a_region_cover_it_once_with_the_halo_that_the_image_has(
    case: tuple[int, int, int, int, int], data: st.DataObject
) -> None:
    height, width, halo, multiple, tile = case
    begin = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    end = data.draw(st.integers(begin[0] + 1, height)), data.draw(st.integers(begin[1] + 1, width))
    least = multiple * data.draw(st.integers(0, 8))
    region = align_region((begin, end), (height, width), multiple)
    count = np.zeros((height, width), np.int64)
    for one in plan_tiles(height, width, halo=halo, multiple=multiple, tile=tile, least=least, region=region):
        count[one.core] += 1
        for span, size in ((one.y, height), (one.x, width)):
            low, high = span.window
            assert low % multiple == 0
            assert high % multiple == 0 or high == size
            assert low == 0 or low <= span.core[0] - halo
            assert high == size or high >= span.core[1] + halo
            assert -(-(high - low) // multiple) * multiple >= min(
                least, size
            )  # the net pads a window at the image's end
    inside = np.zeros_like(count)
    inside[region[0][0] : region[1][0], region[0][1] : region[1][1]] = 1
    np.testing.assert_array_equal(count, inside)
    assert count[begin[0] : end[0], begin[1] : end[1]].all()
    grown = inside.sum() - (end[0] - begin[0]) * (end[1] - begin[1])
    assert grown <= 2 * multiple * (height + width)


@pytest.mark.parametrize("region", [((8, 0), (40, 40)), ((0, 0), (40, 100)), ((16, 16), (16, 32)), ((0, 0), (41, 16))])
def test_a_region_off_the_grid_or_outside_is_refused(region: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="is not a region on a grid of 16"):
        plan_tiles(60, 99, halo=16, multiple=16, tile=64, region=region)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("tile", [None, 1])
def test_logits_of_a_region_are_those_of_the_whole_image(padding: str, tile: int | None) -> None:
    torch.manual_seed(0)
    net = UNet(1, 2, depth=2, width=4, padding=padding).eval()
    image_cyx = np.random.default_rng(0).normal(size=(1, 150, 131)).astype(np.float32)
    unit = Normalization("dataset", (0.0,), (1.0,))
    found = []
    for region in (None, align_region(((37, 50), (90, 131)), (150, 131), net.multiple)):
        out = np.full((2, 150, 131), np.nan, np.float32)

        def keep(core: tuple[slice, slice], logits_kyx: np.ndarray, out: np.ndarray = out) -> None:
            out[(slice(None), *core)] = logits_kyx

        side = None if tile is None or region is None else smallest_tile_for(net)
        tiles = plan_tiles_for(net, 150, 131, side, region)
        predict_tiles(torch_engine(net), partial(cut_mirrored, image_cyx), unit, tiles, keep)
        found.append(out[:, 37:90, 50:])
    np.testing.assert_array_equal(*found)


# --- valid nets -----------------------------------------------------------------------------------------------------


def slow_output(depth: int, size: int) -> int:
    """Follow a side through the paper's net; return 0 where a pooling meets an odd side or no pixel remains."""
    for _ in range(depth):
        size -= 4
        if size <= 0 or size % 2:
            return 0
        size //= 2
    for _ in range(depth):
        size = 2 * (size - 4)
    return max(0, size - 4)


def slow_sizes(depth: int, up_to: int) -> dict[int, int]:
    """Return the sides that the paper's net accepts, each with the side of its output."""
    return {size: slow_output(depth, size) for size in range(1, up_to) if slow_output(depth, size)}


def valid_settings(depth: int) -> dict[str, int]:
    size, output = next(iter(slow_sizes(depth, 1000).items()))
    margin = (size - output) // 2
    return {"halo": margin, "margin": margin, "multiple": 2**depth, "surplus": output % 2**depth}


@st.composite
def valid_plans(draw: st.DrawFn) -> tuple[int, int, int, int]:
    depth = draw(st.integers(1, 4))
    known = valid_settings(depth)
    tile = smallest_tile(known["margin"], known["multiple"], known["surplus"]) + draw(st.integers(0, 100))
    return draw(st.integers(1, 150)), draw(st.integers(1, 150)), depth, tile


def check_valid(tiles: list[ImageTile], height: int, width: int, margin: int, multiple: int, tile: int) -> None:
    """Check that cores cover the image once, and that each window begins a margin before its core."""
    count = np.zeros((height, width), np.int64)
    numbers = np.arange(height * width).reshape(height, width)
    for one in tiles:
        count[one.core] += 1
        window = cut_mirrored(numbers, one.begin, one.end)
        output = window[margin:-margin, margin:-margin]
        np.testing.assert_array_equal(output[one.core_in_output], numbers[one.core])
        for span in (one.y, one.x):
            assert span.core[0] % multiple == 0
            assert span.window[0] == span.core[0] - margin
            assert span.window[1] >= span.core[1] + margin
            assert span.window[1] - span.window[0] <= tile
    assert (count == 1).all()
    corners = [(one.y.core[0], one.x.core[0]) for one in tiles]
    assert corners == sorted(corners)


@settings(max_examples=60, deadline=None)
@given(valid_plans())
@example((150, 1, 4, 212))
@example((4, 5, 4, 204))
@example((20, 21, 4, 204))
def test_windows_of_valid_nets_reach_a_margin_beyond_cores_that_cover_once(case: tuple[int, int, int, int]) -> None:
    height, width, depth, tile = case
    known = valid_settings(depth)
    tiles = plan_tiles(height, width, tile=tile, **known)
    check_valid(tiles, height, width, known["margin"], known["multiple"], tile)
    sizes = slow_sizes(depth, tile + 1)
    for side, total in (("y", height), ("x", width)):
        spans = [getattr(one, side) for one in tiles]
        lengths = {span.window[1] - span.window[0] for span in spans}
        assert lengths <= sizes.keys()
        # Windows of the largest size would hold as many cores, and all cores but the last are equal.
        largest = max(sizes.values())
        step = largest - known["surplus"]
        assert len({span.core for span in spans}) <= max(1, -(-(total - known["surplus"]) // step))
        assert len({span.core[1] - span.core[0] for span in spans if span.core[1] < total}) <= 1


@settings(max_examples=60, deadline=None)
@given(valid_plans(), st.integers(0, 16))
@example((25, 40, 1, 20), 16)
def test_windows_of_valid_nets_have_the_least_side_where_several_are_needed(
    case: tuple[int, int, int, int], parts: int
) -> None:
    height, width, depth, tile = case
    known = valid_settings(depth)
    least = parts * known["multiple"]
    tile = max(tile, least + known["multiple"])
    tiles = plan_tiles(height, width, tile=tile, least=least, **known)
    check_valid(tiles, height, width, known["margin"], known["multiple"], tile)
    smallest = smallest_tile(known["margin"], known["multiple"], known["surplus"])
    sizes = [size for size in slow_sizes(depth, tile + 1) if size >= smallest]
    for one in tiles:
        for span, size in ((one.y, height), (one.x, width)):
            length = span.window[1] - span.window[0]
            needed = span.core[1] - span.core[0] + 2 * known["margin"]
            if span.core != (0, size):
                needed = max(needed, least)
            assert length == min(side for side in sizes if side >= needed)


def test_the_papers_tile() -> None:
    """Figure 1: a window of 572 pixels gives 388, and the first core covers half of an ISBI image of 512 pixels."""
    known = valid_settings(4)
    assert known == {"halo": 92, "margin": 92, "multiple": 16, "surplus": 4}
    (one,) = plan_tiles(388, 388, tile=572, **known)
    assert (one.begin, one.end) == ((-92, -92), (480, 480))
    rows = [one.y for one in plan_tiles(512, 1, tile=572, **known)]
    assert [row.core for row in rows] == [(0, 256), (256, 512)]
    assert len(plan_tiles(389, 1, tile=572, **known)) == 2


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    "family", [{}, {"up": "bilinear"}, {"attention": True}, {"nested": True, "block": "residual"}], ids=str
)
def test_plans_for_valid_nets_hold_sizes_that_they_take(depth: int, family: dict[str, object]) -> None:
    net = UNet(1, 2, depth=depth, width=1, padding="valid", **family)
    least = smallest_tile_for(net)
    for tile in (least, least + 1, least + 13, 3 * least):
        for height, width in ((1, 200), (97, 3), (83, 131)):
            tiles = plan_tiles_for(net, height, width, tile)
            check_valid(tiles, height, width, net.margin, net.multiple, tile)
            for one in tiles:
                for span in (one.y, one.x):
                    assert net.output_size(span.window[1] - span.window[0]) >= span.core[1] - span.core[0]
    if not family:
        assert plan_tiles_for(net, 83, 131, least) == plan_tiles(83, 131, tile=least, **valid_settings(depth))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("up", ["transpose", "bilinear"])
def test_a_tile_too_small_for_a_valid_net_is_refused_and_the_least_is_named(depth: int, up: str) -> None:
    net = UNet(1, 2, depth=depth, width=1, padding="valid", up=up)
    least = smallest_tile_for(net)
    for tile in (1, net.margin, 2 * net.margin + 1, least - 1):
        with pytest.raises(ValueError, match=f"tile of {tile} pixels .* margin of {net.margin} it needs {least}$"):
            plan_tiles_for(net, 60, 60, tile)
    assert len(plan_tiles_for(net, 60, 60, least)) > 1
    assert net.output_size(least) >= net.multiple
    assert least == 2 * net.margin + net.multiple + net.output_size(net.input_size(1)) % net.multiple


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_plan_for_a_net_without_a_tile_asks_for_what_fits_the_memory(
    padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = UNet(1, 2, depth=2, width=2, padding=padding, up="bilinear")
    assert len(plan_tiles_for(net, 300, 300)) == 1
    asked: list[dict[str, int]] = []

    def choose(**known: int) -> int:
        asked.append(known)
        return choose_tile(**known, memory=100**2 * net.bytes_per_pixel)

    monkeypatch.setattr("septa.inference.tiling.choose_tile", choose)
    assert plan_tiles_for(net, 300, 200) == plan_tiles_for(net, 300, 200, 100)
    assert len(plan_tiles_for(net, 300, 200)) > 4
    known = {"halo": net.halo, "multiple": 4, "bytes_per_pixel": net.bytes_per_pixel}
    assert asked[0] == known | {"surplus": 2 if padding == "valid" else 0}


@pytest.mark.parametrize(("depth", "side"), [(3, 1024), (4, 13 * 96)])
def test_tiles_of_large_images_are_no_larger_than_what_pays(depth: int, side: int) -> None:
    net = UNet(1, 2, depth=depth, width=2)
    assert choose_tile(halo=net.halo, multiple=net.multiple, bytes_per_pixel=net.bytes_per_pixel) > 2 * side
    assert plan_tiles_for(net, 4096, 64) == plan_tiles_for(net, 4096, 64, side)
    assert len(plan_tiles_for(net, side * 3 // 2, side)) == 1
    assert len(plan_tiles_for(net, side * 3 // 2 + 1, side)) == 2


@pytest.mark.parametrize("steady", [0, 33, 36, 50])
def test_windows_have_the_side_from_which_kernels_are_the_same(steady: int) -> None:
    net = SimpleNamespace(halo=12, multiple=4, margin=0, bytes_per_pixel=1, steady_side=steady)
    least = smallest_tile_for(net)
    assert least == next(side for side in range(28, 100, 4) if side >= steady)
    for height in range(1, 150):
        for one in plan_tiles_for(net, height, 1, least):
            length = one.y.window[1] - one.y.window[0]
            assert length >= min(height, steady) or one.y.window[1] == height
            assert -(-length // 4) * 4 >= min(height, steady)


def test_a_plan_for_a_padded_net_is_that_of_its_halo() -> None:
    net = UNet(1, 2, depth=2, width=1)
    assert smallest_tile_for(net) == smallest_tile(net.halo, 4)
    assert plan_tiles_for(net, 200, 90, 70) == plan_tiles(200, 90, halo=net.halo, multiple=4, tile=70)


def test_largest_difference_counts_nan_as_infinite() -> None:
    a = np.zeros((2, 3), np.float32)
    b = a.copy()
    b[1, 2] = -0.5
    assert largest_difference(a, a) == 0
    assert largest_difference(a, b) == 0.5
    b[0, 0] = np.nan
    assert largest_difference(a, b) == largest_difference(b, a) == np.inf
