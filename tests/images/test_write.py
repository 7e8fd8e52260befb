"""Check writing: files are read back as they were written, and a failed write leaves no file."""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from septa.errors import InputError, ResourceError
from septa.images.calibration import Calibration
from septa.images.read import read_image, read_info, read_labels
from septa.images.write import (
    encode_png,
    remove_leftovers,
    write_atomic,
    write_bytes,
    write_image,
    write_labels,
    write_probabilities,
    write_text,
)

RNG = np.random.default_rng(3)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(error: BaseException) -> Callable[[BinaryIO], None]:
    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise error

    return write


def test_parents_are_made_and_files_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "µ\n")
    assert path.read_bytes() == "µ\n".encode()
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["text.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ResourceError),
        (OSError("400 requested and 12 written"), ResourceError),
        (OSError(errno.EIO, "Input/output error"), InputError),
        (ValueError("a bug"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_failures_leave_everything_as_it_was(tmp_path: Path, error: BaseException, raised: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(raised) as caught:
        write_atomic(path, failing(error))
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_the_file_is_complete_when_its_name_appears(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(stream: BinaryIO) -> None:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"

    write_atomic(path, write)
    assert path.read_bytes() == b"new"


def test_data_is_on_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        events.append("fsync")
        fsync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_bytes(tmp_path / "file", b"x")
    assert events[:2] == ["fsync", "rename"]


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be written") as caught:
            write_bytes(path, b"")
        assert str(caught.value).startswith(f"{path}: ")
    assert names(tmp_path) == ["file"]


def test_a_tiff_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are of POSIX")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises((InputError, ResourceError)):
            write_image(tmp_path / "a.tif", RNG.integers(0, 255, (3, 200, 200), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    kept = ["a.txt", ".a.txt.tmp", ".hidden", ".a.txt.0123456789abcdeg.tmp", ".b.txt.0123456789abcdef.tmp"]
    for name in [*kept, ".a.txt.0123456789abcdef.tmp"]:
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path / "a.txt")
    assert names(tmp_path) == sorted(kept)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept[:-1])


# --- labels

LABELS = hnp.arrays(
    st.sampled_from(["u1", "u2", "i4", "i8", "u4"]),
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=7),
    elements=st.integers(0, 255),
)


@given(labels=LABELS, factor=st.sampled_from([1, 257, 2**24]))
def test_labels_come_back_in_the_smallest_type(
    labels: Any, factor: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    labels = labels.astype(np.int64) * factor
    high = int(labels.max())
    smallest = np.uint8 if high < 256 else np.uint16 if high < 65536 else np.uint32
    folder = tmp_path_factory.getbasetemp()
    planes = labels if labels.ndim == 3 else labels[None]
    for suffix in (".png", ".tif", ".TIFF"):
        path = folder / f"labels{suffix}"
        if suffix == ".png" and (labels.ndim == 3 or high > 65535):
            with pytest.raises(InputError, match=r"\.tif"):
                write_labels(path, labels)
            continue
        write_labels(path, labels)
        assert read_info(path).pages == len(planes)
        for page, plane in enumerate(planes):
            raw = read_labels(path, page)
            assert raw.kind == "index"
            assert raw.array.dtype == smallest
            np.testing.assert_array_equal(raw.array, plane)


def test_labels_leave_their_array_untouched(tmp_path: Path) -> None:
    labels = np.array([[True, False]])
    write_labels(tmp_path / "a.png", labels)
    assert labels.dtype == bool
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png").array, [[1, 0]])


@pytest.mark.parametrize(
    "labels",
    [np.array([[-1, 0]]), np.array([[2**32]]), np.zeros((2, 2)), np.zeros(3, int), np.zeros((0, 3), int)],
    ids=["negative", "too large", "float", "1d", "empty"],
)
def test_arrays_that_are_no_labels(labels: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels"):
        write_labels(tmp_path / "a.tif", labels)


# --- images


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_come_back(channels: int, dtype: Any, suffix: str, tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (channels, 9, 8)).astype(dtype)
    path = tmp_path / f"image{suffix}"
    if suffix == ".png" and (channels not in (1, 3) or dtype not in (np.uint8, np.uint16)):
        with pytest.raises(InputError, match=r"\.tif"):
            write_image(path, image)
        return
    write_image(path, image)
    found = read_image(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)
    assert read_info(path).pages == 1


def test_rgb_tiff_is_what_other_programs_expect(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (3, 9, 8), dtype=np.uint8)
    write_image(tmp_path / "a.tif", image)
    with Image.open(tmp_path / "a.tif") as opened:
        np.testing.assert_array_equal(np.asarray(opened), image.transpose(1, 2, 0))


def test_probabilities(tmp_path: Path) -> None:
    for classes in (1, 2, 5):
        probabilities = RNG.random((classes, 9, 8), dtype=np.float32)
        write_probabilities(tmp_path / "p.tif", probabilities)
        stored = tifffile.imread(tmp_path / "p.tif")
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), probabilities.astype(np.float16))
        assert read_info(tmp_path / "p.tif").channels == classes
    with pytest.raises(InputError, match=r"\.tif"):
        write_probabilities(tmp_path / "p.png", probabilities)
    with pytest.raises(ValueError, match="KYX"):
        write_probabilities(tmp_path / "p.tif", probabilities[0])


def test_pixel_size_comes_back(tmp_path: Path) -> None:
    path, size = tmp_path / "a.tif", (0.62, 0.31)
    write_image(path, np.zeros((2, 3, 4), np.uint8), calibration=Calibration(pixel_size_um=size))
    assert read_info(path).pixel_size_um == pytest.approx(size, rel=1e-5)
    write_labels(path, np.zeros((3, 4), int), calibration=Calibration(pixel_size_um=size))
    assert read_info(path).pixel_size_um == pytest.approx(size, rel=1e-5)
    write_probabilities(path, np.zeros((2, 3, 4)), calibration=Calibration(pixel_size_um=size))
    assert read_info(path).pixel_size_um == pytest.approx(size, rel=1e-5)
    write_labels(tmp_path / "a.png", np.zeros((3, 4), int), calibration=Calibration(pixel_size_um=size))
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.info["dpi"] == pytest.approx((25400 / 0.31, 25400 / 0.62), rel=1e-4)


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.zarr"])
def test_unknown_suffixes(name: str, tmp_path: Path) -> None:
    calls: list[Callable[[Path], None]] = [
        lambda path: write_labels(path, np.zeros((3, 4), int)),
        lambda path: write_image(path, np.zeros((1, 3, 4))),
        lambda path: write_probabilities(path, np.zeros((1, 3, 4))),
    ]
    for call in calls:
        with pytest.raises(InputError, match="suffix"):
            call(tmp_path / name)
    assert names(tmp_path) == []


def test_encode_png() -> None:
    for shape in ((5, 7), (5, 7, 3)):
        picture = RNG.integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(picture)))), picture)
    for wrong in (np.zeros((5, 7)), np.zeros((5, 7, 4), np.uint8), np.zeros((0, 7), np.uint8), np.zeros(5, np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            encode_png(wrong)


AXES = ["YX", "ZYX", "TYX", "TZYX", "ZTYX", "CYX", "TCYX", "TZCYX"]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_axes_and_scale_of_labels_come_back(axes: str, dtype: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    sizes = {"T": 2, "Z": 3, "C": 4, "Y": 6, "X": 5}
    labels = RNG.integers(0, np.iinfo(dtype).max, [sizes[axis] for axis in axes], dtype=dtype)
    scale = Calibration(pixel_size_um=(0.3, 0.2), z_step_um=1.5, time_step_s=4.0, origin_um=(7.0, 20.0, 30.0))
    write_labels(path, labels, axes=axes, calibration=scale)
    with tifffile.TiffFile(path) as file:
        assert (file.series[0].axes, file.series[0].shape) == (axes, labels.shape)
        np.testing.assert_array_equal(file.asarray(), labels)
    info = read_info(path)
    assert info.page_axes == axes.removesuffix("YX").removesuffix("C")
    assert replace(info.calibration, channel_names=()) == scale
    first = path.read_bytes()
    write_labels(path, labels, axes=axes, calibration=scale)
    assert path.read_bytes() == first


def test_a_pixel_size_like_that_of_paper_comes_back(tmp_path: Path) -> None:
    """The resolution of this size is 100 dpi, which readers take for that of a printer."""
    write_labels(tmp_path / "a.tif", np.zeros((4, 5), int), calibration=Calibration(pixel_size_um=(254.0, 254.0)))
    assert read_info(tmp_path / "a.tif").pixel_size_um == (254.0, 254.0)


def test_planes_have_their_own_depth(tmp_path: Path) -> None:
    scale = Calibration(z_step_um=2.0, origin_um=(5.0, 0.0, 0.0))
    for axes, expected in (("TZYX", [5, 7, 9, 5, 7, 9]), ("ZTYX", [5, 5, 7, 7, 9, 9])):
        labels = np.zeros([{"T": 2, "Z": 3, "Y": 4, "X": 4}[axis] for axis in axes], int)
        write_labels(tmp_path / "a.tif", labels, axes=axes, calibration=scale)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            planes = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Plane"]
        assert [plane["PositionZ"] for plane in planes] == expected
        z = [plane["TheZ"] for plane in planes]
        assert [5 + 2 * number for number in z] == expected


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 4), float), ((1, 1, 3, 4), float), ((1, 0, 4), np.uint8), ((1, 3, 4), complex)]
)
def test_what_is_not_an_image_is_not_written(shape: tuple[int, ...], dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a CYX array of numbers"):
        write_image(tmp_path / "a.tif", np.zeros(shape, dtype))
    assert not list(tmp_path.iterdir())


def test_a_png_cannot_hold_a_stack(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a stack of 6 label planes\. Write to a \.tif file"):
        write_labels(tmp_path / "a.png", np.zeros((2, 3, 4, 5), int))
    assert not list(tmp_path.iterdir())
