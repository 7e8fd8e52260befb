from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from septa.inference import engines
from septa.inference.engines import make_engine
from septa.inference.ensemble import Averaging, EnsembleEngine
from septa.inference.protocol import SingleImageEngine
from septa.nets import Ensemble, UNet
from septa.tasks.instances import Instances
from septa.tasks.semantic import Semantic
from septa.tasks.task import Task

TASKS: list[Task] = [
    Semantic(3),
    Semantic(3, multilabel=True),
    Semantic(2, sigmoid=True),
    Instances("seam", sigmoid=True),
    Instances("border"),
    Instances("distance"),
    Instances("distance", object_classes=2),
]


@given(st.sampled_from(TASKS), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_the_mean_of_activations_is_computed_pixel_by_pixel(task: Task, members: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = rng.normal(0, 5, (members, task.outputs, 3, 4)).astype(np.float32)
    made = [SingleImageEngine(lambda image_cyx, own=own: own + image_cyx[0, 0, 0]) for own in outputs]
    engine = EnsembleEngine(made, Averaging(task.activations, task.as_logits))
    image_cyx = np.full((1, 3, 4), 0.25, np.float32)
    expected = np.mean([task.activations(own + np.float32(0.25)).astype(np.float64) for own in outputs], axis=0)
    np.testing.assert_allclose(task.activations(engine(image_cyx)), expected, atol=2e-6)
    # The same pixel alone has the same logits, to the bit: tiles do not change it.
    alone = [SingleImageEngine(lambda image_cyx, own=own: own[:, 1:2, 2:3] + np.float32(0.25)) for own in outputs]
    pixel = EnsembleEngine(alone, Averaging(task.activations, task.as_logits))(image_cyx)
    np.testing.assert_array_equal(pixel, engine(image_cyx)[:, 1:2, 2:3])


def test_an_image_is_read_once_and_one_after_the_other() -> None:
    read: list[int] = []

    def images() -> Iterator[NDArray[np.float32]]:
        for number in range(3):
            read.append(number)
            yield np.full((1, 2, 2), number, np.float32)

    same = Averaging(lambda logits: logits.copy(), lambda logits: logits)
    members = [SingleImageEngine(lambda image, add=add: image + add) for add in (0, 1, 5)]
    results = EnsembleEngine(members, same).run_many(images())
    assert float(next(results).max()) == 2
    assert read == [0]
    assert [float(result.max()) for result in results] == [3, 4]
    assert read == [0, 1, 2]


def test_auto_chooses_once_for_all_members(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Semantic(2)
    nets = [UNet(1, 2, depth=1, width=2) for _ in range(3)]
    asked: list[str] = []
    choose = engines._choose

    def note(net: UNet, key: str, image_cyx: NDArray[np.float32]) -> tuple[str, engines.Engine, str]:
        asked.append(key)
        return "torch", choose(net, key, image_cyx)[1], "torch, for this test"

    monkeypatch.setattr(engines, "_choose", note)
    lines: list[str] = []
    averaging = Averaging(task.activations, task.as_logits)
    engine = make_engine(Ensemble(nets), "cpu", "auto", key="k", averaging=averaging, notify=lines.append)
    image_cyx = np.random.default_rng(0).normal(size=(1, 32, 32)).astype(np.float32)
    expected = make_engine(Ensemble(nets), "cpu", "torch", averaging=averaging)(image_cyx)
    np.testing.assert_array_equal(engine(image_cyx), expected)
    engine(image_cyx)
    assert asked == ["k member 0"]
    assert lines == ["engine: torch, for this test"]


def test_an_ensemble_needs_its_averaging() -> None:
    with pytest.raises(ValueError, match="averaged"):
        make_engine(Ensemble([UNet(1, 2, depth=1, width=2) for _ in range(2)]))
