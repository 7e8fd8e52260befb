"""Check the axes of plain zarr arrays: named, unnamed, and with names that septa does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from septa.errors import InputError
from septa.images import open_source

ARRAY = np.random.default_rng(4).integers(0, 255, (3, 4, 20, 30), dtype=np.uint8)


def write(path: Path, array: Any, names: list[Any] | None, zarr_format: int) -> Path:
    if zarr_format == 3:
        zarr.create_array(path, data=array, dimension_names=names)
        return path
    made = zarr.create_array(path, data=array, zarr_format=2)
    if names is not None:
        made.attrs["_ARRAY_DIMENSIONS"] = names
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["t", "c", "y", "x"], "TCYX"),
        (["Time", "Z", "lat", "lon"], "TZYX"),
        (["channel", "depth", "row", "col"], "CZYX"),
        (["y", "band", "t", "x"], "YCTX"),
    ],
)
def test_names_decide(names: list[str], axes: str, zarr_format: int, tmp_path: Path) -> None:
    sizes = dict(zip("TCZYX", (3, 4, 2, 20, 30)))
    array = np.random.default_rng(4).integers(0, 255, [sizes[axis] for axis in axes], dtype=np.uint8)
    with open_source(write(tmp_path / "a", array, names, zarr_format)) as source:
        assert (source.axes, source.notes) == (axes, ())
        assert source.shape == tuple(sizes[axis] if axis in axes else 1 for axis in "TCZYX")
        order = [axes.index(axis) for axis in "TCZYX" if axis in axes]
        whole = array.transpose(order).reshape(source.shape)
        t, z = source.shape[0] - 1, source.shape[2] - 1
        np.testing.assert_array_equal(source.read((2, 9), (3, 30), t=t, z=z), whole[t, :, z, 2:9, 3:])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "names", [["a", "b", "y", "x"], ["t", "t", "y", "x"], ["t", "c", "z", "x"], [None, None, "y", "x"], ["y", "x"]]
)
def test_unknown_names_are_refused(names: list[Any], zarr_format: int, tmp_path: Path) -> None:
    if zarr_format == 3 and len(names) == 2:
        pytest.skip("zarr writes one name for each axis")
    path = write(tmp_path / "a", ARRAY, names, zarr_format)
    with pytest.raises(InputError, match=r"septa does not read the axes \[.*\] of an array of 4 axes\. Name them"):
        open_source(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("names", [None, ["dim_0", "dim_1", "dim_2", "dim_3"]])
def test_axes_without_names_are_said(names: list[str] | None, zarr_format: int, tmp_path: Path) -> None:
    with open_source(write(tmp_path / "a", ARRAY, names, zarr_format)) as source:
        assert source.notes == ("its axes have no names and are read as CZYX",)
        np.testing.assert_array_equal(source.read((0, 20), (0, 30), z=1), ARRAY[:, 1])


def test_colours_along_the_last_axis(tmp_path: Path) -> None:
    image_yxc = ARRAY[:3].reshape(40, 60, 3)
    zarr.create_array(tmp_path / "a", data=image_yxc)
    with open_source(tmp_path / "a") as source:
        assert source.notes == ("its axes have no names and are read as YXC",)
        np.testing.assert_array_equal(source.read((0, 40), (0, 60)), image_yxc.transpose(2, 0, 1))
    zarr.create_array(tmp_path / "b", data=ARRAY[0, :, :4, :4])  # too small for a guess
    with open_source(tmp_path / "b") as source:
        assert source.axes == "CYX"
