"""Batch norm in a training: fixed statistics, and the loss in both modes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from septa.training.loop import run_training_loop
from septa.training.statistics import compare_modes, find_batch_norms, freeze_statistics, set_training_mode


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_with_fixed_statistics_the_net_computes_in_training_what_it_predicts(
    bench: Any, tmp_path: Path, ema: float
) -> None:
    state = bench("training.freeze_statistics=0.5", f"training.ema={ema}").run(tmp_path)
    assert state.frozen
    set_training_mode(state)
    image_bcyx = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    before = {name: buffer.clone() for name, buffer in state.net.named_buffers()}
    with torch.no_grad():
        trained = state.net(image_bcyx)
        predicted = state.net.eval()(image_bcyx)
    assert torch.equal(trained, predicted)
    assert all(torch.equal(buffer, before[name]) for name, buffer in state.net.named_buffers())


def test_statistics_are_fixed_at_their_share_of_the_training_and_start_as_those_of_the_average(
    bench: Any, tmp_path: Path
) -> None:
    bench = bench("training.freeze_statistics=0.25", "training.ema=0.9", "training.validations=20")
    job, state = bench.job(tmp_path), bench.state()
    frozen, means, averages = {}, {}, {}
    for row in run_training_loop(job, state):
        if "score" in row:
            frozen[row["step"]] = state.frozen
            means[row["step"]], averages[row["step"]] = (
                find_batch_norms(net)[0].running_mean.clone() for net in (state.net, state.average)
            )
    assert [frozen[step] for step in (5, 15, 16, 20)] == [False, False, True, True]
    assert torch.equal(means[16], averages[15])
    assert torch.equal(means[16], means[20])
    assert not torch.equal(means[10], means[15])


def test_without_the_setting_statistics_change_to_the_end(bench: Any, tmp_path: Path) -> None:
    state = bench().run(tmp_path)
    assert not state.frozen
    set_training_mode(state)
    assert all(norm.training for norm in find_batch_norms(state.net))


def test_losses_of_both_modes_are_those_of_a_plain_loop_and_change_nothing(bench: Any, tmp_path: Path) -> None:
    bench = bench("training.steps=6", "training.batch=4")
    state = bench.run(tmp_path / "a")
    job = bench.job(tmp_path / "b")
    before = {name: value.clone() for name, value in state.average.state_dict().items()}
    found = compare_modes(job, state)
    assert all(torch.equal(value, before[name]) for name, value in state.average.state_dict().items())
    expected = []
    for batch_statistics in (True, False):
        losses = []
        for number in (0, 4):
            batch = job.sampler.batch(number, 4)
            net = bench.state().net
            net.load_state_dict(before)
            net.train(batch_statistics)
            with torch.no_grad():
                logits = net(torch.from_numpy(batch.image_bcyx))
            losses.append(job.task.loss(logits, torch.from_numpy(batch.target_byx), job.recipe.loss).item())
        expected.append(sum(losses) / 2)
    assert found == pytest.approx(expected, rel=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3  # a few steps leave the running statistics behind


def test_a_net_without_batch_norm_has_one_mode(bench: Any, tmp_path: Path) -> None:
    bench = bench("net.norm=group", "training.steps=2")
    state = bench.run(tmp_path)
    assert compare_modes(bench.job(tmp_path / "b"), state) is None
    assert not any("loss_as_trained" in row for row in state.history)


def test_fixed_statistics_of_a_first_step_are_those_of_the_net(bench: Any) -> None:
    state = bench().state()
    norm = find_batch_norms(state.net)[0]
    freeze_statistics(state)
    set_training_mode(state)
    assert isinstance(norm, nn.BatchNorm2d)
    assert not norm.training
    assert state.net.training
    assert norm.running_mean is not None
    assert norm.running_mean.abs().max() == 0
