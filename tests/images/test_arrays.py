"""Arrays that NumPy saved are read with their values; hostile ones end in one line, and nothing in them runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from septa.data import find_pairs, read_pair_labels
from septa.errors import InputError
from septa.images import read_image, read_info, read_labels

MASKS = np.random.default_rng(0).integers(0, 9, (20, 30)).astype(np.uint16)


def save_cellpose(path: Path, masks: Any, protocol: int = 4) -> Path:
    """Write a file as cellpose does: numpy.save of a dictionary."""
    content = {
        "outlines": np.zeros((20, 30), np.uint16),
        "masks": masks,
        "filename": "a.tif",
        "flows": [np.zeros((4, 5), np.float32), [np.zeros(3)]],
        "diameter": np.float64(30.0),
        "ismanual": np.zeros(3, bool),
    }
    np.save(path, np.zeros(()))
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header = header.ljust(117) + b"\n"
    whole = np.array(content, dtype=object)
    path.write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + pickle.dumps(whole, protocol))
    return path


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", ">u2", "<i4", "int64"])
@pytest.mark.parametrize("fortran", [False, True])
def test_values_are_those_of_numpy(tmp_path: Path, kind: str, fortran: bool) -> None:
    array = MASKS.astype(kind)
    array = np.asfortranarray(array) if fortran else array
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", labels=array)
    for name in ("a.npy", "a.npz"):
        assert (read_info(tmp_path / name).height, read_info(tmp_path / name).width) == (20, 30)
        np.testing.assert_array_equal(read_labels(tmp_path / name).array, array)
        np.testing.assert_array_equal(read_image(tmp_path / name)[0], array)


@pytest.mark.parametrize(
    ("shape", "axes", "pages", "channels"),
    [((2, 9, 8), "CYX", 1, 2), ((6, 9, 8), "IYX", 6, 1), ((9, 8, 3), "YXS", 1, 3), ((5, 3, 9, 8), "ICYX", 5, 3)],
)
def test_axes(tmp_path: Path, shape: tuple[int, ...], axes: str, pages: int, channels: int) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    np.save(tmp_path / "a.npy", array)
    info = read_info(tmp_path / "a.npy")
    assert (info.axes, info.pages, info.channels) == (axes, pages, channels)
    last = array[-1] if "I" in axes else array
    expected_cyx = np.moveaxis(last, 2, 0) if "S" in axes else last.reshape(-1, 9, 8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", pages - 1), expected_cyx)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", ["uint16", ">i4", "bool"])
def test_masks_of_cellpose_are_read(tmp_path: Path, protocol: int, kind: str) -> None:
    path = save_cellpose(tmp_path / "a_seg.npy", MASKS.astype(kind), protocol)
    np.testing.assert_array_equal(read_labels(path).array, MASKS.astype(kind))
    stack = np.stack([MASKS] * 6)
    assert read_info(save_cellpose(path, stack)).pages == 6


def test_labels_of_cellpose_pair_by_their_suffix(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, MASKS)
    save_cellpose(tmp_path / "a_seg.npy", MASKS)
    np.save(tmp_path / "b_cp_masks.npy", MASKS)
    pairs = find_pairs(tmp_path).pairs
    assert [pair.name for pair in pairs] == ["a", "b"]
    for pair in pairs:
        np.testing.assert_array_equal(read_pair_labels(pair).array, MASKS)


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    harm = Harm(tmp_path / "harm")
    for masks in (harm, [harm], np.array([harm], dtype=object), {"a": harm}, "text", 7, None):
        path = save_cellpose(tmp_path / "a.npy", masks)
        with pytest.raises(InputError, match="the file holds Python objects, which septa never loads"):
            read_labels(path)
    # Beside the masks, calls have no effect either.
    whole = np.array({"masks": MASKS, "other": harm}, dtype=object)
    np.save(tmp_path / "b.npy", whole, allow_pickle=True)
    np.testing.assert_array_equal(read_labels(tmp_path / "b.npy").array, MASKS)
    assert not (tmp_path / "harm").exists()


def write_header(path: Path, header: str, data: bytes = b"") -> Path:
    path.write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + data)
    return path


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (1000, 1000)}", "the file ends early"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000, 1000000)}", "more than the limit"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4)}", "its header is not valid"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (4,)}", r"the array has the shape \(4,\)"),
        ("{'descr': '<c8', 'fortran_order': False, 'shape': (4, 4)}", "values of the type <c8"),
        ("{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (4, 4)}", "values of the type"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': ()}", "Python objects"),
        ("(" * 5000, "its header is not valid"),
        ("__import__('os')", "its header is not valid"),
        ("", "its header is not valid"),
    ],
)
def test_hostile_headers(tmp_path: Path, header: str, text: str) -> None:
    path = write_header(tmp_path / "a.npy", header, b"1234")
    with pytest.raises(InputError, match=text):
        read_labels(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(path, "labels.npy")
    with pytest.raises(InputError, match="Python objects|" + text):
        read_labels(tmp_path / "a.npz")


def test_several_arrays_in_one_file_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=MASKS, labels=MASKS)
    with pytest.raises(InputError, match=r"holds 2 arrays \(image, labels\)"):
        read_labels(tmp_path / "a.npz")
