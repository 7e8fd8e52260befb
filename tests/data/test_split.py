"""Images of one group are cut into two parts that share no pixel, and datasets are divided into folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septa.data.pairs import Pair
from septa.data.split import cut_images, list_parts, split_folds
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


@st.composite
def datasets(draw: st.DrawFn) -> tuple[list[Pair], list[list[str]]]:
    """Draw pairs in groups, and sets of names of similar images."""
    groups = draw(st.lists(st.integers(0, 11), min_size=1, max_size=40))
    pairs = [replace(make_pair(f"im{index}"), group=f"g{group}") for index, group in enumerate(groups)]
    names = st.sampled_from([pair.name for pair in pairs])
    return pairs, draw(st.lists(st.lists(names, min_size=2, max_size=3), max_size=3))


def find_independent(pairs: list[Pair], similar: list[list[str]]) -> list[set[str]]:
    """Find the smallest sets of names that groups and similar images connect, by joining until nothing changes."""
    sets = [{pair.name for pair in pairs if pair.group == group} for group in {pair.group for pair in pairs}]
    for names in similar:
        joined = {name for own in sets if own & set(names) for name in own}
        sets = [own for own in sets if not own & joined] + [joined]
    return sets


@given(datasets(), st.integers(2, 8), st.integers(0, 3), st.randoms())
def test_each_image_is_in_one_fold_with_its_group(
    dataset: tuple[list[Pair], list[list[str]]], folds: int, seed: int, random: Random
) -> None:
    pairs, similar = dataset
    independent = find_independent(pairs, similar)
    if len(independent) < folds:
        with pytest.raises(InputError, match=f"--folds {folds}: the dataset has only {len(independent)} "):
            split_folds(pairs, folds, seed, similar)
        return
    found = split_folds(pairs, folds, seed, similar)
    assert len(found) == folds
    assert sorted(name for fold in found for name in fold) == sorted(pair.name for pair in pairs)
    assert all(list(fold) == sorted(fold) != [] for fold in found)
    assert all(sum(bool(own & set(fold)) for fold in found) == 1 for own in independent)
    assert max(map(len, found)) - min(map(len, found)) <= max(map(len, independent))
    assert split_folds(random.sample(pairs, len(pairs)), folds, seed, similar) == found


def test_the_seed_changes_the_folds() -> None:
    pairs = [replace(make_pair(f"im{index}"), group=f"g{index}") for index in range(20)]
    assert len({split_folds(pairs, 4, seed) for seed in range(5)}) == 5
    assert all(len(fold) == 5 for fold in split_folds(pairs, 4, 0))


@pytest.mark.parametrize(
    ("groups", "rest"),
    [
        ("abc", "3 images. Give --folds 3 or fewer, or add images of another specimen."),
        ("ab", "2 images. Give --folds 2, or add images of another specimen."),
        ("a", "1 image. Leave --folds out."),
        ("aabb", "2 independent groups of images (4 images). Give --folds 2, or add images of another specimen."),
        ("aaa", "1 independent group of images (3 images). Leave --folds out."),
    ],
)
def test_too_many_folds_are_refused(groups: str, rest: str) -> None:
    pairs = [replace(make_pair(f"im{index}"), group=group) for index, group in enumerate(groups)]
    with pytest.raises(InputError) as caught:
        split_folds(pairs, 5, 0)
    assert str(caught.value) == f"--folds 5: the dataset has only {rest}"
