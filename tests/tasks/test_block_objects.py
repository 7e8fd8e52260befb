"""Objects block by block equal those of the whole image, for maps of all kinds and all sizes of blocks and margins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septa.tasks.block_merge import MergedObjects, merge_blocks
from septa.tasks.block_objects import BlockLabels, MergeFacts, _finish_inside, find_block_objects, renumber_block
from septa.tasks.decoding import Decoding, fill_holes, find_objects, keep_large

Maps = tuple[np.ndarray, np.ndarray]
Blocks = dict[tuple[int, int], BlockLabels]


def smooth(rng: np.random.Generator, size: tuple[int, int], sigma: float) -> np.ndarray:
    """Replace values by their ranks, evenly spread over [0, 1]."""
    values_yx = ndimage.gaussian_filter(rng.random(size), sigma)
    ranks = values_yx.reshape(-1).argsort().argsort()
    return (ranks.reshape(size) / max(1, ranks.size - 1)).astype(np.float32)


def draw(seed: int, size: tuple[int, int], kind: str, levels: int) -> Maps:
    """Draw maps that are hard because of noise, blobs, rings, thin seeds or nothing but ties."""
    rng = np.random.default_rng(seed)
    foreground_yx, inner_yx = smooth(rng, size, 1.5), smooth(rng, size, 1.0)
    if kind == "noise":
        foreground_yx, inner_yx = smooth(rng, size, 0), smooth(rng, size, 0)
    elif kind == "percolating":
        foreground_yx = np.where(rng.random(size) < 0.75, foreground_yx / 2 + 0.51, foreground_yx).astype(np.float32)
    elif kind == "all":
        foreground_yx = np.ones(size, np.float32)
    elif kind == "rings":
        y, x = np.indices(size)
        rows, columns = (rng.uniform(0, side, 1 + size[0] * size[1] // 90) for side in size)
        near_yx = np.min([abs(np.hypot(y - row, x - column) - 4) for row, column in zip(rows, columns)], axis=0)
        foreground_yx = np.where(rng.random(size) < 0.02, 0, near_yx < 1.2).astype(np.float32)
        inner_yx = np.where(rng.random(size) < 0.3, inner_yx, 0.9).astype(np.float32)
    elif kind == "lines":  # thin U-shaped seeds, longer than blocks, in a wide foreground
        y, x = np.indices(size)
        inner_yx = np.where((x % 6 == 2) | ((y % 9 == 4) & (x // 6 % 2 == 0)), 0.9, inner_yx * 0.6).astype(np.float32)
    return foreground_yx, (np.rint(inner_yx * levels) / levels).astype(np.float32)


KINDS = ["smooth", "noise", "percolating", "all", "rings", "lines"]
maps = st.builds(
    draw,
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 28), st.integers(1, 28)),
    st.sampled_from(KINDS),
    st.sampled_from([2, 4, 255]),
)
decodings = st.builds(
    Decoding,
    st.sampled_from([0.3, 0.5, 0.65]),
    st.sampled_from([0.4, 0.7, 0.9]),
    st.sampled_from([1, 2, 6, 40]),
    st.sampled_from([0, 0, 1, 2, 5, 30]),
    close_seams=st.booleans(),
    fill_holes=st.booleans(),
    join_pixels=st.sampled_from([0, 0, 4, 12, 60, 1000]),
)


def cut_with(
    images: Maps, decoding: Decoding, core: tuple[int, int, int, int], margin: int
) -> tuple[BlockLabels | None, bool]:
    """Return the block of a core (top, bottom, left, right) with a margin; True if the window is the whole image."""
    rows, columns = images[0].shape
    top, bottom, left, right = core
    window = (
        max(0, top - margin),
        min(rows, bottom + margin),
        max(0, left - margin),
        min(columns, right + margin),
    )
    image_ends = (window[0] == 0, window[1] == rows, window[2] == 0, window[3] == columns)
    inside = (slice(top - window[0], bottom - window[0]), slice(left - window[2], right - window[2]))
    parts = (image[window[0] : window[1], window[2] : window[3]] for image in images)
    return find_block_objects(*parts, decoding, inside, image_ends), all(image_ends)


def cut(images: Maps, decoding: Decoding, side: tuple[int, int], margin: int) -> tuple[tuple[int, int], Blocks]:
    """Return all blocks, each with the smallest sufficient margin of those tried."""
    (rows, columns), blocks = images[0].shape, {}
    grid = -(-rows // side[0]), -(-columns // side[1])
    for row, column in np.ndindex(*grid):
        top, left = row * side[0], column * side[1]
        core = top, min(rows, top + side[0]), left, min(columns, left + side[1])
        wider = margin
        while (found := cut_with(images, decoding, core, wider))[0] is None:
            assert not found[1], "the whole image was not enough"
            wider = 2 * wider + 1
        blocks[row, column] = found[0]
    return grid, blocks


def put_together(grid: tuple[int, int], blocks: Blocks) -> tuple[np.ndarray, MergedObjects]:
    merged = merge_blocks(grid, lambda row, column: blocks[row, column].facts)
    rows = [
        [renumber_block(blocks[row, column].labels_yx, merged.look_up_ids(row, column)) for column in range(grid[1])]
        for row in range(grid[0])
    ]
    return np.block(rows), merged


def in_order(labels_yx: np.ndarray, side: tuple[int, int]) -> np.ndarray:
    """Renumber objects by the first block, row by row, that holds a part, then by their first pixel there."""
    y, x = np.indices(labels_yx.shape)
    keys = [part.reshape(-1) for part in (x % side[1], y % side[0], x // side[1], y // side[0])]
    order = np.lexsort(keys)
    values = labels_yx.reshape(-1)[order]
    ids, first = np.unique(values[values > 0], return_index=True)
    numbers = np.zeros(labels_yx.max(initial=0) + 1, np.int64)
    numbers[ids[first.argsort()]] = np.arange(ids.size) + 1
    return numbers[labels_yx]


@settings(max_examples=60, deadline=None)
@given(maps, decodings, st.tuples(st.integers(2, 20), st.integers(2, 20)), st.integers(0, 12))
def test_blocks_give_what_the_whole_gives(images: Maps, decoding: Decoding, side: tuple[int, int], margin: int) -> None:
    before = [image.copy() for image in images]
    grid, blocks = cut(images, decoding, side, margin)
    np.testing.assert_array_equal(images, before)
    found_yx, merged = put_together(grid, blocks)
    assert found_yx.dtype == np.int64
    assert merged.count == found_yx.max(initial=0)
    # Exact: even the ids do not depend on the margin.
    np.testing.assert_array_equal(found_yx, in_order(find_objects(*images, decoding), side))


@settings(max_examples=20, deadline=None)
@given(maps, decodings, st.sampled_from([(1, 1), (1, 6), (9, 1)]))
def test_blocks_of_one_line(images: Maps, decoding: Decoding, side: tuple[int, int]) -> None:
    images = images[0][:9, :9], images[1][:9, :9]
    found_yx, _ = put_together(*cut(images, decoding, side, 4))
    np.testing.assert_array_equal(found_yx, in_order(find_objects(*images, decoding), side))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [(7, 7), (16, 11)])
def test_larger_images(kind: str, side: tuple[int, int]) -> None:
    images = draw(3, (90, 101), kind, 12)
    for decoding in (
        Decoding(0.4, 0.8, 5),
        Decoding(0.5, 0.6, 1),
        Decoding(0.3, 0.9, 3, 4),
        Decoding(0.3, 0.7, 3, join_pixels=40),
    ):
        found_yx, _ = put_together(*cut(images, decoding, side, 6))
        np.testing.assert_array_equal(found_yx, in_order(find_objects(*images, decoding), side))


def test_with_a_reach_a_narrow_margin_suffices_however_far_the_foreground_goes() -> None:
    """With foreground everywhere and few seeds, only the whole image decides if there is no reach."""
    rng = np.random.default_rng(0)
    inner_yx = (0.3 * smooth(rng, (120, 120), 1.0)).astype(np.float32)
    inner_yx[rng.random(inner_yx.shape) < 0.0005] = 0.9
    images, core, reach = (np.ones((120, 120), np.float32), inner_yx), (40, 80, 40, 80), 5
    assert cut_with(images, Decoding(), core, 30)[0] is None
    block, _ = cut_with(images, Decoding(reach=reach), core, 30)
    assert block is not None
    assert block.facts.counts[0] >= 2
    whole_yx = find_objects(*images, Decoding(reach=reach))
    near_yx = ndimage.maximum_filter(inner_yx > 0.5, 2 * reach + 1)
    alone_yx, count = ndimage.label(~near_yx)
    assert whole_yx.max() == ndimage.label(inner_yx > 0.5)[1] + count
    for number in range(1, count + 1):
        assert np.unique(whole_yx[alone_yx == number]).size == 1


# --- single cases -------------------------------------------------------------------------------------------------


def cut_shape(shape_yx: np.ndarray, side: int, least: int = 1) -> tuple[np.ndarray, MergedObjects]:
    """Find the objects of a mask that is also its seeds."""
    mask_yx = shape_yx.astype(np.float32)
    return put_together(*cut((mask_yx, mask_yx), Decoding(least_pixels=least), (side, side), 1))


def test_a_ring_over_nine_blocks_with_its_hole_at_their_corners() -> None:
    shape_yx = np.zeros((12, 12), bool)
    shape_yx[1:11, 1:11] = True
    shape_yx[3:9, 3:9] = False
    assert (cut_shape(shape_yx, 4)[0] == np.pad(np.ones((10, 10), int), 1)).all()
    shape_yx[5:7, 5:7] = True  # an object inside it: no hole any more
    found_yx, merged = cut_shape(shape_yx, 4)
    assert merged.count == 2
    np.testing.assert_array_equal(found_yx > 0, shape_yx)
    shape_yx[5:7, 5:7], shape_yx[5, 9:11] = False, False  # a gap in the ring: no hole either
    np.testing.assert_array_equal(cut_shape(shape_yx, 4)[0], shape_yx)


@pytest.mark.parametrize("place", [(3, 3), (4, 4), (3, 4), (5, 2)])
def test_a_hole_of_one_pixel_at_a_corner_of_blocks(place: tuple[int, int]) -> None:
    shape_yx = np.zeros((8, 8), bool)
    shape_yx[1:7, 1:7] = True
    shape_yx[place] = False
    assert (cut_shape(shape_yx, 4)[0] == np.pad(np.ones((6, 6), int), 1)).all()


def test_a_hole_between_pieces_that_meet_elsewhere() -> None:
    shape_yx = np.zeros((9, 12), bool)
    shape_yx[1:4, 1:8] = shape_yx[5:8, 1:8] = True  # two bars, separate in the left block, joined in the right one
    shape_yx[1:8, 6:8] = shape_yx[1:8, 1] = True
    shape_yx[4, 1] = True
    for side in (3, 4, 5, 6):
        np.testing.assert_array_equal(cut_shape(shape_yx, side)[0], fill_holes(shape_yx.astype(np.int32)))


def test_size_counts_all_pieces_and_holes() -> None:
    shape_yx = np.zeros((9, 9), bool)
    shape_yx[2:7, 2:7] = True
    shape_yx[3:6, 3:6] = False
    assert cut_shape(shape_yx, 3, least=25)[1].count == 1
    assert cut_shape(shape_yx, 3, least=26)[1].count == 0
    assert not cut_shape(shape_yx, 3, least=26)[0].any()


def test_empty_and_all_one_object() -> None:
    for value in (False, True):
        found_yx, merged = cut_shape(np.full((10, 7), value), 3)
        assert (found_yx == value).all()
        assert merged.count == value


def test_ids_follow_the_blocks() -> None:
    shape_yx = np.zeros((4, 12), bool)
    shape_yx[3, 1] = shape_yx[0, 3:5] = shape_yx[2, 5] = shape_yx[3, 7:12] = shape_yx[1, 9] = True
    found_yx, _ = cut_shape(shape_yx, 4)
    ids = [found_yx[0, 3], found_yx[3, 1], found_yx[2, 5], found_yx[3, 7], found_yx[1, 9]]
    assert ids == [1, 2, 3, 4, 5]  # row by row in the first block, not by columns of the image


def test_a_window_that_is_too_small_is_refused() -> None:
    maps = np.ones((6, 6), np.float32), np.zeros((6, 6), np.float32)  # foreground without a seed
    core = slice(1, 4), slice(1, 4)
    assert find_block_objects(*maps, Decoding(), core, (False, True, True, True)) is None
    assert find_block_objects(*maps, Decoding(), core, (True, True, True, True)) is not None
    nothing = np.zeros((6, 6), np.float32)
    assert find_block_objects(nothing, nothing, Decoding(), core, (False,) * 4) is not None
    for part in ((slice(1, 6), slice(1, 4)), (slice(1, 4), slice(1, 6))):  # the next line is outside the window
        assert find_block_objects(nothing, nothing, Decoding(), part, (False,) * 4) is None
        assert find_block_objects(nothing, nothing, Decoding(), part, (True,) * 4) is not None


@pytest.mark.parametrize("core", [(0, 7, 0, 3), (2, 2, 0, 3), (-1, 3, 0, 3), (0, 3, 3, 2)])
def test_a_core_outside_the_window_is_refused(core: tuple[int, int, int, int]) -> None:
    empty = np.zeros((6, 6), np.float32)
    with pytest.raises(ValueError, match="must lie in the window"):
        find_block_objects(empty, empty, Decoding(), (slice(*core[:2]), slice(*core[2:])), (True,) * 4)


def test_more_objects_than_sixteen_bits_hold() -> None:
    shape_yx = np.zeros((600, 520), bool)
    shape_yx[::2, ::2] = True
    found_yx, merged = cut_shape(shape_yx, 400)
    assert merged.count == 300 * 260
    expected_yx = find_objects(*[shape_yx.astype(np.float32)] * 2, Decoding())
    np.testing.assert_array_equal(found_yx, in_order(expected_yx, (400, 400)))


# --- merge alone --------------------------------------------------------------------------------------------------


def blocks_of(labels_yx: np.ndarray, side: tuple[int, int], least: int) -> tuple[tuple[int, int], Blocks]:
    """Cut an image of known objects into blocks; the ids of a block are those of connected parts."""
    rows, columns = labels_yx.shape
    grid, blocks = (-(-rows // side[0]), -(-columns // side[1])), {}
    for row, column in np.ndindex(*grid):
        top, left = row * side[0], column * side[1]
        bottom, right = min(rows, top + side[0]), min(columns, left + side[1])
        part_yx = labels_yx[top : min(rows, bottom + 1), left : min(columns, right + 1)]
        own_yx = np.zeros(part_yx.shape, np.int32)  # separate parts in the window have different ids
        for value in np.unique(part_yx[part_yx > 0]):
            regions_yx = ndimage.label(part_yx == value)[0]
            own_yx[regions_yx > 0] = regions_yx[regions_yx > 0] + own_yx.max()
        core_yx = own_yx[: bottom - top, : right - left]
        below = own_yx[bottom - top :, : right - left].reshape(-1)
        beside = own_yx[: bottom - top, right - left :].reshape(-1)
        continues = (top > 0, bottom < rows, left > 0, right < columns)
        blocks[row, column] = _finish_inside(core_yx.copy(), (below, beside), Decoding(least_pixels=least), continues)
    return grid, blocks


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 26), st.integers(1, 26)),
    st.tuples(st.integers(2, 12), st.integers(2, 12)),
    st.integers(1, 4),
    st.sampled_from([0.4, 0.6, 0.8]),
    st.sampled_from([1, 4, 30]),
)
def test_merging_known_objects(
    seed: int, size: tuple[int, int], side: tuple[int, int], colours: int, cover: float, least: int
) -> None:
    rng = np.random.default_rng(seed)
    coarse_yx = np.kron(rng.integers(1, colours + 1, (6, 6)), np.ones((5, 5), int))[: size[0], : size[1]]
    covered_yx = rng.random(size) < cover
    labels_yx = np.zeros(size, np.int32)
    for colour in range(1, colours + 1):
        regions_yx = ndimage.label(covered_yx & (coarse_yx == colour))[0]
        labels_yx[regions_yx > 0] = regions_yx[regions_yx > 0] + labels_yx.max()
    found_yx, _ = put_together(*blocks_of(labels_yx, side, least))
    np.testing.assert_array_equal(found_yx, in_order(keep_large(fill_holes(labels_yx), least), side))


def test_ids_beyond_32_bits() -> None:
    many = 3_000_000_000
    empty, line = np.zeros(0, np.int32), np.zeros(1, np.int32)
    facts = MergeFacts(
        *(np.array([many, 0, 1]), empty, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2), np.int32)),
        *(line,) * 6,
    )
    last = replace(facts, counts=np.array([1, 0, 1]))
    merged = merge_blocks((1, 2), lambda row, column: last if column else facts)
    assert merged.count == many + 1
    assert merged.look_up_ids(0, 1).tolist() == [0, many + 1]


def test_pixels_that_neighbours_see_differently_are_counted_and_join_nothing() -> None:
    shape_yx = np.zeros((4, 8), bool)
    shape_yx[1, 2:6] = True
    grid, blocks = cut((shape_yx.astype(np.float32),) * 2, Decoding(), (4, 4), 1)
    _, others = cut((np.zeros((4, 8), np.float32),) * 2, Decoding(), (4, 4), 1)

    def conflicts(right: BlockLabels) -> tuple[int, int]:
        merged = merge_blocks(grid, lambda row, column: (right if column else blocks[0, 0]).facts)
        return merged.conflicts, merged.count

    assert conflicts(blocks[0, 1]) == (0, 1)
    assert conflicts(others[0, 1]) == (1, 1)


def test_blocks_of_different_images_are_refused() -> None:
    shape_yx = np.zeros((4, 8), bool)
    shape_yx[1, 2:6] = True
    grid, blocks = cut((shape_yx.astype(np.float32),) * 2, Decoding(), (4, 4), 1)
    _, others = cut((shape_yx.astype(np.float32),) * 2, Decoding(least_pixels=2), (4, 4), 1)
    with pytest.raises(ValueError, match="different smallest sizes of objects"):
        put_together(grid, {**blocks, (0, 1): others[0, 1]})
    _, others = cut((shape_yx[:3].astype(np.float32),) * 2, Decoding(), (4, 4), 1)
    with pytest.raises(ValueError, match="the lines of neighbouring blocks differ in length"):
        put_together(grid, {**blocks, (0, 1): others[0, 1]})


# --- storage ------------------------------------------------------------------------------------------------------


def test_blocks_as_arrays() -> None:
    _, blocks = cut(draw(5, (30, 31), "rings", 255), Decoding(), (12, 13), 4)
    for block in blocks.values():
        arrays = block.to_arrays()
        again = BlockLabels.from_arrays({**arrays, "further": np.zeros(1)})
        for name, values in again.to_arrays().items():
            assert values is arrays[name]
        for name in arrays:
            with pytest.raises(ValueError, match=f"the array '{name}' of the block is missing"):
                BlockLabels.from_arrays({key: value for key, value in arrays.items() if key != name})


def test_ids_of_a_chosen_width() -> None:
    numbers = np.array([0, 70_000, 3, 9], np.int64)  # one object, then open holes -2 and -1
    found_yx = renumber_block(np.array([[1, 0], [-1, -2]], np.int32), numbers, np.uint32)
    assert found_yx.dtype == np.uint32
    assert found_yx.tolist() == [[70_000, 0], [9, 3]]
