"""Tables name the channels of an image, and say which frame and plane of a stack an object lies in."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from septa.images import Calibration, WrittenFiles
from septa.notices import Notices
from septa.objects.files import ObjectFiles, ObjectOptions

LABELS_YX = np.array([[0, 1, 1], [2, 2, 0]], np.int32)
FOREGROUND_YX = np.ones((2, 3), np.float32)


def write_table(
    path: Path, images: list[tuple[str, tuple[str, ...], int, list[dict[str, int]]]]
) -> list[dict[str, str]]:
    """Write the table of images, given as name, channel names, number of channels and position of each page."""
    files = ObjectFiles(ObjectOptions(table=path), path.parent, ("background", "object"), WrittenFiles())
    for name, channel_names, channels, positions in images:
        files.begin(Path(f"{name}.tif"))
        for number, position in enumerate(positions):
            image_cyx = np.full((channels, 2, 3), number, np.uint8)
            page = name if len(positions) == 1 else f"{name}_{number:04d}"
            scale = Calibration(channel_names=channel_names)
            files.add(page, *files.measure(LABELS_YX, image_cyx, FOREGROUND_YX, scale), position)
        files.commit(path)
    files.finish()
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def means(row: dict[str, str]) -> list[str]:
    return [name.removeprefix("mean_") for name in row if name.startswith("mean_")]


def test_columns_have_the_names_of_channels(tmp_path: Path) -> None:
    cases: list[tuple[tuple[str, ...], int, list[str]]] = [
        ((), 2, ["channel_1", "channel_2"]),
        (("DAPI", "GFP"), 2, ["DAPI", "GFP"]),
        (("Alexa Fluor 488 (EM)", "Zelle µm"), 2, ["Alexa_Fluor_488_EM", "Zelle_µm"]),
        (("DAPI", "DAPI", "DAPI_2"), 3, ["DAPI", "DAPI_2", "DAPI_2_2"]),
        (("", "GFP"), 2, ["channel_1", "GFP"]),
        ((" \n", "=1+1"), 2, ["channel_1", "1+1"]),
        (("DAPI", "GFP", "Cy5"), 1, ["channel_1"]),  # not a name for each channel
        (("a,b\r\nc\t\x1b[2Jd",), 1, ["a_b_c_2Jd"]),
    ]
    for number, (names, channels, expected) in enumerate(cases):
        rows = write_table(tmp_path / f"{number}.csv", [("a", names, channels, [{}])])
        assert means(rows[0]) == expected
        assert len(rows) == 2


def test_an_image_without_a_channel_has_empty_cells(tmp_path: Path) -> None:
    rows = write_table(tmp_path / "t.csv", [("a", ("DAPI",), 1, [{}]), ("b", ("GFP",), 1, [{}])])
    assert [(row["image"], row["mean_DAPI"], row["mean_GFP"]) for row in rows] == [
        *[("a", "0", "")] * 2,
        *[("b", "", "0")] * 2,
    ]


def test_frame_and_plane_follow_the_image(tmp_path: Path) -> None:
    positions = [{"frame": frame, "plane": plane} for frame in range(2) for plane in range(3)]
    rows = write_table(
        tmp_path / "t.csv", [("flat", (), 1, [{}]), ("b", (), 1, positions), ("c", (), 1, [{"page": 0}] * 2)]
    )
    assert list(rows[0])[:5] == ["image", "frame", "plane", "page", "label"]
    found = [(row["image"], row["frame"], row["plane"], row["page"]) for row in rows[::2]]
    assert found[0] == ("flat", "", "", "")
    assert found[1:7] == [(f"b_{page:04d}", str(page // 3), str(page % 3), "") for page in range(6)]
    assert found[7:] == [("c_0000", "", "", "0"), ("c_0001", "", "", "0")]


def test_images_without_pages_have_no_further_column(tmp_path: Path) -> None:
    rows = write_table(tmp_path / "t.csv", [("a", (), 1, [{}]), ("b", (), 1, [{}])])
    assert list(rows[0])[:2] == ["image", "label"]


def test_dropped_objects_are_background_for_the_measurements_of_others(tmp_path: Path) -> None:
    notices = Notices()
    options = ObjectOptions(table=tmp_path / "t.csv", min_confidence=0.5, measure=("neighbours", "perimeter"))
    files = ObjectFiles(options, tmp_path, ("background", "object"), WrittenFiles(), notices=notices)
    foreground_yx = np.where(LABELS_YX == 2, 0.1, FOREGROUND_YX).astype(np.float32)
    files.begin(Path("a.tif"))
    scale = Calibration(pixel_size_um=(0.5, 0.25))
    kept_yx, table = files.measure(LABELS_YX, np.zeros((1, 2, 3)), foreground_yx, scale)
    files.add("a", kept_yx, table)
    files.commit(tmp_path / "a.tif")
    files.finish()
    np.testing.assert_array_equal(kept_yx, LABELS_YX % 2)
    with options.table.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["touching_objects"], row["nearest_edge_distance"], row["perimeter_um"]) == ("0", "", "")
    assert row["confidence"] == "0.5"  # as with all objects: the dropped one is no background of this one's rim
    assert [line.partition(",")[0] for line in notices.lines()] == ["note: a.tif: the pixels are not square"]
