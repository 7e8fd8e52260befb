"""`septa predict` and `septa info`: the files they write, and the inputs they refuse or skip."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from septa.images.read import read_info

HALO, LEAST = 24, 52
"""Halo and smallest tile of the tiny model: depth 2, two convolutions per level, rounded up to multiples of 4."""


def test_label_files_keep_stem_size_and_pixel_size(septa, pixel_model, cells, tmp_path):
    image = tifffile.imread(cells / "images" / "cells_0000.tif")
    inputs = tmp_path / "new"
    inputs.mkdir()
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(inputs / "scaled.ome.tif", np.tile(image, (2, 3)), metadata={"axes": "YX", **size})
    stack = np.stack([image, image[::-1], image[:, ::-1]])
    tifffile.imwrite(inputs / "stack.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    Image.fromarray(image[:50, :41]).save(inputs / "odd.png")
    (inputs / "notes.txt").write_text("no image")
    output = tmp_path / "deep" / "out"
    done = septa(
        "predict", pixel_model, inputs, "-o", output, "--certify", "--overlay", "--probabilities", "--tile", LEAST + 20
    )
    assert {str(path.relative_to(output)) for path in output.rglob("[!.]*") if path.is_file()} == {
        *("odd.png", "scaled.tif", "stack.tif"),
        *(f"overlays/{name}.png" for name in ("odd", "scaled", "stack_0000", "stack_0001", "stack_0002")),
        *(f"probabilities/{name}.tif" for name in ("odd", "scaled", "stack_0000", "stack_0001", "stack_0002")),
    }
    odd, scaled, stacked = (read_info(output / name) for name in ("odd.png", "scaled.tif", "stack.tif"))
    assert (odd.height, odd.width, odd.pages) == (50, 41, 1)
    assert (scaled.height, scaled.width) == (128, 192)
    assert scaled.pixel_size_um == pytest.approx((0.5, 0.25))
    assert stacked.pages == 3
    labels = tifffile.imread(output / "scaled.tif")
    assert set(np.unique(labels)) <= {0, 1}
    probabilities = tifffile.imread(output / "probabilities" / "scaled.tif").astype(np.float32)
    assert probabilities.shape == (2, 128, 192)
    assert np.allclose(probabilities.sum(axis=0), 1, atol=2e-3)
    clear = np.abs(probabilities[1] - 0.5) > 1e-3
    assert np.array_equal(labels[clear], (probabilities[1] > 0.5)[clear])
    assert np.asarray(Image.open(output / "overlays" / "odd.png")).shape == (50, 41, 3)
    line = next(line for line in done.stdout.splitlines() if line.startswith(f"{output / 'scaled.tif'}: "))
    tiles = int(line.split(": ")[1].split(" ")[0])
    assert tiles > 1
    assert "largest difference to the whole image " in line
    assert f"{output / 'odd.png'}: 1 tile, padded by 2 rows and 3 columns inside the net" in done.stdout


def test_it_continues_after_bad_files(septa, model, cells, tmp_path):
    inputs = tmp_path / "new"
    inputs.mkdir()
    good = cells / "images" / "cells_0001.tif"
    image = tifffile.imread(good)
    shutil.copy(good, inputs / "a.tif")
    (inputs / "cut.tif").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (inputs / "odd.png").write_bytes(b"no image at all" * 20)
    tifffile.imwrite(inputs / "nan.tif", np.where(image > image.mean(), np.nan, image).astype(np.float32))
    tifffile.imwrite(inputs / "two.tif", np.stack([image, image]), metadata={"axes": "CYX"})
    wide = np.zeros((64, 65), np.uint16)
    wide[::2] = 500
    tifffile.imwrite(inputs / "wide.tif", wide)
    shutil.copy(good, inputs / "z.tif")
    output = tmp_path / "out"
    done = septa("predict", model, inputs, "-o", output, "--max-pixels", 64 * 64, code=3)
    assert sorted(path.name for path in output.glob("[!.]*")) == ["a.tif", "z.tif"]
    *lines, last = done.stderr.splitlines()
    for line, (name, problem) in zip(
        lines,
        {
            "cut.tif": "the TIFF data cannot be decoded",
            "nan.tif": "the image holds NaN or Inf. Replace these pixels.",
            "odd.png": "the file is not a PNG, JPEG",
            "two.tif": "the image has 2 channels, but the model was trained on 1. ",
            "wide.tif": "raise the limit with --max-pixels 4160",
        }.items(),
        strict=True,
    ):
        assert line.startswith(f"error: {inputs / name}: ")
        assert problem in line
    assert last == f"error: {output}: 5 of 7 images failed, the others are done. See the errors above."


def test_missing_inputs(fault, septa, model, cells, tmp_path):
    out = tmp_path / "out"
    line = fault("predict", model, tmp_path / "no.tif", "-o", out)
    assert line.startswith(f"{tmp_path / 'no.tif'}: the file does not exist. ")
    (tmp_path / "empty").mkdir()
    line = fault("predict", model, tmp_path / "empty", "-o", out)
    assert line.startswith(f"{tmp_path / 'empty'}: the folder contains no images. ")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "cells_0000.png")
    line = fault("predict", model, cells / "images" / "cells_0000.tif", tmp_path / "cells_0000.png", "-o", out)
    assert "its labels would have the same name as those of " in line
    assert not out.exists()


def test_options_that_fit_no_image_are_reported_once(fault, model, cells, tmp_path):
    arguments = ["predict", model, cells / "images", "-o", tmp_path / "out"]
    line = fault(*arguments, "--tile", LEAST - 1)
    assert (
        line
        == f"--tile: a tile of this net must be at least {LEAST} pixels, got {LEAST - 1}. Give --tile {LEAST} or more."
    )
    line = fault(*arguments, "--device", "toaster")
    assert line.startswith("--device: the device must be auto, cpu, cuda, cuda:N or mps, got toaster. ")
    assert fault(*arguments, "--format", "jpg").startswith("--format: the value must be png or tif, got jpg. ")
    assert not (tmp_path / "out").exists()


def test_images_are_not_overwritten_by_their_labels(fault, model, copied):
    image = copied / "images" / "cells_0002.tif"
    before = image.read_bytes()
    for more in ((), ("--overwrite",)):
        line = fault("predict", model, image, "-o", copied / "images", *more)
        assert line == f"{image}: the output would overwrite an input. Give another folder with -o."
    assert image.read_bytes() == before


def test_an_output_that_cannot_be_written(fault, model, cells, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = fault("predict", model, cells / "images" / "cells_0000.tif", "-o", tmp_path / "file" / "out")
    assert line.startswith(f"{tmp_path / 'file' / 'out'}")
    assert "cannot be written (Not a directory)" in line


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 64 KiB on a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"mount cannot be run: {error}")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(septa, fault, small_disk, model, cells, tiny):
    inputs = sorted((cells / "images").iterdir())[:2]
    (small_disk / "filler").write_bytes(bytes(60 * 1024))
    line = fault("predict", model, inputs[0], "-o", small_disk / "out", "--probabilities", code=4)
    assert line.startswith(f"{small_disk / 'out'}")
    assert "the disk or the quota is full. Free some space" in line
    assert [path for path in small_disk.rglob("*") if path.is_file()] == [small_disk / "filler"]
    assert "the disk or the quota is full" in fault("train", cells, "-o", small_disk / "x.septa", *tiny, code=4)
    assert not list(small_disk.rglob(".*.tmp"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(fault, model, cells, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    line = fault("predict", model, cells / "images" / "cells_0000.tif", "-o", locked)
    assert "cannot be written (Permission denied)" in line


# Models --------------------------------------------------------------------------------------------------------------


def test_info_prints_the_contents_of_a_model(septa, model):
    facts = json.loads(septa("info", model).stdout)
    assert facts["channels"] == 1
    assert facts["labels"]["kind"] == "instances"
    assert facts["net"]["halo"] == HALO
    assert facts["net"]["exact_tiles"] is True
    assert facts["recipe"]["net"]["width"] == 4
    assert len(facts["provenance"]["train"]) == 5
    assert len(facts["provenance"]["validation"]) == 1


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def other_files(model: Path, folder: Path) -> dict[str, str]:
    """Write files that are not valid models; return the start of the error of each."""
    import pickle

    data = model.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    weight = bytearray(data)
    weight[-3] ^= 1
    header = data.replace(b'\\"channels\\": 1', b'\\"channels\\": 3', 1)
    assert header != data
    contents = {
        "cut.septa": (data[:-50], "the file is damaged"),
        "weight.septa": (bytes(weight), "the file was changed after septa wrote it"),
        "header.septa": (header, "the file was changed after septa wrote it"),
        "head.septa": (data[: size // 2], "the file is not a septa model"),
        "pickle.septa": (pickle.dumps(Evil(str(folder / "pwned"))), "the file is not a septa model"),
        "empty.septa": (b"", "the file is not a septa model"),
        "length.septa": (struct.pack("<Q", 2**63) + data[8:], "the file is not a septa model"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {name: problem for name, (_, problem) in contents.items()} | {"missing.septa": "the file cannot be read"}


def test_files_that_are_not_valid_models(model, tmp_path):
    from septa.errors import ModelError
    from septa.model import Model

    for name, problem in other_files(model, tmp_path).items():
        with pytest.raises(ModelError) as caught:
            Model.load(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {problem}"), str(caught.value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["weight.septa", "pickle.septa", "missing.septa"])
def test_an_invalid_model_is_one_line_on_the_command_line(fault, model, cells, tmp_path, name):
    problem = other_files(model, tmp_path)[name]
    line = fault("predict", tmp_path / name, cells / "images", "-o", tmp_path / "out")
    assert line.startswith(f"{tmp_path / name}: {problem}")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "pwned").exists()
