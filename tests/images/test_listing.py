"""Check the kinds of the entries of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from septa.images.listing import is_zarr, sort_entries
from septa.images.write import write_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = np.zeros((20, 30), np.uint8)
    write_labels(tmp_path / "a.png", image)
    for name in ("b.svs", "c.lsm", "d.btf", "e.ome.tf2", "f", "g.JPEG.bak"):
        tifffile.imwrite(tmp_path / name, image, bigtiff=name != "b.svs")
    (tmp_path / "damaged.tif").write_bytes(b"II*\0")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "scan.webp").write_bytes(b"RIFF0000WEBP" + bytes(200))
    (tmp_path / "empty.dat").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "Thumbs.db").touch()
    zarr.create_array(tmp_path / "three.zarr", shape=(4, 4), dtype="u1", zarr_format=3)
    zarr.create_array(tmp_path / "two", shape=(4, 4), dtype="u1", zarr_format=2)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    return tmp_path


def test_every_entry_has_a_kind(folder: Path) -> None:
    entries = sort_entries(sorted(folder.iterdir()))
    assert [path.name for path in entries.files] == [
        *("a.png", "b.svs", "c.lsm", "d.btf", "damaged.tif", "e.ome.tf2", "f", "g.JPEG.bak")
    ]
    assert [path.name for path in entries.stores] == ["three.zarr", "two"]
    assert [path.name for path in entries.broken_links] == ["gone.png"]
    assert [path.name for path in entries.folders] == ["folder"]
    assert [path.name for path in entries.hidden] == [".hidden.png", "Thumbs.db"]
    reasons = {path.name: reason for path, reason in entries.others.items()}
    assert reasons["notes.txt"] == "the file is not a PNG, JPEG, BMP, GIF or TIFF image"
    assert reasons["scan.webp"] == "the file is a WebP file, which septa does not read"
    assert reasons["empty.dat"] == "the file is empty"
    assert set(reasons) - {"pipe"} == {"notes.txt", "scan.webp", "empty.dat"}


def test_description(folder: Path) -> None:
    paths = [folder / name for name in ("notes.txt", "scan.webp", "folder", "two", "gone.png")]
    assert sort_entries(paths).describe() == "1 .txt, 1 .webp, 1 zarr store, 1 folder, 1 broken link"
    assert sort_entries([]).describe() == "nothing"


def test_zarr_folders(folder: Path) -> None:
    assert is_zarr(folder / "two")
    assert not is_zarr(folder / "folder")
    assert not is_zarr(folder / "a.png")
