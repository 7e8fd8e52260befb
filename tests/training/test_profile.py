"""``septa train --profile``: one epoch is timed and traced, and the training stays the same."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from septa.model import Model
from septa.training import loop
from septa.training import step as step_module
from septa.training.loop import run_training_loop
from septa.training.profile import PHASES, WARM_UP, Profiler, TrainingProfile

ROWS = [*PHASES, "rest", "validation", "all"]


@pytest.fixture(scope="module")
def profiled(septa: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Run the command; return its result and the path of the model."""
    output = tmp_path_factory.mktemp("profiled") / "m.septa"
    return septa.run(data, output, "--profile"), output


def read_table(text: str) -> dict[str, list[str]]:
    """Return the rows of the table of phases by their names."""
    cells = ([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│"))
    return {row[0]: row[1:] for row in cells if row[0] in ROWS}


def test_the_table_is_printed_and_written(profiled: tuple[Any, Path]) -> None:
    ended, output = profiled
    assert (ended.code, ended.err) == (0, "")
    folder = output.with_name("m-run")
    written = (folder / "profile.txt").read_text()
    assert f"profile: {folder / 'profile.txt'}, {folder / 'profile.json.gz'}\n" in ended.out
    rows = read_table(written)
    assert list(rows) == ROWS
    assert read_table(ended.out) == rows
    assert "3 steps and a validation" in written  # 6 images for training, 2 in a batch
    assert "aten::convolution_backward" in written
    seconds = {name: float(row[0]) for name, row in rows.items()}
    assert sum(seconds.values()) - seconds["all"] == pytest.approx(seconds["all"], abs=0.005)
    assert seconds["backward"] > 0
    assert seconds["validation"] > 0
    assert sum(float(row[1].rstrip("%")) for row in rows.values() if row[1]) == pytest.approx(100, abs=0.5)


def test_the_trace_holds_every_phase_of_every_step(profiled: tuple[Any, Path]) -> None:
    _, output = profiled
    with gzip.open(output.with_name("m-run") / "profile.json.gz") as file:
        events = json.load(file)["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert {name: names.count(name) for name in PHASES} == dict.fromkeys(PHASES, 3)
    convolutions = [event for event in events if event["name"] == "aten::convolution_backward"]
    backward = [event for event in events if event["name"] == "backward" and event.get("cat") == "user_annotation"]
    inside = [any(b["ts"] <= c["ts"] < b["ts"] + b["dur"] for b in backward) for c in convolutions]
    assert inside
    assert all(inside)


def test_the_training_is_the_same(profiled: tuple[Any, Path], septa: Any, data: Path, tmp_path: Path) -> None:
    _, output = profiled
    assert septa.run(data, tmp_path / "m.septa").code == 0
    assert not list((tmp_path / "m-run").glob("profile*"))
    # A training is a function of recipe, data and threads, so the weights are equal bit for bit.
    assert Model.load(tmp_path / "m.septa").weights_sha256 == Model.load(output).weights_sha256


def test_a_training_too_short_for_a_profile_says_so(septa: Any, data: Path, tmp_path: Path) -> None:
    ended = septa.run(data, tmp_path / "m.septa", "--profile", "--set", f"training.steps={WARM_UP}")
    assert (ended.code, ended.err) == (0, "")
    assert "no profile: the training ended during the warm-up\n" in ended.out
    assert not list((tmp_path / "m-run").glob("profile*"))


def test_time_is_attributed_to_the_phase_in_which_it_passes(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each phase advances a fake clock by its own amount, the same in every step."""
    now, costs = [0.0], {"data": 1.0, "transfer": 2.0, "forward": 4.0, "optimiser": 8.0}

    def add_cost(name: str, plain: Any) -> Any:
        def run(*given: Any, **more: Any) -> Any:
            now[0] += costs[name]
            return plain(*given, **more)

        return run

    bench = bench("training.validations=1")
    job, state = bench.job(tmp_path), bench.state()
    job = replace(job, profile=tmp_path)
    monkeypatch.setattr(Profiler, "_now", lambda _: now[0])
    monkeypatch.setattr(step_module, "move_batch", add_cost("transfer", step_module.move_batch))
    monkeypatch.setattr(step_module, "_compute_loss", add_cost("forward", step_module._compute_loss))
    monkeypatch.setattr(step_module, "update_average", add_cost("optimiser", step_module.update_average))
    plain = loop.Loader.batches

    def batches(loader: Any) -> Any:
        for batch in plain(loader):
            now[0] += costs["data"]
            yield batch

    monkeypatch.setattr(loop.Loader, "batches", batches)
    (found,) = (row for row in run_training_loop(job, state) if isinstance(row, TrainingProfile))
    assert found.steps == 3
    assert found.seconds == {name: 3 * costs.get(name, 0.0) for name in PHASES} | {"rest": 0.0, "validation": 0.0}


def test_a_training_that_ends_within_the_epoch_ends_the_profile(bench: Any, tmp_path: Path) -> None:
    bench = bench(f"training.steps={WARM_UP + 2}", "training.validations=1")
    job, state = replace(bench.job(tmp_path), profile=tmp_path), bench.state()
    (found,) = (row for row in run_training_loop(job, state) if isinstance(row, TrainingProfile))
    assert found.steps == 2
    assert found.trace.is_file()


def test_an_error_during_a_profile_stops_the_profiler(bench: Any, tmp_path: Path) -> None:
    bench = bench()
    job = replace(bench.job(tmp_path, dies_before=WARM_UP + 1), profile=tmp_path)
    for _ in range(2):
        with pytest.raises(Exception, match=r"^$") as error:
            list(run_training_loop(job, bench.state()))
        assert type(error.value).__name__ == "Killed"
    assert not torch.autograd.profiler._is_profiler_enabled


def test_without_a_folder_the_profiler_does_nothing() -> None:
    profile = Profiler(None, torch.device("cpu"), 1)
    for _ in range(WARM_UP + 3):
        profile.next_step()
        with profile.phase("forward"):
            time.sleep(0)
        assert not profile.running
        assert not profile.complete
    profile.close()
