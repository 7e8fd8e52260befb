"""Pairs of predicted and true label files in two folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from septa.errors import InputError
from septa.labels.matching import match_folders

# Pairing of folders --------------------------------------------------------------------------------------------------


def folders(tmp_path: Path, predictions: list[str], labels: list[str]) -> tuple[Path, Path]:
    for folder, names in (("predictions", predictions), ("labels", labels)):
        for name in names:
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return tmp_path / "predictions", tmp_path / "labels"


def matched(tmp_path: Path, predictions: list[str], labels: list[str]) -> list[tuple[str, str, str]]:
    left, right = folders(tmp_path, predictions, labels)
    return [
        (name, p.relative_to(left).as_posix(), t.relative_to(right).as_posix())
        for name, p, t in match_folders(left, right).pairs
    ]


@pytest.mark.parametrize(
    ("prediction", "labels", "name"),
    [
        ("a.tif", "a.png", "a"),
        ("a.tif", "a_mask.PNG", "a"),
        ("a.png", "a_Labels.tiff", "a"),
        ("a_seg.png", "a_anno.bmp", "a"),
        ("a.ome.tif", "a_label.ome.tif", "a"),
        ("slide 1.5x.png", "slide 1.5x_seg.png", "slide 1.5x"),
        ("plate/a.png", "plate/a_mask.png", "plate/a"),
        ("_mask.png", "_mask.tif", "_mask"),
        ("cellul\u00e9.png", "cellule\u0301_mask.png", "cellul\u00e9"),
    ],
)
def test_folders_pair_by_stem(tmp_path, prediction, labels, name):
    pairs = matched(tmp_path, [prediction, "z.png"], [labels, "z.png"])
    assert pairs == [(name, prediction, labels), ("z", "z.png", "z.png")]


def test_equal_names_win_over_removed_endings(tmp_path):
    names = ["cell.png", "cell_seg.png"]
    assert matched(tmp_path, names, names) == [("cell", *names[:1] * 2), ("cell_seg", *names[1:] * 2)]


def test_other_files_are_passed_over(tmp_path):
    pairs = matched(tmp_path, ["a.png", "scores.json", ".a.png", ".cache/b.png"], ["a.png", "Thumbs.db"])
    assert pairs == [("a", "a.png", "a.png")]


def test_files_without_partner_are_all_listed(tmp_path):
    left, right = folders(tmp_path, ["a.png", "b.png", "c.png"], ["b_mask.png", "d_mask.png"])
    found = match_folders(left, right)
    assert found.pairs == (("b", left / "b.png", right / "b_mask.png"),)
    assert found.unpaired == ("2 without labels (a.png, c.png)", "1 without prediction (d_mask.png)")


def test_nothing_to_pair_is_refused(tmp_path):
    left, right = folders(tmp_path, ["a.png"], ["d_mask.png"])
    with pytest.raises(InputError) as caught:
        match_folders(left, right)
    problem = "predictions and labels do not pair up: 1 without labels (a.png); 1 without prediction (d_mask.png)"
    assert str(caught.value) == f"{left}: {problem}. Give each prediction the name of its label file in {right}."


def test_zarr_stores_and_broken_links_are_named(tmp_path):
    left, right = folders(tmp_path, ["a.png", "b.zarr/zarr.json", "b.zarr/0/c.png"], ["a.png"])
    (right / "d.png").symlink_to(tmp_path / "absent.png")
    found = match_folders(left, right)
    assert [name for name, *_ in found.pairs] == ["a"]
    assert found.unpaired == ("1 zarr store (b.zarr)", "1 broken link (d.png)")


def test_images_with_other_suffixes_are_found(tmp_path):
    left, right = folders(tmp_path, ["a.png"], ["a.png", "notes.txt"])
    tifffile.imwrite(left / "b.lsm", np.zeros((4, 4), np.uint8))
    tifffile.imwrite(right / "b.btf", np.zeros((4, 4), np.uint8))
    assert [name for name, *_ in match_folders(left, right).pairs] == ["a", "b"]


def test_long_lists_are_cut_with_their_count(tmp_path):
    left, right = folders(tmp_path, [f"{i:03}.png" for i in range(50)], ["x.png"])
    with pytest.raises(InputError, match=r"50 without labels \(000\.png, .*, 019\.png and 30 more\)"):
        match_folders(left, right)


@pytest.mark.parametrize("clash", [["a.png", "a.tif"], ["a.png", "a_mask.png"]])
def test_several_files_of_one_name_are_refused(tmp_path, clash):
    left, right = folders(tmp_path, ["a.bmp"], clash)
    with pytest.raises(InputError, match=rf"several files are named 'a' \({', '.join(clash)}\)"):
        match_folders(left, right)


def test_unusable_folders_are_refused(tmp_path):
    left, right = folders(tmp_path, ["a.png"], ["notes.txt"])
    with pytest.raises(InputError, match=r": the folder contains no image files but 1 \.txt\. Give the"):
        match_folders(left, right)
    with pytest.raises(InputError, match=r": the folder does not exist\. Give the folder of the predictions\.$"):
        match_folders(tmp_path / "none", left)
    with pytest.raises(InputError, match=r": the path is not a folder\. Give the folder of the label images\.$"):
        match_folders(left, left / "a.png")
    with pytest.raises(InputError, match=r": the folder is given as predictions and as labels\. Give two folders\.$"):
        match_folders(left, tmp_path / "labels" / ".." / "predictions")
