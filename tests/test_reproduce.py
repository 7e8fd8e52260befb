from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from septa.errors import InputError, RecipeError
from septa.images.write import write_image, write_labels
from septa.metrics.scores import evaluate_labels
from septa.presets.published import PUBLISHED
from septa.reproduce import MARK, compare, reproduce
from septa.synthetic.dataset import write_dataset

TINY = ("training.steps=3", "training.batch=2", "training.validations=1", "net.width=4", "net.depth=2")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

pytestmark = pytest.mark.usefixtures("one_thread")


def run(preset: str, data: Path | None, output: Path, *overrides: str, overwrite: bool = False) -> str:
    stream = StringIO()
    console = Console(file=stream, width=150)
    reproduce(console, preset, data, 1, output, (*TINY, *overrides), device="cpu", overwrite=overwrite)
    return stream.getvalue()


def written(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "reproduce.json").read_text(encoding="utf-8"))
    return found


def test_a_preset_is_demonstrated_on_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = PUBLISHED["shapes"].drawing
    assert drawing is not None
    drawing = replace(drawing, count=6, held_out=2, size_hw=(48, 48))
    monkeypatch.setitem(PUBLISHED, "shapes", replace(PUBLISHED["shapes"], drawing=drawing))
    output = tmp_path / "out"
    output_text = run("shapes", None, output, "sampling.patch=[48, 48]")
    assert "drawing 8 images (shapes, 48 x 48), 2 held out" in output_text
    result = written(output)
    mean, iou = result["rows"]
    assert (mean["metric"], mean["published"], mean["source"]) == ("dice", "> 0.95", "septa's own target")
    assert 0 <= iou["measured"] <= mean["measured"] <= 1
    assert mean["measured"] == result["scores"]["dice"]
    assert result["differences"][0].endswith("; 2 other images are scored.")
    assert "sampling.patch=[48, 48]" in result["differences"][1]
    assert not any("weights were chosen on the scored images" in sentence for sentence in result["differences"])
    assert result["recipe"]["net"]["width"] == 4
    assert result["recipe"]["loss"]["bce"] == 0.5
    assert Path(result["model"]).is_file()
    assert Path(result["report"]).is_file()
    assert result["report"] in output_text.replace("\n", "")
    assert f"{mean['measured']:.4f}" in output_text
    page = (output / "reproduce.md").read_text(encoding="utf-8")
    assert f"| mean Dice | > 0.95 | {mean['measured']:.4f} |  | septa's own target |" in page

    with pytest.raises(InputError, match="is not empty"):
        run("shapes", None, output)
    (output / "reproduce.json").unlink()
    run("shapes", None, output, "sampling.patch=[48, 48]", overwrite=True)
    assert written(output)["steps"] == 3


@pytest.mark.parametrize(("preset", "patch"), [("oct", 52), ("carvana", 48)])
def test_presets_draw_their_own_kind(preset: str, patch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = PUBLISHED[preset].drawing
    assert drawing is not None
    drawing = replace(drawing, count=4, held_out=1, size_hw=(48, 64))
    monkeypatch.setitem(PUBLISHED, preset, replace(PUBLISHED[preset], drawing=drawing))
    run(preset, None, tmp_path / "out", f"sampling.patch=[{patch}, {patch}]")
    result = written(tmp_path / "out")
    assert drawing.note in result["differences"]
    assert result["recipe"]["sampling"]["patch"] == [patch, patch]
    assert 0 <= result["rows"][0]["measured"] <= 1


def test_contradictory_figures_are_listed_with_the_measured_ones(tmp_path: Path) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    write_dataset(data, "cells", 10, (40, 56), seed=0)
    output_text = run("glas", data, output, "data.resize=[32, 32]", "sampling.patch=[32, 32]")
    result = written(output)
    rows = {row["metric"]: row for row in result["rows"]}
    assert (rows["iou"]["published"], rows["dice"]["published"], rows["recall"]["published"]) == (
        "0.325",
        "0.789",
        "none",
    )
    low, high = rows["dice"]["interval"]
    assert low <= rows["dice"]["measured"] <= high
    for text in (" ".join(output_text.split()), (output / "reproduce.md").read_text(encoding="utf-8")):
        assert "IoU of 0.325 belongs to an F1 of 0.491" in text
        assert "The best weights were chosen on the scored images" in text


def test_the_paper_preset_is_scored_with_the_metrics_of_its_challenge(tmp_path: Path) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    rng = np.random.default_rng(0)
    for index in range(5):
        interior_yx = np.ones((60, 70), np.uint8)
        interior_yx[rng.integers(10, 50)] = 0
        interior_yx[:, rng.integers(10, 60)] = 0
        image_yx = (150 * interior_yx + rng.integers(0, 100, interior_yx.shape)).astype(np.uint8)
        write_image(data / "images" / f"{index}.png", image_yx[None])
        write_labels(data / "labels" / f"{index}.png", 255 * interior_yx)
    run("paper", data, output, "sampling.patch=[52, 52]", "inference.tta=2")
    result = written(output)
    rows = {row["metric"]: row for row in result["rows"]}
    assert rows["warping_error"]["published"] == "0.000353"
    assert rows["rand_error"]["published"] == "0.0382"
    assert rows["pixel_f_error"]["published"] == "0.0611"
    for metric in ("warping_error", "rand_error", "pixel_f_error", "dice"):
        assert 0 <= rows[metric]["measured"] <= 1
    # Warping can only lower the error, and 0.5, at which labels are cut, is one of the thresholds.
    assert result["scores"]["warping_error"] <= result["scores"]["pixel_error"] + 1e-9


def test_a_metric_that_cannot_be_measured_is_listed(tmp_path: Path) -> None:
    truth_yx = np.array([[0, 1, 1]])
    evaluation = evaluate_labels([(name, truth_yx, truth_yx) for name in "ab"], ["membrane", "interior"])
    comparison = compare("paper", PUBLISHED["paper"], evaluation)
    cells = {row.metric: row.cells() for row in comparison.rows}
    assert cells["warping_error"][1:4] == ("0.000353", "not measured", "")
    assert cells["dice"][1:4] == ("none", "1.0000", "1.0000 to 1.0000")
    assert "| warping error | 0.000353 | not measured |" in comparison.to_markdown()


def test_metrics_of_objects_are_listed_for_objects() -> None:
    truth_yx = np.array([[0, 1, 1, 0, 2, 2]])
    pairs = [(name, truth_yx, truth_yx) for name in "ab"]
    evaluation = evaluate_labels(pairs, ["background", "cell"], instances=True)
    rows = {row.metric: row for row in compare("paper", PUBLISHED["paper"], evaluation).rows}
    assert rows["f1_50"].measured == 1.0
    assert rows["f1_50"].interval == (1.0, 1.0)


def test_wrong_presets_settings_and_folders_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(RecipeError, match="; the nearest is glas"):
        run("glass", None, output)
    with pytest.raises(InputError, match=r"^preset glas: this preset needs your own data\. Give the folder of the"):
        run("glas", None, output)
    with pytest.raises(RecipeError, match=r"net\.no"):
        run("shapes", None, output, "net.no=1")
    assert not output.exists()
    mine = output / "data" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    for overwrite, problem in ((False, "is not empty"), (True, "was not written by 'septa reproduce'")):
        with pytest.raises(InputError, match=problem):
            run("shapes", None, output, overwrite=overwrite)
    assert mine.read_text(encoding="utf-8") == "mine"
    assert not (output / MARK).exists()
