"""Paths that stand for several files, and patterns of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from septa.errors import InputError
from septa.images import (
    find_image_stem,
    find_matches,
    image_exists,
    list_channel_files,
    list_image_files,
    open_source,
    read_image,
    read_info,
    read_labels,
    split_dataset,
    write_image,
)
from septa.images.sources import Selection

RNG = np.random.default_rng(1)


def put(path: Path, channels: int = 1, size: tuple[int, int] = (9, 12)) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image_cyx = RNG.integers(1, 200, (channels, *size)).astype(np.uint8)
    write_image(path, image_cyx)
    return image_cyx


def test_channels_follow_the_words(tmp_path: Path) -> None:
    planes = {word: put(tmp_path / f"a_{word}.tif") for word in ("dapi", "gfp", "x")}
    path = tmp_path / "a_{gfp,x,dapi}.tif"
    assert image_exists(path)
    assert list_image_files(path) == list_channel_files(path)
    expected_cyx = np.concatenate([planes[word] for word in ("gfp", "x", "dapi")])
    np.testing.assert_array_equal(read_image(path), expected_cyx)
    info = read_info(path)
    assert (info.channels, info.height, info.width, info.color, info.images) == (3, 9, 12, False, 1)
    np.testing.assert_array_equal(read_labels(path).array, expected_cyx)
    with open_source(path) as source:
        assert source.shape == (1, 3, 1, 9, 12)
        np.testing.assert_array_equal(source.read((2, 8), (1, 9)), expected_cyx[:, 2:8, 1:9])
        assert sorted(source.list_files()) == sorted(list_channel_files(path))
    with open_source(path, Selection(channels=(2, 0), region=(1, 1, 7, 7))) as source:
        np.testing.assert_array_equal(source.read((0, 6), (0, 6)), expected_cyx[[2, 0], 1:7, 1:7])
    assert not image_exists(tmp_path / "a_{gfp,none}.tif")


def test_channels_of_different_sizes_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a_1.tif")
    put(tmp_path / "a_2.tif", size=(9, 11))
    path = tmp_path / "a_{1,2}.tif"
    with pytest.raises(InputError, match=r"a_2\.tif: the file has 9 x 11 pixels and a_1\.tif has 9 x 12"):
        read_image(path)
    with pytest.raises(InputError, match=r"a_2\.tif: its T, Z, Y and X are 1 x 1 x 9 x 11, but those of a_1\.tif"):
        open_source(path)


def test_a_file_with_braces_in_its_name_is_a_file(tmp_path: Path) -> None:
    image_cyx = put(tmp_path / "a{b,c}.png")
    assert list_channel_files(tmp_path / "a{b,c}.png") == ()
    np.testing.assert_array_equal(read_image(tmp_path / "a{b,c}.png"), image_cyx)


def test_patterns_join_files_that_differ_in_the_words_only(tmp_path: Path) -> None:
    for name in ("c1_c1.png", "c1_c2.png", "b_c1.png", "b_c2.png", "sub/d_c1.png", "sub/d_c2.png"):
        put(tmp_path / name)
    assert find_matches("*_{c1,c2}.png", tmp_path) == [tmp_path / "b_{c1,c2}.png", tmp_path / "c1_{c1,c2}.png"]
    every = find_matches(f"{tmp_path}/**/*_{{c2,c1}}.png")
    assert [path.name for path in every] == ["b_{c2,c1}.png", "c1_{c2,c1}.png", "d_{c2,c1}.png"]
    (tmp_path / "b_c2.png").unlink()
    (tmp_path / "c1_c1.png").unlink()
    with pytest.raises(InputError) as caught:
        find_matches("*_{c1,c2}.png", tmp_path)
    shown = "b_c1.png (c2 is missing), c1_c2.png (c1 is missing)"
    assert caught.value.problem == f"2 files of the pattern lack other channels: {shown}"


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a.png", "a"),
        ("a.ome.tiff", "a"),
        ("a.nii.gz", "a"),
        ("a.b.png", "a.b"),
        ("a_{dapi,gfp}.ome.tif", "a"),
        ("{dapi,gfp}_a.tif", "a"),
        ("{dapi,gfp}/a.tif", "a"),
        ("a.ome.zarr/labels/cells", "a"),
        ("labels/cells.png", "cells"),
    ],
)
def test_stems(path: str, stem: str) -> None:
    assert find_image_stem(Path("folder") / path) == stem


def test_datasets_are_inside_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    assert split_dataset(Path(f"{tmp_path}/a.h5:/b/c")) == (tmp_path / "a.h5", "/b/c")
    assert split_dataset(Path(f"{tmp_path}/b.h5:/c")) == (Path(f"{tmp_path}/b.h5:/c"), "")
    assert find_image_stem(Path(f"{tmp_path}/a.h5:/b/c")) == "a"
