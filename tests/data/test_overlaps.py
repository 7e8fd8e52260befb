"""Overlapping images and changed copies are found among images that show something else."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import pytest

from septa.data import overlaps
from septa.data.overlaps import KnownSketches, find_overlaps
from septa.images import make_sketch


def field(seed: int, side: int = 240, count: int = 90) -> np.ndarray:
    """Return ellipses of several sizes and brightnesses on a dark ground, ``YX``, as nuclei are."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side), 20, np.float32)
    for _ in range(count):
        centre, axes = rng.integers(0, side, 2), rng.integers(4, 11, 2)
        angle, value = float(rng.uniform(0, 180)), float(rng.uniform(80, 230))
        cv2.ellipse(image, tuple(map(int, centre)), tuple(map(int, axes)), angle, 0, 360, value, -1)
    image = cv2.GaussianBlur(image, (0, 0), 1.2) + rng.normal(0, 1.5, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def warp(image: np.ndarray, angle: float, scale: float) -> np.ndarray:
    """Rotate about the centre and rescale; return the square part that lies inside the image."""
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale)
    turned = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    half = int(min(side, side * scale) / 2 / (abs(np.sin(np.deg2rad(angle))) + abs(np.cos(np.deg2rad(angle)))))
    return turned[side // 2 - half : side // 2 + half, side // 2 - half : side // 2 + half]


CHANGES = {
    "turned": lambda image: np.rot90(image),
    "turned by 30 degrees": lambda image: warp(image, 30, 1),
    "mirrored": lambda image: image[:, ::-1],
    "mirrored and turned": lambda image: np.rot90(image[:, ::-1], 3),
    "half": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC),
    "cropped": lambda image: image[30:200, 40:210],
    "brighter": lambda image: (255 * (image / 255) ** 0.6).astype(np.uint8),
    "16 bit": lambda image: image.astype(np.uint16) * 30 + 900,
    "noisy": lambda image: (image + np.random.default_rng(0).normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8),
    "shifted and mirrored": lambda image: image[40:, 60:][::-1],
}
FIELDS = [make_sketch(field(seed)[None]) for seed in range(12)]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found(change: str) -> None:
    copy = make_sketch(np.ascontiguousarray(CHANGES[change](field(5)))[None])
    assert KnownSketches(FIELDS).find(copy) == [5]
    assert find_overlaps([*FIELDS, copy]) == [(5, 12)]


def test_small_crops_shifted_by_8_pixels_are_one_set() -> None:
    whole = field(3, side=300, count=150)
    crops = [make_sketch(whole[None, 40 : 40 + 96, left : left + 96]) for left in (20, 28, 36, 44)]
    other = [make_sketch(field(30 + k, side=96, count=16)[None]) for k in range(8)]
    pairs = find_overlaps([*other, *crops])
    assert {index for pair in pairs for index in pair} == {8, 9, 10, 11}
    assert len(pairs) == 3


def test_most_rotations_and_scales_are_found_and_nothing_else_is() -> None:
    """The whole field is turned on a larger canvas."""
    known, side, found = KnownSketches(FIELDS), 360, []
    for angle, scale, mirrored, seed in product((0, 25, 90, 130, 200), (0.75, 1.0, 1.4), (False, True), (0, 1)):
        matrix = cv2.getRotationMatrix2D((120, 120), angle, scale)
        matrix[:, 2] += side / 2 - 120
        copy = cv2.warpAffine(field(seed), matrix, (side, side), borderValue=20.0)
        copy = copy[:, ::-1] if mirrored else copy
        found.append(known.find(make_sketch(np.ascontiguousarray(copy)[None])))
        assert found[-1] in ([], [seed])
    assert sum(map(bool, found)) >= 0.85 * len(found)


def test_different_images_are_not_connected() -> None:
    rng = np.random.default_rng(0)
    noise = [make_sketch(rng.normal(size=(1, 90, 110))) for _ in range(20)]
    spots = []
    for _ in range(20):
        image = np.zeros((128, 128), np.float32)
        image[tuple(rng.integers(0, 128, (2, 12)))] = 1
        spots.append(make_sketch(cv2.GaussianBlur(image, (0, 0), 4)[None]))
    assert find_overlaps([*FIELDS, *noise, *spots]) == []


def test_regular_discs_of_other_arrangements_are_not_connected() -> None:
    sketches = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        image = np.zeros((192, 192), np.float32)
        for y in range(12, 192, 24):
            for x in range(12, 192, 24):
                if rng.random() < 0.6:
                    cv2.circle(image, (x, y), 7, 200.0, -1)
        sketches.append(make_sketch(cv2.GaussianBlur(image, (0, 0), 1)[None]))
    assert len(find_overlaps(sketches)) <= 1


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [make_sketch(np.ascontiguousarray(field(seed)[:, ::-1])[None]) for seed in (2, 7)]
    expected = [(2, 12), (7, 13)]
    assert find_overlaps([*FIELDS, *copies]) == expected
    monkeypatch.setattr(overlaps, "_ROW_IMAGES", 3)
    monkeypatch.setattr(overlaps, "_COLUMN_IMAGES", 2)
    assert find_overlaps([*FIELDS, *copies]) == expected


def test_few_or_empty_sketches() -> None:
    empty = make_sketch(np.zeros((1, 30, 30)))
    assert find_overlaps([]) == find_overlaps([FIELDS[0]]) == find_overlaps([empty, empty, FIELDS[0]]) == []
    assert KnownSketches([]).find(FIELDS[0]) == KnownSketches([empty]).find(FIELDS[0]) == []
    assert KnownSketches(FIELDS).find(empty) == []
