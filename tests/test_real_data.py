"""Train on real images for a few minutes; the required scores are low, but a broken training misses them."""

from __future__ import annotations

from pathlib import Path

import pytest

import septa

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "minutes", "least"), [("isbi2012", 1.5, 0.92), ("glas", 3.0, 0.75)])
def test_a_few_minutes_on_real_images(name: str, minutes: float, least: float, tmp_path: Path) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} does not exist")
    model = septa.train(DATA / name, tmp_path / f"{name}.septa", overrides=["task=semantic"], minutes=minutes)
    scores = septa.evaluate(model, DATA / name)
    assert len(scores.images) == len(model.provenance["validation"]) > 0
    assert scores.summary["dice"] >= least
