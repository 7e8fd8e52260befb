"""Tests of the precision of a model: which engine it chooses, what it says about it, and that tiles stay exact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from septa import tensor_file
from septa.errors import InputError, ModelError
from septa.images.normalize import Normalization
from septa.images.write import write_image
from septa.inference.int8 import Int8
from septa.inference.tiling import smallest_tile_for
from septa.labels.mapping import LabelMapping
from septa.model import KIND, Bf16Difference, Model, PredictionOptions, build_net, explain_precision
from septa.prediction import Options, SegmentedFile, segment_files
from septa.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Bf16Difference(changed=10, pixels=50_000)
LARGE = Bf16Difference(changed=11, pixels=50_000)
FEW = Bf16Difference(changed=0, pixels=49_999)


def make_model(bf16: Bf16Difference | None = None, **settings: object) -> Model:
    torch.manual_seed(0)
    recipe = Recipe.parse({"net": {"depth": 2, "width": 8, **settings}})
    labels = LabelMapping("index", ("a", "b", "c"), (0, 1, 2))
    net = build_net(recipe, 1, 3).eval().requires_grad_(False)
    normalization = Normalization("dataset", (100.0,), (50.0,))
    return Model(net=net, channels=1, labels=labels, normalization=normalization, recipe=recipe, bf16=bf16)


def set_speed(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    """Make the CPU fast or slow in bfloat16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)


def texture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 255, (height // 4 + 1, width // 4 + 1)), np.ones((4, 4)))[:height, :width].astype(
        np.uint8
    )


# --- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "fast", "expected"),
    [
        (SMALL, True, "torch+bf16"),
        (SMALL, False, "torch"),
        (LARGE, True, "torch"),
        (FEW, True, "torch"),
        (None, True, "torch"),
    ],
)
def test_bf16_is_chosen_where_it_is_fast_and_equal(
    difference: Bf16Difference | None, fast: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_speed(monkeypatch, fast)
    assert make_model(difference).choose_engine("cpu") == expected
    set_speed(monkeypatch, not fast)
    assert make_model(difference).choose_engine("cpu", fast=fast) == expected


def test_an_engine_and_a_precision_that_are_given_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    set_speed(monkeypatch, True)
    model = make_model(SMALL)
    assert model.choose_engine("cpu", "torch") == "torch"
    assert model.choose_engine("cpu", "openvino") == "openvino"
    assert model.choose_engine("cpu", None, "float32") == "torch"
    assert model.choose_engine("cpu", "openvino", "float32") == "openvino"
    assert model.choose_engine("cpu", "torch", "bf16") == "torch+bf16"
    assert model.choose_engine("cpu", "torch+compile", "bf16") == "torch+bf16+compile"
    assert model.choose_engine("cpu", "torch+compile+bf16", "bf16") == "torch+compile+bf16"
    set_speed(monkeypatch, False)
    assert make_model(None).choose_engine("cpu", None, "bf16") == "torch+bf16"


def test_a_quantised_model_runs_integers_unless_a_precision_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    set_speed(monkeypatch, True)
    model = replace(make_model(SMALL), int8=Int8(graph=b"", weights=b"", floats=(), layers=1))
    assert model.choose_engine("cpu") == "openvino"
    assert model.choose_engine("cpu", None, "float32") == "torch"
    assert model.choose_engine("cpu", None, "bf16") == "torch+bf16"
    for engine in ("openvino", "auto"):
        with pytest.raises(InputError, match=f"the engine {engine} runs this model in 8-bit integers"):
            model.choose_engine("cpu", engine, "float32")


@pytest.mark.parametrize(
    ("engine", "precision", "problem"),
    [
        ("openvino", "bf16", "the engine openvino does not compute in bfloat16"),
        ("auto", "bf16", "the engine auto does not compute in bfloat16"),
        ("torch+fp16", "bf16", "the engine torch+fp16 does not compute in bfloat16"),
        ("torch+bf16", "float32", "the engine torch+bf16 does not compute in float32"),
        ("torch+fp16", "float32", "the engine torch+fp16 does not compute in float32"),
    ],
)
def test_an_engine_without_the_precision_is_refused(engine: str, precision: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        make_model().choose_engine("cpu", engine, precision)
    remedy = "Give --engine torch, or leave one of the options out"
    assert str(caught.value) == f"--precision {precision}: {problem}. {remedy}."


def test_an_unknown_precision_and_one_for_an_existing_engine_are_refused() -> None:
    model, image = make_model(), texture(40, 40)
    with pytest.raises(InputError, match=r"--precision half: this precision is not known. Use float32 or bf16."):
        model.segment(image, precision="half", device="cpu")
    with pytest.raises(InputError, match=r"--precision bf16: the engine exists already"):
        model.segment(image, engine=model.engine("cpu"), precision="bf16")


# --- results ---------------------------------------------------------------------------------------------------------


def test_the_precision_reaches_the_net(monkeypatch: pytest.MonkeyPatch) -> None:
    set_speed(monkeypatch, True)
    model, image = make_model(SMALL), texture(64, 72)
    exact, rounded = (model.logits(image, engine=name, device="cpu") for name in ("torch", "torch+bf16"))
    assert not np.array_equal(exact, rounded)
    np.testing.assert_array_equal(model.logits(image, device="cpu"), rounded)
    np.testing.assert_array_equal(model.logits(image, device="cpu", precision="float32"), exact)
    np.testing.assert_array_equal(make_model().logits(image, device="cpu"), exact)
    np.testing.assert_array_equal(make_model().logits(image, device="cpu", precision="bf16"), rounded)
    wide = {"device": "cpu", "precision": "bf16"}
    np.testing.assert_array_equal(model.segment(image, **wide), rounded.argmax(0))
    np.testing.assert_array_equal(model.probabilities(image, **wide), model.task.probabilities(rounded))


def test_versions_are_averaged_in_bf16() -> None:
    model, image = make_model(), texture(64, 72)
    found = model.logits(image, device="cpu", tta=4, precision="bf16")
    np.testing.assert_array_equal(found, model.logits(image, device="cpu", tta=4, engine="torch+bf16"))
    assert not np.array_equal(found, model.logits(image, device="cpu", tta=4))


@pytest.mark.parametrize("settings", [{}, {"up": "bilinear"}, {"norm": "none", "padding": "valid"}, {"reduction": 2}])
def test_certified_tiles_in_bf16_are_those_of_the_whole_image(settings: dict[str, object], tmp_path: Path) -> None:
    model = make_model(**settings)
    write_image(tmp_path / "a.png", texture(190, 210)[None])
    tile = smallest_tile_for(model.net) + 24
    options = Options(output=tmp_path / "out", certify=True, tile=tile, device="cpu", precision="bf16")
    (done,) = segment_files(model, [tmp_path / "a.png"], options)
    assert isinstance(done, SegmentedFile)
    assert done.tiles > 1
    assert done.difference == 0


def test_options_of_a_run_are_those_of_segment() -> None:
    model, image = make_model(), texture(40, 44)[None]
    logits = model.compute_logits(image, PredictionOptions(device="cpu", precision="bf16"))
    np.testing.assert_array_equal(logits, model.logits(image, device="cpu", precision="bf16"))


# --- the line --------------------------------------------------------------------------------------------------------


def test_a_line_names_bf16_and_how_to_switch_it_off() -> None:
    (line,) = explain_precision("torch+bf16", SMALL, fast=True)
    assert line == (
        "engine: torch in bf16, which changes the labels of 0.02 % of the validation pixels "
        "(--precision float32 switches it off)"
    )
    (line,) = explain_precision("torch+bf16+compile", None, fast=False)
    assert line == (
        "engine: torch+compile in bf16, which was not compared with float32 for this model; "
        "the processor has no instructions for it, so float32 is faster"
    )
    for engine in ("torch", "openvino", "torch+fp16"):
        assert explain_precision(engine, SMALL, fast=True) == ()


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_difference_is_kept_in_the_file(tmp_path: Path) -> None:
    model = make_model(SMALL)
    model.save(tmp_path / "m.septa")
    assert Model.load(tmp_path / "m.septa").bf16 == SMALL
    make_model().save(tmp_path / "old.septa")
    header, _ = tensor_file.unpack((tmp_path / "old.septa").read_bytes(), KIND, "old")
    assert "bf16" not in header
    assert Model.load(tmp_path / "old.septa").bf16 is None


@pytest.mark.parametrize(
    "wrong",
    [{}, {"changed": 1}, {"changed": 3, "pixels": 2}, {"changed": 0, "pixels": 0}, {"changed": "1", "pixels": 2}],
)
def test_a_wrong_difference_is_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    make_model(SMALL).save(tmp_path / "m.septa")
    header, tensors = tensor_file.unpack((tmp_path / "m.septa").read_bytes(), KIND, "m")
    header = json.loads(json.dumps({**header, "bf16": wrong}))
    (tmp_path / "m.septa").write_bytes(tensor_file.pack(KIND, header, tensors))
    with pytest.raises(ModelError, match="does not fit this version of septa"):
        Model.load(tmp_path / "m.septa")


def test_a_pruned_model_has_no_difference() -> None:
    model = make_model(SMALL, nested=True, deep_supervision=True)
    assert model.prune(1).bf16 is None
