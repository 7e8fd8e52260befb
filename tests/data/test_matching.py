"""Names are matched one by one; whole folders are tested with `find_pairs`."""

from __future__ import annotations

from pathlib import Path

import pytest

from septa.data.matching import get_stem, match_files


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.png", "a"),
        ("a.b.OME.TIF", "a.b"),
        ("a.ome.tiff", "a"),
        ("a.ome.png", "a.ome"),
        ("a.tif.png", "a.tif"),
        ("a", "a"),
        ("a.dat", "a"),
    ],
)
def test_ome_tif_is_one_suffix(name: str, stem: str) -> None:
    assert get_stem(Path("folder") / name) == stem


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def test_every_file_is_matched_or_explained() -> None:
    images = paths("i/a.png", "i/b.png", "i/b.tif", "i/c.png", "i/d.png")
    labels = paths("l/a_gt.png", "l/b.bmp", "l/c.png", "l/c_seg.png", "l/e.png")
    notes: list[str] = []
    matches, reasons = match_files(images, labels, notes)
    assert matches == [(Path("i/a.png"), Path("l/a_gt.png"))]
    assert {path.as_posix(): reason for path, reason in reasons.items()} == {
        "i/b.png": "2 images match its label file",
        "i/b.tif": "2 images match its label file",
        "l/b.bmp": "2 images match this label file",
        "i/c.png": "2 label files match this image",
        "l/c.png": "2 label files match its image",
        "l/c_seg.png": "2 label files match its image",
        "i/d.png": "the image has no labels",
        "l/e.png": "the labels have no image",
    }
    assert notes == []


def test_the_varying_part_decides_if_it_matches_all() -> None:
    notes: list[str] = []
    matches, reasons = match_files(paths("x1_raw.png", "x2_raw.png"), paths("y2.png", "y1.png"), notes)
    assert matches == [(Path("x1_raw.png"), Path("y1.png")), (Path("x2_raw.png"), Path("y2.png"))]
    assert reasons == {}
    assert notes == ["pairing: by the varying part of the names, such as x1_raw.png with y1.png"]
    assert match_files(paths("x1.png", "x2.png"), paths("y2.png", "y3.png"), notes)[0] == []
