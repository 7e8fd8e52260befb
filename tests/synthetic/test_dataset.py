"""Drawings are measured: shapes of the figures, sizes and contacts of cells, ranges and noise of images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from septa.errors import InputError
from septa.synthetic.dataset import HELD_OUT_INDEX, draw_cells, draw_oct, draw_shapes, write_dataset
from septa.synthetic.shapes import SHAPE_NAMES

PLUS_SHAPED = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
SIZES = [(256, 256), (64, 200), (32, 32)]


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def touching_pairs(labels_yx: np.ndarray) -> set[tuple[int, int]]:
    first = np.concatenate([labels_yx[:-1].ravel(), labels_yx[:, :-1].ravel()])
    second = np.concatenate([labels_yx[1:].ravel(), labels_yx[:, 1:].ravel()])
    meet = (first > 0) & (second > 0) & (first != second)
    return set(zip(first[meet].tolist(), second[meet].tolist()))


def alone(name: str, tries: int = 40) -> list[np.ndarray]:
    """Return masks of one class, cut to their bounding boxes; drawings of this size hold one figure of each class."""
    plane = SHAPE_NAMES.index(name)
    masks = []
    for index in range(tries):
        mask_yx = draw_shapes(190, 200, 5, index).masks_kyx[plane].astype(bool)
        masks.append(mask_yx[ndimage.find_objects(mask_yx.astype(np.uint8))[0]])
    return masks


def test_drawings_depend_on_size_seed_and_index_alone() -> None:
    for draw in (draw_cells, draw_shapes, draw_oct):
        keys = [(64, 96, 0, 0), (64, 96, 0, 1), (64, 96, 1, 0), (96, 64, 0, 0), (64, 97, 0, 0)]
        digests = [digest(draw(*key).image_cyx) for key in keys]
        assert len(set(digests)) == len(keys)
        # The global generator must not matter.
        np.random.random()  # noqa: NPY002
        assert [digest(draw(*key).image_cyx) for key in reversed(keys)] == digests[::-1]


@pytest.mark.parametrize("size_hw", SIZES)
def test_cells_are_numbered_connected_regions(size_hw: tuple[int, int]) -> None:
    for index in range(12):
        drawing = draw_cells(*size_hw, 1, index)
        labels_yx = drawing.labels_yx
        assert drawing.image_cyx.shape == (1, *size_hw)
        assert drawing.image_cyx.dtype == np.uint16
        assert labels_yx.shape == size_hw
        assert labels_yx.dtype == np.int32
        ids = np.unique(labels_yx[labels_yx > 0])
        np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
        for cell in ids:
            _, parts = ndimage.label(labels_yx == cell, PLUS_SHAPED)
            assert parts == 1
            assert np.count_nonzero(labels_yx == cell) >= 30


@pytest.mark.parametrize("diameter", [6, 12, 40, 120])
def test_cells_have_the_diameter_that_is_asked_for(diameter: float) -> None:
    side = max(128, 4 * diameter)
    widths = []
    for index in range(3):
        labels_yx = draw_cells(side, side, 2, index, diameter=diameter).labels_yx
        # Cells at the edge are cut.
        inner = np.setdiff1d(labels_yx, [labels_yx[0], labels_yx[-1], labels_yx[:, 0], labels_yx[:, -1]])
        areas = np.bincount(labels_yx.ravel())
        widths += [2 * np.sqrt(areas[cell] / np.pi) for cell in inner if cell]
    assert 0.8 * diameter < np.median(widths) < 1.1 * diameter


def test_a_diameter_is_refused_where_it_means_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the diameter must be 6 to 200 pixels, got 5"):
        draw_cells(64, 64, 0, diameter=5)
    with pytest.raises(InputError, match="diameter: it must be 6 to 200 pixels, got 300"):
        write_dataset(tmp_path, "cells", 1, (64, 64), 0, diameter=300)
    with pytest.raises(InputError, match="drawings of kind oct have no cells"):
        write_dataset(tmp_path, "oct", 1, (64, 64), 0, diameter=30)


def test_cells_have_the_stated_width() -> None:
    widths = []
    for index in range(12):
        labels_yx = draw_cells(256, 256, 2, index).labels_yx
        areas = np.bincount(labels_yx.ravel())[1:]
        inner = np.setdiff1d(labels_yx, np.concatenate([labels_yx[[0, -1]].ravel(), labels_yx[:, [0, -1]].ravel()]))
        widths += np.sqrt(areas[inner - 1] * 4 / np.pi).tolist()
        assert 0.1 < (labels_yx > 0).mean() < 0.7
    assert np.percentile(widths, 10) > 13
    assert np.percentile(widths, 95) < 40


def test_cells_often_touch() -> None:
    share = []
    for index in range(12):
        labels_yx = draw_cells(256, 256, 3, index).labels_yx
        pairs = touching_pairs(labels_yx)
        assert pairs
        share.append(len({cell for pair in pairs for cell in pair}) / labels_yx.max())
    assert 0.3 < np.mean(share) < 0.95
    assert min(share) < 0.9


def test_cells_use_the_16_bit_range_without_saturation() -> None:
    brightest = []
    for index in range(40):
        for size_hw in SIZES:
            counts = draw_cells(*size_hw, 4, index).image_cyx
            assert counts.min() > 0
            assert counts.max() < 65_535
            brightest.append(counts.max())
    assert min(brightest) > 2_000
    assert max(brightest) > 30_000


def test_cells_are_bright_but_no_single_threshold_finds_them() -> None:
    best = []
    for index in range(12):
        drawing = draw_cells(256, 256, 5, index)
        cells_yx, counts_yx = drawing.labels_yx > 0, drawing.image_cyx[0].astype(float)
        assert counts_yx[cells_yx].mean() > 1.5 * counts_yx[~cells_yx].mean()
        dice = [
            2 * np.count_nonzero(cells_yx & (counts_yx > level)) / (cells_yx.sum() + (counts_yx > level).sum())
            for level in np.percentile(counts_yx, np.arange(5, 100, 2))
        ]
        best.append(max(dice))
    assert min(best) > 0.75
    assert max(best) < 0.995
    means = ndimage.mean(counts_yx, drawing.labels_yx, np.arange(1, drawing.labels_yx.max() + 1))
    assert np.std(means) / np.mean(means) > 0.15


def test_cell_images_hold_shot_noise() -> None:
    # The variance of differences between neighbours grows with the mean.
    drawing = draw_cells(256, 256, 6)
    counts_yx = drawing.image_cyx[0].astype(float)
    rough_yx = (counts_yx[:, 1:-1] - (counts_yx[:, :-2] + counts_yx[:, 2:]) / 2) ** 2
    inner_yx = ndimage.binary_erosion(drawing.labels_yx[:, 1:-1] > 0, iterations=2)
    outer_yx = ~ndimage.binary_dilation(drawing.labels_yx[:, 1:-1] > 0, iterations=4)
    assert rough_yx[outer_yx].mean() > 0
    assert rough_yx[inner_yx].mean() > 2 * rough_yx[outer_yx].mean()


@pytest.mark.parametrize("size_hw", SIZES)
def test_figures_are_brighter_than_the_background(size_hw: tuple[int, int]) -> None:
    overlapping = 0
    for index in range(12):
        drawing = draw_shapes(*size_hw, 1, index)
        assert drawing.image_cyx.shape == (1, *size_hw)
        assert drawing.image_cyx.dtype == np.uint8
        assert drawing.masks_kyx.shape == (6, *size_hw)
        assert drawing.masks_kyx.dtype == np.uint8
        assert set(np.unique(drawing.masks_kyx)) == {0, 1}
        background_yx = ~drawing.masks_kyx.any(0)
        for mask_yx in drawing.masks_kyx:
            assert mask_yx.any()
            assert drawing.image_cyx[0][mask_yx > 0].mean() > drawing.image_cyx[0][background_yx].mean() + 15
        assert drawing.image_cyx.max() < 255
        overlapping += np.count_nonzero(drawing.masks_kyx.sum(0) > 1)
    assert overlapping > 0


def test_more_figures_in_larger_drawings() -> None:
    disks_yx = draw_shapes(768, 768, 0).masks_kyx[SHAPE_NAMES.index("disk")]
    assert disks_yx.sum() > 6 * np.mean([mask.sum() for mask in alone("disk")])


def test_squares() -> None:
    for mask_yx in alone("square"):
        assert mask_yx.all()
        assert mask_yx.shape[0] == mask_yx.shape[1]


def test_disks() -> None:
    for mask_yx in alone("disk"):
        size = len(mask_yx)
        assert mask_yx.shape == (size, size)
        y, x = np.indices(mask_yx.shape) - (size - 1) / 2
        np.testing.assert_array_equal(mask_yx, np.hypot(y, x) <= (size - 1) / 2 + 1e-9)


def test_triangles() -> None:
    for mask_yx in alone("triangle"):
        widths = mask_yx.sum(1)
        assert widths[0] == 1
        assert widths[-1] == len(widths)
        assert set(np.diff(widths)) <= {0, 2}
        np.testing.assert_array_equal(mask_yx, mask_yx[:, ::-1])
        np.testing.assert_allclose(widths, np.arange(len(widths)) + 0.5, atol=1)


def test_rings() -> None:
    for mask_yx in alone("ring"):
        size = len(mask_yx)
        filled_yx = ndimage.binary_fill_holes(mask_yx)
        y, x = np.indices(mask_yx.shape) - (size - 1) / 2
        np.testing.assert_array_equal(filled_yx, np.hypot(y, x) <= (size - 1) / 2 + 1e-9)
        _, holes = ndimage.label(~mask_yx & filled_yx)
        assert holes == 1
        assert 0.1 < mask_yx.sum() / filled_yx.sum() < 0.6


def test_meshes() -> None:
    for mask_yx in alone("mesh"):
        np.testing.assert_array_equal(mask_yx.shape, len(mask_yx))
        assert mask_yx[[0, -1]].all()
        assert mask_yx[:, [0, -1]].all()
        windows_yx, number = ndimage.label(~mask_yx)
        assert number == 9
        for place in ndimage.find_objects(windows_yx):
            assert not mask_yx[place].any()


def test_pluses() -> None:
    for mask_yx in alone("plus"):
        np.testing.assert_array_equal(mask_yx, mask_yx.T)
        np.testing.assert_array_equal(mask_yx, mask_yx[::-1])
        bar = mask_yx.all(1)
        assert 0 < bar.sum() < len(bar) / 2
        np.testing.assert_array_equal(mask_yx, bar[:, None] | bar[None, :])


@pytest.mark.parametrize("draw", [draw_cells, draw_shapes, draw_oct])
def test_impossible_drawings_are_refused(draw: object) -> None:
    assert callable(draw)
    for height, width in ((31, 64), (64, 0), (64, 20_000)):
        with pytest.raises(ValueError, match=f"got {height} x {width}"):
            draw(height, width, 0)
    with pytest.raises(ValueError):
        draw(64, 64, -1)


def test_a_written_cell_dataset_holds_its_drawings(tmp_path: Path) -> None:
    images = write_dataset(tmp_path / "new" / "data", "cells", 3, (48, 64), 7)
    assert images == [tmp_path / "new" / "data" / "images" / f"cells_{index:04d}.tif" for index in range(3)]
    for index, image in enumerate(images):
        drawing = draw_cells(48, 64, 7, index)
        stored = tifffile.imread(image)
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored.reshape(1, 48, 64), drawing.image_cyx)
        labels_yx = tifffile.imread(image.parents[1] / "labels" / image.name)
        assert labels_yx.dtype.kind == "u"
        np.testing.assert_array_equal(labels_yx, drawing.labels_yx)
    assert sorted(path.name for path in (tmp_path / "new" / "data").iterdir()) == ["images", "labels"]
    assert len(list((tmp_path / "new" / "data" / "labels").iterdir())) == 3


def test_a_written_shape_dataset_is_read_as_one_plane_for_each_class(tmp_path: Path) -> None:
    from septa.images.read import read_image, read_labels

    images = write_dataset(tmp_path, "shapes", 2, (48, 64), 7)
    for index, image in enumerate(images):
        drawing = draw_shapes(48, 64, 7, index)
        with Image.open(image) as stored:
            assert stored.format == "PNG"
        np.testing.assert_array_equal(read_image(image), drawing.image_cyx)
        raw = read_labels(tmp_path / "labels" / f"{image.stem}.tif")
        assert raw.kind == "channels"
        np.testing.assert_array_equal(raw.array, drawing.masks_kyx)


def test_a_written_oct_dataset_is_read_as_two_classes(tmp_path: Path) -> None:
    from septa.images.read import read_image, read_labels
    from septa.labels.detect import find_mapping
    from septa.recipe import DataSettings

    images = write_dataset(tmp_path, "oct", 6, (48, 64), 7)
    assert images[2] == tmp_path / "images" / "oct_0002.png"
    wet = 0
    for index, image in enumerate(images):
        drawing = draw_oct(48, 64, 7, index)
        np.testing.assert_array_equal(read_image(image), drawing.image_cyx)
        np.testing.assert_array_equal(read_labels(tmp_path / "labels" / image.name).array, drawing.labels_yx)
        wet += bool(drawing.labels_yx.any())
    assert 0 < wet < len(images)
    raws = [(path.name, read_labels(path)) for path in sorted((tmp_path / "labels").iterdir())]
    mapping = find_mapping(raws, DataSettings())
    assert (mapping.kind, mapping.values) == ("binary", (0, 255))


def test_count_and_held_out_drawings_do_not_influence_each_other(tmp_path: Path) -> None:
    small = write_dataset(tmp_path / "small", "cells", 1, (32, 40), 3, held_out=2)
    large = write_dataset(tmp_path / "large", "cells", 2, (32, 40), 3, held_out=1)
    assert [path.relative_to(tmp_path / "small").parts[0] for path in small] == ["images", "held_out", "held_out"]
    assert small[0].read_bytes() == large[0].read_bytes()
    assert small[1].read_bytes() == large[2].read_bytes()
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "small" / "held_out" / "labels" / small[2].name),
        draw_cells(32, 40, 3, HELD_OUT_INDEX + 1).labels_yx,
    )


@pytest.mark.parametrize("occupied", ["images", "labels", "held_out/images", "held_out/labels"])
def test_a_folder_with_files_is_refused_untouched(tmp_path: Path, occupied: str) -> None:
    (tmp_path / occupied).mkdir(parents=True)
    (tmp_path / occupied / "mine.tif").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"mine\.tif") as caught:
        write_dataset(tmp_path, "shapes", 1, (32, 32), 0, held_out=1)
    assert str(tmp_path / occupied) in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / occupied / "mine.tif"]


def test_empty_and_unrelated_folders_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "notes.txt").write_text("unrelated")
    assert len(write_dataset(tmp_path, "shapes", 1, (32, 32), 0)) == 1


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file")
    with pytest.raises(InputError, match="this is a file, not a folder"):
        write_dataset(tmp_path, "shapes", 1, (32, 32), 0)


@pytest.mark.parametrize(
    ("kind", "count", "size_hw", "seed", "held_out", "pattern"),
    [
        ("dogs", 1, (32, 32), 0, 0, "'dogs' is not a kind"),
        ("dogs", 1, (32, 32), 0, 0, "cells, shapes or oct"),
        ("cells", 0, (32, 32), 0, 0, "at least 1, got 0"),
        ("cells", 1, (32, 32), 0, -1, "at least 0, got -1"),
        ("cells", 1, (31, 32), 0, 0, "got 31x32"),
        ("cells", 1, (32, 32), -5, 0, "got -5"),
    ],
)
def test_settings_out_of_range_are_refused(
    tmp_path: Path, kind: str, count: int, size_hw: tuple[int, int], seed: int, held_out: int, pattern: str
) -> None:
    with pytest.raises(InputError, match=pattern):
        write_dataset(tmp_path, kind, count, size_hw, seed, held_out=held_out)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
