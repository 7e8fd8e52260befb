"""The models that ship with septa, and the room with none, with a stand-in, and with damaged cards."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

import septa
from septa import presets
from septa.data import find_pairs
from septa.errors import ModelError
from septa.images import read_image, resize_image, resize_labels
from septa.metrics import score_objects
from septa.pretrained import ShippedModel, find_shipped, get_shipped, list_shipped
from septa.pretrained import shipped as module

ROOT = Path(__file__).resolve().parents[2]
MOST = 16e6
"""Largest size of a shipped model, bytes."""


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ship the models of the package."""
    folder = Path(module.__file__).parent
    monkeypatch.setattr(module, "FOLDER", folder)
    return folder


def test_without_models_the_list_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert list_shipped() == ()
    assert find_shipped("nuclei") is None
    with pytest.raises(ModelError, match=r"^nuclei: there is no shipped model with this name\. Train a model"):
        get_shipped("nuclei")


def test_a_model_is_found_by_its_name_with_the_facts_of_its_card(shipped: Path) -> None:
    (one,) = list_shipped()
    assert one == get_shipped("nuclei")
    assert (one.name, one.path, one.card) == ("nuclei", shipped / "nuclei.septa", shipped / "nuclei.md")
    assert (one.summary, one.channels) == ("nuclei in fluorescence", "1")
    assert (one.objects, one.licence) == ("6 to 120 pixels", "CC0, MIT")
    assert one.megabytes == pytest.approx((shipped / "nuclei.septa").stat().st_size / 1e6)
    assert one.examples == shipped / "examples" / "nuclei"
    assert find_shipped("nuclei") == one.path
    for other in ("nuclei.septa", "Nuclei", "./nuclei", "", "*", "../shipped/nuclei"):
        assert find_shipped(other) is None


def test_models_are_sorted_and_examples_may_be_missing(shipped: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("b", "a"):
        for suffix in (".septa", ".md"):
            shutil.copyfile(shipped / f"nuclei{suffix}", tmp_path / f"{name}{suffix}")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert [one.name for one in list_shipped()] == ["a", "b"]
    assert list_shipped()[0].examples is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "the card of this shipped model cannot be read"),
        ("# nuclei\n", "the card does not begin with the facts summary, channels, objects, licence"),
        ("---\nsummary: a\nchannels: 1\n---\n", "the card does not begin with the facts objects, licence"),
        ("---\n- summary\n---\n", "the card does not begin with the facts summary"),
        ("---\n{\n---\n", "the card does not begin with the facts summary"),
    ],
)
def test_a_damaged_card_is_reported(text: str | None, problem: str, shipped: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copyfile(shipped / "nuclei.septa", tmp_path / "nuclei.septa")
    if text is not None:
        (tmp_path / "nuclei.md").write_text(text)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path / 'nuclei.md'}: {problem}")):
        list_shipped()
    assert find_shipped("nuclei") == tmp_path / "nuclei.septa"


def test_no_shipped_model_has_the_name_of_a_preset(real: Path) -> None:
    """``septa describe`` takes both."""
    assert not {one.name for one in list_shipped()} & set(presets.list_presets())


def test_the_package_contains_every_file_of_the_models() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["septa"]
    folder = ROOT / "src" / "septa"
    found = {path for pattern in packaged for path in folder.glob(pattern)}
    there = {path for path in (folder / "pretrained").rglob("*") if path.suffix in {".septa", ".md", ".png"}}
    assert there
    assert there <= found


def test_examples_are_small_and_pairs(real: Path) -> None:
    for folder in (real / "examples").iterdir():
        assert sum(path.stat().st_size for path in folder.rglob("*.png")) <= 200_000
        pairing = find_pairs(folder)
        assert {pair.name for pair in pairing.pairs} == {path.stem for path in (folder / "images").iterdir()}


def test_each_shipped_model_is_small_loads_and_is_what_its_card_states(real: Path) -> None:
    for one in list_shipped():
        check_model(one)


def check_model(one: ShippedModel) -> None:
    """Check the file, the card and the examples of a shipped model."""
    assert one.path.stat().st_size <= MOST
    model = septa.load(one.name)
    assert str(model.channels) in re.findall(r"\d+", one.channels)
    assert len(one.summary) <= 60
    assert one.card.read_text(encoding="utf-8").count("\n") > 10
    if one.examples is not None:  # evaluate leaves out training images, and images that show the same objects
        assert len(septa.evaluate(model, one.examples).images) == len(list((one.examples / "images").iterdir()))


@pytest.mark.filterwarnings("ignore::septa.SeptaWarning")
@pytest.mark.parametrize("factor", [2, 3])
def test_nuclei_are_found_at_any_magnification(real: Path, factor: int) -> None:
    model = septa.load("nuclei")
    pairs = {pair.name: pair for pair in find_pairs(real / "examples" / "nuclei").pairs}
    pair = pairs["bbbc039"]
    truth_yx = read_image(pair.labels)[0].astype(np.int32)
    size = factor * truth_yx.shape[0], factor * truth_yx.shape[1]
    enlarged_cyx, enlarged_yx = resize_image(read_image(pair.image), size), resize_labels(truth_yx, size)
    found = score_objects(truth_yx, model.segment(pair.image))
    assert found.tp[0] >= 0.9 * found.truth_count
    sized = score_objects(enlarged_yx, model.segment(enlarged_cyx))
    assert abs(sized.tp[0] - found.tp[0]) <= 1
    assert abs(sized.prediction_count - found.prediction_count) <= 1
    # At full size, large nuclei fall into pieces.
    whole = score_objects(enlarged_yx, model.assume_diameter(1).segment(enlarged_cyx))
    assert whole.prediction_count >= found.prediction_count + 2
