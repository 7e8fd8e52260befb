from __future__ import annotations

from pathlib import Path

import pytest

from septa.errors import InputError
from septa.model import Model
from septa.synthetic.dataset import write_dataset
from septa.training.run import train


def test_a_training_that_cannot_begin_keeps_the_old_model(tmp_path: Path) -> None:
    old = tmp_path / "m.septa"
    old.write_bytes(b"old")
    state = tmp_path / "m-run" / "checkpoints" / "step-00000010-best-none.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"state")
    with pytest.raises(InputError, match="missing"):
        train(tmp_path / "missing", old, overwrite=True)
    assert old.read_bytes() == b"old"
    assert state.read_bytes() == b"state"


def test_an_output_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the output is a folder\. Give the name of a model file"):
        train(tmp_path, tmp_path, overwrite=True)


def test_overwriting_trains_a_new_model(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "m.septa"
    write_dataset(data, "cells", 4, (64, 64), 0)
    out.write_bytes(b"old")
    tiny = ["net.width=2", "net.depth=1", "training.steps=2", "training.amp=off", "training.validations=1"]
    model = train(data, out, overrides=tiny, overwrite=True)
    assert Model.load(out).weights_sha256 == model.weights_sha256


def test_minutes_used_up_by_the_dataset_check_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "cells", 4, (64, 64), 0)
    with pytest.raises(InputError, match=r"--minutes .*: the dataset check alone took .* minutes"):
        train(tmp_path / "data", tmp_path / "m.septa", minutes=1e-4)
    assert not (tmp_path / "m.septa").exists()
