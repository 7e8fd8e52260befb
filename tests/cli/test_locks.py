"""Two processes with one output: the second is refused, and nothing is mixed."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from tests.cli.conftest import Fault, Run

from septa.images import lock_outputs

HOLDER = f"process {os.getpid()} on {socket.gethostname()} is writing this output"


def test_a_folder_takes_several_processes_but_each_image_only_one(
    untrained: Path, septa: Run, fault: Fault, tmp_path: Path
) -> None:
    predict = ("predict", untrained / "plain.septa", untrained / "x.png", "-o", tmp_path)
    with lock_outputs([tmp_path / "x"]):
        assert fault(*predict) == f"{tmp_path / 'x'}: {HOLDER}. Wait until it has ended, or give -o another name."
        assert not (tmp_path / "x.png").exists()
    with lock_outputs([tmp_path / "other"]):
        septa(*predict)
    assert {path.name for path in tmp_path.iterdir()} == {"x.png", ".septa-written.jsonl"}


def test_a_lock_of_a_killed_process_is_removed_and_noted(untrained: Path, septa: Run, tmp_path: Path) -> None:
    left = {"pid": 2**22 + 1, "host": socket.gethostname(), "names": ["x"]}
    (tmp_path / f".septa-{0:020d}-0.lock").write_text(json.dumps(left))
    printed = septa("predict", untrained / "plain.septa", untrained / "x.png", "-o", tmp_path).stdout
    assert (
        f"note: {tmp_path}: the lock of process {2**22 + 1} on {left['host']}, which has ended, was removed." in printed
    )
    assert {path.name for path in tmp_path.iterdir()} == {"x.png", ".septa-written.jsonl"}


def test_a_second_training_of_one_model_is_refused(data: Path, fault: Fault, tmp_path: Path) -> None:
    with lock_outputs([tmp_path / "m.septa"]):
        line = fault("train", data, "-o", tmp_path / "m.septa", "--overwrite")
    assert line == f"{tmp_path / 'm.septa'}: {HOLDER}. Wait until it has ended, or give -o another name."


def test_an_output_inside_a_zarr_folder_is_refused(untrained: Path, fault: Fault, tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / "a.ome.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    line = fault(
        "predict", untrained / "plain.septa", untrained / "x.png", "-o", tmp_path / "a.ome.zarr" / "labels" / "x"
    )
    assert "the output lies inside the zarr folder" in line
    assert [path.name for path in tmp_path.rglob("*")] == ["a.ome.zarr", ".zgroup"]
