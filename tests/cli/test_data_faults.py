"""Unusable data: `septa check` reports all problems at once, `septa train` stops with one line."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from septa.images.write import write_labels


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def huge_png(path):
    """Write a PNG whose header claims 50000 x 50000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    chunks = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, data, b"IEND")
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def smooth(path):
    """Reduce and enlarge labels with interpolation."""
    image = Image.open(path)
    half = image.resize((28, 24), Image.Resampling.BILINEAR)
    half.resize(image.size, Image.Resampling.BILINEAR).save(path)


def with_exif(path):
    image = Image.open(path)
    exif = Image.Exif()
    exif[274] = 6
    image.save(path, exif=exif)


def as_jpeg(path):
    Image.open(path).save(path, format="JPEG")


def resize(path):
    write_labels(path, np.asarray(Image.open(path))[:-8])


def stray(path):
    labels = np.asarray(Image.open(path)).copy()
    labels[4:9, 4:9] = 77
    write_labels(path, labels)


SPOILT = {
    "truncated image": ("images/c.png", truncate, "PNG data cannot be decoded"),
    "truncated labels": ("labels/c.png", truncate, "PNG data cannot be decoded"),
    "empty file": ("images/c.png", lambda path: path.write_bytes(b""), "the file is empty"),
    "unknown format": ("images/c.png", lambda path: path.write_bytes(b"hello" * 50), "the file is not a PNG, JPEG"),
    "foreign format": ("images/c.png", lambda path: path.write_bytes(b"ZISRAWFILE" * 50), "CZI"),
    "JPEG labels": ("labels/c.png", as_jpeg, "JPEG compression"),
    "interpolated labels": ("labels/c.png", smooth, "as after resizing, smoothing or JPEG"),
    "size differs": ("labels/c.png", resize, "have 40 x 56 pixels"),
    "turned labels": ("labels/c.png", with_exif, "orientation flag (EXIF 6)"),
    "huge header": ("images/c.png", huge_png, "raise the limit with --max-pixels 2500000000"),
}


@pytest.mark.parametrize("spoilt", ["interpolated labels", "huge header"])
def test_training_refuses_in_one_line(fault, data, tmp_path, spoilt):
    name, spoil, problem = SPOILT[spoilt]
    spoil(data / name)
    line = fault("train", data, "-o", tmp_path / "x.septa")
    assert line.startswith(f"{data / name}: ")
    assert problem in line
    assert not (tmp_path / "x.septa").exists()


def test_check_reports_all_at_once(septa, data, fault, tmp_path):
    names = iter("abcdefghijklmnop")
    for letter in "ghijklmnop":
        for folder in ("images", "labels"):
            shutil.copy(data / folder / "f.png", data / folder / f"{letter}.png")
    expected = []
    for name, spoil, problem in SPOILT.values():
        path = data / name.replace("c.png", f"{next(names)}.png")
        spoil(path)
        expected.append((str(path), problem))
    shutil.copy(data / "images" / "p.png", data / "images" / "lonely.png")
    expected.append((str(data / "images" / "lonely.png"), "the image has no labels"))
    page = tmp_path / "page.html"
    done = septa("check", data, "--html", page, code=2)
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    for path, problem in expected:
        found = [line for line in lines if line.startswith(f"error: {path}: ") and problem in line]
        assert len(found) == 1, (path, problem, lines)
        assert found[0].count(". ") >= 1
    assert f"{len(lines)} errors, " in done.stdout
    assert str(data / "images" / "lonely.png") in page.read_text(encoding="utf-8")
    # The same data stop a training at the first error, and the message says how to see the others.
    line = fault("train", data, "-o", tmp_path / "x.septa")
    assert line.startswith(lines[0].removeprefix("error: ").rstrip("."))
    assert f"({len(lines) - 1} more: 'septa check {data}' lists them all)" in line


def test_sound_data_pass(septa, data):
    done = septa("check", data)
    assert done.stdout.endswith("0 errors, 0 warnings\n")
    assert "labels: {0, 255} are background and foreground" in done.stdout


def test_checking_does_not_import_torch(data):
    program = (
        "import sys, septa.cli\n"
        f"sys.argv = ['septa', 'check', {str(data)!r}]\n"
        "try:\n    septa.cli.main()\n"
        "finally:\n    assert 'torch' not in sys.modules and 'numpy' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_check_warns_of_data_that_would_spoil_a_training(septa, data):
    constant = np.full((48, 56), 9, np.uint8)
    Image.fromarray(constant).save(data / "images" / "a.png")
    for folder in ("images", "labels"):
        shutil.copy(data / folder / "b.png", data / folder / "c.png")
    done = septa("check", data)
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert any(f"{data / 'images' / 'a.png'}: every pixel of the image has the same value" in line for line in warnings)
    assert any(
        f"{data / 'images' / 'b.png'}: the image and its labels are identical to those of c" in line
        for line in warnings
    )
    assert f"0 errors, {len(warnings)} warnings" in done.stdout


def test_classes_without_pixels(septa, data):
    settings = ["--set", "data.values=[0, 255, 3]", "--set", "data.class_names=[sky, cell, moon]"]
    done = septa("check", data, *settings)
    assert f"warning: {data}: the class 'moon' is in no label image" in done.stdout
    for path in (data / "labels").iterdir():
        write_labels(path, np.zeros((48, 56), np.uint8))
    done = septa("check", data, code=2)
    assert "every label image holds only the value 0" in done.stdout


def test_stray_values(septa, data):
    stray(data / "labels" / "d.png")
    done = septa("check", data, "--set", "data.values=[0, 255]", code=2)
    assert f"error: {data / 'labels' / 'd.png'}: " in done.stdout
    assert "hold 77, which data.values does not list" in done.stdout


def test_pixels_that_are_not_finite(septa, fault, copied, tmp_path):
    names = sorted(path.name for path in (copied / "images").iterdir())
    for name in names:
        image = tifffile.imread(copied / "images" / name).astype(np.float32)
        image[3, 4] = np.nan if name == names[2] else image[3, 4]
        tifffile.imwrite(copied / "images" / name, image)
    done = septa("check", copied, code=2)
    assert f"error: {copied / 'images' / names[2]}: the image holds NaN or infinite pixels" in done.stdout
    assert fault("train", copied, "-o", tmp_path / "x.septa").startswith(f"{copied / 'images' / names[2]}: ")


def test_channels_that_differ(septa, data):
    two = np.zeros((2, 48, 56), np.uint8)
    two[:, 3] = 1
    tifffile.imwrite(data / "images" / "b.tif", two, metadata={"axes": "CYX"})
    (data / "images" / "b.png").unlink()
    rgb = np.random.default_rng(0).integers(0, 255, (48, 56, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(data / "images" / "a.png")
    done = septa("check", data, code=2)
    assert f"{data / 'images' / 'b.tif'}: the image has 2 channels and the net takes 3" in done.stdout


def test_folders_that_hold_no_data(fault, tmp_path):
    missing = tmp_path / "nowhere"
    assert fault("train", missing).startswith(f"{missing}: there is no such folder. ")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert fault("train", empty).startswith(f"{empty}: the folder is empty. ")
    (empty / "images").mkdir()
    assert fault("recipe", empty).startswith(f"{empty}: the folder holds images/ but no labels/. ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_the_error_of_a_pairing_lists_files(septa, fault, data, model, tmp_path):
    (data / "labels" / "b.png").unlink()
    shutil.copy(data / "labels" / "d.png", data / "labels" / "d.tif")
    line = fault("train", data, "-o", tmp_path / "x.septa")
    assert line.startswith(f"{data / 'images' / 'b.png'}: the image has no labels. ")
    assert f"(3 more: 'septa check {data}' lists them all)" in line
    line = fault("evaluate", model, data)
    start, end = f"{data}: 4 files cannot be paired: ", ". Give each image exactly one label file of the same name, "
    assert line.startswith(start)
    files, _, remedy = line.removeprefix(start).partition(end)
    assert remedy
    assert sorted(files.split(", ")) == [
        "images/b.png (the image has no labels)",
        "images/d.png (2 label files match this image)",
        "labels/d.png (2 label files match its image)",
        "labels/d.tif (2 label files match its image)",
    ]


def test_max_pixels_reaches_training_and_check(septa, data):
    done = septa("check", data, "--max-pixels", 2000, code=2)
    for name in "abcdef":
        assert f"error: {data / 'images' / name}.png: 48 x 56 pixels" in done.stdout
        assert f"error: {data / 'labels' / name}.png: 48 x 56 pixels" in done.stdout


def test_one_image_with_a_soft_mask_trains_and_is_scored_on_its_held_out_part(septa, fault, data, tiny, tmp_path):
    sample, model = tmp_path / "one", tmp_path / "one.septa"
    for folder, name in (("images", "a.png"), ("masks", "a_mask.jpg")):
        (sample / folder).mkdir(parents=True)
        Image.open(data / ("images" if folder == "images" else "labels") / "a.png").save(sample / folder / name)
    assert "set data.threshold=128" in fault("train", sample, "-o", model, *tiny)
    settings = [*tiny, "--set", "data.threshold=128"]
    first = septa("train", sample, "-o", model, *settings).stdout
    assert "validation: there is only one image, so the 20% at its " in first
    assert "labels: values of at least 128 are foreground" in first
    assert "there is only one image" in septa("recipe", sample, "--set", "data.threshold=128").stdout
    scored = septa("evaluate", model, sample).stdout
    assert "of 1 image, only the part that the training held out is scored" in scored
    last = [line for line in first.splitlines() if line.startswith("Pixel accuracy")]
    assert last == [line for line in scored.splitlines() if line.startswith("Pixel accuracy")]
    assert "its model is here" in septa("train", sample, "-o", model, "--resume").stdout


def test_the_named_remedy_for_several_folders_of_labels_works(septa, data, tmp_path):
    sample = tmp_path / "eyes"
    for folder, source in (("images", "images"), ("mask", "labels"), ("1st_manual", "labels")):
        shutil.copytree(data / source, sample / folder)
    refused = septa("check", sample, code=2).stdout
    assert "mask: it may hold the labels" in refused
    assert "1st_manual: it may hold the labels" in refused
    _, images, _, labels, *_ = refused.split("'")
    assert "0 errors" in septa("check", sample, "--images", images, "--labels", labels).stdout


@pytest.mark.parametrize("value", [65535, -9999])
def test_check_and_recipe_name_the_images_with_extreme_pixels(septa, data, value):
    """The recipe itself, on stdout, stays a YAML file."""
    for letter in "abcdef":
        image = np.asarray(Image.open(data / "images" / f"{letter}.png")).astype(np.float32)
        if letter in "bc":
            image[2, 3:5] = value
        (data / "images" / f"{letter}.png").unlink()
        tifffile.imwrite(data / "images" / f"{letter}.tif", image)
    where = f"warning: {data / 'images' / 'b.tif'}, {data / 'images' / 'c.tif'}: 2 images hold "
    expected = "pixels far from all others, such as 2 pixels of 65535" if value > 0 else "the nodata value -9999"
    lines = [line for line in septa("check", data).stdout.splitlines() if line.startswith(where)]
    assert len(lines) == 1
    assert expected in lines[0]
    done = septa("recipe", data)
    assert lines[0] in done.stderr.splitlines()
    assert done.stdout.startswith("septa: 1\n")


def test_training_refuses_values_beyond_float32(fault, data, tmp_path):
    shape = np.asarray(Image.open(data / "images" / "b.png")).shape
    (data / "images" / "b.png").unlink()
    path = data / "images" / "b.tif"
    tifffile.imwrite(path, np.full(shape, 1e300))
    for command in (("recipe", data), ("train", data, "-o", tmp_path / "x.septa")):
        assert fault(*command).startswith(f"{path}: the image holds values beyond float32, such as 1e+300. ")
