"""Training in two processes under ``torchrun``, compared with one process that averages two half batches."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from septa.model import Model
from septa.training.checkpoint import Checkpoints
from septa.training.schedule import compute_lr_factor
from septa.training.state import make_optimizer

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
STEPS = 20
SETTINGS = (
    "net.norm=group",
    "training.batch=4",
    "training.accumulate=2",
    f"training.steps={STEPS}",
    "training.validations=1",
    "training.ema=0.9",
    "training.optimizer=sgd",
    "training.lr=0.005",
)
"""Settings with small SGD steps; Adam or larger steps would amplify rounding errors."""

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")


def compute_reference(bench: Any, model: Model) -> dict[str, torch.Tensor]:
    """Compute the moving average of the weights by a plain loop over the same samples."""
    recipe, names = model.recipe, {pair.name: pair for pair in bench.pairs}
    bench.pairs = [names[name] for side in ("validation", "train") for name, _ in model.provenance[side]]
    assert len(model.provenance["validation"]) == 2
    bench.normalization = model.normalization
    job, state = bench.job(Path("unused")), bench.state(recipe.seed)
    training, net = recipe.training, state.net
    optimizer = make_optimizer(net, training, torch.device("cpu"))
    average = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = training.lr * compute_lr_factor(step / STEPS, training)
        optimizer.zero_grad()
        for half in range(4):  # two batches of two halves
            batch = job.sampler.batch(8 * step + 2 * half, 2)
            target_byx = torch.from_numpy(batch.target_byx).long()
            loss = job.task.loss(net(torch.from_numpy(batch.image_bcyx)), target_byx, recipe.loss)
            (loss / 4).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), training.clip)
        optimizer.step()
        share = min(training.ema, (2 + step) / (11 + step))
        average = {name: share * value + (1 - share) * net.state_dict()[name] for name, value in average.items()}
    return average


def options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def test_two_processes_train_as_one(septa: Any, bench: Any, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.septa"
    ended = septa.run(data, output, *options(*SETTINGS), launcher=LAUNCHER)
    assert ended.code == 0, ended.err
    # Only one process prints and writes.
    assert ended.out.count("model: ") == 1
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["m-run/log.csv", "m-run/recipe.yaml", "m-run/report.html", "m.septa"]
    with (tmp_path / "m-run" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["10", "20", "20"]
    model = Model.load(output)
    # Each process scores a share of the images; the score is that of all images.
    assert float(rows[-1]["score"]) == pytest.approx(model.provenance["scores"]["dice"], abs=1e-9)
    one = bench(recipe=model.recipe)
    born, expected = one.state(model.recipe.seed).net.state_dict(), compute_reference(one, model)
    for name, value in model.net.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)
    assert max(float((expected[name] - born[name]).abs().max()) for name in born) > 0.01


@pytest.mark.slow
def test_two_processes_stop_together_and_resume(septa: Any, data: Path, tmp_path: Path) -> None:
    """SIGTERM to one process stops both after the same step; resumed, they train the same model as without it."""
    longer = options(*SETTINGS, "training.steps=200", "training.checkpoint_every=5")
    one, two = tmp_path / "one" / "m.septa", tmp_path / "two" / "m.septa"
    assert septa.run(data, one, *longer, launcher=LAUNCHER).code == 0
    process = septa.start(data, two, *longer, launcher=LAUNCHER)
    states = Checkpoints(two.with_name("m-run") / "checkpoints").list_states
    while process.poll() is None and not any(not path.name.startswith("step-00000000") for path in states()):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    ended = septa.end(process)
    assert ended.code != 0
    assert "SIGTERM was received and the state is saved. Continue with --resume." in ended.err
    assert not two.exists()
    ended = septa.run(data, two, *longer, "--resume", launcher=LAUNCHER)
    assert ended.code == 0, ended.err
    assert "resumed after step" in ended.out
    assert Model.load(one).weights_sha256 == Model.load(two).weights_sha256


def test_a_batch_that_cannot_be_divided_among_processes_is_refused(
    command: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: list[str]
) -> None:
    """The batch is refused before the processes communicate, so one of two processes is enough here."""
    settings = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "init_process_group", lambda *_: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda *_: None)
    assert os.environ["WORLD_SIZE"] == "2"
    ended = command("train", data, "-o", tmp_path / "m.septa", *tiny_options, "--set", "training.batch=3")
    assert ended.code == 2
    assert "training.batch=3: the batch must be a multiple of the number of processes, which is 2. " in ended.err
