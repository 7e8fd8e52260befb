"""Cell interiors between thin walls, through the real command: recognised, tuned, kept, scored and shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from septa.images.read import read_labels
from septa.images.write import write_image, write_labels
from septa.metrics.neurites import score_regions
from septa.model import Model
from septa.tasks.decoding import Decoding

from .conftest import Run

NAMES = [str(number) for number in range(5)]


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write five images of bright cells between dark walls, with masks of 0 and 255."""
    folder = tmp_path_factory.mktemp("tissue")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    for name in NAMES:
        centres = rng.uniform(0, 64, (14, 2))
        away = np.sort(np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1]), axis=-1)
        inside_yx = away[..., 1] - away[..., 0] > 2.5
        image_yx = np.where(inside_yx, 160, 60) + rng.normal(0, 30, inside_yx.shape)
        write_image(folder / "images" / f"{name}.png", image_yx.clip(0, 255).astype(np.uint8)[None])
        write_labels(folder / "labels" / f"{name}.png", inside_yx.astype(np.uint8) * np.uint8(255))
    return folder


@pytest.fixture(scope="module")
def trained(tissue: Path, septa: Run, tiny: list[str]) -> tuple[Path, str]:
    """Train a model on `tissue`, and return its path and what was printed."""
    path = tissue.parent / "tissue.septa"
    done = septa("train", tissue, "-o", path, *tiny, "--set", "training.lr=0.02", "--set", "training.ema=0")
    return path, done.stdout


def test_a_training_tunes_the_threshold_and_says_so(tissue: Path, trained: tuple[Path, str], septa: Run) -> None:
    path, printed = trained
    assert "labels: background is thin walls (about 2 pixels wide) between regions of foreground, and the" in printed
    line = re.search(
        r"^threshold: seed ([0-9.]+) \(V-Rand of regions ([0-9.]+) on the validation images, "
        r"([0-9.]+) at best, [0-9.]+ at 0.5\)$",
        printed,
        re.MULTILINE,
    )
    assert line is not None, printed
    decoding = json.loads(septa("info", path).stdout)["decoding"]
    assert decoding["seed"] == float(line[1])
    assert "best weights and thresholds" in printed
    assert "foreground: V-Rand" in printed
    report = (tissue.parent / "tissue-run" / "report.html").read_text(encoding="utf-8")
    assert "V-Rand of regions on the validation images for each value" in report
    recipe = (tissue.parent / "tissue-run" / "recipe.yaml").read_text(encoding="utf-8")
    assert re.search("walls: true +# background is thin walls", recipe)


def test_files_hold_the_regions_of_the_tuned_thresholds(
    tissue: Path, trained: tuple[Path, str], septa: Run, tmp_path: Path
) -> None:
    model = Model.load(trained[0])
    assert model.task.has_thresholds
    image = tissue / "images" / "3.png"
    # Both thresholds lie between two values, since the last bit of a value depends on the processor and the tile.
    low, high = np.quantile(model.probabilities(image)[1], (0.3001, 0.6001))
    model = replace(model, decoding=Decoding(float(low), float(high), reach=2))
    model.save(tmp_path / "grown.septa")
    only = replace(model, decoding=replace(model.decoding, reach=0))
    septa("predict", tmp_path / "grown.septa", image, "-o", tmp_path / "out", "--tile", 64)
    written = read_labels(tmp_path / "out" / "3.png").array
    np.testing.assert_array_equal(written, model.as_written(model.segment(image)))
    grown_yx, seeds_yx = model.segment(image), only.segment(image)
    np.testing.assert_array_equal(seeds_yx, model.probabilities(image)[1] > high)
    assert (grown_yx >= seeds_yx).all()
    assert grown_yx.sum() > seeds_yx.sum()


def test_an_evaluation_scores_regions_without_being_asked(
    tissue: Path, trained: tuple[Path, str], septa: Run, tmp_path: Path
) -> None:
    model = Model.load(trained[0])
    septa("evaluate", trained[0], tissue, "--all", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    expected = []
    for name in NAMES:
        truth_yx = read_labels(tissue / "labels" / f"{name}.png").array == 255
        expected.append(score_regions(truth_yx, model.segment(tissue / "images" / f"{name}.png") == 1).v_rand)
    assert scores["more"]["foreground: V-Rand"]["mean"] == pytest.approx(np.mean(expected))


def test_walls_as_foreground_get_a_remedy_that_works(tissue: Path, septa: Run) -> None:
    lines = septa("check", tissue, "--set", "data.values=[255,0]").stdout
    advice = re.search(r"make the walls class 0 \(--set (data.values=\S+)\)", lines)
    assert advice is not None, lines
    assert "walls: false" in septa("recipe", tissue, "--set", "data.values=[255,0]").stdout
    assert re.search("walls: true +#", septa("recipe", tissue, "--set", advice[1]).stdout)
    assert "walls: false" in septa("recipe", tissue, "--set", "semantic.walls=false").stdout
