"""Pages of stacks pair by their axes."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from septa.data.folder import find_pairs, read_pair_image, read_pair_labels
from septa.data.pages import PageAxes, match_pages
from septa.data.pairs import PairingError


@given(st.permutations("TZP"), st.permutations("TZP"), st.tuples(*[st.integers(2, 4)] * 3))
def test_pages_of_named_axes_have_the_same_place(image, labels, sizes) -> None:
    size = dict(zip("TZP", sizes, strict=True))
    shapes = [tuple(size[axis] for axis in axes) for axes in (image, labels)]
    pages, said = match_pages(PageAxes("".join(image), shapes[0]), PageAxes("".join(labels), shapes[1]))
    assert pages is not None
    assert bool(said) == (image != labels)
    for page, place in enumerate(product(*map(range, shapes[0]))):
        at = dict(zip(image, place, strict=True))
        assert pages[page] == np.ravel_multi_index([at[axis] for axis in labels], shapes[1])


@pytest.mark.parametrize(
    ("image", "labels", "pairs", "said"),
    [
        (("TZ", (4, 3)), ("TZ", (4, 3)), True, ""),
        (("Z", (12,)), ("I", (12,)), True, ""),
        (("TZ", (4, 3)), ("QQ", (4, 3)), True, ""),
        (("TZ", (4, 3)), ("Q", (12,)), True, "in the order TZ"),
        (("QQ", (4, 3)), ("Q", (12,)), True, "neither file names the axes"),
        (("Q", (12,)), ("ZT", (3, 4)), True, "in the order ZT"),
        (("Z", (12,)), ("T", (12,)), True, "along Z and the labels along T"),
        (("TZ", (4, 3)), ("TZ", (3, 4)), False, ""),
        (("TZ", (4, 3)), ("TP", (4, 3)), False, ""),
        (("TZ", (4, 3)), ("Z", (12,)), False, ""),
        (("TZ", (4, 3)), ("QQ", (3, 4)), False, ""),
    ],
)
def test_axes_that_differ_are_said_or_refused(image, labels, pairs, said) -> None:
    pages, assumption = match_pages(PageAxes(*image), PageAxes(*labels))
    assert (pages is not None) == pairs
    assert said in assumption
    assert bool(said) == bool(assumption)
    if pages is not None:
        assert pages.tolist() == list(range(math.prod(image[1])))


def save(path: Path, stack: np.ndarray, axes: str) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, stack, ome=path.name.endswith(".ome.tif"), metadata={"axes": axes}, photometric="minisblack")


def test_stacks_with_axes_in_another_order(tmp_path: Path) -> None:
    stack = np.arange(10, dtype=np.uint8).reshape(2, 5, 1, 1) * np.ones((20, 24), np.uint8)
    for name in "ab":
        save(tmp_path / "images" / f"{name}.ome.tif", stack, "TZYX")
        save(tmp_path / "labels" / f"{name}.tif", stack.swapaxes(0, 1), "ZTYX")
    pairing = find_pairs(tmp_path)
    assert len(pairing.pairs) == 20
    for pair in pairing.pairs:
        assert np.array_equal(read_pair_image(pair)[0], read_pair_labels(pair).array)
    assert pairing.notices.lines() == [
        "note: a.ome.tif, b.ome.tif: pages are paired by their axes, TZ here and ZT in the labels."
    ]
    save(tmp_path / "labels" / "b.tif", stack.swapaxes(0, 1), "TZYX")
    with pytest.raises(PairingError) as caught:
        find_pairs(tmp_path)
    assert "b.ome.tif (the image file has 10 pages (T 2, Z 5))" in str(caught.value)
    assert "b.tif (the label file has 10 pages (T 5, Z 2))" in str(caught.value)
