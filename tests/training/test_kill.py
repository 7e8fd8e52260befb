"""The command, killed or interrupted and then resumed, writes the same model as an undisturbed training."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from septa.model import Model
from septa.training.checkpoint import Checkpoints

LONGER = ("--set", "training.steps=150", "--set", "training.validations=15")


@pytest.fixture(scope="module")
def original(septa: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("original") / "m.septa"
    ended = septa.run(data, output, *LONGER)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    return Model.load(output).weights_sha256


def find_newest_step(output: Path) -> int:
    states = Checkpoints(output.with_name("m-run") / "checkpoints").list_states()
    return int(states[-1].name.split("-")[1]) if states else -1


def send_after_save(process: subprocess.Popen[str], output: Path, number: signal.Signals, wait: float) -> None:
    """Send a signal ``wait`` seconds after the process has saved its first new state."""
    before = find_newest_step(output)
    while process.poll() is None and find_newest_step(output) <= max(before, 0):
        time.sleep(0.005)
    time.sleep(wait)
    process.send_signal(number)


def assert_complete(output: Path, original: str) -> None:
    assert Model.load(output).weights_sha256 == original
    found = sorted(str(path.relative_to(output.parent)) for path in output.parent.rglob("*") if path.is_file())
    assert found == ["m-run/log.csv", "m-run/recipe.yaml", "m-run/report.html", "m.septa"]
    lines = (output.parent / "m-run" / "log.csv").read_text().splitlines()
    assert len(lines) == 1 + 15 + 15
    assert len(set(lines)) == len(lines)


def test_a_training_killed_twice_ends_as_an_undisturbed_one(
    septa: Any, data: Path, tmp_path: Path, original: str
) -> None:
    output = tmp_path / "m.septa"
    moments = random.Random(0)
    for _ in range(2):
        process = septa.start(data, output, *LONGER, "--resume")
        send_after_save(process, output, signal.SIGKILL, moments.uniform(0, 0.15))
        assert septa.end(process).code == -signal.SIGKILL
        assert not output.exists()
    assert septa.run(data, output, *LONGER, "--resume").code == 0
    assert_complete(output, original)


def test_an_interrupted_training_prints_one_line_and_ends_as_an_undisturbed_one(
    septa: Any, data: Path, tmp_path: Path, original: str
) -> None:
    output = tmp_path / "m.septa"
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = septa.start(data, output, *LONGER, "--resume")
        send_after_save(process, output, number, 0.0)
        ended = septa.end(process)
        assert ended.code == code
        folder = output.with_name("m-run") / "checkpoints"
        assert (
            ended.err
            == f"error: {folder}: {number.name} was received and the state is saved. Continue with --resume.\n"
        )
        assert not list(tmp_path.rglob("*.tmp"))
    assert septa.run(data, output, *LONGER, "--resume").code == 0
    assert_complete(output, original)


@pytest.mark.slow
def test_a_training_killed_ten_times_at_random_ends_as_an_undisturbed_one(
    septa: Any, data: Path, tmp_path: Path, original: str
) -> None:
    """The process is killed while it sets up, trains, writes or finishes."""
    output = tmp_path / "m.septa"
    moments = random.Random(1)
    kills = 0
    while kills < 10:
        process = septa.start(data, output, *LONGER, "--resume")
        time.sleep(moments.uniform(1.0, 5.0))
        process.kill()
        code = septa.end(process).code
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        if code == 0:
            assert_complete(output, original)
            output = tmp_path / str(kills) / "m.septa"
    assert septa.run(data, output, *LONGER, "--resume").code == 0
    assert_complete(output, original)
