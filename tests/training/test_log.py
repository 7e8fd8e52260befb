from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from septa.training.log import COLUMNS, open_history_log
from septa.training.plan import TrainingRequest
from septa.training.run import train_steps
from septa.training.state import TrainingState


def read_log(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_log_has(path: Path, history: list[dict[str, Any]]) -> None:
    rows = read_log(path)
    assert len(rows) == len(history)
    for written, row in zip(rows, history):
        assert tuple(written) == COLUMNS
        for name in COLUMNS:
            assert written[name] == ("" if name not in row else str(row[name]))


def train_rows(request: TrainingRequest) -> list[dict[str, Any]]:
    return [event for event in train_steps(request) if isinstance(event, dict)]


def test_every_row_is_written_at_once(data: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    request = TrainingRequest(data=data, output=tmp_path / "m.septa", overrides=tiny)
    history: list[dict[str, Any]] = []
    for event in train_steps(request):
        if isinstance(event, dict):
            history.append(event)
            assert_log_has(request.folder / "log.csv", history)
    assert len(history) == 6


def test_a_resumed_log_has_no_gaps_and_no_duplicates(
    data: Path, tiny: tuple[str, ...], tmp_path: Path, without_times: Any
) -> None:
    undisturbed = train_rows(TrainingRequest(data=data, output=tmp_path / "one.septa", overrides=tiny))
    request = TrainingRequest(data=data, output=tmp_path / "two.septa", overrides=tiny)
    events = train_steps(request)
    for event in events:
        if isinstance(event, dict) and event["step"] == 10 and "score" in event:
            break
    events.close()  # the newest checkpoint is of step 8, while the log reaches step 10
    assert [row["step"] for row in read_log(request.folder / "log.csv")] == ["5", "10", "10"]
    resumed = TrainingRequest(data=data, output=request.output, resume=True)
    later = train_rows(resumed)
    assert [row["step"] for row in later] == [10, 10, 15, 20, 20]
    rows = read_log(request.folder / "log.csv")
    assert [float(row["step"]) for row in rows] == [row["step"] for row in undisturbed]
    for written, row in zip(rows, without_times(undisturbed)):
        assert {name: written[name] for name in ("loss", "lr", "score", "val_loss") if written[name]} == {
            name: str(value) for name, value in row.items() if name in ("loss", "lr", "score", "val_loss")
        }


def test_tensorboard_gets_every_value(tmp_path: Path, bench: Any) -> None:
    pytest.importorskip("tensorboard")
    request = TrainingRequest(data=tmp_path, output=tmp_path / "m.septa", tensorboard=True)
    state: TrainingState = bench().state()
    with open_history_log(request, state) as write:
        write({"step": 10, "loss": 0.5, "lr": 0.1})
        write({"step": 20, "score": 0.75})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(request.folder / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "lr", "score"]
    assert [(event.step, event.value) for event in events.Scalars("score")] == [(20, 0.75)]
