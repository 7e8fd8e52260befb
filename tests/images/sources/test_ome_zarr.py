"""Check zarr sources against zarr-python: windows of both formats, sharded or not, and false metadata."""

from __future__ import annotations

import builtins
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images.sources import zarr_array as _zarr_array
from septa.images.sources.open import Selection, open_source
from septa.images.sources.zarr_array import ZarrArray

RNG = np.random.default_rng(11)
# Axes TCZYX.
IMAGE = RNG.integers(0, 60000, (2, 3, 4, 90, 110), dtype=np.uint16)
PLANE = IMAGE[0, 0, 0]
AXES = [
    {"name": "t", "type": "time"},
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "nanometer"},
    {"name": "x", "type": "space", "unit": "millimeter"},
]


def dataset(level: int) -> dict[str, Any]:
    scale = {"type": "scale", "scale": [1.0, 1.0, 2.0, 500.0 * 2**level, 0.00025 * 2**level]}
    shift = {"type": "translation", "translation": [0, 0, 0, 1500.0, 0.002]}
    return {"path": str(level), "coordinateTransformations": [scale, shift]}


def write_ome(path: Path, zarr_format: int, sharded: bool = False) -> Path:
    """Write an OME-Zarr image of three levels, with metadata made by hand."""
    options: dict[str, Any] = {"shards": (1, 2, 4, 64, 64)} if sharded else {}
    root = zarr.create_group(path, zarr_format=zarr_format)
    for level in range(3):
        values = IMAGE[..., :: 2**level, :: 2**level]
        array = root.create_array(
            str(level), shape=values.shape, dtype=values.dtype, chunks=(1, 1, 4, 32, 32), fill_value=7, **options
        )
        array[...] = values
    scales = {"axes": AXES, "datasets": [dataset(level) for level in range(3)], "name": "image"}
    omero = {"channels": [{"label": "DAPI"}, {"color": "ff0000"}, {"label": "GFP"}]}
    if zarr_format == 2:
        root.attrs.update({"multiscales": [{**scales, "version": "0.4"}], "omero": omero})
    else:
        root.attrs["ome"] = {"version": "0.5", "multiscales": [scales], "omero": omero}
    return path


KINDS = {"0.4": (2, False), "0.5": (3, False), "0.5 sharded": (3, True)}


@pytest.fixture(scope="module", params=KINDS)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ome(tmp_path_factory.mktemp("ome") / "image.zarr", *KINDS[request.param])


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "copy.zarr"))


def test_levels_and_places(stored: Path) -> None:
    for level in range(3):
        with open_source(stored, Selection(level=level)) as source:
            values = IMAGE[..., :: 2**level, :: 2**level]
            assert (source.axes, source.level, source.chunk) == (
                "TCZYX",
                level,
                (32, 28 if level == 2 else 32),
            ) or level
            assert source.shape == values.shape
            assert source.levels == ((90, 110), (45, 55), (23, 28))
            assert source.dtype == np.uint16
            assert source.pixel_size_um == pytest.approx((0.5 * 2**level, 0.25 * 2**level))
            assert source.origin_um == pytest.approx((1.5, 2.0))
            assert source.channel_names == ("DAPI", "1", "GFP")
            np.testing.assert_array_equal(source.read((3, 20), (5, 28), t=1, z=2), values[1, :, 2, 3:20, 5:28])
    with pytest.raises(
        InputError, match=r"there is no level 3: the image has levels 0 to 2\. Choose one of these levels\."
    ):
        open_source(stored, Selection(level=3))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_random_windows(stored: Path, data: st.DataObject) -> None:
    y, x = (sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in (90, 110))
    t, z = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 3))
    channels = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
    window = open_source(stored, Selection(channels=tuple(channels))).read(slice(*y), slice(*x), t=t, z=z)
    np.testing.assert_array_equal(window, IMAGE[t, channels, z, y[0] : y[1], x[0] : x[1]])


def test_threads_read_at_the_same_time(stored: Path) -> None:
    def check(i: int) -> bool:
        y, x, t, z = i % 50, i % 70, i % 2, i % 4
        return np.array_equal(source.read((y, y + 20), (x, x + 20), t=t, z=z), IMAGE[t, :, z, y : y + 20, x : x + 20])

    source = open_source(stored)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(100)))


def test_a_level_opened_by_its_own_path(stored: Path) -> None:
    source = open_source(stored / "1")
    assert (source.level, source.shape[3:]) == (1, (45, 55))
    assert source.pixel_size_um == pytest.approx((1.0, 0.5))


def test_only_touched_chunks_are_decoded(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count: list[int] = []
    original = _zarr_array.decompress
    monkeypatch.setattr(_zarr_array, "decompress", lambda *args: count.append(1) or original(*args))
    source = open_source(stored, Selection(channels=(1,)))
    assert not count
    source.read((31, 33), (64, 96))
    assert len(count) == 2


@pytest.mark.parametrize("axes", ["YX", "CYX", "ZYX", "XYC"])
def test_fewer_axes_in_any_order(axes: str, tmp_path: Path) -> None:
    whole = IMAGE[0, :, 1] if "C" in axes else IMAGE[0, 0] if "Z" in axes else PLANE
    turned = whole.transpose(["CYX".index(axis) for axis in axes]) if axes == "XYC" else whole
    root = zarr.create_group(tmp_path / "a", zarr_format=3)
    root.create_array("0", data=np.ascontiguousarray(turned), chunks=(30,) * len(axes))
    scales = {"axes": [{"name": axis.lower()} for axis in axes], "datasets": [{"path": "0"}]}
    root.attrs["ome"] = {"version": "0.5", "multiscales": [scales]}
    source = open_source(tmp_path / "a")
    assert (source.axes, source.pixel_size_um, source.origin_um) == (axes, None, (0.0, 0.0))
    expected = whole if "C" in axes else whole[2:3] if "Z" in axes else whole[None]
    window = source.read((10, 80), (3, 99), z=2 if "Z" in axes else 0)
    np.testing.assert_array_equal(window, expected[:, 10:80, 3:99])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("rank", "axes"), [(2, "YX"), (3, "CYX"), (4, "CZYX"), (5, "TCZYX")])
def test_plain_arrays(zarr_format: int, rank: int, axes: str, tmp_path: Path) -> None:
    values = IMAGE[(0,) * (5 - rank)]
    zarr.create_array(tmp_path / "a", data=values, chunks=(2, 2, 2, 40, 40)[-rank:], zarr_format=zarr_format)
    source = open_source(tmp_path / "a")
    assert (source.axes, source.levels) == (axes, ((90, 110),))
    expected = values[{2: (None,), 3: (), 4: (slice(None), 0), 5: (0, slice(None), 0)}[rank]]
    np.testing.assert_array_equal(source.read((10, 80), (3, 99)), expected[..., 10:80, 3:99])


def test_named_axes_of_a_plain_array(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", data=IMAGE[0, 0], dimension_names=["z", "y", "x"])
    source = open_source(tmp_path / "a")
    assert (source.axes, source.shape) == ("ZYX", (1, 1, 4, 90, 110))


TYPES = ["bool", "u1", "i1", ">u2", "<i2", ">u4", "<i4", ">i8", "<u8", "<f2", ">f4", "<f8"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("code", TYPES)
def test_types(code: str, zarr_format: int, tmp_path: Path) -> None:
    values = (PLANE % 2 if code == "bool" else PLANE % 99).astype(code)
    zarr.create_array(tmp_path / "a", data=values, chunks=(32, 32), zarr_format=zarr_format)
    window = open_source(tmp_path / "a").read((5, 70), (1, 80))[0]
    kind, size = np.dtype(code).kind, np.dtype(code).itemsize
    expected = {("b", 1): "u1", ("i", 8): "f8", ("u", 8): "f8", ("f", 2): "f4"}.get(
        (kind, size), np.dtype(code).newbyteorder("=")
    )
    assert window.dtype == expected
    np.testing.assert_array_equal(window, values[5:70, 1:80])


V2_CODECS = [
    None,
    numcodecs.Blosc("lz4", shuffle=2),
    numcodecs.Blosc("zstd", shuffle=1),
    numcodecs.Blosc("zlib"),
    numcodecs.Zstd(3),
    numcodecs.Zlib(),
    numcodecs.GZip(),
    numcodecs.LZ4(),
    numcodecs.BZ2(),
    numcodecs.LZMA(),
]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codec", V2_CODECS, ids=repr)
def test_compressors_of_format_2(codec: Any, order: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"zarr_format": 2, "order": order, "chunks": (2, 30, 40), "compressors": codec}
    zarr.create_array(tmp_path / "a", data=IMAGE[0, :, 0], **options)
    check_damage(tmp_path / "a", IMAGE[0, :, 0], tmp_path / "a" / "0.1.1")


V3_CODECS: dict[str, dict[str, Any]] = {
    "none": {"compressors": None},
    "zstd": {"compressors": zarr.codecs.ZstdCodec(level=2, checksum=True)},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "blosc": {"compressors": zarr.codecs.BloscCodec(cname="lz4")},
    "crc32c": {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "two": {"compressors": [zarr.codecs.BloscCodec(), zarr.codecs.GzipCodec()]},
    "big": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    "transpose": {"filters": zarr.codecs.TransposeCodec(order=(2, 0, 1))},
    "keys of format 2": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "shards": {"shards": (2, 60, 80)},
    "plain shards": {"shards": (2, 60, 80), "compressors": None},
    "transposed shards": {"shards": (2, 60, 80), "filters": zarr.codecs.TransposeCodec(order=(2, 0, 1))},
}


@pytest.mark.parametrize("name", V3_CODECS)
def test_codecs_of_format_3(name: str, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", data=IMAGE[0, :, 0], chunks=(2, 30, 40), **V3_CODECS[name])
    chunk = {"keys of format 2": "0/1/1", "dots": "c.0.1.1"}.get(name, "c/0/0/0" if "shards" in name else "c/0/1/1")
    check_damage(tmp_path / "a", IMAGE[0, :, 0], tmp_path / "a" / chunk)


def test_a_shard_with_its_index_at_the_start(tmp_path: Path) -> None:
    codec = zarr.codecs.ShardingCodec(chunk_shape=(30, 40), index_location="start")
    zarr.create_array(tmp_path / "a", data=PLANE, chunks=(90, 120), serializer=codec, compressors=None)
    assert json.loads((tmp_path / "a/zarr.json").read_text())["codecs"][0]["configuration"]["index_location"] == "start"
    np.testing.assert_array_equal(open_source(tmp_path / "a").read((29, 77), (39, 110))[0], PLANE[29:77, 39:])


LONG = 1 << 20
"""Bytes, many times those of a chunk."""


@pytest.mark.parametrize(
    ("offset", "count"),
    [(1, 0), (0, 1), (2**62, 0), (0, 2**62), (2**64 - 2, -4000), (0, LONG)],
    ids=["one byte on", "one byte longer", "far", "huge", "wrapped", "too long for a chunk"],
)
def test_an_index_of_a_shard_that_points_beyond_its_bounds_is_refused(
    offset: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last chunk of the file is moved or made longer; nothing is read or decoded there."""
    codec = zarr.codecs.ShardingCodec(
        chunk_shape=(30, 40), index_location="start", index_codecs=[zarr.codecs.BytesCodec()]
    )
    zarr.create_array(tmp_path / "a", data=PLANE, chunks=(90, 120), serializer=codec, compressors=None)
    file = tmp_path / "a/c/0/0"
    data = bytearray(file.read_bytes())
    places = np.frombuffer(data[: 9 * 16], "<u8").reshape(3, 3, 2).copy()
    row, column = divmod(int(places[..., 0].argmax()), 3)
    begin, length = map(int, places[row, column])
    assert begin + length == len(data)
    places[row, column] = (begin + offset) % 2**64, (length + count) % 2**64
    data[: 9 * 16] = places.tobytes()
    file.write_bytes(bytes(data) + bytes(LONG * (count == LONG)))
    source, decoded = open_source(tmp_path / "a"), []
    monkeypatch.setattr(ZarrArray, "_decode_chunk", lambda *given: decoded.append(given))
    with pytest.raises(InputError, match=r"the file ends early or its index is damaged"):
        source.read((30 * row, 30 * row + 10), (40 * column, 40 * column + 10))
    assert not decoded


OWN_REASONS = (
    r" \((the file ends early|the file ends early or its index is damaged|a checksum does not match"
    r"|a blosc chunk is cut short or has another size|the compressed data ends early or is too long"
    r"|it has \d+ bytes, expected \d+)\)"
)
"""Reasons of damage that septa words itself; the messages of the decoders are not among them."""


def check_damage(path: Path, values_cyx: NDArray[Any], chunk: Path) -> None:
    """Check windows of a sound array, then of one with a damaged chunk, then of one without this chunk.

    Windows that do not touch the chunk stay the same.
    """
    source = open_source(path)
    np.testing.assert_array_equal(source.read((0, 90), (0, 110)), values_cyx)
    np.testing.assert_array_equal(source.read((31, 59), (41, 79)), values_cyx[:, 31:59, 41:79])
    whole = chunk.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 20, 0):
        chunk.write_bytes(whole[:size])
        with pytest.raises(InputError, match="the ZARR data cannot be decoded") as caught:
            source.read((31, 59), (41, 79))
        assert str(chunk) in str(caught.value)
        reason = caught.value.problem.removeprefix("the ZARR data cannot be decoded")
        assert not reason or re.fullmatch(OWN_REASONS, reason)
        np.testing.assert_array_equal(source.read((60, 90), (80, 110)), values_cyx[:, 60:, 80:])
    chunk.unlink()
    assert not source.read((31, 59), (41, 59))[0].any()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("code", "fill"), [("f4", np.nan), ("f4", -np.inf), ("f8", 0.1), ("u2", 65535), ("bool", True)]
)
def test_a_missing_chunk_is_the_fill_value(code: str, fill: Any, zarr_format: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"shape": (60, 60), "chunks": (30, 30), "dtype": code, "zarr_format": zarr_format}
    array = zarr.create_array(tmp_path / "a", fill_value=fill, **options)
    array[:30, :30] = 1
    np.testing.assert_array_equal(open_source(tmp_path / "a").read((0, 60), (0, 60))[0], array[:])


@pytest.mark.parametrize("chunks", [(512, 512), (4096, 4096)])
def test_a_huge_array_takes_no_memory(chunks: tuple[int, int], tmp_path: Path) -> None:
    options: dict[str, Any] = {"shape": (100_000, 100_000), "dtype": "u2", "chunks": (512, 512)}
    array = zarr.create_array(tmp_path / "a", shards=chunks if chunks[0] > 512 else None, **options)
    array[51_200:51_210, 70_000:70_010] = 9
    tracemalloc.start()
    source = open_source(tmp_path / "a")
    window = source.read((51_190, 51_205), (69_995, 70_005))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = np.zeros((15, 10))
    expected[10:, 5:] = 9
    np.testing.assert_array_equal(window[0], expected)
    assert source.shape[3:] == (100_000, 100_000)
    assert peak < 4 * 2**20


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the metadata of an array, or the OME metadata of a group, of either format."""
    file = next(path / name for name in ("zarr.json", ".zarray", ".zattrs") if (path / name).exists())
    found = json.loads(file.read_text())
    node = found
    if found.get("node_type") == "group":
        node = found["attributes"]["ome"]
    change(node)
    file.write_text(json.dumps(found))


def first(ome: dict[str, Any]) -> dict[str, Any]:
    return ome["multiscales"][0]


FALSE_METADATA: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no levels": lambda ome: first(ome).update(datasets=[]),
    "endless levels": lambda ome: first(ome).update(datasets=[dataset(0)] * 1000),
    "a missing level": lambda ome: first(ome)["datasets"].append(dataset(9)),
    "levels that grow": lambda ome: first(ome)["datasets"].reverse(),
    "a level outside": lambda ome: first(ome)["datasets"][1].update(path="../../other"),
    "an absolute level": lambda ome: first(ome)["datasets"][1].update(path="/etc"),
    "a level without path": lambda ome: first(ome)["datasets"][1].pop("path"),
    "levels as text": lambda ome: first(ome).update(datasets="abc"),
    "no axes": lambda ome: first(ome).pop("axes"),
    "axes of version 0.3": lambda ome: first(ome).update(axes=list("tczyx")),
    "axes without x": lambda ome: first(ome)["axes"].pop(),
    "axes twice": lambda ome: first(ome)["axes"][2].update(name="x"),
    "unknown axis": lambda ome: first(ome)["axes"][0].update(name="phase"),
    "fewer axes": lambda ome: first(ome).update(axes=AXES[2:]),
    "scale of NaN": lambda ome: first(ome)["datasets"][0]["coordinateTransformations"][0].update(
        scale=[float("nan")] * 5
    ),
    "scale of zero": lambda ome: first(ome)["datasets"][0]["coordinateTransformations"][0].update(scale=[0] * 5),
    "scale as text": lambda ome: first(ome)["datasets"][0]["coordinateTransformations"][0].update(scale=["1"] * 5),
    "short scale": lambda ome: first(ome)["datasets"][0]["coordinateTransformations"][0].update(scale=[1, 1]),
    "infinite shift": lambda ome: first(ome)["datasets"][0]["coordinateTransformations"][1].update(
        translation=[1e999] * 5
    ),
    "unknown transform": lambda ome: first(ome)["datasets"][0].update(coordinateTransformations=[{"type": "affine"}]),
    "transforms as numbers": lambda ome: first(ome)["datasets"][0].update(coordinateTransformations=[3]),
    "multiscales as text": lambda ome: ome.update(multiscales="x"),
}


@pytest.mark.parametrize("lie", FALSE_METADATA)
def test_false_metadata_is_refused(lie: str, copy: Path) -> None:
    edit(copy, FALSE_METADATA[lie])
    with pytest.raises(InputError) as caught:
        open_source(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


FALSE_V3: dict[str, dict[str, Any]] = {
    "negative": {"shape": [-1, 5]},
    "beyond everything": {"shape": [10**30, 5]},
    "true": {"shape": [True, 5]},
    "text": {"shape": "55"},
    "empty": {"shape": [0, 110]},
    "one axis": {"shape": [90]},
    "strings": {"data_type": "string"},
    "bytes": {"data_type": {"name": "null_terminated_bytes", "configuration": {"length_bytes": 4}}},
    "complex": {"data_type": "complex64"},
    "structure": {"data_type": {"name": "structured", "configuration": {"fields": []}}},
    "fill": {"fill_value": "abc"},
    "fill beyond": {"fill_value": 65536},
    "fill list": {"fill_value": [1]},
    "huge chunk": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**6, 10**6]}}},
    "no chunk": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 0]}}},
    "other grid": {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
    "no codecs": {"codecs": []},
    "text codecs": {"codecs": "bytes"},
    "pickle": {"codecs": [{"name": "numcodecs.pickle"}]},
    "pickle behind": {"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]},
    "strings codec": {"codecs": [{"name": "vlen-utf8"}]},
    "endless shard": {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**30, 2**30]}},
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [1, 1],
                    "codecs": [{"name": "bytes"}],
                    "index_codecs": [{"name": "bytes"}],
                },
            }
        ],
    },
    "separator": {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../../"}}},
    "storage": {"storage_transformers": [{"name": "x"}]},
}
FALSE_V2: dict[str, dict[str, Any]] = {
    "object": {"dtype": "|O"},
    "object codec": {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]},
    "pickle filter": {"filters": [{"id": "pickle", "protocol": 5}]},
    "pickle compressor": {"compressor": {"id": "pickle", "protocol": 5}},
    "delta filter": {"filters": [{"id": "delta", "dtype": "<u2"}]},
    "strings": {"dtype": "<U8"},
    "structure": {"dtype": [["a", "<u2"]]},
    "dates": {"dtype": "<M8[ns]"},
    "odd size": {"dtype": "<u3"},
    "order": {"order": "K"},
    "nested": {"dimension_separator": "../"},
    "huge chunk": {"chunks": [10**6, 10**6]},
    "no fill": {"fill_value": "AAAA"},
    "compressor as text": {"compressor": "zlib"},
}


@pytest.mark.parametrize(
    ("zarr_format", "lie"), [*((3, lie) for lie in FALSE_V3), *((2, lie) for lie in FALSE_V2)], ids=str
)
def test_false_array_metadata_is_refused(
    zarr_format: int, lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "a", data=PLANE, chunks=(32, 32), zarr_format=zarr_format)
    edit(tmp_path / "a", lambda found: found.update((FALSE_V3 if zarr_format == 3 else FALSE_V2)[lie]))
    original = builtins.__import__

    def guarded(name: str, *args: Any) -> Any:
        assert "pickle" not in name
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", guarded)
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)
    assert len(str(caught.value)) < 500
    # Python's own texts are not shown.
    assert not re.search(r"Error|object|subscript|argument|literal|operand", caught.value.problem)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\xff\xfe", '{"node_type": "array"}'])
def test_files_that_are_not_metadata(text: str, tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text(text, encoding="latin-1")
    with pytest.raises(
        InputError, match=r"zarr\.json: (the file is not zarr metadata|septa does not read this zarr metadata)"
    ):
        open_source(tmp_path)


def test_absurd_channels(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(2**39, 8, 8), chunks=(1, 8, 8), dtype="u1")
    with pytest.raises(InputError, match="channels, more than the limit of 10000"):
        open_source(tmp_path / "a")


@pytest.mark.parametrize("part", ["", "labels/cells/0"])
def test_an_unfinished_store_is_refused(part: str, tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a", attributes={"septa": {"complete": False}})
    root.create_array("labels/cells/0", data=PLANE)
    with pytest.raises(InputError, match=r"a: the store is not complete\. Run the command that wrote it again"):
        open_source(tmp_path / "a" / part)
    root.attrs["septa"] = {"complete": True}
    open_source(tmp_path / "a" / "labels/cells/0")


@pytest.mark.parametrize("listed", [True, False])
def test_bioformats2raw(listed: bool, tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    if listed:
        root.create_group("OME").attrs["ome"] = {"version": "0.5", "series": ["0", "1"]}
    for name in ("0", "1"):
        write_ome(tmp_path / "a" / name, 3)
    edit(tmp_path / "a" / "1", lambda ome: ome["omero"]["channels"][0].update(label="second"))
    source = open_source(tmp_path / "a", Selection(image=1))
    assert (source.images, source.channel_names[0]) == (2, "second")
    np.testing.assert_array_equal(source.read((3, 9), (5, 7), t=1, z=2), IMAGE[1, :, 2, 3:9, 5:7])
    with pytest.raises(
        InputError, match=r"there is no image 2: the file has images 0 to 1\. Choose one of these images\."
    ):
        open_source(tmp_path / "a", Selection(image=2))


@pytest.mark.parametrize("series", [["."], ["./."], ["../a"], ["/"], [3], "0"])
def test_a_false_list_of_images_is_refused(series: Any, tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    root.create_group("OME").attrs["ome"] = {"version": "0.5", "series": series}
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "a"))):
        open_source(tmp_path / "a")


def test_a_plate_names_a_field(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a", zarr_format=2)
    root.attrs["plate"] = {"wells": [{"path": "B/3", "rowIndex": 1, "columnIndex": 2}]}
    with pytest.raises(
        InputError, match=r"a: the folder is a plate of many images\. Give one of its fields, .*a/B/3/0"
    ):
        open_source(tmp_path / "a")
    root.create_group("B/3").attrs["well"] = {"images": [{"path": "0"}]}
    with pytest.raises(
        InputError, match=r"B/3: the folder is a well of many images\. Give one of its fields, .*a/B/3/0"
    ):
        open_source(tmp_path / "a/B/3")
