"""Segment zarr images in zip files, at addresses and in plates: the labels are those of the same image in a folder."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

Septa = Callable[..., tuple[int, str, str]]


@pytest.fixture
def model(kit: SimpleNamespace, tmp_path: Path) -> Path:
    kit.make("softmax").save(tmp_path / "m.septa")
    return tmp_path / "m.septa"


def write_plate(kit: SimpleNamespace, path: Path, zarr_format: int = 3) -> dict[str, np.ndarray]:
    """Write a plate of three wells, one of which has two fields; return the images."""
    plate = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    images = {}
    for number, (well, fields) in enumerate({"A/1": ["0"], "A/2": ["0", "1"], "B/1": ["0"]}.items()):
        group = plate.create_group(well)
        entry = {"well": {"images": [{"path": field} for field in fields]}}
        group.attrs.update({"ome": entry} if zarr_format == 3 else entry)
        for field in fields:
            image = kit.texture((70, 60), seed=10 * number + int(field))
            kit.write_image(path / well / field, image, "YX")
            images[f"{well.replace('/', '')}_{field}"] = image
    wells = {"plate": {"wells": [{"path": well} for well in ("A/1", "A/2", "B/1")]}}
    plate.attrs.update({"ome": wells} if zarr_format == 3 else wells)
    return images


def test_a_zip_file_and_an_address(
    kit: SimpleNamespace, septa: Septa, model: Path, tmp_path: Path, server: Any
) -> None:
    kit.write_image(tmp_path / "a.ome.zarr", kit.texture((90, 140)), "YX", levels=2)
    shutil.make_archive(str(tmp_path / "a.ome.zarr"), "zip", tmp_path / "a.ome.zarr")
    for name, image in {"folder": tmp_path / "a.ome.zarr", "zip": tmp_path / "a.ome.zarr.zip"}.items():
        code, _, error = septa("predict", model, image, "-o", tmp_path / name)
        assert (code, error) == (0, "")
    server.faults = {"0": ["drop", "cut", "busy"], "1": ["drop"]}
    address = f"{server.address}/a.ome.zarr"
    assert septa("predict", model, address, "-o", tmp_path / "web")[0] == 0
    expected = kit.read(tmp_path / "folder/a.ome.zarr", "m")
    assert expected.any()
    np.testing.assert_array_equal(kit.read(tmp_path / "zip/a.ome.zarr", "m"), expected)
    np.testing.assert_array_equal(kit.read(tmp_path / "web/a.ome.zarr", "m"), expected)
    assert "is complete already" in septa("predict", model, address, "-o", tmp_path / "web")[1]
    code, _, error = septa("predict", model, f"{server.address}/b.zarr", "-o", tmp_path / "c.zarr")
    assert (code, "holds no OME-Zarr image" in error) == (2, True)


def test_the_fields_of_a_plate(kit: SimpleNamespace, septa: Septa, model: Path, tmp_path: Path) -> None:
    images = write_plate(kit, tmp_path / "p.zarr")
    assert septa("predict", model, tmp_path / "p.zarr", "-o", tmp_path / "out", "--wells", "a2,B*")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"p_{name}.ome.zarr" for name in ("A2_0", "A2_1", "B1_0")
    ]
    whole_yx = kit.make("softmax").segment(images["A2_1"][None])
    written_yx = np.asarray([0, 7, 300])[whole_yx]
    np.testing.assert_array_equal(kit.read(tmp_path / "out/p_A2_1.ome.zarr", "m"), written_yx)
    with zipfile.ZipFile(tmp_path / "p.zarr.zip", "w") as file:
        for path in (tmp_path / "p.zarr").rglob("*"):
            file.write(path, path.relative_to(tmp_path))
    one = ("--wells", "A01", "--image", 0)
    assert septa("predict", model, tmp_path / "p.zarr.zip", "-o", tmp_path / "one.ome.zarr", *one)[0] == 0
    assert kit.read(tmp_path / "one.ome.zarr", "m").shape == (70, 60)
    assert septa("predict", model, tmp_path / "p.zarr.zip/A/1/0", "-o", tmp_path / "two.ome.zarr")[0] == 0
    np.testing.assert_array_equal(kit.read(tmp_path / "one.ome.zarr", "m"), kit.read(tmp_path / "two.ome.zarr", "m"))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--wells", "C3"], "the plate has no well C3 (it has A1, A2, B1). Choose among these with --wells."),
        (["--image", "7"], "--image: no well has a field 7. Give another number, or leave the option out."),
        (["-o", "x.zarr"], "one store takes one image, got 4. Give a folder with -o."),
    ],
)
def test_wells_that_do_not_fit(
    options: list[str], line: str, kit: SimpleNamespace, septa: Septa, model: Path, tmp_path: Path
) -> None:
    write_plate(kit, tmp_path / "p.zarr", 2)
    code, _, error = septa("predict", model, tmp_path / "p.zarr", "-o", tmp_path / "out", *options)
    assert (code, error.strip().endswith(line)) == (2, True), error
