"""Files of microscopes and of medicine: pixels, pages and scales equal what was written and what others read."""

from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import find_matches, image_exists, open_source, read_image, read_info, read_labels, sort_entries
from septa.images.read import count_images_in_file
from septa.images.sources import Selection

sys.path.insert(0, str(Path(__file__).parent))  # the tests are no package
from writers import CZI_XML, write_czi, write_lif, write_nd2

Array = NDArray[Any]
RNG = np.random.default_rng(3)
STACK_TZCYX = RNG.integers(0, 60000, (2, 3, 2, 20, 30)).astype(np.uint16)
VOLUME_ZYX = STACK_TZCYX[0, :, 0]
LONG_ZYX = STACK_TZCYX[:, :, 0].reshape(6, 20, 30)
RGB_YXS = RNG.integers(0, 255, (10, 12, 3)).astype(np.uint8)


def need(package: str) -> Any:
    reason = f"the optional package {package} is not installed (pip install 'septa[formats]')"
    return pytest.importorskip(package, reason=reason)


def read_pages(path: Path, image: int | None = None) -> Array:
    return np.stack([read_image(path, page, image=image) for page in range(read_info(path, image=image).pages)])


# --- CZI -----------------------------------------------------------------------------------------


def make_czi(path: Path, *, smaller: bool = False) -> None:
    tiles = [
        ({"X": 100 + x, "Y": 7, "T": t, "Z": z, "C": c, "M": x // 15, "S": 0}, STACK_TZCYX[t, z, c][:, x : x + 15])
        for t, z, c, x in np.ndindex(2, 3, 2, 30)
        if x % 15 == 0
    ]
    write_czi(path, tiles, CZI_XML, smaller=smaller)


@pytest.mark.parametrize("smaller", [False, True])
def test_czi_tiles_are_put_together(tmp_path: Path, smaller: bool) -> None:
    package = need("czifile")
    make_czi(tmp_path / "a.czi", smaller=smaller)
    info = read_info(tmp_path / "a.czi")
    assert (info.format, info.page_axes, info.page_shape, info.channels, info.notes) == ("czi", "TZ", (2, 3), 2, ())
    assert info.calibration.pixel_size_um == (0.5, 0.25)
    assert (info.calibration.z_step_um, info.calibration.channel_names) == (2.0, ("DAPI", "GFP"))
    np.testing.assert_array_equal(read_pages(tmp_path / "a.czi"), STACK_TZCYX.reshape(6, 2, 20, 30))
    if not smaller and package.__version__ < "2020":  # later versions order the axes differently
        theirs_czt = np.squeeze(package.imread(str(tmp_path / "a.czi")))
        np.testing.assert_array_equal(theirs_czt.transpose(2, 1, 0, 3, 4), STACK_TZCYX)
    with open_source(tmp_path / "a.czi") as source:
        assert source.shape == (2, 2, 3, 20, 30)
        np.testing.assert_array_equal(source.read((3, 9), (4, 20), t=1, z=2), STACK_TZCYX[1, 2, :, 3:9, 4:20])


def test_czi_scenes_are_images(tmp_path: Path) -> None:
    need("czifile")
    scenes = [({"X": 50 * number, "Y": 0, "S": number}, RGB_YXS[:: 1 - 2 * number]) for number in range(2)]
    write_czi(tmp_path / "a.czi", scenes)
    assert count_images_in_file(tmp_path / "a.czi") == 2
    for number, (_, pixels) in enumerate(scenes):
        np.testing.assert_array_equal(read_image(tmp_path / "a.czi", image=number), np.moveaxis(pixels, 2, 0))
        with open_source(tmp_path / "a.czi", Selection(image=number)) as source:
            np.testing.assert_array_equal(source.read((0, 10), (0, 12)), np.moveaxis(pixels, 2, 0))
    info = read_info(tmp_path / "a.czi")  # without a choice, images that are alike are pages
    assert (info.pages, info.page_axes, info.image, info.color) == (2, "I", None, True)
    with pytest.raises(InputError, match=r"there is no image 2: the file has images 0 to 1"):
        read_info(tmp_path / "a.czi", image=2)
    write_czi(tmp_path / "gap.czi", [({"X": 0, "Y": 0}, VOLUME_ZYX[0]), ({"X": 40, "Y": 5}, VOLUME_ZYX[1])])
    assert read_info(tmp_path / "gap.czi").notes == ("pixels that no tile covers are 0",)


# --- LIF, ND2 ------------------------------------------------------------------------------------


def test_lif_series_are_images(tmp_path: Path) -> None:
    package = need("liffile")
    path = tmp_path / "a.lif"
    write_lif(path, {"stack": ("TZCYX", STACK_TZCYX), "other": ("YX", VOLUME_ZYX[0])}, um=0.25)
    info = read_info(path, image=0)
    assert (info.images, info.page_axes, info.page_shape, info.channels) == (2, "TZ", (2, 3), 2)
    assert info.pixel_size_um == pytest.approx((0.25, 0.25))
    np.testing.assert_array_equal(read_pages(path, 0), STACK_TZCYX.reshape(6, 2, 20, 30))
    np.testing.assert_array_equal(read_image(path, image=1)[0], VOLUME_ZYX[0])
    with package.LifFile(path) as theirs:
        np.testing.assert_array_equal(theirs.images[0].asarray(), STACK_TZCYX)
    with pytest.raises(InputError, match=r"2 images that are not alike \(0 stack: 20 x 30, 1 other: 20 x 30\)"):
        read_info(path)


def test_nd2_positions_are_images(tmp_path: Path) -> None:
    package = need("nd2")
    stack = RNG.integers(0, 60000, (2, 3, 2, 2, 20, 30)).astype(np.uint16)
    path = tmp_path / "a.nd2"
    write_nd2(path, "PTZCYX", stack, um=0.5)
    info = read_info(path, image=1)
    assert (info.images, info.page_axes, info.page_shape, info.channels) == (2, "TZ", (3, 2), 2)
    assert info.calibration.pixel_size_um == (0.5, 0.5)
    assert (info.calibration.z_step_um, info.calibration.time_step_s) == (2.0, 1.0)
    assert info.calibration.channel_names == ("dye 0", "dye 1")
    for position in range(2):
        np.testing.assert_array_equal(read_pages(path, position), stack[position].reshape(6, 2, 20, 30))
    np.testing.assert_array_equal(np.sort(package.imread(path).ravel()), np.sort(stack.ravel()))
    data = path.read_bytes().replace(b"ImageDataSeq|3!", b"ImageDataSeq|9!")
    path.write_bytes(data)  # the library would return zeros
    with pytest.raises(InputError, match=r"its frame 3 is missing"):
        read_pages(path, 0)


# --- NRRD, NIfTI, DICOM --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_nrrd(tmp_path: Path, encoding: str) -> None:
    package = need("nrrd")
    directions = [[5e-4, 0, 0], [0, 2.5e-4, 0], [0, 0, 2e-3]]
    facts = {"encoding": encoding, "space directions": directions, "space units": ["mm"] * 3, "space dimension": 3}
    path = tmp_path / "a.nrrd"
    package.write(str(path), VOLUME_ZYX, facts, index_order="C")
    info = read_info(path)
    assert (info.format, info.page_axes, info.dtype) == ("nrrd", "Z", np.uint16)
    assert info.pixel_size_um == pytest.approx((0.25, 0.5))
    assert info.calibration.z_step_um == pytest.approx(2.0)
    np.testing.assert_array_equal(read_pages(path)[:, 0], VOLUME_ZYX)
    np.testing.assert_array_equal(package.read(str(path), index_order="C")[0], VOLUME_ZYX)
    if encoding != "ascii":
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match="the NRRD data cannot be decoded"):
            read_pages(path)


def test_nrrd_colours_and_detached_data(tmp_path: Path) -> None:
    package = need("nrrd")
    kinds = {"kinds": ["RGB-color", "domain", "domain"]}
    package.write(str(tmp_path / "a.nrrd"), RGB_YXS, kinds, index_order="C")
    assert read_info(tmp_path / "a.nrrd").color
    np.testing.assert_array_equal(read_image(tmp_path / "a.nrrd"), np.moveaxis(RGB_YXS, 2, 0))
    package.write(str(tmp_path / "b.nhdr"), VOLUME_ZYX, index_order="C", detached_header=True)
    np.testing.assert_array_equal(read_pages(tmp_path / "b.nhdr")[:, 0], VOLUME_ZYX)
    text = (tmp_path / "b.nhdr").read_text().replace("b.raw.gz", "../../etc/passwd")
    (tmp_path / "b.nhdr").write_text(text.replace("b.raw", "../../etc/passwd"))
    with pytest.raises(InputError, match=r"its data lie in '\.\./\.\./etc/passwd', and septa reads a single file"):
        read_info(tmp_path / "b.nhdr")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti(tmp_path: Path, suffix: str) -> None:
    package = need("nibabel")
    stack = STACK_TZCYX[:, :, 0]
    written = package.Nifti1Image(stack.T, np.diag([0.5, 0.25, 2, 1]))
    written.header.set_xyzt_units("micron", "sec")
    path = tmp_path / f"a{suffix}"
    written.to_filename(path)
    info = read_info(path)
    assert (info.format, info.page_axes, info.page_shape) == ("nifti", "TZ", (2, 3))
    assert info.pixel_size_um == (0.25, 0.5)
    np.testing.assert_array_equal(read_pages(path)[:, 0], stack.reshape(6, 20, 30))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="the NIFTI data cannot be decoded"):
        read_pages(path)


def test_nifti_files_of_others_equal_nibabel() -> None:
    package = need("nibabel")
    folder = Path(importlib.import_module("nibabel.testing").data_path)
    compared = 0
    for name in ("anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "standard.nii.gz"):
        theirs = np.asanyarray(package.load(folder / name).dataobj)
        theirs = theirs.reshape(*theirs.shape, *[1] * (4 - theirs.ndim))
        for page in (0, read_info(folder / name).pages - 1):
            t, z = divmod(page, theirs.shape[2])
            mine = read_image(folder / name, page)[0]
            np.testing.assert_array_equal(mine, theirs[:, :, z, t].T.astype(mine.dtype))
            compared += 1
    assert compared == 10


def test_dicom_files_of_others_equal_pydicom() -> None:
    need("pydicom")
    find = importlib.import_module("pydicom.data").get_testdata_file
    pixels = importlib.import_module("pydicom.pixels")
    for name in ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm", "rtdose.dcm"):
        path = Path(find(name, download=False))
        info = read_info(path)
        mine = read_image(path, info.pages - 1)
        theirs = pixels.pixel_array(path, index=info.pages - 1)
        assert info.format == "dicom"
        shift = -1024 if name.startswith("CT") else 0
        np.testing.assert_array_equal(
            mine, (np.moveaxis(np.atleast_3d(theirs), 2, 0) + float(shift)).astype(mine.dtype)
        )
    assert read_info(Path(find("MR_small.dcm", download=False))).pixel_size_um == (312.5, 312.5)
    assert read_info(Path(find("CT_small.dcm", download=False))).notes == (
        "its values are multiplied and shifted as its header says (slope and intercept)",
    )
    with pytest.raises(InputError, match="the DICOM file holds no image"):
        read_info(find("test-SR.dcm", download=False))


# --- HDF5 ----------------------------------------------------------------------------------------


def test_hdf5_datasets(tmp_path: Path) -> None:
    package = need("h5py")
    path = tmp_path / "a.h5"
    with package.File(path, "w") as file:
        data = file.create_dataset("volumes/raw", data=LONG_ZYX, chunks=(1, 10, 10), compression="gzip")
        data.attrs["element_size_um"] = [2.0, 0.5, 0.25]
        file["labels"] = (LONG_ZYX > 30000).astype(np.uint8)
        file["names"] = np.arange(3)
        file["elsewhere"] = package.ExternalLink("b.h5", "/raw")
        tagged = file.create_dataset("tagged", data=STACK_TZCYX.transpose(0, 1, 3, 4, 2))
        tagged.attrs["axistags"] = '{"axes": [{"key": "t"}, {"key": "z"}, {"key": "y"}, {"key": "x"}, {"key": "c"}]}'
    raw = Path(f"{path}:/volumes/raw")
    assert image_exists(raw)
    info = read_info(raw)
    assert (info.format, info.pages, info.pixel_size_um) == ("hdf5", 6, (0.5, 0.25))
    assert info.notes == ("the axes of the dataset are taken as pages, YX",)
    np.testing.assert_array_equal(read_pages(raw)[:, 0], LONG_ZYX)
    np.testing.assert_array_equal(read_labels(Path(f"{path}:/labels"), 1).array, LONG_ZYX[1] > 30000)
    np.testing.assert_array_equal(read_pages(Path(f"{path}:/tagged")), STACK_TZCYX.reshape(6, 2, 20, 30))
    with open_source(Path(f"{path}:/tagged")) as source:
        np.testing.assert_array_equal(source.read((0, 20), (0, 30), t=1, z=2), STACK_TZCYX[1, 2])
    assert find_matches("*.h5:/volumes/raw", tmp_path) == [raw]
    for wrong, text in (
        (path, r"the HDF5 file holds /labels, /tagged, /volumes/raw"),
        (f"{path}:/x", "has no image /x"),
    ):
        with pytest.raises(InputError, match=rf"{text}.*Name one of them, such as .*a\.h5:/labels"):
            read_info(wrong)
    with pytest.raises(InputError, match="has no image /elsewhere"):
        read_info(f"{path}:/elsewhere")


def test_hdf5_data_of_other_files_are_refused(tmp_path: Path) -> None:
    package = need("h5py")
    (tmp_path / "secret").write_bytes(bytes(600))
    with package.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (20, 30), "u1", external=[(str(tmp_path / "secret"), 0, 600)])
    with pytest.raises(InputError, match="the data of /raw lie in other files"):
        read_info(tmp_path / "a.h5")


def test_only_hdf5_files_have_datasets(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VOLUME_ZYX)
    with pytest.raises(InputError, match=r"a\.npy:/raw: the file is not an HDF5 file, so it has no datasets"):
        read_info(f"{tmp_path / 'a.npy'}:/raw")


# --- Sizes, damage, missing packages -------------------------------------------------------------


def write_small(path: Path, kind: str) -> None:
    if kind == "czi":
        make_czi(path)
    elif kind == "lif":
        write_lif(path, {"stack": ("TZCYX", STACK_TZCYX)})
    elif kind == "nd2":
        write_nd2(path, "TZCYX", STACK_TZCYX)
    elif kind == "nrrd":
        need("nrrd").write(str(path), VOLUME_ZYX, index_order="C")
    elif kind == "nifti":
        package = need("nibabel")
        package.Nifti1Image(VOLUME_ZYX.T, np.eye(4)).to_filename(path.with_suffix(".nii"))
        path.with_suffix(".nii").rename(path)
    else:
        with need("h5py").File(path, "w") as file:
            file["raw"] = VOLUME_ZYX


KINDS = {"czi": "czifile", "lif": "liffile", "nd2": "nd2", "nrrd": "nrrd", "nifti": "nibabel", "hdf5": "h5py"}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_one_line(tmp_path: Path, kind: str) -> None:
    need(KINDS[kind])
    path = tmp_path / "a.dat"
    write_small(path, kind)
    data = bytearray(path.read_bytes())
    with pytest.raises(InputError, match=r"more than the limit of 100 pixels"):
        read_info(path, max_pixels=100)
    for cut in np.linspace(16, len(data) - 1, 12).astype(int):
        path.write_bytes(data[:cut])
        survives(path)
    for _ in range(12):
        changed = bytearray(data)
        for place in RNG.integers(16, min(len(data), 2000), 20):
            changed[place] = RNG.integers(256)
        path.write_bytes(changed)
        survives(path)


def survives(path: Path) -> None:
    """Read a damaged file, which gives an image or an error of one line."""
    message = f"{path}: "
    try:
        read_image(path, image=0, max_pixels=1_000_000)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert message.startswith(str(path))


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"ZISRAWFILE", "reading a Zeiss CZI file needs the package czifile"),
        (bytes.fromhex("dacebe0a"), "reading a Nikon ND2 file needs the package nd2"),
        (struct.pack("<IIBI", 0x70, 0, 0x2A, 0), "reading a Leica LIF file needs the package liffile"),
        (bytes.fromhex("894844460d0a1a0a"), "reading an HDF5 file needs the package h5py"),
        (b"NRRD0004\n", "reading a NRRD file needs the package pynrrd"),
        (bytes(128) + b"DICM", "reading a DICOM file needs the package pydicom"),
        (b"\x5c\1\0\0" + bytes(340) + b"n+1\0", "reading a NIfTI file needs the package nibabel"),
    ],
)
def test_a_missing_package_is_named(head: bytes, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in (*KINDS.values(), "pydicom"):
        monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "image"
    path.write_bytes(head + bytes(400))
    with pytest.raises(InputError) as caught:
        read_info(path)
    assert str(caught.value) == f"{path}: {text}, which is not installed. Run pip install 'septa[formats]'."
    assert sort_entries([path]).files == [path]  # a folder does not pass it over
