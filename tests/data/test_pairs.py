from __future__ import annotations

from pathlib import Path

import pytest

from septa.data.pairs import Pair, PairingError

MASKS = (Path("a/masks/1.png"), Path("a/masks/2.png"))


@pytest.mark.parametrize(
    ("labels", "page", "pages", "expected"),
    [
        (Path("l/x.tif"), 0, 1, ("i/x.tif", "l/x.tif")),
        (Path("l/x.tif"), 2, 4, ("i/x.tif page 2", "l/x.tif page 2")),
        (MASKS, 0, 1, ("i/x.tif", "a/masks")),
        (None, 0, 1, ("i/x.tif", "i/x.tif")),
    ],
)
def test_messages_name_the_page_of_a_stack(
    labels: Path | tuple[Path, ...] | None, page: int, pages: int, expected: tuple[str, str]
) -> None:
    pair = Pair(name="x", image=Path("i/x.tif"), labels=labels, group="x", page=page, pages=pages)
    assert (pair.image_location, pair.labels_location) == tuple(str(Path(place)) for place in expected)
    assert pair.label_files == (MASKS if labels == MASKS else () if labels is None else (labels,))


def test_an_error_names_files_inside_and_outside_its_folder() -> None:
    reasons = {Path("/data/images/a.png"): "one", Path("/data"): "two", Path("/other/b.png"): "three"}
    error = PairingError("/data", "3 files cannot be paired", "Move them", reasons)
    listed = "images/a.png (one), /data (two), /other/b.png (three)"
    assert str(error) == f"/data: 3 files cannot be paired: {listed}. Move them."
    assert error.reasons == reasons
    assert error.pairing is None
