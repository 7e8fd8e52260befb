"""Check which images the arguments of a prediction name: none is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from septa.errors import InputError
from septa.images import write_labels
from septa.notices import Notices
from septa.prediction import InputImage, expand_images, find_images

GREY = np.zeros((20, 30), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fill a folder with images of several kinds and with what is none."""
    write_labels(tmp_path / "a.png", GREY)
    for name in ("b.svs", "c.lsm", "d.ome.tf8"):
        tifffile.imwrite(tmp_path / name, GREY, bigtiff=name.endswith("8"))
    zarr.create_array(tmp_path / "e.zarr", data=GREY, zarr_format=2)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "scan.webp").write_bytes(b"RIFF0000WEBP" + bytes(200))
    (tmp_path / "sub").mkdir()
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere")
    return tmp_path


def name(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_folder_is_searched_by_content(folder: Path) -> None:
    notices = Notices()
    assert name(find_images([str(folder)], notices)) == ["a.png", "b.svs", "c.lsm", "d.ome.tf8", "e.zarr"]
    assert notices.lines() == [
        f"warning: {folder / 'gone.tif'}: the link leads to no file and is passed over.",
        f"note: {folder / 'notes.txt'}: the file is not a PNG, JPEG, BMP, GIF or TIFF image, and is passed over.",
        f"note: {folder / 'scan.webp'}: the file is a WebP file, which septa does not read, and is passed over.",
        f"note: {folder / 'sub'}: the subfolder is not searched for images. Give its path, too, if it holds some.",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.zarr", ["e.zarr"]),
        ("[ab]*", ["a.png", "b.svs"]),
        ("**/*", ["a.png", "b.svs", "c.lsm", "d.ome.tf8", "e.zarr"]),
    ],
)
def test_globs_match_stores_and_files(pattern: str, expected: list[str], folder: Path) -> None:
    assert name(find_images([f"{folder}/{pattern}"])) == expected


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], ""),
        (["notes.txt"], ", but 1 .txt"),
        (["notes.txt", "scan.webp", "sub", "gone.tif"], ", but 1 .txt, 1 .webp, 1 folder, 1 broken link"),
    ],
)
def test_a_folder_without_images_says_what_it_holds(names: list[str], found: str, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    for one in names:
        (folder / one).rename(other / one)
    for text, start in ((f"{other}", "the folder contains"), (f"{other}/*", "the pattern matches")):
        if not names and start == "the pattern matches":
            continue
        with pytest.raises(InputError) as caught:
            find_images([text])
        assert caught.value.problem == f"{start} no images{found}"


def test_missing_arguments(folder: Path) -> None:
    with pytest.raises(InputError, match="the file does not exist"):
        find_images([str(folder / "x.png")])
    with pytest.raises(InputError, match="the link leads to no file"):
        find_images([str(folder / "gone.tif")])


def test_labels_of_one_name_are_refused(folder: Path) -> None:
    write_labels(folder / "b.png", GREY)
    with pytest.raises(InputError, match=r"its labels would have the same name as those of .*b\.png"):
        find_images([str(folder)])
    zarr.create_array(folder / "a.zarr", data=GREY)  # its output is a store, not a label file
    assert name(find_images([str(folder / "a.png"), str(folder / "a.zarr")])) == ["a.png", "a.zarr"]


def test_every_image_of_a_file_is_listed(folder: Path) -> None:
    with tifffile.TiffWriter(folder / "three.ome.tif", ome=True) as writer:
        for size in (30, 20, 30):
            writer.write(np.zeros((20, size), np.uint8), metadata={"axes": "YX"})
    paths = [folder / "a.png", folder / "three.ome.tif", folder / "notes.txt"]
    found = expand_images(paths)
    assert [image.stem for image in found] == ["a", "three_image0", "three_image1", "three_image2", "notes"]
    assert expand_images(paths, image=1) == [InputImage(paths[0], 1), InputImage(paths[1], 1), InputImage(paths[2], 1)]
    assert expand_images(paths[:1], image=0) == [InputImage(paths[0])]
    write_labels(folder / "three_image1.png", GREY)
    with pytest.raises(InputError, match=r"three_image1\.png: its labels would have the same name"):
        expand_images([*paths, folder / "three_image1.png"])
