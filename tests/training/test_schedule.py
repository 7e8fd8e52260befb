from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from septa.recipe import TrainingSettings
from septa.training.schedule import compute_lr_factor, count_drops

KINDS = ["cosine", "polynomial", "plateau", "constant"]


def training(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"warmup": 0.1, **changes})


@pytest.mark.parametrize("schedule", KINDS)
def test_warm_up_rises_linearly_to_one(schedule: str) -> None:
    factors = [compute_lr_factor(0.01 * step, training(schedule=schedule)) for step in range(11)]
    assert factors == pytest.approx([0.1 * step for step in range(11)])


@pytest.mark.parametrize("schedule", KINDS)
def test_the_factor_begins_at_one_without_a_warm_up(schedule: str) -> None:
    assert compute_lr_factor(0, training(schedule=schedule, warmup=0)) == 1


@pytest.mark.parametrize(("schedule", "half", "end"), [("cosine", 0.5, 0), ("polynomial", 0.5**0.9, 0)])
def test_falling_schedules_end_at_zero(schedule: str, half: float, end: float) -> None:
    assert compute_lr_factor(0.55, training(schedule=schedule)) == pytest.approx(half)
    assert compute_lr_factor(1.0, training(schedule=schedule)) == pytest.approx(end, abs=1e-12)


def test_cosine_follows_the_formula_of_the_paper() -> None:
    for progress in (0.2, 0.4, 0.9):
        expected = 0.5 * (1 + math.cos(math.pi * progress))
        assert compute_lr_factor(progress, training(warmup=0)) == pytest.approx(expected)


def test_plateau_divides_by_ten_at_each_drop() -> None:
    factors = [compute_lr_factor(0.7, training(schedule="plateau"), drops) for drops in range(3)]
    assert factors == pytest.approx([1, 0.1, 0.01])


@given(
    st.sampled_from(KINDS),
    st.floats(0, 0.9),
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
    st.integers(0, 3),
)
def test_the_factor_stays_within_bounds_and_never_rises_after_the_warm_up(
    schedule: Any, warmup: float, progress: list[float], drops: int
) -> None:
    settings = training(schedule=schedule, warmup=warmup)
    early, late = sorted(max(share, warmup) for share in progress)
    assert 0 <= compute_lr_factor(min(progress), settings, drops) <= 1
    assert compute_lr_factor(late, settings, drops) <= compute_lr_factor(early, settings, drops)


SCORES = st.one_of(st.sampled_from([0.0, 0.5, 0.50004, 0.50006, 0.9, math.nan]), st.floats(0, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, max_size=30), st.integers(1, 4))
def test_plateau_gives_the_rates_of_pytorch(scores: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=patience)
    ours = training(schedule="plateau", patience=patience)
    for count, score in enumerate(scores, start=1):
        theirs.step(score)
        factor = compute_lr_factor(0.5, ours, count_drops(scores[:count], patience))
        assert 1e3 * factor == pytest.approx(theirs.get_last_lr()[0])
