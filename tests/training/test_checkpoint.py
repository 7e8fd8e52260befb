from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from septa.errors import ModelError
from septa.training.checkpoint import Checkpoints


def header(step: int, best: int | None = None) -> dict[str, Any]:
    return {"step": step, "best": None if best is None else {"step": best, "score": 0.5}, "history": [{"loss": 0.1}]}


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((2, 3), value), "count": torch.tensor(7), "empty": torch.zeros(0)}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_state_is_loaded_unchanged(checkpoints: Checkpoints) -> None:
    checkpoints.save_state(header(1), tensors(1.5))
    checkpoints.save_state(header(12), tensors(2.5))
    found, values, refused = checkpoints.load_newest()
    assert found == header(12)
    assert refused == []
    assert values.keys() == tensors(2.5).keys()
    for name, value in tensors(2.5).items():
        assert torch.equal(values[name], value)
        assert values[name].dtype == value.dtype


def test_two_states_are_kept_with_the_best_weights_that_they_name(checkpoints: Checkpoints) -> None:
    checkpoints.save_state(header(0), tensors(0))
    checkpoints.save_best(5, tensors(5))
    checkpoints.save_state(header(10, best=5), tensors(10))
    checkpoints.save_best(15, tensors(15))
    checkpoints.save_state(header(20, best=15), tensors(20))
    assert names(checkpoints) == [
        "best-00000005.safetensors",
        "best-00000015.safetensors",
        "step-00000010-best-00000005.safetensors",
        "step-00000020-best-00000015.safetensors",
    ]
    checkpoints.save_state(header(30, best=15), tensors(30))
    assert [path.name for path in checkpoints.list_states()] == [
        "step-00000020-best-00000015.safetensors",
        "step-00000030-best-00000015.safetensors",
    ]
    assert names(checkpoints)[0] == "best-00000015.safetensors"
    assert torch.equal(checkpoints.load_best(15)["a"], tensors(15)["a"])


def test_best_weights_are_kept_until_no_state_names_them(checkpoints: Checkpoints) -> None:
    checkpoints.save_best(5, tensors(5))
    checkpoints.save_state(header(5, best=5), tensors(5))
    checkpoints.save_state(header(6, best=5), tensors(6))
    checkpoints.save_best(7, tensors(7))
    assert torch.equal(checkpoints.load_best(5)["a"], tensors(5)["a"])
    assert checkpoints.load_newest()[0]["best"]["step"] == 5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_never_written(checkpoints: Checkpoints, value: float) -> None:
    checkpoints.save_state(header(1), tensors(1))
    before = names(checkpoints)
    with pytest.raises(ValueError, match="'a' holds NaN or Inf"):
        checkpoints.save_state(header(2), tensors(value))
    with pytest.raises(ValueError, match="'a' holds NaN or Inf"):
        checkpoints.save_best(2, tensors(value))
    with pytest.raises(ValueError):
        checkpoints.save_state({**header(2), "elapsed": value}, tensors(1))
    assert names(checkpoints) == before


@pytest.mark.parametrize("size", [0, 4, 200, -1])
def test_a_damaged_newest_state_is_named_and_the_previous_one_loaded(checkpoints: Checkpoints, size: int) -> None:
    checkpoints.save_state(header(1), tensors(1))
    checkpoints.save_state(header(2), tensors(2))
    newest = checkpoints.list_states()[-1]
    newest.write_bytes(newest.read_bytes()[:size])
    found, _, refused = checkpoints.load_newest()
    assert found["step"] == 1
    assert len(refused) == 1
    assert newest.name in refused[0]


def test_every_changed_byte_is_detected(checkpoints: Checkpoints) -> None:
    checkpoints.save_state(header(1), tensors(1))
    (path,) = checkpoints.list_states()
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ModelError):
            checkpoints.load_newest()


def test_a_state_without_its_best_weights_is_not_usable(checkpoints: Checkpoints) -> None:
    checkpoints.save_state(header(1), tensors(1))
    checkpoints.save_best(2, tensors(2))
    checkpoints.save_state(header(2, best=2), tensors(2))
    (checkpoints.folder / "best-00000002.safetensors").unlink()
    found, _, refused = checkpoints.load_newest()
    assert found["step"] == 1
    assert "best-00000002.safetensors: the file cannot be read (No such file or directory)." in refused[0]


def test_an_error_names_every_unusable_state(checkpoints: Checkpoints) -> None:
    with pytest.raises(ModelError) as error:
        checkpoints.load_newest()
    problem = "no checkpoint in this folder can be used"
    assert str(error.value) == f"{checkpoints.folder}: {problem}. Start again with --overwrite."
    for step in (1, 2):
        checkpoints.save_state(header(step), tensors(step))
    for path in checkpoints.list_states():
        path.write_bytes(b"")
    with pytest.raises(ModelError) as error:
        checkpoints.load_newest()
    reasons = r"; .*step-00000002.*[^.]; .*step-00000001.*[^.]\. "
    assert re.search(f"{problem}{reasons}Start again with --overwrite\\.$", str(error.value))
    assert "\n" not in str(error.value)


def test_clear_removes_only_checkpoints(checkpoints: Checkpoints) -> None:
    checkpoints.clear()
    checkpoints.save_best(1, tensors(1))
    checkpoints.save_state(header(1, best=1), tensors(1))
    mine = checkpoints.folder / "notes.txt"
    mine.write_text("mine")
    checkpoints.clear()
    assert names(checkpoints) == ["notes.txt"]
    mine.unlink()
    checkpoints.clear()
    assert not checkpoints.folder.exists()
