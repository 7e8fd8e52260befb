"""What `septa predict` writes, and what no command replaces; through the real command, without a training."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from septa import cli
from septa.images import read_info

MODEL = Path(__file__).parents[1] / "files" / "v0.1" / "instances.septa"
"""A model that finds objects."""
EVERYTHING = ("--overlay", "--probabilities", "--geojson", "--rois")


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Draw bright discs on a dark, noisy background, uint8."""
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 4, shape)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    for _ in range(6):
        top, left = rng.uniform(6, shape[-2] - 6), rng.uniform(6, shape[-1] - 6)
        image[..., (y - top) ** 2 + (x - left) ** 2 < 36] += 150
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture
def septa(monkeypatch, capsys):
    """Return a function ``septa(*arguments, code=0)`` that runs the command in this process; return its stderr."""

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["septa", "--no-prepare", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert int(ended.value.code or 0) == code, printed
        return printed.err

    return run


@pytest.fixture
def fault(septa):
    """Return a function that runs a failing command and returns its line on stderr without ``error: ``."""

    def run(*arguments, code=2):
        (line,) = septa(*arguments, code=code).splitlines()
        return line.removeprefix("error: ")

    return run


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def images(tmp_path):
    """Two images and their ground truth, drawn by hand, in images/ and labels/."""
    for name in ("a", "b"):
        for folder, seed in (("images", 1), ("labels", 2)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(draw(40, 48, seed=seed)).save(tmp_path / folder / f"{name}.png")
    return tmp_path / "images"


def test_labels_drawn_by_hand_are_kept(septa, fault, images):
    labels = images.parent / "labels"
    before = contents(labels)
    line = fault("predict", MODEL, images, "-o", labels)
    assert line == (
        f"{labels}: 2 files in it were not written by septa (a.png, b.png). Give another folder with -o, or "
        "--overwrite to replace them."
    )
    assert contents(labels) == before
    septa("predict", MODEL, images, "-o", labels, "--overwrite")
    after = contents(labels)
    assert all(after[path] != before[path] for path in before)
    septa("predict", MODEL, images, "-o", labels)  # files of septa by now
    assert contents(labels) == after
    Image.fromarray(draw(40, 48, seed=3)).save(labels / "a.png")
    assert "a.png: the file was changed after septa wrote it. " in fault("predict", MODEL, images, "-o", labels)
    shutil.copytree(images, images.parent / "other")
    line = fault("predict", MODEL, images.parent / "other" / "b.png", "-o", labels)
    assert "b.png: the file was written by septa for another image. " in line


def test_a_mask_beside_its_image_is_kept(fault, tmp_path):
    Image.fromarray(draw(40, 48)).save(tmp_path / "a.jpg")
    Image.fromarray(draw(40, 48)).save(tmp_path / "a.png")
    before = contents(tmp_path)
    assert "a.png: the file was not written by septa. " in fault("predict", MODEL, tmp_path / "a.jpg", "-o", tmp_path)
    table = tmp_path / "notes.csv"
    table.write_text("my notes")
    line = fault("predict", MODEL, tmp_path / "a.jpg", "-o", tmp_path / "out", "--table", table)
    assert line.startswith(f"{table}: the file was not written by septa. Give another folder with -o, or --overwrite ")
    assert contents(tmp_path) == {**before, table: b"my notes"}


def test_other_commands_keep_files_too(septa, fault, untrained, tmp_path):
    found, true = untrained / "found", untrained / "true"
    for number, (command, option) in enumerate(
        [
            (("evaluate", found, true), "--json"),
            (("describe", "shapes"), "--json"),
            (("describe", "shapes"), "--svg"),
            (("check", true), "--html"),
        ]
    ):
        path = tmp_path / f"file{number}"
        path.write_text("by hand")
        assert fault(*command, option, path).startswith(f"{path}: the file was not written by septa. Give another name")
        assert path.read_text() == "by hand"
        code = 2 if command[0] == "check" else 0  # the folder cannot be trained on
        septa(*command, option, path, "--overwrite", code=code)
        assert path.read_text() != "by hand"
        septa(*command, option, path, code=code)


def test_pages_and_images_of_one_name_have_files_of_their_own(septa, tmp_path):
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    pages = np.stack([draw(40, 48, seed=seed) for seed in range(3)])
    tifffile.imwrite(inputs / "x.tif", pages, photometric="minisblack", metadata={"axes": "ZYX"})
    Image.fromarray(draw(40, 48, seed=9)).save(inputs / "x_0001.png")
    septa("predict", MODEL, inputs, "-o", out, *EVERYTHING, "--table", out / "t.csv", "--coco", out / "c.json")
    names = ["x_0001", "x_p0000", "x_p0001", "x_p0002"]
    assert sorted(path.name for path in out.glob("x*")) == ["x.tif", "x_0001.png"]
    for folder, ending in (("overlays", ".png"), ("probabilities", ".tif"), ("outlines", ".geojson")):
        assert sorted(path.name for path in (out / folder).glob(f"*{ending}")) == [f"{name}{ending}" for name in names]
    assert sorted(path.name for path in (out / "outlines").glob("*.zip")) == [f"{name}_rois.zip" for name in names]
    rows = rows_of(out / "t.csv")
    assert {row["image"] for row in rows} <= set(names)
    keys = [(row["image"], row["label"]) for row in rows]
    assert len(set(keys)) == len(keys)
    files = [image["file_name"] for image in json.loads((out / "c.json").read_text())["images"]]
    assert sorted(files) == ["x.tif#0", "x.tif#1", "x.tif#2", "x_0001.png"]


def test_axes_scale_and_channels_of_a_stack_are_kept(septa, tmp_path):
    stack = draw(2, 3, 1, 40, 48)
    scale = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3, "PhysicalSizeZ": 1.5, "TimeIncrement": 60.0}
    tifffile.imwrite(
        tmp_path / "s.ome.tif",
        stack,
        photometric="minisblack",
        metadata={"axes": "TZCYX", **scale, "Channel": {"Name": ["Alexa 488"]}},
    )
    out = tmp_path / "out"
    septa("predict", MODEL, tmp_path / "s.ome.tif", "-o", out, "--table", out / "t.csv")
    with tifffile.TiffFile(out / "s.tif") as file:
        assert (file.series[0].axes, file.series[0].shape) == ("TZYX", (2, 3, 40, 48))
    before, after = (read_info(path).calibration for path in (tmp_path / "s.ome.tif", out / "s.tif"))
    assert before.z_step_um == after.z_step_um == 1.5
    assert (after.pixel_size_um, after.time_step_s) == ((0.3, 0.2), 60.0)
    rows = rows_of(out / "t.csv")
    assert rows
    assert list(rows[0])[:4] == ["image", "frame", "plane", "label"]
    assert {"mean_Alexa_488", "min_Alexa_488", "max_Alexa_488"} <= set(rows[0])
    assert all(int(row["frame"]) * 3 + int(row["plane"]) == int(row["image"][-4:]) for row in rows)
    septa("evaluate", out, out.parent / shutil.copytree(out, tmp_path / "truth").name)


def test_one_image_to_one_file(septa, fault, tmp_path):
    image = tmp_path / "a.png"
    Image.fromarray(draw(40, 48)).save(image)
    septa("predict", MODEL, image, "-o", tmp_path / "mask.png")
    septa("predict", MODEL, image, "-o", tmp_path / "deep" / "mask.tif", "--format", "tif", "--overlay")
    septa("predict", MODEL, image, "-o", tmp_path / "out")
    labels_yx = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), labels_yx)
    assert np.array_equal(tifffile.imread(tmp_path / "deep" / "mask.tif"), labels_yx)
    assert (tmp_path / "deep" / "overlays" / "mask.png").is_file()
    (tmp_path / "folder.png").mkdir()
    septa("predict", MODEL, image, "-o", tmp_path / "folder.png")
    assert (tmp_path / "folder.png" / "a.png").is_file()
    line = fault("predict", MODEL, image, "-o", image)
    assert line == f"{image}: the output would overwrite an input. Give another name for the output."


def test_a_stack_needs_a_file_that_holds_it(fault, septa, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", draw(2, 40, 48), photometric="minisblack", metadata={"axes": "ZYX"})
    for arguments in (("-o", tmp_path / "mask.png"), ("-o", tmp_path / "out", "--format", "png")):
        line = fault("predict", MODEL, tmp_path / "a.tif", *arguments)
        assert line.startswith(f"{tmp_path / 'a.tif'}: a PNG file cannot hold the labels of its 2 pages. ")
    septa("predict", MODEL, tmp_path / "a.tif", "-o", tmp_path / "mask.tif")
    assert tifffile.imread(tmp_path / "mask.tif").shape == (2, 40, 48)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".septa-written.jsonl", "a.tif", "mask.tif"]
