from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septa.data.fingerprint import scan_image
from septa.data.styles import MOST_REPEATS, count_repeats, find_style


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("tint", [None, 0.0, 60.0])
def test_styles_differ_in_colour_and_background(light: bool, tint: float | None) -> None:
    """Grey values in three equal channels are grey."""
    rng = np.random.default_rng(0)
    labels_yx = np.zeros((64, 64), np.int32)
    labels_yx[8:24, 8:24] = 1
    grey_yx = (220.0 if light else 20.0) + (-120.0 if light else 120.0) * labels_yx + rng.normal(0, 1, labels_yx.shape)
    image_cyx = grey_yx[None] if tint is None else np.stack([grey_yx, grey_yx, grey_yx - tint * labels_yx])
    style = find_style(scan_image("one", image_cyx, labels_yx, classes=2))
    assert style == f"{'colour' if tint else 'grey'} on a {'light' if light else 'dark'} background"


@given(st.lists(st.sampled_from("aaaaab"), min_size=1, max_size=60), st.floats(0, 1))
def test_rare_styles_are_repeated(styles: list[str], balance: float) -> None:
    repeats = count_repeats(styles, balance)
    counts = {style: styles.count(style) for style in styles}
    most = max(counts.values())
    for style, times in zip(styles, repeats, strict=True):
        assert times == min(MOST_REPEATS, round((most / counts[style]) ** balance))
        assert times == 1 or counts[style] < most
    assert balance or set(repeats) == {1}


def test_equal_shares_draw_styles_equally_often() -> None:
    repeats = count_repeats(["a"] * 12 + ["b"] * 3, 1.0)
    assert sum(repeats[:12]) == sum(repeats[12:]) == 12
    assert count_repeats([], 0.5) == ()
