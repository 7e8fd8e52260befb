"""No entry of a folder is passed over without a word."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from septa.data.folder import find_pairs, read_pair_image, read_pair_labels
from septa.errors import InputError


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (12, 15)).astype(np.uint8)


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zarr":
        zarr.create_array(str(path), data=draw(seed))
    elif path.suffix == ".png":
        Image.fromarray(draw(seed)).save(path)
    else:
        with path.open("wb") as stream:
            tifffile.imwrite(stream, draw(seed))


def test_images_of_every_kind_are_used(tmp_path: Path) -> None:
    names = ("a.png", "b.svs", "c.lsm", "d.btf", "e.zarr")
    for seed, name in enumerate(names):
        save(tmp_path / "images" / name, seed)
        save(tmp_path / "labels" / f"{name[0]}.png", seed)
    save(tmp_path / "labels" / "f.zarr", 9)
    save(tmp_path / "images" / "f.png", 9)
    pairs = find_pairs(tmp_path).pairs
    assert [pair.image.name for pair in pairs] == [*names, "f.png"]
    for seed, pair in zip((0, 1, 2, 3, 4, 9), pairs, strict=True):
        assert np.array_equal(read_pair_image(pair), draw(seed)[None])
        assert np.array_equal(read_pair_labels(pair).array, draw(seed))


def test_a_store_without_labels_is_an_error(tmp_path: Path) -> None:
    for name in ("images/a.png", "labels/a.png", "images/b.zarr"):
        save(tmp_path / name)
    with pytest.raises(InputError, match=r"images/b\.zarr \(the image has no labels\)"):
        find_pairs(tmp_path)


def test_what_cannot_be_used_is_a_warning(tmp_path: Path) -> None:
    for name in ("images/a.png", "labels/a.png", "images/more/b.png"):
        save(tmp_path / name)
    (tmp_path / "images" / "c.webp").write_bytes(b"RIFF0000WEBP" * 20)
    (tmp_path / "images" / "d.svs").write_bytes(b"II*\0damaged")
    (tmp_path / "images" / "notes.txt").write_text("x")
    (tmp_path / "labels" / "link").symlink_to("nowhere")
    found = {Path(file).name: notice.text for notice, files in find_pairs(tmp_path).notices for file in files}
    assert set(found) == {"c.webp", "d.svs", "link", "more"}
    assert "a WebP" in found["c.webp"]
    assert "leads to no file" in found["link"]


def test_a_broken_link_to_an_image_is_named(tmp_path: Path) -> None:
    for name in ("images/a.png", "labels/a.png", "labels/b.png"):
        save(tmp_path / name)
    (tmp_path / "images" / "b.png").symlink_to("/absent/b.png")
    pair = find_pairs(tmp_path).pairs[1]
    with pytest.raises(InputError, match=r"images/b\.png: the file cannot be read"):
        read_pair_image(pair)
    (tmp_path / "labels" / "b.png").unlink()
    with pytest.raises(InputError, match=r"images/b\.png \(the link leads to no file\)"):
        find_pairs(tmp_path)


def test_names_pair_in_any_unicode_form_and_case(tmp_path: Path) -> None:
    composed, split = (unicodedata.normalize(form, "Zürich é") for form in ("NFC", "NFD"))
    assert composed != split
    for name in (f"images/{composed} 1.png", f"labels/{split} 1_mask.png", "images/A2.png", "labels/a2_Mask.png"):
        save(tmp_path / name)
    pairing = find_pairs(tmp_path)
    assert len(pairing.pairs) == 2
    assert "pairing: without regard to case, such as A2.png with a2_Mask.png" in pairing.notes


def test_two_images_whose_names_differ_in_case_keep_their_labels(tmp_path: Path) -> None:
    for name in ("images/A.png", "images/a.png", "labels/A.png", "labels/a.png"):
        save(tmp_path / name)
    assert [(pair.image.name, pair.label_files[0].name) for pair in find_pairs(tmp_path).pairs] == [
        ("A.png", "A.png"),
        ("a.png", "a.png"),
    ]
