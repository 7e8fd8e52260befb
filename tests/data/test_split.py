"""Images of a single group are cut into a part for training and one for validation that share no pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septa.data.pairs import Pair
from septa.data.split import cut_images, list_parts
from septa.errors import InputError


def make_pair(name: str) -> Pair:
    return Pair(name=name, image=Path(f"{name}.png"), labels=None, group="all")


@given(st.integers(16, 300), st.integers(40, 300), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_parts_share_no_pixel_and_lie_inside(height: int, width: int, share: float, seed: int) -> None:
    class_yx = np.random.default_rng(seed).integers(0, 3, (height, width))
    parts, said = cut_images([make_pair("a")], share, lambda _: class_yx)
    uses = np.zeros((height, width), int)
    for pair in parts:
        assert pair.window is not None
        top, left, bottom, right = pair.window
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        assert min(bottom - top, right - left) >= 16
        uses[top:bottom, left:right] += 1
    assert uses.max() == 1
    assert said.startswith("there is only one image, so the ")
    assert list_parts(parts) == (("a#training",), ("a#validation",))


def test_both_parts_hold_the_objects_if_an_edge_has_some() -> None:
    class_yx = np.zeros((100, 120), int)
    class_yx[40:60, 2:40] = 1
    parts, said = cut_images([make_pair("a")], 0.2, lambda _: class_yx)
    assert parts[1].window == (0, 0, 100, 24)
    assert said == "there is only one image, so the 20% at its left are held out"
    assert parts[0].window == (0, 31, 100, 120)


def test_small_images_are_refused_and_unreadable_ones_left_whole() -> None:
    with pytest.raises(InputError, match=r"too small \(30 x 20 pixels\)"):
        cut_images([make_pair("a")], 0.2, lambda _: np.zeros((30, 20), int))
    pairs = [make_pair("a"), make_pair("b")]
    parts, said = cut_images(pairs, 0.2, lambda pair: None if pair.name == "a" else np.zeros((64, 64), int))
    assert parts[0] == pairs[0]
    assert list_parts(parts) == (("b#training",), ("b#validation",))
    assert said == "all 2 images belong together, so 20% of each, at one edge, is held out"
