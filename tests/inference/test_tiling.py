from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from septa.inference.tiling import (
    activation_bytes,
    auto_tile,
    largest_difference,
    least_tile,
    overhead,
    plan,
)


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    multiple = 2 ** draw(st.integers(1, 4))
    halo = multiple * draw(st.integers(1, 6))
    tile = least_tile(halo, multiple) + draw(st.integers(0, 100))
    return draw(st.integers(1, 120)), draw(st.integers(1, 120)), halo, multiple, tile


@settings(max_examples=60, deadline=None)
@given(plans())
@example((120, 90, 24, 4, 52))
@example((53, 52, 24, 4, 52))
@example((1, 300, 8, 2, 18))
def test_cores_cover_every_pixel_once_and_windows_hold_the_halo(case: tuple[int, int, int, int, int]) -> None:
    height, width, halo, multiple, tile = case
    tiles = plan(height, width, halo=halo, multiple=multiple, tile=tile)
    count = np.zeros((height, width), np.int64)
    numbers = np.arange(height * width).reshape(height, width)
    for one in tiles:
        count[one.core] += 1
        np.testing.assert_array_equal(numbers[one.window][one.core_in_window], numbers[one.core])
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
    read = sum(numbers[one.window].size for one in tiles)
    assert overhead(tiles) == read / numbers.size >= 1


@settings(deadline=None)
@given(plans())
def test_no_fewer_cores_would_do(case: tuple[int, int, int, int, int]) -> None:
    """Cores are made equal; that never takes more of them than the widest cores do."""
    height, _, halo, multiple, tile = case
    rows = plan(height, 1, halo=halo, multiple=multiple, tile=tile)
    widest = (tile - 2 * halo) // multiple * multiple
    assert len(rows) == (1 if height <= tile else -(-height // widest)) or len(rows) < -(-height // widest)
    sizes = {one.y.core[1] - one.y.core[0] for one in rows[:-1]}
    assert len(sizes) <= 1


def test_an_image_within_a_tile_is_read_whole() -> None:
    (one,) = plan(100, 64, halo=96, multiple=16, tile=100)
    assert one.window == one.core == (slice(0, 100), slice(0, 64))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_image_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        plan(*size, halo=8, multiple=2, tile=64)


@pytest.mark.parametrize("tile", [-1, 0, 1, 47, 48, 51])
def test_a_tile_without_room_is_refused_and_the_least_is_named(tile: int) -> None:
    with pytest.raises(ValueError, match=f"tile of {tile} pixels .* needs 52"):
        plan(200, 200, halo=24, multiple=4, tile=tile)
    assert least_tile(24, 4) == 52
    assert len(plan(200, 1, halo=24, multiple=4, tile=52)) == 50


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 10**4), st.integers(0, 2**33))
def test_auto_tile_fills_the_memory_but_holds_a_core(halos: int, depth: int, each: int, memory: int) -> None:
    multiple = 2**depth
    halo = halos * multiple
    side = auto_tile(halo=halo, multiple=multiple, bytes_per_pixel=each, memory=memory)
    assert side >= least_tile(halo, multiple)
    assert side % multiple == 0
    assert side == least_tile(halo, multiple) or side**2 * each <= memory
    assert (side + multiple) ** 2 * each > memory


def test_wider_nets_get_smaller_tiles() -> None:
    sides = [auto_tile(halo=96, multiple=16, bytes_per_pixel=activation_bytes(width)) for width in (8, 64)]
    assert sides[0] > sides[1] >= least_tile(96, 16)


def test_largest_difference_counts_nan_as_infinite() -> None:
    a = np.zeros((2, 3), np.float32)
    b = a.copy()
    b[1, 2] = -0.5
    assert largest_difference(a, a) == 0
    assert largest_difference(a, b) == 0.5
    b[0, 0] = np.nan
    assert largest_difference(a, b) == largest_difference(b, a) == np.inf
