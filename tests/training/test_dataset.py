"""The torch Dataset of a folder against the sampler and the loss of a training."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from septa.errors import InputError
from septa.model import Model
from septa.training import Dataset
from septa.training.plan import TrainingRequest, plan_recipe
from septa.training.setup import TrainingProcess, prepare_job

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ("sampling.patch=[32, 32]", "net.width=4", "net.depth=2", "loss.class_weights=frequency")


@pytest.fixture(scope="module")
def samples(cells: Path) -> Dataset:
    return Dataset(cells, overrides=SMALL)


def test_samples_and_loss_are_those_of_a_training(cells: Path, samples: Dataset, tmp_path: Path) -> None:
    request = TrainingRequest(data=cells, output=tmp_path / "m.septa", overrides=(*SMALL, "training.start=scratch"))
    check, choice = plan_recipe(request)
    job, _ = prepare_job(check, choice, Any, TrainingProcess(0, 1, torch.device("cpu")), 0.0)  # type: ignore[arg-type]
    assert len(samples) == job.sampler.epoch
    for epoch, index in ((0, 1), (3, 2)):
        samples.set_epoch(epoch)
        expected, found = job.sampler.sample(epoch * len(samples) + index), samples[index]
        np.testing.assert_array_equal(found["image"], expected.image_cyx)
        np.testing.assert_array_equal(found["target"], expected.target_yx)
        np.testing.assert_array_equal(found["weights"], expected.weights_yx)
        assert found["name"] == expected.name
    samples.set_epoch(0)
    batch = next(iter(DataLoader(samples, batch_size=2)))
    logits = torch.randn(2, samples.out_channels, 32, 32)
    expected_loss = job.task.loss(logits, batch["target"], job.recipe.loss, weights_byx=batch["weights"])
    assert samples.loss(logits, batch) == expected_loss


def test_it_travels_to_other_processes(samples: Dataset) -> None:
    again = pickle.loads(pickle.dumps(samples))
    assert torch.equal(again[0]["image"], samples[0]["image"])


def test_validation_images_are_whole_and_held_out(cells: Path, samples: Dataset) -> None:
    held_out = Dataset(cells, overrides=SMALL, split="validation")
    assert held_out.names
    assert not set(held_out.names) & set(samples.names)
    one = held_out[0]
    assert one["image"].shape == (1, 64, 64)
    assert one["target"].shape == (64, 64)
    assert [entry["name"] for entry in held_out] == list(held_out.names)


def test_a_net_becomes_a_model(samples: Dataset) -> None:
    net = samples.make_net()
    optimizer = torch.optim.Adam(net.parameters())
    for batch in DataLoader(samples, batch_size=2):
        optimizer.zero_grad()
        samples.loss(net(batch["image"]), batch).backward()
        optimizer.step()
    model = samples.make_model(net.eval())
    assert isinstance(model, Model)
    again = Model.from_bytes(model.to_bytes(), "m")
    image = np.full((64, 64), 500, np.uint16)
    np.testing.assert_array_equal(again.logits(image), model.logits(image))


def test_wrong_arguments_are_refused(cells: Path, samples: Dataset) -> None:
    with pytest.raises(InputError, match="the split must be train or validation, got 'test'"):
        Dataset(cells, split="test")  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        samples[len(samples)]
    with pytest.raises(ValueError, match="an epoch is counted from 0"):
        samples.set_epoch(-1)
