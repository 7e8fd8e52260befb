"""Check that a large chunk is decoded once for all its windows, and that its memory is counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from septa.images import _tiff_planes
from septa.images._large_chunk import LargeChunk
from septa.images.sources import whole, zarr_array
from septa.images.sources.open import open_source

STACK = np.random.default_rng(2).integers(0, 60000, (2, 150, 203), dtype=np.uint16)


def test_the_last_chunk_is_kept() -> None:
    kept, decoded = LargeChunk(), []

    def read(key: int) -> Any:
        return kept.get(key, lambda: decoded.append(key) or [key])  # type: ignore[func-returns-value]

    assert [read(key)[0] for key in (0, 0, 1, 1, 0)] == [0, 0, 1, 1, 0]
    assert decoded == [0, 1, 0]

    def fail() -> Any:
        raise OSError

    with pytest.raises(OSError):
        kept.get(5, fail)
    kept.clear()
    assert read(0) == [0]
    assert decoded == [0, 1, 0, 0]


DECODERS: dict[str, tuple[Any, str]] = {
    "strip": (_tiff_planes.DirectoryReader, "_read_bytes"),
    "strip with predictor": (_tiff_planes.DirectoryReader, "_read_bytes"),
    "zarr 2": (zarr_array, "decompress"),
    "zarr 3": (zarr_array, "decompress"),
    "shard": (zarr_array, "decompress"),
    "png": (whole, "read_image"),
}
"""What is called once for each chunk of a kind of image."""


@pytest.fixture(params=DECODERS)
def image(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[int]]:
    """Write an image of one large chunk for each plane; return its path, and the list of what is decoded."""
    decoded: list[int] = []
    target, name = DECODERS[request.param]
    original = getattr(target, name)

    def count(*arguments: Any, **options: Any) -> Any:
        decoded.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(target, name, count)
    for module in (_tiff_planes, zarr_array):
        monkeypatch.setattr(module, "LARGE_BYTES", 1000)
    path = tmp_path / "a"
    if request.param.startswith("strip"):
        options = {"predictor": True} if "predictor" in request.param else {}
        tifffile.imwrite(path, STACK, compression="zlib", rowsperstrip=150, photometric="minisblack", **options)
    elif request.param == "png":
        Image.fromarray(STACK[0]).save(path, "png")
    else:
        shards = {"shards": (2, 150, 203)} if request.param == "shard" else {}
        names = {} if request.param == "zarr 2" else {"dimension_names": ("z", "y", "x")}
        array = zarr.create_array(
            path, data=STACK, chunks=(1, 150, 203), zarr_format=2 if names == {} else 3, **shards, **names
        )
        if names == {}:
            array.attrs["_ARRAY_DIMENSIONS"] = ["z", "y", "x"]
    return path, decoded


def test_each_plane_is_decoded_once(image: tuple[Path, list[int]]) -> None:
    path, decoded = image
    with open_source(path) as source:
        assert source.decoding_bytes >= STACK[0].nbytes
        for z in range(source.shape[2]):
            for top in range(0, 150, 50):
                for left in range(0, 203, 60):
                    rows, columns = (top, top + 50), (left, min(left + 60, 203))
                    expected = STACK[z, slice(*rows), slice(*columns)]
                    np.testing.assert_array_equal(source.read(rows, columns, z=z)[0], expected)
            assert len(decoded) == z + 1


def test_threads_wait_for_each_other(image: tuple[Path, list[int]]) -> None:
    path, decoded = image

    def check(i: int) -> bool:
        y, x = i % 100, i % 150
        return np.array_equal(source.read((y, y + 50), (x, x + 50))[0], STACK[0, y : y + 50, x : x + 50])

    with open_source(path) as source, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(60)))
    assert len(decoded) == 1
