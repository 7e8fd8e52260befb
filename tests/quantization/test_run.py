"""Models in 8-bit integers are made, compared, refused, and used as other models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from septa.cli import quantize as use
from septa.data.fingerprint import digest_array
from septa.data.folder import find_pairs, read_pair_image
from septa.data.known_images import write_sketches
from septa.errors import InputError
from septa.images.read import read_labels
from septa.images.sketch import Sketch, make_sketch
from septa.inference.int8 import Int8
from septa.model import Model
from septa.quantization import run as room
from septa.quantization.run import QuantizedModel, make_small, quantize, round_to_float16
from septa.synthetic.dataset import write_dataset

from ..forks import ForkServer

Command = Callable[..., str]

NEEDS = ("openvino", "onnx", "nncf")


@pytest.fixture(scope="module")
def model(septa: Command, cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.septa"
    settings = ["net.width=4", "net.depth=2", "training.steps=40", "training.batch=4", "training.validations=2"]
    settings += ["sampling.patch=[64, 64]", "training.amp=off"]
    septa("train", cells, "-o", path, "--task", "semantic", *(part for one in settings for part in ("--set", one)))
    return path


@pytest.fixture(scope="module")
def septa(fork_server: ForkServer) -> Command:
    """Return a function that runs the command, checks its exit code, and returns what it prints."""

    def run(*arguments: object, code: int = 0) -> str:
        done = fork_server.run([str(argument) for argument in arguments])
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_from_the_command_line(septa: Command, model: Path, cells: Path, tmp_path: Path) -> None:
    for package in NEEDS:
        pytest.importorskip(package, reason=f"{package} is not installed")
    small = tmp_path / "small.septa"
    output = septa("quantize", model, "--data", cells, "-o", small, "--most-drop", 1, "--minutes", 0.05)
    assert "13 layers; each version is tuned for at most 0.05 minutes" in output
    assert "2 of 13 layers in float32" in output
    assert f"model: {small}" in output
    floating, integer = Model.load(model), Model.load(small)
    assert integer.weights_sha256 == floating.weights_sha256
    assert integer.int8 is not None
    facts = json.loads(septa("info", small))
    assert facts["int8"] == {"floats": list(integer.int8.floats), "layers": 13, "tuned": integer.int8.tuned}
    assert set(facts["provenance"]["int8"]["scores"]["dice"]) == {"float", "int8"}

    image = sorted((cells / "images").iterdir())[0]
    labels: dict[str, np.ndarray[Any, Any]] = {}
    for name, given in {"own": (), "torch": ("--engine", "torch"), "auto": ("--engine", "auto")}.items():
        septa("predict", small, image, "-o", tmp_path / name, *given)
        (file,) = (tmp_path / name).glob("*.tif")
        labels[name] = read_labels(file).array
    np.testing.assert_array_equal(labels["own"], labels["auto"])
    np.testing.assert_array_equal(labels["torch"], floating.as_written(floating.segment(image)))
    logits = [one.logits(image, device="cpu") for one in (floating, integer)]
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.2 * np.abs(logits[0]).max()
    np.testing.assert_array_equal(labels["own"], integer.as_written(integer.task.decode(logits[1])))

    output = septa("evaluate", small, cells)
    dice = facts["provenance"]["int8"]["scores"]["dice"]["int8"]
    assert f"{dice:.4f}" in output
    untuned = tmp_path / "as-made.septa"
    assert "tuned" not in septa("quantize", model, "--data", cells, "-o", untuned, "--most-drop", 1, "--minutes", 0)
    assert Model.load(untuned).int8.tuned is False
    assert "itself" in septa("quantize", small, "--data", cells, "-o", small, code=2)


def evaluation(score: float) -> Any:
    names = ("dice", "iou", "precision", "recall")
    return SimpleNamespace(summary=dict.fromkeys(names, score), objects={}, images=[1, 2])


class Fake:
    """A quantizer whose integers lose 0.02, unless the ``lossy`` layers that rank first compute in float32."""

    layers = tuple(f"layer {number}" for number in range(12))
    lossy = 3

    def __init__(self, net: Any, images: Any) -> None:
        pass

    def make(self, floats: Any) -> Int8:
        return Int8(graph=b"x", weights=b"w", floats=tuple(floats), layers=len(self.layers))

    def tune(self, distillation: Any, minutes: float, floats: Any, progress: Any) -> Int8:
        assert distillation.__name__ == "distillation"
        progress(1, 2)
        return replace(self.make(floats), weights=f"tuned for {minutes:g} minutes".encode(), tuned=True)

    def rank_layers(self, floats: Any) -> list[str]:
        assert floats == ("layer 0", "layer 11")
        return [name for name in reversed(self.layers) if name not in floats]

    @classmethod
    def score(cls, model: Model, *args: Any, **kwargs: Any) -> Any:
        if model.int8 is None:
            return evaluation(0.9)
        assert model.int8.floats[0] == "layer 0"
        assert model.int8.floats[1] == "layer 11"
        left = max(0, cls.lossy + 2 - len(model.int8.floats))
        return evaluation(0.9 - 0.02 * left / cls.lossy)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr(room, "Quantizer", Fake)
    monkeypatch.setattr(room, "evaluate", Fake.score)
    monkeypatch.setattr(Fake, "lossy", 3)
    return Fake


def test_layers_are_kept_in_float32_until_the_drop_is_small(fake: type[Fake], model: Path, cells: Path) -> None:
    lines: list[str] = []
    made = quantize(model, cells, notify=lines.append)
    assert made.model.int8 is not None
    assert made.model.int8.floats == ("layer 0", "layer 11", "layer 10", "layer 9", "layer 8")
    assert made.drop == pytest.approx(0)
    assert lines[1:] == [
        "2 of 12 layers in float32, tuned: Dice = F1 -0.0200",
        "2 of 12 layers in float32: Dice = F1 -0.0200",
        "the score drops too much; ranking the layers by the error that they cause",
        "3 of 12 layers in float32, tuned: Dice = F1 -0.0133",
        "5 of 12 layers in float32, tuned: Dice = F1 +0.0000",
    ]
    assert made.model.int8.weights == b"tuned for 3 minutes"
    made = quantize(model, cells, most_drop=0.021, minutes=0, notify=lines.append)
    assert made.model.int8 == Int8(graph=b"x", weights=b"w", floats=("layer 0", "layer 11"), layers=12)


def test_untuned_integers_are_chosen_if_tuned_ones_score_less(
    fake: type[Fake], model: Path, cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(one: Model, *args: Any, **kwargs: Any) -> Any:
        return evaluation(0.8 if one.int8 is not None and one.int8.tuned else 0.9)

    monkeypatch.setattr(room, "evaluate", score)
    made = quantize(model, cells)
    assert made.model.int8 == Int8(graph=b"x", weights=b"w", floats=("layer 0", "layer 11"), layers=12)


def test_a_drop_that_remains_is_refused_with_the_table(
    fake: type[Fake], model: Path, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(fake, "lossy", 100)
    output = tmp_path / "q.septa"
    with pytest.raises(InputError) as caught:
        use.quantize(model, output, cells)
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        f"{output}: the model is not written, because its score drops by 0.0186, more than 0.005. "
        "Give --most-drop 0.019 to write it anyway."
    )
    assert not output.exists()
    printed = capsys.readouterr().out
    assert "Dice = F1" in printed
    assert "-0.0186" in printed
    use.quantize(model, output, cells, most_drop=0.019)
    tuned = b"tuned for 3 minutes"
    floats = ("layer 0", *reversed(fake.layers[4:]))
    assert Model.load(output).int8 == Int8(graph=b"x", weights=tuned, floats=floats, layers=12, tuned=True)


def test_ranges_come_from_training_images_alone(model: Path, cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Seeing(Fake):
        def __init__(self, net: Any, images: Any) -> None:
            seen.extend(images)

    monkeypatch.setattr(room, "Quantizer", Seeing)
    monkeypatch.setattr(room, "evaluate", Fake.score)
    quantize(model, cells, most_drop=1)
    loaded = Model.load(model)
    trained = {digest for _, digest in loaded.provenance["train"]}
    kept = [
        loaded.normalization.resolve(image).apply(image)
        for pair in find_pairs(cells).pairs
        for image in [read_pair_image(pair)]
        if digest_array(image) in trained
    ]
    assert 0 < len(kept) < 6
    assert len(seen) >= 90
    corners = {patch[:, :64, :64].tobytes() for patch in seen}
    # Exact: images are smaller than a patch, so that each patch begins with a whole image.
    assert corners == {image.tobytes() for image in kept}


def test_data_without_a_training_image_are_refused(model: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "other", "cells", 2, (64, 64), 7)
    with pytest.raises(
        InputError,
        match=r": the data contain no image that the model was trained on\. Give the data that it was trained on\.$",
    ):
        quantize(model, tmp_path / "other")


def test_a_table_shows_what_changed() -> None:
    made = QuantizedModel(SimpleNamespace(), "dice", evaluation(0.9), evaluation(0.88))  # type: ignore[arg-type]
    assert made.drop == pytest.approx(0.02)
    cells = [list(column.cells) for column in made.table().columns]
    assert cells[0][0] == "Dice = F1"
    assert [column[0] for column in cells[1:]] == ["0.9000", "0.8800", "-0.0200"]


def test_a_pruned_net_has_no_integers(model: Path) -> None:
    loaded = replace(Model.load(model), int8=Int8(graph=b"x", weights=b"w", floats=(), layers=1))
    assert loaded.choose_engine("cpu") == "openvino"
    assert replace(loaded, int8=None).choose_engine("cpu") == "torch"


def test_float16_is_written_from_the_command_line_with_and_without_data(
    model: Path, cells: Path, tmp_path: Path, capsys: Any
) -> None:
    plain, compared = tmp_path / "plain.septa", tmp_path / "compared.septa"
    use.quantize(model, plain, to="float16")
    assert "images that the model" not in capsys.readouterr().out
    use.quantize(model, compared, cells, to="float16")
    printed = capsys.readouterr().out
    before, after = model.stat().st_size / 1e6, compared.stat().st_size / 1e6
    assert f"({after:.1f} MB, {before:.1f} MB before; its weights are stored in float16)" in printed
    assert "float16" in printed.splitlines()[2]
    rounded = Model.load(model).round_to_half()
    for path in (plain, compared):
        assert path.stat().st_size < model.stat().st_size
        assert Model.load(path).weights_sha256 == rounded.weights_sha256
    scores = Model.load(compared).provenance["float16"]["scores"]["dice"]
    assert abs(scores["float"] - scores["float16"]) < 0.005
    with pytest.raises(InputError, match=r"^--minutes: this option does not apply to float16, which is not tuned"):
        use.quantize(model, tmp_path / "x.septa", cells, to="float16", minutes=1)
    with pytest.raises(InputError, match=r"^--most-drop: this option does not apply to float16 without --data"):
        use.quantize(model, tmp_path / "x.septa", to="float16", most_drop=1)
    assert not (tmp_path / "x.septa").exists()


def test_a_file_in_float16_has_smaller_sketches_of_the_training_images(model: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(3, 120, 150))
    points = [make_sketch(gaussian_filter(noise[number], 3)[None]) for number in range(3)]
    sketches = write_sketches([(f"{number}.png", points[number % 3]) for number in range(500)])
    loaded = Model.load(model)
    parent = {"name": "p.septa", "sketches": sketches[:40], "train": []}
    known = replace(loaded, provenance={**loaded.provenance, "sketches": sketches, "parent": parent})
    small = make_small(known)
    before, after = (sum(len(text) for _, text in one.provenance["sketches"]) for one in (known, small))
    assert after < 0.3 * before
    kept = [(name, Sketch.from_text(text)) for name, text in small.provenance["sketches"]]
    assert len({name for name, _ in kept}) == len(kept) >= 200
    assert all(len(sketch.points) >= 12 for _, sketch in kept)
    for name, sketch in kept:
        assert np.array_equal(sketch.points, points[int(name[:-4]) % 3].points[: len(sketch.points)])
    assert small.provenance["train"] == loaded.provenance["train"]
    assert small.provenance["parent"]["sketches"] == sketches[:40]  # few images keep all their points
    assert known.provenance["parent"] is parent


def test_float16_that_loses_too_much_is_refused_and_integers_are_kept(
    model: Path, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter((0.9, 0.8) * 2)
    monkeypatch.setattr(room, "evaluate", lambda one, *_, **__: evaluation(next(scores)))
    with pytest.raises(InputError, match=r"its score drops by 0.1000, more than 0.005\. Give --most-drop 0.1 to"):
        use.quantize(model, tmp_path / "x.septa", cells, to="float16")
    both = tmp_path / "both.septa"
    integers = Int8(graph=b"x", weights=b"w", floats=(), layers=1)
    replace(Model.load(model), int8=integers).save(both)
    made = round_to_float16(both, cells)
    assert made.drop == pytest.approx(0.1)
    assert made.model.int8 == integers
