"""Folders of a labelled dataset are found by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from septa.errors import InputError
from septa.labels.folders import IMAGE_FOLDERS, find_class_folders, find_subfolders


def make_folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir()


def test_subfolders_are_found_in_upper_and_lower_case(tmp_path: Path) -> None:
    make_folders(tmp_path, "Images", "img", "labels")
    (tmp_path / "image").write_text("a file")
    assert [path.name for path in find_subfolders(tmp_path, IMAGE_FOLDERS)] == ["Images", "img"]


def test_class_folders_lie_next_to_images_and_labels(tmp_path: Path) -> None:
    make_folders(tmp_path, "classes", "images")
    assert find_class_folders(tmp_path) == []
    make_folders(tmp_path, "Masks")
    assert find_class_folders(tmp_path) == [tmp_path / "classes"]
    make_folders(tmp_path, "types")
    assert find_class_folders(tmp_path) == [tmp_path / "classes", tmp_path / "types"]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: the folder cannot be listed \(.*\)\. Make it readable\.$"):
        find_subfolders(tmp_path / "none", IMAGE_FOLDERS)
