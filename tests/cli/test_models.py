"""`septa models`, and the names of shipped models in place of model files, by every command that takes one."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from septa.images import read_labels
from septa.model import Model

EXAMPLE = "examples/nuclei/images/0.png"


def test_the_models_are_listed_with_the_facts_of_their_cards(septa, shipped_folder):
    printed = septa("models", shipping=shipped_folder).stdout
    assert "Licence of the data" in printed
    (row,) = (line for line in printed.splitlines() if "nuclei" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("nuclei", "nuclei in fluorescence", "1", "6 to 120 pixels", "0.0", "CC0, MIT")
    ]


def test_a_card_is_printed_unchanged(septa, shipped_folder):
    printed = septa("models", "nuclei", shipping=shipped_folder).stdout
    assert printed == (shipped_folder / "nuclei.md").read_text()


def test_without_models_this_is_said(septa, tmp_path):
    printed = septa("models", shipping=tmp_path).stdout
    assert printed == "no models ship with this version of septa; 'septa train' makes one from your images\n"


@pytest.mark.parametrize("to_store", [False, True])
def test_predict_takes_the_name(septa, shipped_folder, tmp_path, to_store):
    output = tmp_path / ("out.ome.zarr" if to_store else "out")
    image = shipped_folder / EXAMPLE
    done = septa("predict", "nuclei", image, "-o", output, cwd=tmp_path, shipping=shipped_folder)
    assert done.stderr == ""
    if to_store:
        assert (output / "labels" / "nuclei").is_dir()
        return
    assert f"segmenting 1 image with nuclei to {output}; task instances" in done.stdout
    expected_yx = Model.load(shipped_folder / "nuclei.septa").segment(image)
    np.testing.assert_array_equal(read_labels(output / "0.png").array, expected_yx)


def test_info_and_describe_take_the_name(septa, shipped_folder, tmp_path):
    facts = json.loads(septa("info", "nuclei", cwd=tmp_path, shipping=shipped_folder).stdout)
    assert facts["recipe"]["net"]["width"] == 4
    assert "encoder.0.conv1" in septa("describe", "nuclei", cwd=tmp_path, shipping=shipped_folder).stdout


def test_evaluate_takes_the_name(septa, shipped_folder, cells, tmp_path):
    done = septa("evaluate", "nuclei", cells, cwd=tmp_path, shipping=shipped_folder)
    assert "Panoptic quality" in done.stdout
    assert done.stderr == ""


def test_a_folder_or_file_of_the_name_is_noted_once_on_stderr(septa, shipped_folder, tmp_path):
    """The output of ``septa info`` stays JSON."""
    (tmp_path / "nuclei").mkdir()
    done = septa("info", "nuclei", cwd=tmp_path, shipping=shipped_folder)
    assert json.loads(done.stdout)["channels"] == 1
    assert done.stderr == "note: nuclei: the shipped model of this name is used, not the folder.\n"
    (tmp_path / "nuclei").rmdir()
    shutil.copyfile(shipped_folder / "nuclei.septa", tmp_path / "nuclei")
    done = septa("info", "nuclei", cwd=tmp_path, shipping=shipped_folder)
    assert done.stderr == (
        "note: nuclei: the file of this name is used, not the shipped model. "
        f"Give {shipped_folder / 'nuclei.septa'} to use the model.\n"
    )


def test_evaluate_scores_the_label_images_of_a_folder_and_notes_it(septa, shipped_folder, cells, tmp_path):
    shutil.copytree(cells / "labels", tmp_path / "nuclei")
    done = septa("evaluate", "nuclei", cells / "labels", cwd=tmp_path, shipping=shipped_folder)
    assert re.search(r"F1 at IoU 0.5 +│ +1.0000", done.stdout)
    assert done.stdout.startswith(
        "note: nuclei: the label images in the folder of this name are scored, not the shipped model. "
        f"Give {shipped_folder / 'nuclei.septa'} to score the model.\n"
    )


@pytest.mark.parametrize("arguments", [("predict", "nucleii", "x.png", "-o", "out"), ("models", "nucleii")])
def test_an_unknown_name_is_one_line_with_the_known_ones(fault, shipped_folder, tmp_path, arguments):
    shutil.copyfile(shipped_folder / EXAMPLE, tmp_path / "x.png")
    line = fault(*arguments, cwd=tmp_path, shipping=shipped_folder)
    assert line.startswith("nucleii: there is ")
    assert line.lower().endswith("choose one of nuclei; the nearest is nuclei.")
    assert not (tmp_path / "out").exists()
