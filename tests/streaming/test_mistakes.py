"""Tests of mistakes with stores: each is reported in one line with exit code 2, and nothing is written."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from septa.labels.mapping import LabelMapping
from septa.model import build_net
from septa.tasks.make import make_task

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images and models, which tests must not change."""
    folder = tmp_path_factory.mktemp("data")
    kit.make("distance").save(folder / "m.septa")
    kit.make("multilabel").save(folder / "many.septa")
    kit.make("softmax", channels=3).save(folder / "rgb.septa")
    kit.make("softmax", channels=2).save(folder / "two.septa")
    signed = replace(kit.make("softmax"), labels=LabelMapping("index", ("a", "b", "c"), (-1, 0, 1)))
    signed.save(folder / "signed.septa")
    pooled = kit.make("distance").recipe.with_overrides(["net.norm=instance"])
    net = build_net(pooled, 1, make_task(pooled, kit.make("distance").labels).outputs)
    replace(kit.make("distance"), recipe=pooled, net=net).save(folder / "pooled.septa")
    for name, setting in (("tta", "inference.tta=4"), ("resize", "data.resize=[64, 64]")):
        recipe = kit.make("distance").recipe.with_overrides([setting])
        replace(kit.make("distance"), recipe=recipe).save(folder / f"{name}.septa")
    kit.write_image(folder / "a.ome.zarr", kit.texture((100, 90)), "YX")
    kit.write_image(folder / "b.ome.zarr", kit.texture((2, 40, 50)), "CYX")
    holes = kit.texture((100, 90), "float32")
    holes[80, 70] = np.nan
    tifffile.imwrite(folder / "nan.tif", holes, tile=(32, 32))
    kit.write_image(folder / "nan.ome.zarr", kit.texture((100, 90)), "YX")
    (folder / "text.tif").write_text("no image")
    kit.write_image(folder / "there.ome.zarr", kit.texture((20, 20)), "YX")
    (folder / "there.ome.tif").write_text("mine")
    return folder


WRONG = {
    "channels of the image": (
        "rgb.septa b.ome.zarr -o {o}",
        "the image has 2 channels, but the model was ",
    ),
    "one channel for two": (
        "two.septa a.ome.zarr -o {o}",
        "the image has 1 channel, but the model was trained on 2. Give images with the 2 channels",
    ),
    "no such channel": (
        "m.septa b.ome.zarr -o {o} --channels 2",
        "there is no channel 2: the image has channels 0 to 1",
    ),
    "channel twice": ("rgb.septa b.ome.zarr -o {o} --channels 0,0,1", "each once"),
    "channels text": (
        "m.septa b.ome.zarr -o {o} --channels red",
        "--channels: the value must be channel numbers, got red",
    ),
    "no such level": ("m.septa a.ome.zarr -o {o} --level 3", "there is no level 3: the image has levels 0 to 0"),
    "region outside": ("m.septa a.ome.zarr -o {o} --region 0,0,101,90", "not lie inside the image of 100 x 90 pixels"),
    "region of nothing": ("m.septa a.ome.zarr -o {o} --region 5,5,5,9", "does not lie inside the image"),
    "region text": (
        "m.septa a.ome.zarr -o {o} --region 1,2,3",
        "--region: the value must be TOP,LEFT,BOTTOM,RIGHT in pixels, got 1,2,3",
    ),
    "memory text": (
        "m.septa a.ome.zarr -o {o} --memory much",
        "--memory: the value must be an amount such as 4GB or 512MiB, got much",
    ),
    "no memory": (
        "m.septa a.ome.zarr -o {o} --memory 0GB",
        "--memory: the value must be an amount such as 4GB or 512MiB, got 0GB",
    ),
    "tile": ("m.septa a.ome.zarr -o {o} --tile 8", "--tile: a tile of this net must be at least "),
    "name": ("m.septa a.ome.zarr -o {o} --name a/b", "--name: a name must have 1 to 150 letters, "),
    "name of dots": ("m.septa a.ome.zarr -o {o} --name ..", "--name: a name must have 1 to 150 letters, "),
    "option of files": ("m.septa a.ome.zarr -o {o} --overlay", "--overlay: this option does not apply to a store"),
    "coco": ("m.septa a.ome.zarr -o {o} --coco c.json", "--coco: this option does not apply to a store"),
    "measurements without a file": ("m.septa a.ome.zarr -o {o} --measure full", "--measure: measurements go to tables"),
    "table of classes": ("many.septa a.ome.zarr -o {o} --table t.csv", "many.septa: this model finds no objects, but"),
    "symmetries": ("m.septa a.ome.zarr -o {o} --tta 2", "--tta: this option does not apply to a store"),
    "option of stores": (
        "m.septa nan.tif -o {o}/folder --region 0,0,9,9",
        "--region: this option does not apply to a folder",
    ),
    "memory of files": (
        "m.septa nan.tif -o {o}/folder --memory 4GB",
        "--memory: this option does not apply to a folder",
    ),
    "two for one": ("m.septa a.ome.zarr b.ome.zarr -o {o}", "one store takes one image, got 2"),
    "two of one name": (
        "m.septa nan.ome.zarr nan.tif -o {o}/folder --memory 4GB",
        "nan.ome.zarr: two images would be written to this store",
    ),
    "missing": ("m.septa none.ome.zarr -o {o}", "none.ome.zarr"),
    "missing model": ("none.septa a.ome.zarr -o {o}", "none.septa: the file cannot be read"),
    "no image": ("m.septa text.tif -o {o}", "text.tif"),
    "not a number": ("m.septa nan.tif -o {o}", "nan.tif: the image holds NaN or Inf"),
    "output there": ("m.septa a.ome.zarr -o there.ome.zarr", "there.ome.zarr: the output exists. Give --overwrite"),
    "file there": ("m.septa a.ome.zarr -o there.ome.tif", "there.ome.tif: the output exists. Give --overwrite"),
    "foreign folder": (
        "m.septa a.ome.zarr -o there.ome.zarr --overwrite",
        "the folder was not written by septa, so it is not replaced",
    ),
    "itself": (
        "m.septa a.ome.zarr -o a.ome.zarr --overwrite",
        "a.ome.zarr: the output is the input image, or a folder that holds it",
    ),
    "several in a TIFF": ("many.septa a.ome.zarr -o o.ome.tif", "o.ome.tif: an OME-TIFF file holds one image"),
    "soft TIFF": ("m.septa a.ome.zarr -o o.ome.tif --probabilities", "o.ome.tif: an OME-TIFF file holds one image"),
    "labels below 0": ("signed.septa a.ome.zarr -o {o}", "a class of this model has a label value below 0"),
    "pooling": ("pooled.septa a.ome.zarr -o {o}", "this net pools over the whole image"),
    "turned versions": (
        "tta.septa a.ome.zarr -o {o}",
        "flipped and rotated copies of the whole image (inference.tta), not of blocks",
    ),
    "resized": ("resize.septa a.ome.zarr -o {o}", "cannot segment an image in blocks"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_reported_in_one_line(
    name: str, kit: SimpleNamespace, folder: Path, tmp_path: Path, septa: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, expected = WRONG[name]
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}, kit.files(folder / "a.ome.zarr")
    threads = threading.active_count()
    handles = len(list(Path("/proc/self/fd").iterdir()))
    code, _, err = septa("predict", *arguments.replace("{o}", str(tmp_path / "o.ome.zarr")).split())
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert expected in err
    assert re.fullmatch(r".+: .+\. .+\.\n", err), err
    assert ({path.name for path in folder.iterdir()}, kit.files(folder / "a.ome.zarr")) == before
    assert not (tmp_path / "o.ome.zarr").exists()
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles


@pytest.mark.parametrize(
    ("name", "written"),
    [("my model (2)", "my_model_2_"), ("_x", "x"), ("ümlaut", "mlaut"), ("名", "labels"), ("a" * 180, "a" * 150)],
)
def test_any_model_name_gives_a_valid_label_name(
    kit: SimpleNamespace, septa: Command, folder: Path, tmp_path: Path, name: str, written: str
) -> None:
    model = tmp_path / f"{name}.septa"
    model.write_bytes((folder / "m.septa").read_bytes())
    code, _, err = septa("predict", model, folder / "a.ome.zarr", "-o", tmp_path / "o.ome.zarr")
    assert (code, err) == (0, "")
    assert kit.read(tmp_path / "o.ome.zarr", written).any()


def test_several_images_are_segmented_into_a_folder(
    kit: SimpleNamespace, septa: Command, folder: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "c.tif", kit.texture((70, 66)))
    code, out, err = septa(
        "predict",
        folder / "m.septa",
        folder / "a.ome.zarr",
        tmp_path / "c.tif",
        "-o",
        tmp_path / "out",
        "--memory",
        "8GB",
        "--name",
        "cells",
    )
    assert (code, err) == (0, "")
    assert "a.ome.zarr: 100 Y x 90 X, " in out
    assert "4 blocks of 64 pixels" in out
    assert re.search(r"c\.ome\.zarr: 0\.0 megapixels, \d+ objects, ", out)
    for name, shape in (("a", (100, 90)), ("c", (70, 66))):
        assert kit.read(tmp_path / "out" / f"{name}.ome.zarr", "cells").shape == shape


def test_the_share_of_empty_blocks_is_reported(
    kit: SimpleNamespace, septa: Command, folder: Path, tmp_path: Path
) -> None:
    image_yx = np.full((128, 256), 7, np.uint16)
    image_yx[:60, :60] = kit.texture((60, 60))
    path: Any = kit.write_image(tmp_path / "e.ome.zarr", image_yx, "YX")
    code, out, _ = septa("predict", folder / "m.septa", path, "-o", tmp_path / "o.ome.zarr", "--skip-empty")
    assert code == 0
    assert "7 of 8 blocks show nothing but background and are skipped" in out
    assert "87.5% skipped as empty" in out
