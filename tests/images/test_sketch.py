"""Sketches keep their points as text, depend little on exposure, and refuse texts that are not sketches."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from scipy import ndimage

from septa.images.sketch import SKETCH_POINTS, SKETCH_SIDE, Sketch, make_sketch


def blobs(seed: int, shape: tuple[int, int] = (120, 150)) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return (128 + 40 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)[None]


def test_text_keeps_the_points_in_three_kilobytes() -> None:
    sketch = make_sketch(blobs(0))
    assert len(sketch.points) == SKETCH_POINTS
    assert sketch.points.nbytes <= 3000
    again = Sketch.from_text(sketch.to_text())
    assert (again.height, again.width) == (120, 150)
    assert np.array_equal(again.descriptors, sketch.descriptors)
    assert np.array_equal(again.geometry, sketch.geometry)
    fewer = Sketch.from_text(sketch.to_text(7))
    assert np.array_equal(fewer.points, sketch.points[:7])


def test_descriptors_have_norm_1_and_points_lie_in_the_image() -> None:
    sketch = make_sketch(blobs(1))
    assert np.allclose(np.linalg.norm(sketch.descriptors, axis=1), 1, atol=1e-5)
    x, y = sketch.geometry[:, :2].T
    assert x.min() >= 0 <= y.min()
    assert x.max() < 150
    assert y.max() < 120


def test_exposure_changes_little() -> None:
    image = blobs(2)
    exposed = image.astype(np.uint16) * 90 + 3000
    exposed[0, 5, 5] = 65535
    one, other = make_sketch(image), make_sketch(exposed)
    assert np.isclose(one.descriptors @ other.descriptors.T, 1, atol=0.02).any(axis=1).mean() > 0.8


def test_the_mirror_image_has_the_same_descriptors_with_other_signs() -> None:
    from septa.images.sketch import MIRROR_SIGNS

    image = blobs(3)
    one, other = make_sketch(image), make_sketch(image[:, :, ::-1])
    best = ((one.descriptors * MIRROR_SIGNS) @ other.descriptors.T).max(axis=1)
    assert np.median(best) > 0.97
    assert np.median((one.descriptors @ other.descriptors.T).max(axis=1)) < 0.9


@pytest.mark.parametrize("value", [0, 7.5, np.nan])
def test_constant_images_have_no_points(value: float) -> None:
    sketch = make_sketch(np.full((2, 40, 50), value, np.float32))
    assert len(sketch.points) == 0
    assert len(Sketch.from_text(sketch.to_text()).points) == 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 300), (3, 9, 5), (1, 700, 90)])
def test_any_size_is_accepted(shape: tuple[int, int, int]) -> None:
    sketch = make_sketch(np.random.default_rng(0).normal(size=shape))
    assert max(sketch.height, sketch.width) == min(max(shape[1:]), SKETCH_SIDE)
    Sketch.from_text(sketch.to_text())


def test_texts_that_are_not_sketches_are_refused() -> None:
    good = base64.b64decode(make_sketch(blobs(0)).to_text())
    for data in (b"", good[:-1], good + good[4:], b"\0\0" + good[2:], b"\xff\xff" + good[2:]):
        with pytest.raises(ValueError, match="sketch"):
            Sketch.from_text(base64.b64encode(data).decode())
    for text in ("?", "abc", "\u00e9"):
        with pytest.raises(ValueError, match="sketch"):
            Sketch.from_text(text)
