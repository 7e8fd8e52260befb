"""Layouts of other programs and of published datasets, each read as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from septa.data import check_dataset, find_pairs, read_pair_image, read_pair_labels
from septa.data.pairs import Pairing, PairingError
from septa.errors import InputError
from septa.recipe import IGNORE, DataSettings

RNG = np.random.default_rng(5)
Array = NDArray[Any]


def put(path: Path, array: Array) -> Array:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack", metadata=None)
    else:
        Image.fromarray(array).save(path)
    return array


def grey(value: int = 0) -> Array:
    return (RNG.integers(0, 100, (40, 50)) + value).astype(np.uint8)


def mask(*boxes: tuple[int, int, int, int], value: int = 1) -> Array:
    labels_yx = np.zeros((40, 50), np.uint8)
    for number, (top, left, bottom, right) in enumerate(boxes):
        labels_yx[top:bottom, left:right] = value if value > 1 else number + 1
    return labels_yx


def list_names(pairing: Pairing) -> list[str]:
    return [pair.name for pair in pairing.pairs]


# --- nnU-Net -------------------------------------------------------------------------------------


def make_nnunet(root: Path, labels: dict[str, Any], channels: int = 2) -> dict[str, Array]:
    images = {}
    for case in ("cell_01", "cell_02", "cell_03"):
        images[case] = np.stack([put(root / "imagesTr" / f"{case}_{k:04d}.png", grey(50 * k)) for k in range(channels)])
        put(root / "labelsTr" / f"{case}.png", mask((2, 2, 9, 9), (20, 20, 30, 40)))
    put(root / "imagesTs" / "cell_09_0000.png", grey())
    names = {str(k): f"channel {k}" for k in range(channels)}
    facts = {"channel_names": names, "labels": labels, "numTraining": 3, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(facts))
    return images


def test_nnunet_joins_the_channels_of_each_case(tmp_path: Path) -> None:
    images = make_nnunet(tmp_path, {"background": 0, "nucleus": 1, "cell": 2})
    check = check_dataset(tmp_path)
    assert check.pairing is not None
    assert check.mapping is not None
    assert not check.fatal
    assert check.notes[0] == "layout: nnU-Net (imagesTr/ and labelsTr/, 2 channels in files of their own)"
    assert list_names(check.pairing) == ["cell_01", "cell_02", "cell_03"]
    for pair in check.pairing.pairs:
        np.testing.assert_array_equal(read_pair_image(pair), images[pair.name])
    assert check.mapping.class_names == ("background", "nucleus", "cell")
    assert check.mapping.kind == "index"
    assert check.fingerprint is not None
    assert check.fingerprint.channels == 2
    assert any("imagesTs" in note for note in check.notes)


def test_nnunet_ignores_the_label_called_ignore(tmp_path: Path) -> None:
    make_nnunet(tmp_path, {"background": 0, "nucleus": 1, "ignore": 2}, channels=1)
    check = check_dataset(tmp_path)
    assert check.mapping is not None
    assert (check.mapping.class_names, check.mapping.ignore) == (("background", "nucleus"), 2)
    own = check_dataset(tmp_path, settings=DataSettings(encoding="instances"))  # the user decides
    assert own.mapping is not None
    assert (own.mapping.kind, own.mapping.ignore) == ("instances", None)


def test_nnunet_names_missing_channels_and_labels(tmp_path: Path) -> None:
    make_nnunet(tmp_path, {"background": 0, "nucleus": 1, "cell": 2})
    (tmp_path / "imagesTr" / "cell_02_0001.png").unlink()
    (tmp_path / "labelsTr" / "cell_03.png").unlink()
    with pytest.raises(PairingError) as caught:
        find_pairs(tmp_path)
    reasons = {path.name: reason for path, reason in caught.value.reasons.items()}
    assert reasons["cell_02_0000.png"] == "its channel _0001 is missing"
    assert reasons["cell_03_{0000,0001}.png"] == "the image has no labels"
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset\.json: the file is not a description of a dataset"):
        find_pairs(tmp_path)


# --- Cell Tracking Challenge ---------------------------------------------------------------------


def make_sequences(root: Path) -> None:
    for sequence in ("01", "02"):
        for frame in range(6):
            put(root / sequence / f"t{frame:03d}.tif", grey())
            put(root / f"{sequence}_ST" / "SEG" / f"man_seg{frame:03d}.tif", mask((1, 1, 9, 9)).astype(np.uint16))
        for frame in (1, 2, 4):
            labels_yx = mask((2, 2, 9, 9), (20, 20, 30, 40)).astype(np.uint16)
            put(root / f"{sequence}_GT" / "SEG" / f"man_seg{frame:03d}.tif", labels_yx)
            put(root / f"{sequence}_GT" / "TRA" / f"man_track{frame:03d}.tif", labels_yx)


def test_cell_tracking_uses_labelled_frames_only(tmp_path: Path) -> None:
    make_sequences(tmp_path)
    check = check_dataset(tmp_path)
    assert check.notes[0] == "layout: Cell Tracking Challenge, ground truth of 6 of 12 frames (*_GT/SEG)"
    assert "groups: runs of 1 consecutive frame stay together" in check.notes
    assert check.pairing is not None
    assert check.mapping is not None
    assert list_names(check.pairing) == [f"{one}_t{frame:03d}" for one in ("01", "02") for frame in (1, 2, 4)]
    assert check.mapping.kind == "instances"
    assert not any("TRA" in str(problem) for problem in check.problems)


def test_cell_tracking_warns_of_cells_without_a_mask(tmp_path: Path) -> None:
    make_sequences(tmp_path)
    file = tmp_path / "01_GT" / "SEG" / "man_seg001.tif"
    put(file, mask((2, 2, 9, 9)).astype(np.uint16))
    warned = find_pairs(tmp_path).notices.warnings()
    text = f"warning: {file}: cells have a marker in TRA but no mask, and count as background (1 in a frame). "
    assert warned == [
        f"{text}Use the silver truth, such as --images '01/*' --labels '01_ST/SEG/*', or label all cells."
    ]
    silver = find_pairs(tmp_path, images="01/*", labels="01_ST/SEG/*")  # the remedy works
    assert len(silver.pairs) == 6


def test_cell_tracking_masks_of_single_planes(tmp_path: Path) -> None:
    volume = RNG.integers(0, 255, (5, 40, 50)).astype(np.uint8)
    put(tmp_path / "01" / "t000.tif", volume)
    put(tmp_path / "01_GT" / "SEG" / "man_seg_000_003.tif", mask((2, 2, 9, 9)).astype(np.uint16))
    (pair,) = find_pairs(tmp_path).pairs
    assert pair.name == "01_t000_z003"
    np.testing.assert_array_equal(read_pair_image(pair)[0], volume[3])
    assert read_pair_labels(pair).array.max() == 1
    put(tmp_path / "01_GT" / "SEG" / "man_seg_000_009.tif", mask((2, 2, 9, 9)).astype(np.uint16))
    with pytest.raises(PairingError, match="the label file is of page 9"):
        find_pairs(tmp_path)


# --- Folders of masks ----------------------------------------------------------------------------


def test_a_folder_of_masks_for_each_class(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        put(tmp_path / "images" / f"{name}.png", grey())
        put(tmp_path / "masks" / "nucleus" / f"{name}_mask.png", mask((2, 2, 9, 9), value=255))
        put(tmp_path / "masks" / "cell" / f"{name}_mask.png", mask((1, 1, 20, 20), value=255))
    check = check_dataset(tmp_path)
    assert check.notes[0] == "layout: images/ and masks/*/ (a folder of masks for each class; classes may overlap)"
    assert check.mapping is not None
    assert check.pairing is not None
    assert (check.mapping.kind, check.mapping.class_names) == ("multilabel", ("cell", "nucleus"))
    raw = read_pair_labels(check.pairing.pairs[0])
    np.testing.assert_array_equal(raw.array[1], mask((2, 2, 9, 9), value=255))
    assert not check.fatal
    (tmp_path / "masks" / "cell" / "b_mask.png").unlink()
    with pytest.raises(
        PairingError, match=r"images/b\.png \(there is no mask b_mask\.png of cell\)|the mask has no image"
    ):
        find_pairs(tmp_path)


def test_a_folder_of_object_masks_for_each_image(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / "images" / f"{name}.png", grey())
        put(tmp_path / "masks" / name / "1.png", mask((2, 2, 9, 9), value=255))
        put(tmp_path / "masks" / name / "2.png", mask((20, 20, 30, 30), value=255))
    pairing = find_pairs(tmp_path)
    assert pairing.layout == "images/ and masks/IMAGE/ (a mask for each object)"
    np.testing.assert_array_equal(read_pair_labels(pairing.pairs[1]).array, mask((2, 2, 9, 9), (20, 20, 30, 30)))


def test_equal_subfolders(tmp_path: Path) -> None:
    for place in ("p1", "p2/left"):
        for name in ("a", "b"):
            put(tmp_path / "images" / place / f"{name}.png", grey())
            put(tmp_path / "labels" / place / f"{name}_mask.png", mask((2, 2, 9, 9)))
    pairing = find_pairs(tmp_path)
    assert pairing.layout == "images/*/ and labels/*/ (2 subfolders)"
    assert list_names(pairing) == ["p1_a", "p1_b", "p2_left_a", "p2_left_b"]
    by_glob = find_pairs(tmp_path, images="images/**/*.png", labels="labels/**/*.png")
    assert [(pair.image, pair.labels) for pair in by_glob.pairs] == [(one.image, one.labels) for one in pairing.pairs]
    (tmp_path / "labels" / "p1" / "a_mask.png").unlink()
    with pytest.raises(PairingError, match=r"images/p1/a\.png \(the image has no labels\)"):
        find_pairs(tmp_path)


# --- DRIVE ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", "training"])
def test_drive_ignores_pixels_outside_the_field_of_view(tmp_path: Path, part: str) -> None:
    field_yx = mask((5, 5, 35, 45), value=255)
    for number in range(21, 25):
        put(tmp_path / part / "images" / f"{number}_training.tif", grey())
        put(tmp_path / part / "1st_manual" / f"{number}_manual1.gif", mask((10, 0, 14, 50), value=255))
        put(tmp_path / part / "mask" / f"{number}_training_mask.gif", field_yx)
    check = check_dataset(tmp_path)
    assert not check.fatal
    assert check.notes[0].startswith(
        "layout: DRIVE (" + (f"{part}/, " if part else "") + "images/ and 1st_manual/; pixels"
    )
    assert check.mapping is not None
    assert check.pairing is not None
    raw = read_pair_labels(check.pairing.pairs[0])
    labels_yx = check.mapping.encode(raw, "x")
    np.testing.assert_array_equal(labels_yx == IGNORE, field_yx == 0)
    assert set(np.unique(labels_yx)) == {IGNORE, 0, 1}


# --- Channels in separate files, stores, parts ---------------------------------------------------


def test_channels_in_separate_files_by_pattern(tmp_path: Path) -> None:
    images = {}
    for name in ("a", "b", "c"):
        red, green = (put(tmp_path / "raw" / f"{name}_{word}.tif", grey()) for word in ("red", "green"))
        images[name] = np.stack([green, red])
        put(tmp_path / "gt" / f"{name}.png", mask((2, 2, 9, 9)))
    pairing = find_pairs(tmp_path, images="raw/*_{green,red}.tif", labels="gt/*")
    assert list_names(pairing) == ["a", "b", "c"]
    for pair in pairing.pairs:
        np.testing.assert_array_equal(read_pair_image(pair), images[pair.name])
    (tmp_path / "raw" / "b_red.tif").unlink()
    with pytest.raises(InputError, match=r"1 file of the pattern lack other channels: b_green\.tif \(red is missing\)"):
        find_pairs(tmp_path, images="raw/*_{green,red}.tif", labels="gt/*")


def write_store(path: Path, array: Array, name: str) -> None:
    """Write an image of one level with its labels inside, as OME-Zarr 0.5."""
    for folder, values in ((path, array), (path / "labels" / name, (array > 50).astype(np.uint8))):
        group = zarr.open_group(folder, mode="a", zarr_format=3)
        group.create_array("0", data=values)
        axes = [{"name": axis, "type": "space"} for axis in "yx"]
        scale = [{"type": "scale", "scale": [1.0, 1.0]}]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    zarr.open_group(path / "labels", mode="a", zarr_format=3).attrs["ome"] = {"version": "0.5", "labels": [name]}


def test_ome_zarr_images_with_their_own_labels(tmp_path: Path) -> None:
    images = {name: grey() for name in ("a", "b")}
    for name, array in images.items():
        write_store(tmp_path / f"{name}.ome.zarr", array, "cells")
    pairing = find_pairs(tmp_path)
    assert pairing.layout == "OME-Zarr images with their own labels (labels/cells)"
    named = find_pairs(tmp_path, images="*.zarr", labels="*.zarr/labels/cells")
    assert list_names(pairing) == list_names(named) == ["a", "b"]
    for pair in (*pairing.pairs, *named.pairs):
        np.testing.assert_array_equal(read_pair_image(pair)[0], images[pair.name])
        np.testing.assert_array_equal(read_pair_labels(pair).array, images[pair.name] > 50)


def test_a_part_of_the_pairs(tmp_path: Path) -> None:
    for number in range(8):
        put(tmp_path / "images" / f"{number}.png", grey())
        put(tmp_path / "labels" / f"{number}.png", mask((2, 2, 9, 9)))
    pairing = find_pairs(tmp_path, part="1:7:2")
    assert list_names(pairing) == ["1", "3", "5"]
    assert "pairs: 3 of 8 (data.pairs=1:7:2: 1 to 5)" in pairing.notes
    assert list_names(find_pairs(tmp_path, part="-2:")) == ["6", "7"]
    with pytest.raises(InputError, match=r"data\.pairs: the range 9:12 holds none of the 8 pairs"):
        find_pairs(tmp_path, part="9:12")
    with pytest.raises(ValueError, match="must be START:STOP"):
        DataSettings(pairs="3")
