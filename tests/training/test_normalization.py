"""The normalisation of a training: robust, clipped, and that of the checkpoint when a training continues."""

from __future__ import annotations

import json

import numpy as np
import pytest

from septa.data.fingerprint import Fingerprint, combine_facts, scan_image
from septa.images import CLIP, Normalization
from septa.recipe import Recipe
from septa.training.normalization import choose_normalization


def fingerprint(hot: float | None = None) -> Fingerprint:
    facts = []
    for number in range(4):
        rng, labels_yx = np.random.default_rng(number), np.zeros((64, 64), np.int32)
        labels_yx[8:30, 8:30] = 1
        image_yx = np.where(labels_yx > 0, 150.0, 110.0) + rng.normal(0, 6, labels_yx.shape)
        if hot is not None:
            image_yx[50, 50] = hot
        facts.append(scan_image(str(number), image_yx[None].astype(np.uint16), labels_yx, classes=2))
    return combine_facts(facts)


@pytest.mark.parametrize("kind", ["dataset", "image", "asinh", "unit", "imagenet"])
def test_every_new_normalisation_clips_and_ignores_a_hot_pixel(kind: str) -> None:
    recipe = Recipe().with_overrides([f"data.normalization={kind}"])
    clean, spoilt = (choose_normalization(recipe, fingerprint(hot), None, None) for hot in (None, 65535))
    assert clean.clip == spoilt.clip == CLIP
    assert spoilt.offset == pytest.approx(clean.offset, rel=0.001)
    assert spoilt.scale == pytest.approx(clean.scale, rel=0.001)


def test_a_training_continues_with_the_normalisation_of_its_checkpoint() -> None:
    saved = Normalization("dataset", (1.0,), (2.0,), clip=3.0)
    header = json.loads(json.dumps({"normalization": saved.to_json()}))
    assert choose_normalization(Recipe(), fingerprint(), None, header) == saved


def test_checkpoints_of_the_old_version_continue_with_the_old_rule() -> None:
    facts = fingerprint(65535)
    old = {"step": 3}
    assert choose_normalization(Recipe(), facts, None, old) == Normalization("dataset", facts.mean, facts.std)
    recipe = Recipe().with_overrides(["data.normalization=image"])
    assert choose_normalization(recipe, facts, None, old) == Normalization("image")
