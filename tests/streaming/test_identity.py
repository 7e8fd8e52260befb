"""Tests of the identity of an image: it changes with every file that is read, and with nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import zarr

from septa.streaming import StreamInput, identity
from septa.streaming.identity import digest_content, digest_sample


def digest(path: Path, region: tuple[int, int, int, int] | None = None, level: int = 0) -> str:
    with StreamInput(str(path), region=region, level=level).open() as source:
        return digest_content(source)


def change(file: Path) -> None:
    """Write other bytes of the same number, a nanosecond later."""
    before = file.stat().st_mtime_ns
    file.write_bytes(bytes(255 - value for value in file.read_bytes()))
    os.utime(file, ns=(before, before + 1))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shards", [None, (32, 32)])
def test_each_chunk_of_an_array_counts(tmp_path: Path, zarr_format: int, shards: tuple[int, int] | None) -> None:
    if zarr_format == 2 and shards:
        pytest.skip("format 2 has no shards")
    path = tmp_path / "a.zarr"
    image = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) + 1
    array = zarr.create_array(path, shape=(64, 48), dtype="u2", chunks=(16, 16), shards=shards, zarr_format=zarr_format)
    array[:48] = image[:48]
    seen = [digest(path)]
    assert digest(path) == seen[0]
    array[48:] = image[48:]  # new files
    seen.append(digest(path))
    chunks = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".", "zarr")))
    for chunk in (chunks[0], chunks[-1]):
        change(chunk)
        seen.append(digest(path))
    chunks[0].unlink()
    seen.append(digest(path))
    (path / "notes.txt").write_text("not part of the image")
    assert digest(path) == seen[-1]
    assert len(set(seen)) == 5


def test_only_the_files_of_the_region_and_level_count(kit: SimpleNamespace, tmp_path: Path) -> None:
    path = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((120, 90)), "YX", levels=2)
    corner, small = digest(path, (60, 60, 110, 90)), digest(path, level=1)
    change(path / "0" / "c" / "0" / "0")
    assert digest(path, (60, 60, 110, 90)) == corner
    assert digest(path, level=1) == small
    change(path / "0" / "c" / "1" / "1")
    assert digest(path, (60, 60, 110, 90)) != corner
    os.utime(path / "zarr.json", ns=(1, 1))  # scale and axes
    assert digest(path, level=1) != small


def test_files_are_known_by_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.eye(40, dtype=np.uint8))
    first = digest(path)
    change(path)
    path.write_bytes(bytes(255 - value for value in path.read_bytes()))  # the first bytes again, another time
    assert digest(path) != first


def test_equal_files_at_two_places_have_equal_content(kit: SimpleNamespace, tmp_path: Path) -> None:
    """The path is a part of the identity of its own."""
    path = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((60, 50)), "YX")
    copy = Path(shutil.copytree(path, tmp_path / "b.ome.zarr"))
    assert digest(copy) == digest(path)


def test_many_files_are_described_in_batches(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((120, 90)), "YX", chunk=10)
    expected = digest(path)
    with StreamInput(str(path)).open() as source:
        sample = digest_sample(source)
        monkeypatch.setattr(identity, "_BATCH", 3)
        monkeypatch.setattr(identity, "_THREADS", 2)
        assert digest_content(source) == expected
        change(path / "0" / "c" / "11" / "8")
        assert digest_sample(source) == sample
        change(path / "0" / "c" / "0" / "0")
        assert digest_sample(source) != sample
