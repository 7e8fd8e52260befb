"""Figures of matplotlib: what they show, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import septa
from septa.errors import InputError
from septa.images import draw_error_map, draw_overlay, to_rgb

RUN = Path(__file__).parents[1] / "files" / "v0.1" / "instances-run"
IMAGE = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
TRUTH = np.zeros((8, 8), int)
TRUTH[1:4, 1:4], TRUTH[5:8, 5:8] = 1, 2
FOUND = np.where(TRUTH == 1, 2, np.where(TRUTH == 2, 1, 0))


@pytest.fixture(autouse=True)
def _without_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "agg")


def pictures(figure: Any) -> list[Any]:
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


def test_panels_show_image_labels_and_errors() -> None:
    shown = pictures(septa.plot.panels(IMAGE, TRUTH, FOUND))
    image_cyx = IMAGE[None]
    expected = [to_rgb(image_cyx), draw_overlay(image_cyx, TRUTH), draw_overlay(image_cyx, FOUND)]
    for one, other in zip(shown, expected, strict=False):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(shown[3], draw_error_map(TRUTH, TRUTH))  # objects are matched, whatever their ids
    classes = pictures(septa.plot.panels(IMAGE, TRUTH, FOUND, objects=False))
    np.testing.assert_array_equal(classes[3], draw_error_map(TRUTH, FOUND))
    assert len(pictures(septa.plot.panels([IMAGE, IMAGE], [TRUTH, TRUTH], names=["a$", "b"]))) == 4


def test_a_grid_has_one_place_for_each_picture() -> None:
    figure = septa.plot.grid([IMAGE, IMAGE / 255, to_rgb(IMAGE[None])], columns=2, titles=["x", "y_$z"])
    assert len(pictures(figure)) == 3
    with pytest.raises(InputError, match="there are no pictures"):
        septa.plot.grid([])


@pytest.mark.parametrize("run", [RUN, RUN / "log.csv", RUN.with_name("instances.septa")])
def test_curves_are_those_of_the_log(run: Path) -> None:
    figure = septa.plot.curves(run)
    rows = [line.split(",") for line in (RUN / "log.csv").read_text().splitlines()]
    column = rows[0].index("score")
    expected = [float(row[column]) for row in rows[1:] if row[column]]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), expected)


def test_losses_of_very_different_sizes_have_a_logarithmic_axis() -> None:
    rows = [{"step": float(step), "loss": 1 / step, "val_loss": 2 / step} for step in range(1, 40)]
    assert septa.plot.curves(rows).axes[0].get_yscale() == "log"
    assert septa.plot.curves(rows[:5]).axes[0].get_yscale() == "linear"


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels: their sizes and those of the images differ"):
        septa.plot.panels(IMAGE, TRUTH[:4])
    with pytest.raises(InputError, match="the log cannot be read"):
        septa.plot.curves(tmp_path)


def test_a_missing_matplotlib_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with pytest.raises(InputError, match=r"Run pip install 'septa\[plot\]'"):
        septa.plot.panels(IMAGE)
