"""Check the store: zarr, yaozarrs and tifffile read what is written block by block, and only once it is complete."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import multiprocessing
import os
import pickle
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from yaozarrs import v05

from septa.errors import InputError, ResourceError
from septa.images.calibration import Calibration
from septa.images.store import ome_zarr as store
from septa.images.store.ome_tiff import make_identifier, read_identifier
from septa.images.store.ome_zarr import (
    StoreSpec,
    build_pyramid_block,
    create_store,
    digest_store_block,
    downsample,
    finish_store,
    is_store_complete,
    read_store_block,
    write_ome_tiff,
    write_store_block,
)

RNG = np.random.default_rng(11)
FIRST = (0, 0, 0, 0)
ALL_AXES = (2, 2, 70, 40)


def labels_spec(**changes: Any) -> StoreSpec:
    spec = StoreSpec(
        kind="labels",
        name="cells",
        axes="YX",
        shape=(150, 90),
        dtype=np.dtype("uint32"),
        block=64,
        chunk=32,
        calibration=Calibration(
            pixel_size_um=(0.5, 0.25),
            z_step_um=2.0,
            time_step_s=30.0,
            origin_um=(5.0, 10.0, 20.0),
            time_origin_s=60.0,
        ),
    )
    return replace(spec, **changes)


def probabilities_spec(**changes: Any) -> StoreSpec:
    spec = StoreSpec(
        kind="probabilities",
        name="classes",
        axes="CYX",
        shape=(3, 150, 90),
        dtype=np.dtype("float16"),
        block=64,
        chunk=32,
        calibration=Calibration(pixel_size_um=(0.5, 0.25), channel_names=("a", "b", "c")),
    )
    return replace(spec, **changes)


def random_image(spec: StoreSpec) -> NDArray[Any]:
    if spec.kind == "probabilities":
        return RNG.random(spec.shape).astype(spec.dtype)
    image = RNG.integers(0, np.iinfo(spec.dtype).max, spec.shape, spec.dtype, endpoint=True)
    # A block of zeros.
    image[..., 64:128, :64] = 0
    return image


def cut(image: NDArray[Any], spec: StoreSpec, index: tuple[int, int, int, int]) -> NDArray[Any]:
    """Return a block of an image with the axes of ``spec``."""
    t, z, by, bx = index
    at: dict[str, int | slice] = {"T": t, "Z": z, "Y": slice(by * spec.block, (by + 1) * spec.block)}
    at["X"] = slice(bx * spec.block, (bx + 1) * spec.block)
    return image[tuple(at.get(axis, slice(None)) for axis in spec.axes)]


def fill(path: Path, spec: StoreSpec, image: NDArray[Any]) -> None:
    for index in spec.blocks(0):
        write_store_block(path, spec, 0, index, cut(image, spec, index))
    for level in range(1, len(spec.levels)):
        for index in spec.blocks(level):
            build_pyramid_block(path, spec, level, index)


def written(path: Path, specs: Sequence[StoreSpec]) -> list[NDArray[Any]]:
    images = [random_image(spec) for spec in specs]
    create_store(path, specs)
    for spec, image in zip(specs, images):
        fill(path, spec, image)
    finish_store(path, specs)
    return images


def attributes(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]
    return found


def level_name(spec: StoreSpec, level: int) -> str:
    return f"labels/{spec.name}/{level}" if spec.kind == "labels" else str(level)


def files(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def slow_halves(image: NDArray[Any], kind: str) -> NDArray[Any]:
    """Downsample pixel by pixel."""
    height, width = image.shape[-2:]
    small = np.zeros((*image.shape[:-2], (height + 1) // 2, (width + 1) // 2), image.dtype)
    for y, x in np.ndindex(small.shape[-2:]):
        if kind == "labels":
            small[..., y, x] = image[..., 2 * y, 2 * x]
        else:
            rows, columns = [2 * y, min(2 * y + 1, height - 1)], [2 * x, min(2 * x + 1, width - 1)]
            four = [image[..., row, column].astype(np.float64) for row in rows for column in columns]
            small[..., y, x] = np.mean(four, axis=0)
    return small


@pytest.mark.parametrize(
    "spec",
    [
        *(labels_spec(dtype=np.dtype(name)) for name in ("uint8", "uint16", "uint32", "uint64")),
        labels_spec(axes="TZYX", shape=ALL_AXES),
        labels_spec(axes="ZYX", shape=(2, 20, 130)),
        labels_spec(shape=(1, 1), calibration=Calibration()),
        labels_spec(shape=(128, 64)),
        probabilities_spec(),
        probabilities_spec(dtype=np.dtype("float32"), axes="TCZYX", shape=(2, 3, 1, 70, 65)),
    ],
    ids=lambda spec: f"{spec.kind}-{spec.axes}-{spec.dtype}-{spec.shape}",
)
def test_any_reader_gets_what_was_written(tmp_path: Path, spec: StoreSpec) -> None:
    path = tmp_path / "a.ome.zarr"
    [image] = written(path, [spec])
    for level, size in enumerate(spec.levels):
        array = zarr.open_array(path / level_name(spec, level), mode="r")
        stored = np.asarray(array[...])
        assert array.shape[-2:] == size == image.shape[-2:]
        assert array.dtype == spec.dtype
        assert (array.chunks[-2:], (array.shards or ())[-2:]) == ((32, 32), (64, 64))
        assert array.metadata.to_dict()["dimension_names"] == tuple(spec.axes.lower())
        tolerance = 2 * float(np.finfo(image.dtype).eps) * level if image.dtype.kind == "f" else 0
        np.testing.assert_allclose(stored, image, rtol=0, atol=tolerance)
        for index in spec.blocks(level):
            np.testing.assert_array_equal(read_store_block(path, spec, level, index), cut(stored, spec, index))
        image = slow_halves(stored, spec.kind)
    assert max(spec.levels[-1]) <= 32


@pytest.mark.parametrize("spec", [labels_spec(), probabilities_spec()], ids=["labels", "probabilities"])
def test_shards_are_those_of_zarr(tmp_path: Path, spec: StoreSpec) -> None:
    """Zarr writes the same files when it writes the same image through the metadata of the store."""
    [image] = written(tmp_path / "ours", [spec])
    written(tmp_path / "theirs", [spec])
    name = level_name(spec, 0)
    zarr.open_array(tmp_path / "theirs" / name)[...] = image
    ours, theirs = (files(tmp_path / folder / name) for folder in ("ours", "theirs"))
    zeros = "c/1/0" if spec.kind == "labels" else "none"
    assert {key: data for key, data in ours.items() if key != zeros} == theirs
    assert (zeros in ours) == (spec.kind == "labels")


@pytest.mark.parametrize(
    "specs",
    [
        [labels_spec()],
        [labels_spec(calibration=Calibration())],
        [labels_spec(axes="TZYX", shape=ALL_AXES), labels_spec(axes="TZYX", shape=ALL_AXES, name="nuclei-2.b")],
        [probabilities_spec()],
        [labels_spec(), probabilities_spec()],
    ],
)
def test_yaozarrs_validates_every_group(tmp_path: Path, specs: list[StoreSpec]) -> None:
    path = tmp_path / "a.ome.zarr"
    written(path, specs)
    names = [spec.name for spec in specs if spec.kind == "labels"]
    groups: dict[str, type] = {"": v05.Image, **({"labels": v05.LabelsGroup} if names else {})}
    groups |= {f"labels/{name}": v05.LabelImage for name in names}
    for group, kind in groups.items():
        yaozarrs.validate_zarr_store(str(path / group))
        assert isinstance(
            v05.OMEZarrGroupJSON(**json.loads((path / group / "zarr.json").read_text())).attributes.ome, kind
        )
        assert attributes(path / group)["septa"]["complete"] is True
    if names:
        assert attributes(path / "labels")["ome"]["labels"] == names
    assert (path / "labels").exists() == bool(names)


def test_transforms(tmp_path: Path) -> None:
    spec = labels_spec(axes="TZYX", shape=(1, 2, 50, 100), attributes={"model": "a", "tuple": (1, 2)})
    written(tmp_path / "a", [spec])
    [multiscale] = attributes(tmp_path / "a" / "labels" / "cells")["ome"]["multiscales"]
    assert [dataset["path"] for dataset in multiscale["datasets"]] == ["0", "1", "2"]
    for level, dataset in enumerate(multiscale["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": [30.0, 2.0, 0.5 * 2**level, 0.25 * 2**level]}
        assert translation == {"type": "translation", "translation": [60.0, 5.0, 10.0, 20.0]}
    assert [axis["unit"] for axis in multiscale["axes"]] == ["second", *["micrometer"] * 3]
    [root] = attributes(tmp_path / "a")["ome"]["multiscales"]
    assert [dataset["path"] for dataset in root["datasets"]] == [f"labels/cells/{level}" for level in range(3)]
    [noted] = attributes(tmp_path / "a")["septa"]["specs"]
    assert noted["attributes"] == {"model": "a", "tuple": [1, 2]}
    assert StoreSpec.from_json(noted) == spec

    written(tmp_path / "c", [probabilities_spec()])
    ome = attributes(tmp_path / "c")["ome"]
    assert [channel["label"] for channel in ome["omero"]["channels"]] == ["a", "b", "c"]
    shifts = [dataset["coordinateTransformations"][1:] for dataset in ome["multiscales"][0]["datasets"]]
    moved = {"type": "translation", "translation": [0.0, 0.75, 0.375]}  # the centre of the mean of 4 x 4 pixels
    assert (shifts[0], shifts[2]) == ([], [moved])

    written(tmp_path / "b", [labels_spec(calibration=Calibration())])
    [multiscale] = attributes(tmp_path / "b" / "labels" / "cells")["ome"]["multiscales"]
    transforms = [dataset["coordinateTransformations"] for dataset in multiscale["datasets"]]
    assert transforms == [[{"type": "scale", "scale": [2.0**level] * 2}] for level in range(len(transforms))]
    assert all("unit" not in axis for axis in multiscale["axes"])


def test_nothing_is_an_image_before_it_is_complete(tmp_path: Path) -> None:
    path, specs = tmp_path / "a", [labels_spec(), probabilities_spec()]
    images = [random_image(spec) for spec in specs]
    assert not is_store_complete(path)
    create_store(path, specs)
    for spec, image in zip(specs, images):
        fill(path, spec, image)
    for file in path.rglob("zarr.json"):
        assert "ome" not in attributes(file.parent)
        assert attributes(file.parent)["septa"]["complete"] is False
    for group in ("", "labels", "labels/cells"):
        assert not is_store_complete(path / group)
        with pytest.raises(ValueError):
            yaozarrs.validate_zarr_store(str(path / group))
    with pytest.raises(InputError, match="is not complete"):
        write_ome_tiff(tmp_path / "a.tif", path, specs[0])
    assert not (tmp_path / "a.tif").exists()
    finish_store(path, specs)
    assert all(is_store_complete(path / group) for group in ("", "labels", "labels/cells"))
    assert "septa" not in attributes(path / "0")


def test_complete_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, spec = tmp_path / "a", labels_spec()
    create_store(path, [spec])
    fill(path, spec, random_image(spec))
    order: list[str] = []
    before = Path.replace

    def noted(self: Path, target: Path) -> Path:
        order.append(target.relative_to(path).as_posix())
        assert not is_store_complete(path)
        return before(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    finish_store(path, [spec])
    assert order[-1] == "zarr.json"
    assert order.count("zarr.json") == 1


@pytest.mark.parametrize("level", [0, 1])
def test_a_missing_block_is_not_taken_for_background(tmp_path: Path, level: int) -> None:
    path, spec = tmp_path / "a", labels_spec()
    written(path, [spec])
    (path / f"labels/cells/{level}/c/1/0").unlink()
    assert digest_store_block(path, spec, level, (0, 0, 1, 0)) is None
    with pytest.raises(
        InputError, match=rf"a: 1 blocks are missing or empty, the first is labels/cells/{level}/c/1/0\."
    ):
        finish_store(path, [spec])
    with pytest.raises(InputError, match="1 blocks are missing or empty"):
        write_ome_tiff(tmp_path / "a.tif", path, spec)
    with pytest.raises(InputError, match="this block is missing"):
        read_store_block(path, spec, level, (0, 0, 1, 0))


def test_digests(tmp_path: Path) -> None:
    path, spec = tmp_path / "a", labels_spec()
    create_store(path, [spec])
    for index in spec.blocks(0):
        assert digest_store_block(path, spec, 0, index) is None
        block = cut(random_image(spec), spec, index)
        digest = write_store_block(path, spec, 0, index, block)
        file = path.joinpath("labels/cells/0/c", *map(str, index[2:]))
        assert digest == hashlib.sha256(file.read_bytes()).hexdigest() == digest_store_block(path, spec, 0, index)
        assert digest == write_store_block(path, spec, 0, index, block.copy(order="F"))
        if block.any():
            block[0, 0] ^= 1
            assert digest != write_store_block(path, spec, 0, index, block)
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        digest_store_block(path, spec, 0, index)


@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.uint64, np.float16, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=9),
        elements={"min_value": 0, "max_value": 1},
    )
)
def test_downsample(array: NDArray[Any]) -> None:
    kind = "probabilities" if array.dtype.kind == "f" else "labels"
    before = array.copy()
    small = downsample(array, kind)  # type: ignore[arg-type]
    assert small.dtype == array.dtype
    np.testing.assert_allclose(
        small, slow_halves(array, kind), rtol=0, atol=1e-3 if array.dtype == np.float16 else 1e-6
    )
    np.testing.assert_array_equal(array, before)
    small += 1
    np.testing.assert_array_equal(array, before)


def test_create_resumes_the_same_store(tmp_path: Path) -> None:
    path, specs = tmp_path / "a", [labels_spec(attributes={"a": [1.5, {"b": None}]}), probabilities_spec()]
    path.mkdir()
    # A temporary file of a killed process.
    (path / f".zarr.json.{'0' * 16}.tmp").write_text("{")
    create_store(path, specs)
    before = files(path)
    assert store.read_store_attributes(path) == {"a": [1.5, {"b": None}]}
    write_store_block(path, specs[0], 0, FIRST, np.ones((64, 64), np.uint32))
    # As if the process was killed before it wrote this file.
    (path / "labels/cells/1/zarr.json").unlink()
    create_store(path, [StoreSpec.from_json(json.loads(json.dumps(spec.to_json()))) for spec in specs])
    assert files(path) == {**before, "labels/cells/0/c/0/0": (path / "labels/cells/0/c/0/0").read_bytes()}
    for spec in specs:
        fill(path, spec, random_image(spec))
    finish_store(path, specs)
    assert not list(path.rglob("*.tmp"))
    complete = files(path)
    create_store(path, specs)
    finish_store(path, specs)
    assert files(path) == complete


def test_finish_sweeps(tmp_path: Path) -> None:
    path, spec = tmp_path / "a", labels_spec()
    create_store(path, [spec])
    fill(path, spec, random_image(spec))
    for folder in ("", "labels/cells", "labels/cells/0", "labels/cells/0/c/1"):
        (path / folder / f".1.{'a' * 16}.tmp").write_text("half")
    finish_store(path, [spec])
    assert not list(path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"block": 128}, "cells: block 64, now 128"),
        ({"dtype": np.dtype("uint16")}, 'cells: dtype "uint32", now "uint16"'),
        ({"attributes": {"model": "b"}}, "cells: attributes {}, now"),
        ({"name": "nuclei"}, "holds cells, not nuclei"),
    ],
)
def test_a_store_of_other_specs_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    create_store(tmp_path / "a", [labels_spec()])
    before = files(tmp_path)
    for call in (create_store, finish_store):
        with pytest.raises(InputError, match=said) as caught:
            call(tmp_path / "a", [labels_spec(**changed)])
        assert caught.value.remedy == "Write to another folder, or remove this one first"
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "name_and_text",
    [
        ("notes.txt", "mine"),
        ("zarr.json", "{"),
        ("zarr.json", "[" * 100_000),
        ("zarr.json", "[]"),
        ("zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {}}}'),
        ("zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {"septa": 1}}'),
        ("zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {"septa": {"complete": true}}}'),
        ("zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {"septa": {"specs": [1]}}}'),
    ],
)
def test_a_foreign_folder_is_refused(tmp_path: Path, name_and_text: tuple[str, str]) -> None:
    name, text = name_and_text
    (tmp_path / name).write_text(text)
    for call in (create_store, finish_store):
        with pytest.raises(InputError, match=re.escape(str(tmp_path))) as caught:
            call(tmp_path, [labels_spec()])
        assert caught.value.remedy
    with pytest.raises(InputError):
        write_ome_tiff(tmp_path / "a.tif", tmp_path, labels_spec())
    assert store.read_store_attributes(tmp_path) == {}
    assert files(tmp_path) == {name: text.encode()}


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match=re.escape(str(path))):
            create_store(path, [labels_spec()])
        assert not (tmp_path / "file" / "below").exists()
    spec = labels_spec()
    create_store(tmp_path / "a", [spec])
    (tmp_path / "a/labels/cells/0/c").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_store_block(tmp_path / "a", spec, 0, FIRST, np.ones((64, 64), np.uint32))


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, ResourceError), (errno.EACCES, InputError)])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: type[Exception]
) -> None:
    path, spec = tmp_path / "a", labels_spec()
    written(path, [spec])
    before = files(path)

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for call in (
            lambda: create_store(tmp_path / "b", [spec]),
            lambda: write_store_block(path, spec, 0, FIRST, np.ones((64, 64), np.uint32)),
            lambda: build_pyramid_block(path, spec, 1, FIRST),
            lambda: finish_store(path, [spec]),
            lambda: write_ome_tiff(tmp_path / "a.tif", path, spec),
        ):
            with pytest.raises(raised):
                call()
    assert files(path) == before
    assert not files(tmp_path / "b")
    assert not (tmp_path / "a.tif").exists()
    create_store(tmp_path / "b", [spec])


@pytest.mark.parametrize("damage", ["cut", "short", "flip", "empty"])
def test_damaged_blocks(tmp_path: Path, damage: str) -> None:
    path, spec = tmp_path / "a", labels_spec()
    written(path, [spec])
    file = path / "labels/cells/0/c/0/0"
    data = file.read_bytes()
    flipped = bytes([*data[:40], data[40] ^ 255, *data[41:]])
    file.write_bytes({"cut": data[:-50], "short": data[:10], "flip": flipped, "empty": b""}[damage])
    # Texts of zarr are not shown.
    text = re.escape(f"{file}: the data is damaged") + r"( \(the file is empty\))?\. Delete this file"
    with pytest.raises(InputError, match=text):
        read_store_block(path, spec, 0, FIRST)
    with pytest.raises(InputError, match=r"the data is damaged|missing or empty"):
        write_ome_tiff(tmp_path / "a.tif", path, spec)
    assert not (tmp_path / "a.tif").exists()


def test_wrong_blocks_and_indices(tmp_path: Path) -> None:
    spec, path = labels_spec(), tmp_path / "a"
    create_store(path, [spec])
    for block in (np.zeros((64, 63), np.uint32), np.zeros((64, 64), np.uint16), np.zeros((1, 64, 64), np.uint32)):
        with pytest.raises(ValueError, match=r"must be uint32 \(64, 64\)"):
            write_store_block(path, spec, 0, FIRST, block)
    for index in ((0, 0, 3, 0), (0, 0, 0, -1), (1, 0, 0, 0), (0, 0, 0)):
        with pytest.raises(IndexError):
            digest_store_block(path, spec, 0, index)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="level 0"):
        build_pyramid_block(path, spec, 0, FIRST)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "image"},
        {"name": "../up"},
        {"name": ""},
        {"axes": "XY"},
        {"axes": "CYX", "shape": (1, 2, 3)},
        {"shape": (1, 2, 3)},
        {"shape": (0, 3)},
        {"dtype": np.dtype("int32")},
        {"dtype": np.dtype(">u4")},
        {"dtype": np.dtype("float32")},
        {"block": 63, "chunk": 21},
        {"block": 64, "chunk": 48},
        {"chunk": 0},
        {"calibration": Calibration(pixel_size_um=(0.0, 1.0))},
        {"calibration": Calibration(pixel_size_um=(float("nan"), 1.0))},
        {"calibration": Calibration(channel_names=("a", "b"))},
        {"attributes": {"x": float("nan")}},
    ],
)
def test_specs_that_contradict_themselves(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        labels_spec(**changes)


def test_specs_that_do_not_fit_together(tmp_path: Path) -> None:
    twice = [probabilities_spec(), probabilities_spec(name="b")]
    other_size = [labels_spec(), labels_spec(name="b", shape=(150, 91))]
    for specs in ([], [labels_spec(), labels_spec(dtype=np.dtype("uint8"))], twice, other_size):
        with pytest.raises(ValueError):
            create_store(tmp_path / "a", specs)
    assert not (tmp_path / "a").exists()


def test_specs_from_untrusted_json() -> None:
    good = probabilities_spec(attributes={"a": 1}).to_json()
    assert StoreSpec.from_json(json.loads(json.dumps(good))).to_json() == good
    wrong = {"kind": [], "name": 1, "axes": None, "shape": 3, "dtype": "O", "block": "a", "chunk": None}
    wrong |= {"calibration": {"pixel_size_um": "ab"}, "attributes": 3}
    for name, value in wrong.items():
        with pytest.raises(ValueError):
            StoreSpec.from_json({**good, name: value})
        with pytest.raises(ValueError):
            StoreSpec.from_json({key: kept for key, kept in good.items() if key != name})
    with pytest.raises(ValueError):
        StoreSpec.from_json({**good, "more": 1})


def test_threads_make_and_fill_one_store(tmp_path: Path) -> None:
    spec = labels_spec(axes="TZYX", shape=ALL_AXES)
    image = random_image(spec)

    def work(index: tuple[int, int, int, int]) -> str:
        create_store(tmp_path / "a", [spec])
        return write_store_block(tmp_path / "a", spec, 0, index, cut(image, spec, index))

    with ThreadPoolExecutor(8) as pool:
        twice = [*spec.blocks(0), *spec.blocks(0)]
        digests = list(pool.map(work, twice))
    assert digests == [digest_store_block(tmp_path / "a", spec, 0, index) for index in twice]
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a/labels/cells/0")[...], image)
    assert not list((tmp_path / "a").rglob("*.tmp"))


def test_processes_fill_one_store(tmp_path: Path) -> None:
    spec = labels_spec()
    image, path = random_image(spec), tmp_path / "a"
    create_store(path, [spec])
    indices = [*spec.blocks(0), *spec.blocks(0)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(write_store_block, path, spec, 0, index, cut(image, spec, index)) for index in indices]
        digests = [job.result() for job in jobs]
    assert digests == [write_store_block(tmp_path / "b", spec, 0, index, cut(image, spec, index)) for index in indices]
    np.testing.assert_array_equal(zarr.open_array(path / "labels/cells/0")[...], image)


@pytest.mark.parametrize(
    "spec",
    [
        labels_spec(shape=(1100, 530), block=512, chunk=256),
        labels_spec(axes="TZYX", shape=(2, 2, 40, 70), dtype=np.dtype("uint8"), calibration=Calibration()),
        labels_spec(shape=(5, 4200), block=1024, chunk=512, dtype=np.dtype("uint16")),
        labels_spec(shape=(10, 12)),
        probabilities_spec(),
        probabilities_spec(axes="TCZYX", shape=(2, 3, 2, 40, 33), dtype=np.dtype("float32")),
    ],
    ids=lambda spec: f"{spec.kind}-{spec.axes}-{spec.shape}",
)
def test_tiff(tmp_path: Path, spec: StoreSpec) -> None:
    path, file = tmp_path / "a.ome.zarr", tmp_path / "a.ome.tif"
    written(path, [spec])
    write_ome_tiff(file, path, spec)
    data = file.read_bytes()
    with tifffile.TiffFile(file) as tiff:
        assert tiff.is_bigtiff
        assert tiff.is_ome
        [series] = tiff.series
        assert [axis for axis, size in zip(spec.axes, spec.shape) if size > 1 or axis in "YX"] == list(series.axes)
        assert len(series.levels) == len(spec.levels)
        for level, found in enumerate(series.levels):
            stored = np.asarray(zarr.open_array(path / level_name(spec, level))[...])
            page = found.keyframe
            assert page.tilewidth == page.tilelength == 512
            assert page.compression == 8
            assert page.is_reduced == (level > 0)
            assert found.dtype == (np.float32 if spec.kind == "probabilities" else spec.dtype)
            np.testing.assert_array_equal(found.asarray().reshape(stored.shape), stored)
            if spec.calibration.pixel_size_um is not None:
                numerator, denominator = page.tags["XResolution"].value
                assert denominator / numerator * 1e4 == pytest.approx(0.25 * 2**level)
        assert tiff.ome_metadata is not None
        physical = dict(re.findall(r'(PhysicalSize[XY])="([^"]*)"', tiff.ome_metadata))
        sizes = spec.calibration.pixel_size_um and {"PhysicalSizeY": "0.5", "PhysicalSizeX": "0.25"}
        assert physical == (sizes or {})
        assert tiff.ome_metadata.count('PhysicalSizeXUnit="µm"') == (sizes is not None)
        steps = dict(re.findall(r'(PhysicalSizeZ|TimeIncrement|TimeIncrementUnit)="([^"]*)"', tiff.ome_metadata))
        known = spec.calibration
        assert steps == (
            {"PhysicalSizeZ": "2.0", "TimeIncrement": "30.0", "TimeIncrementUnit": "s"} if known.z_step_um else {}
        )
        places = re.findall(r'PositionX="([^"]*)" PositionXUnit="µm"', tiff.ome_metadata)
        assert places == (["20.0"] * math.prod(spec.shape[:-2]) if any(known.origin_um) else [])
        depths = [float(text) for text in re.findall(r'PositionZ="([^"]*)"', tiff.ome_metadata)]
        indices = [place[spec.axes.find("Z")] if "Z" in spec.axes else 0 for place in np.ndindex(spec.shape[:-2])]
        assert depths == ([5.0 + (known.z_step_um or 0) * index for index in indices] if any(known.origin_um) else [])
        assert re.findall(r'<Channel [^>]*Name="([^"]*)"', tiff.ome_metadata) == list(known.channel_names)
        assert read_identifier(file) == make_identifier(spec.kind, spec.name, spec.attributes)
    write_ome_tiff(file, path, spec)
    assert file.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".tmp"] == []


def test_tiff_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    spec = labels_spec(dtype=np.dtype("uint64"))
    written(tmp_path / "a", [spec])
    with pytest.raises(InputError, match="64 bit"):
        write_ome_tiff(tmp_path / "a.tif", tmp_path / "a", spec)
    with pytest.raises(InputError, match="holds no labels 'cells'"):
        write_ome_tiff(tmp_path / "a.tif", tmp_path / "a", labels_spec())
    assert not (tmp_path / "a.tif").exists()


def test_tiles_are_compressed_as_zlib(tmp_path: Path) -> None:
    """QuPath and Bio-Formats read deflate, but not every codec of tifffile."""
    spec = labels_spec(shape=(10, 12))
    [image] = written(tmp_path / "a", [spec])
    write_ome_tiff(tmp_path / "a.tif", tmp_path / "a", spec)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages[0]
        raw = (tmp_path / "a.tif").read_bytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
    tile = np.frombuffer(zlib.decompress(raw), np.uint32).reshape(512, 512)
    np.testing.assert_array_equal(tile[:10, :12], image)


def test_specs_travel_to_workers() -> None:
    spec = labels_spec(attributes={"a": [1]})
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec
    assert hash(copy) == hash(spec)
