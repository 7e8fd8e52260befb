"""Names of shipped models in place of files, and what happens if a file or folder has such a name."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

import septa
from septa.errors import ModelError, SeptaWarning
from septa.model import Model
from septa.notices import Notices
from septa.pretrained import locate_model


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_name_stands_for_the_shipped_file(shipped: Path) -> None:
    notices = Notices()
    assert locate_model("nuclei", notices) == locate_model(Path("nuclei"), notices) == shipped / "nuclei.septa"
    assert locate_model("cells.septa", notices) == Path("cells.septa")
    assert notices.lines() == []
    expected = Model.load(shipped / "nuclei.septa").weights_sha256
    assert Model.load("nuclei").weights_sha256 == septa.load("nuclei").weights_sha256 == expected


def test_a_folder_of_the_name_is_not_a_model(shipped: Path) -> None:
    Path("nuclei").mkdir()
    notices = Notices()
    assert locate_model("nuclei", notices) == shipped / "nuclei.septa"
    line = "note: nuclei: the shipped model of this name is used, not the folder."
    assert notices.lines() == [line]
    with pytest.warns(SeptaWarning) as issued:
        Model.load("nuclei")
    assert [(str(one.message), Path(one.filename).name) for one in issued] == [(line, Path(__file__).name)]


def test_a_file_of_the_name_has_precedence(shipped: Path) -> None:
    other = Path(__file__).parents[1] / "files" / "v0.1" / "multilabel.septa"
    shutil.copyfile(other, "nuclei")
    text = "note: nuclei: the file of this name is used, not the shipped model. Give .*nuclei.septa to use the model.$"
    with pytest.warns(SeptaWarning, match=text):
        assert Model.load("nuclei").weights_sha256 == Model.load(other).weights_sha256
    with warnings.catch_warnings(action="error"):
        Model.load(shipped / "nuclei.septa")  # the remedy


def test_a_link_to_nothing_is_a_file_that_cannot_be_read(shipped: Path) -> None:
    Path("nuclei").symlink_to("nowhere")
    with (
        pytest.warns(SeptaWarning, match="the file of this name is used"),
        pytest.raises(ModelError, match="choose one of nuclei"),
    ):
        Model.load("nuclei")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nucleus", "there is neither a file nor a shipped model with this name"),
        ("nuclei.septa", "the file cannot be read (no such file or directory)"),
        ("models/nuclei", "the file cannot be read (no such file or directory)"),
    ],
)
def test_an_unknown_name_lists_the_shipped_ones(name: str, problem: str, shipped: Path) -> None:
    remedy = "Give a .septa file written by 'septa train', or choose one of nuclei; the nearest is nuclei."
    with pytest.raises(ModelError) as caught:
        Model.load(name)
    assert str(caught.value) == f"{name}: {problem}. {remedy}"
