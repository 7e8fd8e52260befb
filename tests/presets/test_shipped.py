from __future__ import annotations

import re
from io import StringIO
from typing import Any

import pytest
import yaml
from rich.console import Console

from septa import presets
from septa.errors import RecipeError
from septa.presets.published import PUBLISHED, Figure, f1_to_iou, iou_to_f1
from septa.recipe import Recipe, differences

NAMES = ("carvana", "glas", "isbi", "milesial", "oct", "paper", "shapes")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_names_of_the_presets() -> None:
    assert presets.list_presets() == NAMES
    assert set(PUBLISHED) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_holds_exactly_what_differs_from_the_defaults(name: str) -> None:
    written = flat(yaml.safe_load(presets.read_text(name)))
    differing = {line.partition(":")[0] for line in differences(Recipe(), presets.load_recipe(name))}
    assert set(written) == differing


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_gives_its_source_and_a_reason_for_every_setting(name: str) -> None:
    lines = presets.read_text(name).splitlines()
    head = "\n".join(line for line in lines if line.startswith("#"))
    assert "# Source: " in head
    assert "# Net: " in head
    assert "# Data: " in head
    assert max(map(len, lines)) <= 120
    section_has_reason = False
    for line in lines:
        if not line.startswith((" ", "#")):
            section_has_reason = "#" in line
        assert "#" in line or section_has_reason or line.endswith(":"), f"no reason for: {line}"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "isbi",
            {
                "task": "semantic",
                "net.depth": 3,
                "net.width": 64,
                "net.padding": "same",
                "net.norm": "none",
                "net.up": "transpose",
                "net.output": "sigmoid",
                "loss.cross_entropy": 0.0,
                "loss.bce": 0.5,
                "loss.dice": 0.5,
                "augment.flip": True,
                "augment.rotate": 15.0,
                "augment.brightness": 0.1,
                "augment.contrast": 0.1,
                "training.optimizer": "adam",
                "training.schedule": "plateau",
                "training.patience": 3,
                "sampling.patch": [512, 512],
            },
        ),
        (
            "glas",
            {
                "task": "semantic",
                "data.resize": [128, 128],
                "data.normalization": "unit",
                "net.depth": 4,
                "net.width": 64,
                "net.norm": "batch",
                "net.output": "sigmoid",
                "loss.cross_entropy": 0.0,
                "loss.bce": 1.0,
                "loss.dice": 0.0,
            },
        ),
        (
            "oct",
            {
                "task": "semantic",
                "net.depth": 3,
                "net.width": 64,
                "net.padding": "valid",
                "net.head_kernel": 3,
                "net.norm": "batch",
                "net.output": "softmax",
                "loss.cross_entropy": 1.0,
                "loss.dice": 0.0,
                "training.optimizer": "sgd",
                "training.lr": 0.01,
                "training.momentum": 0.99,
            },
        ),
        (
            "carvana",
            {
                "task": "semantic",
                "net.depth": 4,
                "net.width": 64,
                "net.norm": "batch",
                "net.up": "bilinear",
                "net.reduction": 2,
                "loss.cross_entropy": 1.0,
                "loss.dice": 1.0,
                "training.optimizer": "rmsprop",
                "training.lr": 1e-5,
                "training.weight_decay": 1e-8,
                "training.momentum": 0.999,
                "training.clip": 1.0,
                "training.schedule": "plateau",
            },
        ),
        (
            "milesial",
            {
                "net.width": 64,
                "net.widths": [64, 128, 256, 512, 512],
                "net.decoder_widths": [64, 64, 128, 256],
                "net.up": "aligned",
                "net.bias": True,
                "net.norm": "batch",
                "net.output": "sigmoid",
                "loss.bce": 1.0,
                "loss.dice": 0.0,
                "training.optimizer": "sgd",
                "training.lr": 0.1,
                "training.momentum": 0.9,
                "training.weight_decay": 5e-4,
            },
        ),
        (
            "shapes",
            {
                "loss.cross_entropy": 0.0,
                "loss.bce": 0.5,
                "loss.dice": 0.5,
                "training.optimizer": "adam",
                "training.schedule": "cosine",
                "sampling.patch": [192, 192],
            },
        ),
        (
            "paper",
            {
                "task": "auto",
                "net.depth": 4,
                "net.width": 64,
                "net.padding": "valid",
                "net.norm": "none",
                "net.up": "transpose",
                "net.dropout": 0.5,
                "loss.cross_entropy": 1.0,
                "loss.dice": 0.0,
                "loss.class_weights": "frequency",
                "loss.border_weight": 10.0,
                "loss.border_sigma": 5.0,
                "augment.elastic": 10.0,
                "augment.elastic_grid": 3,
                "augment.flip": True,
                "sampling.patch": [572, 572],
                "training.batch": 1,
                "training.optimizer": "sgd",
                "training.momentum": 0.99,
                "training.schedule": "constant",
                "training.ema": 0.0,
                "inference.tta": 7,
            },
        ),
    ],
)
def test_settings_that_characterise_a_variant(name: str, settings: dict[str, Any]) -> None:
    """Settings that the file leaves to a default are checked too: the default may not change for them."""
    values = flat(presets.load_recipe(name).model_dump(mode="json"))
    assert {key: values[key] for key in settings} == settings


@pytest.mark.parametrize("name", ["carvana", "glas", "isbi", "milesial", "oct", "paper"])
def test_variants_have_no_moving_average_of_the_weights(name: str) -> None:
    assert presets.load_recipe(name).training.ema == 0


def test_an_unknown_preset_names_the_nearest_and_all_others() -> None:
    names = ", ".join(NAMES)
    message = f"preset 'papper': there is no preset with this name. Choose one of {names}; the nearest is paper."
    with pytest.raises(RecipeError, match=f"^{re.escape(message)}$"):
        presets.load_recipe("papper")
    with pytest.raises(RecipeError, match=r"no preset with this name\. Choose one of carvana"):
        presets.read_text("../recipe")


def test_table_lists_all_presets_with_their_titles() -> None:
    stream = StringIO()
    Console(file=stream, width=200).print(presets.make_table())
    for name in NAMES:
        assert f"{name} " in stream.getvalue()
        assert presets.read_title(name) in stream.getvalue()
        assert presets.read_text(name).startswith(f"# {presets.read_title(name)}\n")


def test_the_published_figures_of_glas_contradict_each_other() -> None:
    iou, f1 = (figure.value for figure in PUBLISHED["glas"].figures[:2])
    assert (iou, f1) == (0.325, 0.789)
    # For any counts of true positives, false positives and false negatives F1 = 2 IoU / (1 + IoU).
    for tp, fp, fn in ((13, 20, 7), (325, 600, 75), (1, 0, 0)):
        true_iou, true_f1 = tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn)
        assert iou_to_f1(true_iou) == pytest.approx(true_f1)
        assert f1_to_iou(true_f1) == pytest.approx(true_iou)
    note = " ".join(PUBLISHED["glas"].notes)
    assert "IoU of 0.325 belongs to an F1 of 0.491, and an F1 of 0.789 to an IoU of 0.652" in note


def test_published_figures_and_their_sources() -> None:
    values = {(name, figure.metric): figure.published for name in NAMES for figure in PUBLISHED[name].figures}
    published = {key: value for key, value in values.items() if value != "none"}
    assert published == {
        ("isbi", "dice"): "> 0.9",
        ("glas", "iou"): "0.325",
        ("glas", "dice"): "0.789",
        ("carvana", "dice"): "0.988423",
        ("milesial", "dice"): "0.988423",
        ("shapes", "dice"): "> 0.95",
        ("paper", "warping_error"): "0.000353",
        ("paper", "rand_error"): "0.0382",
        ("paper", "pixel_f_error"): "0.0611",
    }
    for name in NAMES:
        for figure in PUBLISHED[name].figures:
            assert bool(figure.source) == (figure.value is not None)
    assert Figure(metric="dice", label="Dice").published == "none"


@pytest.mark.parametrize("name", NAMES)
def test_synthetic_data_fit_their_presets(name: str) -> None:
    drawing = PUBLISHED[name].drawing
    assert (drawing is None) == (name in ("isbi", "glas", "paper"))
    if drawing is not None:
        presets.load_recipe(name).with_overrides(drawing.overrides)
