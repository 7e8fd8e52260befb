"""The weights of a fine-tuned model: the best ones, or their mean with those of the parent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from septa.training import averaging
from septa.training.averaging import load_weights
from septa.training.checkpoint import Checkpoints


def make_net(value: float) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    for tensor in net.state_dict().values():
        tensor.fill_(value)
    return net


def prepare(folder: Path, best_step: int = 5, *, keeps_outputs: bool = True) -> tuple[Any, Any]:
    checkpoints = Checkpoints(folder)
    checkpoints.save_first(dict(make_net(1).state_dict()))
    checkpoints.save_best(best_step, dict(make_net(3).state_dict()))
    job = SimpleNamespace(
        checkpoints=checkpoints,
        scores_parent=keeps_outputs,
        gain_of_one_object=0.01,
        make_model=lambda state: state.inference_net,
        validation=None,
        device=None,
        class_weights_k=None,
    )
    return job, SimpleNamespace(inference_net=make_net(0), best={"step": best_step, "score": 0.5})


@pytest.mark.parametrize(("score", "mean"), [(0.9, True), (0.47, True), (0.45, False)])
def test_the_mean_is_taken_unless_the_fine_tuned_weights_find_enough_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, mean: bool
) -> None:
    scored: list[float] = []

    def validate(net: nn.Module, *_: Any, **__: Any) -> Any:
        scored.append(float(net.state_dict()["0.weight"]))
        return SimpleNamespace(score=score)

    monkeypatch.setattr(averaging, "validate", validate)
    job, state = prepare(tmp_path)
    assert load_weights(job, state) == (score if mean else None)
    assert scored == [2]
    tensors = state.inference_net.state_dict()
    counts = tensors.pop("1.num_batches_tracked")
    assert {float(tensor) for tensor in tensors.values()} == {2.0 if mean else 3.0}
    assert int(counts) == 3


@pytest.mark.parametrize("reason", ["parent kept", "other outputs", "no file"])
def test_the_best_weights_are_taken_where_no_mean_exists(tmp_path: Path, reason: str) -> None:
    job, state = prepare(tmp_path, 0 if reason == "parent kept" else 5, keeps_outputs=reason != "other outputs")
    if reason == "no file":
        (tmp_path / "first.safetensors").unlink()
    assert load_weights(job, state) is None
    assert torch.equal(state.inference_net[0].weight, torch.full((1, 1, 1, 1), 3.0))


def test_the_weights_before_the_first_step_are_removed_with_the_checkpoints(tmp_path: Path) -> None:
    prepare(tmp_path / "run")[0].checkpoints.clear()
    assert not (tmp_path / "run").exists()
