"""Check images at addresses against the same files on disk, on a server that fails in every way that servers do."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from septa.errors import InputError
from septa.images.sources import remote
from septa.images.sources.addresses import check_address, is_address, make_location, resolve_location
from septa.images.sources.open import Selection, count_images, open_source

IMAGE = np.random.default_rng(3).integers(1, 60000, (2, 70, 90), dtype=np.uint16)


def write(path: Path, zarr_format: int = 3, shards: tuple[int, int, int] | None = None) -> Path:
    """Write an OME-Zarr image of two channels."""
    root = zarr.create_group(path, zarr_format=zarr_format)
    options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if zarr_format == 2 else {}
    root.create_array("0", data=IMAGE, chunks=(1, 20, 30), shards=shards, fill_value=7, **options)
    axes = [{"name": name} for name in "cyx"]
    scales = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    root.attrs.update({"multiscales": scales} if zarr_format == 2 else {"ome": {"multiscales": scales}})
    return path


@pytest.mark.parametrize(("zarr_format", "shards"), [(2, None), (3, None), (3, (2, 80, 90))])
def test_windows_are_those_of_the_disk(zarr_format: int, shards: Any, server: Any, tmp_path: Path) -> None:
    write(tmp_path / "my image.zarr", zarr_format, shards)
    address = f"{server.address}/my%20image.zarr"
    for server.knows_parts in (True, False):
        with open_source(address) as source:
            assert (source.path, source.axes, source.shape) == (address, "CYX", (1, 2, 1, 70, 90))
            np.testing.assert_array_equal(source.read((0, 70), (0, 90)), IMAGE)
            np.testing.assert_array_equal(source.read((19, 41), (29, 61)), IMAGE[:, 19:41, 29:61])
            assert list(source.list_files()) == []
    assert count_images(address) == 1
    with open_source(f"{address}/0", Selection(channels=(1,))) as source:
        np.testing.assert_array_equal(source.read((3, 4), (5, 9)), IMAGE[1:, 3:4, 5:9])


@pytest.mark.parametrize("shards", [None, (2, 80, 90)])
def test_s3(shards: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    write(tmp_path / "bucket/a b.zarr", shards=shards)
    server.faults = {"0": ["drop", "cut", "busy"]}
    with open_source("s3://bucket/a%20b.zarr") as source:
        np.testing.assert_array_equal(source.read((0, 70), (0, 90)), IMAGE)
        next((tmp_path / "bucket/a b.zarr/0").rglob("c/0/0/0")).unlink()
        source.close()
        np.testing.assert_array_equal(source.read((0, 20), (0, 30))[0], np.full((20, 30), 7))
    server.statuses = {"zarr.json": 403}
    with pytest.raises(InputError, match="holds no OME-Zarr image and no zarr array that everyone may read"):
        open_source("s3://bucket/a%20b.zarr")


def test_the_index_of_a_shard_is_asked_for_once(server: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", shards=(1, 40, 60))
    with open_source(f"{server.address}/a.zarr", Selection(channels=(0,))) as source:
        source.read((0, 9), (0, 9))
        assert server.requests["/a.zarr/0/c/0/0/0"] == 3  # size, index and chunk
        source.read((21, 29), (0, 9))
        assert server.requests["/a.zarr/0/c/0/0/0"] == 4


@pytest.mark.parametrize("shards", [None, (1, 80, 90)])
def test_a_failed_request_is_repeated(shards: Any, server: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", shards=shards)
    server.faults = {"0": ["drop", "cut", "busy"], "zarr.json": ["slow", "drop", "cut"]}
    with open_source(f"{server.address}/a.zarr") as source:
        np.testing.assert_array_equal(source.read((0, 70), (0, 90)), IMAGE)
    assert not any(server.faults.values())


REASONS = {
    "drop": "the connection ends early, 4 times",
    "cut": "the connection ends early, 4 times",
    "busy": "the server answers with status 503, 4 times",
    "slow": "the server does not answer in time, 4 times",
}


@pytest.mark.parametrize(("fault", "shards"), [*((fault, None) for fault in REASONS), ("drop", (1, 80, 90))])
def test_a_request_that_fails_again_and_again_is_an_error_and_no_background(
    fault: str, shards: Any, server: Any, tmp_path: Path
) -> None:
    write(tmp_path / "a.zarr", shards=shards)
    with open_source(f"{server.address}/a.zarr") as source:
        server.faults = {"0": [fault] * 200}
        reason = re.escape(REASONS[fault])
        with pytest.raises(InputError, match=rf"/c/0/0/0: the file cannot be read \({reason}\)\. Check the address"):
            source.read((0, 9), (0, 9))


def test_a_missing_chunk_is_the_fill_value_and_a_damaged_one_an_error(server: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    source = open_source(f"{server.address}/a.zarr")
    (tmp_path / "a.zarr/0/c/0/0/0").unlink()
    np.testing.assert_array_equal(source.read((0, 20), (0, 30))[0], np.full((20, 30), 7))
    chunk = tmp_path / "a.zarr/0/c/0/1/1"
    for data in (chunk.read_bytes()[:-3], b"", b"<html>"):
        chunk.write_bytes(data)
        with pytest.raises(InputError, match=r"/a\.zarr/0/c/0/1/1: the ZARR data cannot be decoded"):
            source.read((20, 40), (30, 60))


def test_a_missing_shard_is_the_fill_value(server: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", shards=(1, 40, 60))
    (tmp_path / "a.zarr/0/c/0/0/0").unlink()
    source = open_source(f"{server.address}/a.zarr")
    np.testing.assert_array_equal(source.read((0, 40), (0, 60))[0], np.full((40, 60), 7))
    np.testing.assert_array_equal(source.read((40, 70), (0, 90)), IMAGE[:, 40:])


@pytest.mark.parametrize("status", [401, 403])
def test_files_that_not_everyone_may_read(status: int, server: Any, tmp_path: Path) -> None:
    """A bucket that does not list its files answers so for missing ones: format 2 is found, but a chunk is an error."""
    write(tmp_path / "a.zarr", 2)
    server.statuses = {"zarr.json": status, "1": status}
    source = open_source(f"{server.address}/a.zarr")
    with pytest.raises(InputError, match=r"/0/0/0/1: .*\(the server does not let everyone read it\)"):
        source.read((0, 9), (30, 60))
    server.statuses = dict.fromkeys(("zarr.json", ".zattrs", ".zarray", ".zgroup"), status)
    with pytest.raises(InputError, match="holds no OME-Zarr image and no zarr array that everyone may read"):
        open_source(f"{server.address}/a.zarr")


def test_an_endless_answer_takes_no_memory(server: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    source = open_source(f"{server.address}/a.zarr", Selection(channels=(0,)))
    server.faults = {"0": ["endless"]}
    tracemalloc.start()
    with pytest.raises(InputError, match="cannot be decoded"):
        source.read((0, 9), (0, 9))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20
    assert server.sent < 2**29


def test_no_server(server: Any) -> None:
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(InputError, match=r"zarr\.json: the file cannot be read \(there is no connection to the server"):
        open_source(f"{server.address}/a.zarr")


def test_other_files_are_refused(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"a\.tif: the address holds no OME-Zarr image .*download images of other"):
        open_source(f"{server.address}/a.tif")


def test_the_version_changes_with_the_metadata(server: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    before = open_source(f"{server.address}/a.zarr").version
    assert before == open_source(f"{server.address}/a.zarr/").version
    file = tmp_path / "a.zarr/zarr.json"
    file.write_text(
        json.dumps(
            json.loads(file.read_text())
            | {
                "attributes": {
                    "ome": {
                        "multiscales": [
                            {"axes": [{"name": name} for name in "cyx"], "datasets": [{"path": "0"}], "name": "b"}
                        ]
                    }
                }
            }
        )
    )
    assert open_source(f"{server.address}/a.zarr").version != before
    assert open_source(tmp_path / "a.zarr").version == ""


@pytest.mark.parametrize("package", ["fsspec", "aiohttp", "s3fs"])
def test_a_missing_package_names_the_command(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "find_spec", lambda name: None if name == package else object())
    address = "s3://bucket/a.zarr" if package == "s3fs" else "https://server/a.zarr"
    with pytest.raises(InputError, match=rf"needs {package}, which .* Run pip install 'septa\[remote\]'"):
        open_source(address)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("https://server", "names no image"),
        ("s3://bucket/", "names no image"),
        ("https:///a.zarr", "names no image"),
        ("https://me:secret@server/a.zarr", "a password or a query"),
        ("https://server/a.zarr?secret=1", "a password or a query"),
        ("https://server/a.zarr#secret", "a password or a query"),
        ("https://server/a/../b.zarr", "spaces or"),
        ("https://server/a b.zarr", "spaces or"),
    ],
)
def test_addresses_that_are_refused(address: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        check_address(address)
    assert "secret" not in str(caught.value)


def test_addresses_and_paths() -> None:
    assert [is_address(text) for text in ("https://a/b", "HTTP://a/b", "s3://a/b", "ftp://a/b", "https:/a", "a")] == [
        *(True, True, True, False, False, False)
    ]
    assert not is_address(Path("https://a/b"))
    assert make_location("https://a/b") == resolve_location("https://a/b/") == "https://a/b"
    assert make_location("a/b") == Path("a/b")
