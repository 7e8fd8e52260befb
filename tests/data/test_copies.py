"""Near-duplicates are searched among images that are known to be copies, or not to be."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from septa.data import copies
from septa.data.copies import find_near_duplicates
from septa.data.fingerprint import ImageFacts, scan_image

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def texture(seed: int, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 4)
    return (128 + 30 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)[None]


def spots(seed: int, count: int = 12) -> np.ndarray:
    """Return a mostly black image, such as fluorescence gives."""
    rng = np.random.default_rng(seed)
    image = np.zeros((128, 128))
    image[tuple(rng.integers(0, 128, (2, count)))] = 1
    return (20000 * ndimage.gaussian_filter(image, 4)).clip(0, 255).astype(np.uint8)[None] + np.uint8(3)


def scan(name: str, image_cyx: np.ndarray) -> ImageFacts:
    return scan_image(name, image_cyx, np.zeros(image_cyx.shape[1:], np.int32), classes=2)


def _jpeg(image_cyx: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image_cyx[0]).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))[None]


COPIES = {
    "same": lambda image: image,
    "jpeg": _jpeg,
    "smaller": lambda image: cv2.resize(image[0], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)[None],
    "brighter": lambda image: (image * 0.5 + 60).astype(np.uint8),
    "16 bit": lambda image: image.astype(np.uint16) * 257,
    "rgb": lambda image: np.repeat(image, 3, axis=0),
    "flipped": lambda image: image[:, :, ::-1],
    "turned": lambda image: np.rot90(image, 1, axes=(1, 2)),
    "turned and flipped": lambda image: np.rot90(image, 3, axes=(1, 2))[:, ::-1],
    "upside down": lambda image: np.rot90(image, 2, axes=(1, 2)),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("make", [texture, spots])
def test_copies_are_found(kind: str, make) -> None:
    facts = [scan(f"{seed:02}", make(seed)) for seed in range(15)]
    copy = scan("copy", np.ascontiguousarray(COPIES[kind](make(7))))
    assert find_near_duplicates([*facts[:9], copy, *facts[9:]]) == [["07", "copy"]]


def test_sets_connect_linked_images_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_CORRELATION_BLOCK", 3)
    images = {f"{seed}{kind}": change(texture(seed)) for seed in range(4) for kind, change in COPIES.items()}
    names = sorted(images, key=lambda name: hash(name[::-1]))
    facts = [scan(name, np.ascontiguousarray(images[name])) for name in names]
    expected = [sorted(name for name in names if name.startswith(str(seed))) for seed in range(4)]
    assert find_near_duplicates(facts) == expected


def test_sparse_images_are_not_copies() -> None:
    assert find_near_duplicates([scan(str(seed), spots(seed, 2 + seed % 5)) for seed in range(60)]) == []


def test_uneven_illumination_makes_no_copies() -> None:
    y, x = np.mgrid[-1:1:96j, -1:1:128j]
    light = 1.6 - 0.6 * (x**2 + y**2)
    facts = [scan(str(seed), (texture(seed) * 0.3 + 70) * light) for seed in range(6)]
    plain = np.stack([item.thumb.ravel() for item in facts])
    assert np.sort((plain @ plain.T).ravel())[-8] > copies.SIMILAR
    assert find_near_duplicates(facts) == []


def test_a_shared_rim_makes_no_copies_and_copies_are_still_found() -> None:
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    inside = x**2 + y**2 < 0.8
    images = [np.where(inside, 150 + 0.3 * texture(seed, (128, 128)), 0).astype(np.uint8) for seed in range(20)]
    facts = [scan(f"{i:02}", image) for i, image in enumerate(images)]
    assert find_near_duplicates(facts[:1]) == []
    assert find_near_duplicates(facts) == []
    again = scan("again", np.clip(images[4].astype(int) + np.random.default_rng(0).integers(0, 5, (128, 128)), 0, 255))
    assert find_near_duplicates([*facts, again]) == [["04", "again"]]


def test_constant_images_and_other_proportions_are_not_copies() -> None:
    constant = [scan(f"c{i}", np.full((1, 40, 40), 5, np.uint8)) for i in range(3)]
    square = scan("square", cv2.resize(texture(0)[0], (96, 96))[None])
    assert find_near_duplicates([*constant, scan("wide", texture(0)), square]) == []
    assert find_near_duplicates([]) == []


def test_many_equal_images_are_one_set() -> None:
    one = scan("one", texture(0))
    many = [dataclasses.replace(one, name=f"{i:04}", image_digest=str(i)) for i in range(3000)]
    assert find_near_duplicates(many) == [[item.name for item in many]]


@pytest.mark.parametrize(
    "folder", ["isbi2012", *(pytest.param(name, marks=pytest.mark.slow) for name in ("glas", "dsb2018"))]
)
def test_real_images_are_not_copies(folder: str) -> None:
    paths = sorted((SHARED / folder / "images").glob("*"))[:60]
    if not paths:
        pytest.skip("the shared data set is not here")
    facts = []
    for path in paths:
        with Image.open(path) as image:
            facts.append(scan(path.stem, np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)[:3]))
    assert find_near_duplicates(facts) == []
    turned = dataclasses.replace(facts[5], name="turned", thumb=np.rot90(facts[5].thumb, 2), image_digest="")
    assert find_near_duplicates([*facts, turned]) == [sorted([facts[5].name, "turned"])]
