"""Read models, checkpoints and recipes written by version 0.1; the values must be equal to the last bit.

Version 0.1 also wrote ``tests/files/v0.1/facts.json``: digests of the tensors and the parsed headers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import septa
from septa.training.checkpoint import Checkpoints
from septa.training.finish import TrainingDone
from septa.training.plan import TrainingRequest
from septa.training.run import train_steps

OLD = Path(__file__).parent / "files" / "v0.1"
FACTS: dict[str, Any] = json.loads((OLD / "facts.json").read_text())


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and bytes of tensors, as the old version did for the facts."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()


def keep_known(values: Any, known: Any) -> Any:
    """Return the values without keys that are not known: settings that are younger than the file."""
    if isinstance(values, dict) and isinstance(known, dict):
        return {key: keep_known(value, known[key]) for key, value in values.items() if key in known}
    return values


@pytest.mark.parametrize("name", ["instances", "multilabel"])
def test_an_old_model_is_read_to_the_bit(name: str, tmp_path: Path) -> None:
    model, facts = septa.load(str(OLD / f"{name}.septa")), FACTS[name]
    assert model.weights_sha256 == facts["weights_sha256"]
    assert digest_tensors(model.net.state_dict()) == facts["weights"]
    assert model.recipe == septa.Recipe.parse(facts["recipe"])
    assert keep_known(model.recipe.model_dump(mode="json"), facts["recipe"]) == facts["recipe"]
    assert model.normalization.to_json() == facts["normalization"]
    assert model.labels.to_json() == facts["labels"]
    assert model.channels == facts["channels"]
    assert json.loads(json.dumps(model.provenance)) == facts["provenance"]
    model.save(tmp_path / "again.septa")
    again = septa.load(str(tmp_path / "again.septa"))
    assert digest_tensors(again.net.state_dict()) == facts["weights"]
    assert (again.recipe, again.provenance, again.decoding) == (model.recipe, model.provenance, model.decoding)


def test_old_integers_are_read_to_the_bit(tmp_path: Path) -> None:
    model = septa.load(str(OLD / "int8.septa"))
    assert model.int8 is not None
    assert digest_tensors(model.net.state_dict()) == FACTS["instances"]["weights"]
    model.save(tmp_path / "again.septa")
    assert septa.load(str(tmp_path / "again.septa")).int8 == model.int8


def test_an_old_recipe_is_the_recipe_of_its_model() -> None:
    assert septa.Recipe.load(OLD / "instances-run" / "recipe.yaml") == septa.load(str(OLD / "instances.septa")).recipe


def test_an_old_checkpoint_is_read_to_the_bit() -> None:
    checkpoints, facts = Checkpoints(OLD / "interrupted-run" / "checkpoints"), FACTS["checkpoint"]
    header, tensors, refused = checkpoints.load_newest()
    assert (header, refused) == (facts["header"], [])
    assert sorted(tensors) == facts["names"]
    assert digest_tensors(tensors) == facts["tensors"]
    assert digest_tensors(checkpoints.load_best(header["best"]["step"])) == facts["best"]


def test_a_training_of_the_old_version_is_resumed_to_its_end(tmp_path: Path) -> None:
    shutil.copytree(OLD / "interrupted-run", tmp_path / "interrupted-run")
    events = list(train_steps(TrainingRequest(data=OLD / "data", output=tmp_path / "interrupted.septa", resume=True)))
    assert isinstance(events[-1], TrainingDone)
    steps = [event["step"] for event in events if isinstance(event, dict)]
    assert min(steps) > 12
    assert max(steps) == 20
    model = septa.load(str(OLD / "instances.septa"))
    assert events[-1].model.recipe == model.recipe
    # Its first steps were trained with these constants, whose last bit depends on how the processor adds.
    found, known = events[-1].model.normalization, model.normalization
    assert (found.offset, found.scale) == (
        pytest.approx(known.offset, rel=1e-12),
        pytest.approx(known.scale, rel=1e-12),
    )
    assert replace(found, offset=known.offset, scale=known.scale) == known
    assert model.normalization.clip is None
