"""``septa export`` through its entry point: files, metadata, the parity table, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from septa import cli
from septa.export import network, parity
from septa.images import write_image
from septa.model import Model
from septa.pretrained import shipped

pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def export(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Return a function ``export(arguments)`` that runs the command in ``tmp_path``.

    It returns exit code, stdout and stderr. ``{plain}`` in the arguments is the file of that model.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("septa.runtime.prepare", lambda: True)

    def run(arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["septa", "export", *shlex.split(arguments.format(**models))])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def draw(seed: int = 0, channels: int = 1) -> np.ndarray:
    """Return a noisy image ``CYX`` with bright blobs on a dark background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:90, :117]
    blob_yx = 90 * np.exp(-((y - 40) ** 2 + (x - 60) ** 2) / 300)
    return (rng.uniform(0, 25, (channels, 90, 117)) + blob_yx + 10).astype(np.uint8)


def read_onnx(path: Path) -> tuple[Any, dict[str, str]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, session.get_modelmeta().custom_metadata_map


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("ensemble", "nested", "attention", "resnet")]


@pytest.mark.parametrize("name", ["plain", "single", *SLOW])
def test_raw_images_in_probabilities_out(name: str, export: Command, models: dict[str, Path], tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", draw())
    code, out, err = export(f"{{{name}}} -o m.onnx --data a.png")
    assert (code, err) == (0, "")
    assert "images of a.png" in out
    session, facts = read_onnx(tmp_path / "m.onnx")
    model = Model.load(models[name])
    for shape in ((90, 117), (37, 5)):
        image_cyx = draw()[:, : shape[0], : shape[1]]
        (planes_kyx,) = session.run(None, {"image": image_cyx[None].astype(np.float32)})[0]
        expected_kyx = model.probabilities(image_cyx, engine="torch")
        np.testing.assert_allclose(planes_kyx, expected_kyx[-len(planes_kyx) :], atol=1e-5)
    assert len(planes_kyx) == (1 if name == "single" else 2)
    assert json.loads(facts["output_names"]) == ["background", "cell"][-len(planes_kyx) :]
    assert (facts["axes"], facts["channels"], facts["input"]) == ("BCYX", "1", "raw values")
    assert (int(facts["halo"]), int(facts["multiple"])) == (model.net.halo, model.net.multiple)
    assert json.loads(facts["normalization_inside"]) == {"offset": [30.0], "scale": [50.0], "curve": 0.0, "clip": 10.0}
    assert facts["weights_sha256"] == model.weights_sha256
    assert f"equal to the whole image if {model.net.halo} pixels" in out
    assert "the net computes (value - 30) / 50, clipped to -10 to 10" in out


def test_logits_leave_the_activation_out(export: Command, models: dict[str, Path], tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", draw())
    assert export("{plain} -o m.onnx --logits --data a.png")[0] == 0
    session, facts = read_onnx(tmp_path / "m.onnx")
    image_cyx = draw()
    (logits_kyx,) = session.run(["logits"], {"image": image_cyx[None].astype(np.float32)})[0]
    expected_kyx = Model.load(models["plain"]).logits(image_cyx, engine="torch")
    np.testing.assert_allclose(logits_kyx, expected_kyx, atol=1e-4)
    assert (facts["output"], facts["activation_inside"]) == ("logits", "false")


def test_the_other_formats_hold_the_same_net(export: Command, models: dict[str, Path], tmp_path: Path) -> None:
    import torch

    image_cyx = draw()
    write_image(tmp_path / "a.png", image_cyx)
    expected_kyx = Model.load(models["plain"]).probabilities(image_cyx, engine="torch")
    assert export("{plain} -o m.pt --data a.png")[0] == 0
    extra = {"septa.json": ""}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)
        net = torch.jit.load(tmp_path / "m.pt", _extra_files=extra)
        planes_kyx = net(torch.from_numpy(image_cyx[None].astype(np.float32)))[0].numpy()
    np.testing.assert_allclose(planes_kyx, expected_kyx, atol=1e-5)
    assert json.loads(extra["septa.json"])["axes"] == "BCYX"
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    assert export("{plain} -o m.xml --data a.png")[0] == 0
    graph = openvino.Core().read_model(tmp_path / "m.xml")
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(image_cyx[None].astype(np.float32))[0][0], expected_kyx, atol=1e-5)
    assert graph.get_rt_info(["septa", "axes"]).value == "BCYX"


def test_the_table_measures_differences_tiles_and_labels(
    export: Command, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):  # of which four are compared
        write_image(tmp_path / "images" / f"{number}.png", draw(number))
    (tmp_path / "images" / "a.txt").write_text("no image")
    code, out, _ = export("{plain} -o m.onnx --data images")
    assert code == 0
    rows = re.findall(r"(\d)\.png +│ 90 x 117 +│ ([\d.e+-]+) +│ ([\d.e+-]+) +│ (\d+) +│ ([\d.e+-]+) ", out)
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert all(float(row[1]) <= 1e-5 and float(row[2]) <= float(row[1]) and row[3] == "0" for row in rows)
    assert all(float(row[4]) <= 1e-5 for row in rows)
    assert "images of images" in out
    assert "note: images/a.txt" in out.replace("\n", "")

    # A net that is off by a little, and one whose tiles are.
    before = (tmp_path / "m.onnx").read_bytes()
    build = network.ExportNet._normalize
    for wrong in (
        lambda self, x: build(self, x) + 0.05,
        lambda self, x: build(self, x) + 1e-2 * x.mean(dim=(1, 2, 3), keepdim=True),
    ):
        monkeypatch.setattr(network.ExportNet, "_normalize", wrong)
        code, _, err = export("{plain} -o m.onnx --data images")
        assert code == 2
        assert re.fullmatch(
            r"error: m\.onnx: the export is not written, because it differs from septa by \S+, more than 0\.0001\. "
            r"Give -o NAME\.pt\.\n",
            err,
        )
        assert (tmp_path / "m.onnx").read_bytes() == before


def test_tiles_are_compared_apart_from_the_whole(models: dict[str, Path]) -> None:
    """Outputs that equal septa's for the whole image, and differ in tiles, are found."""
    model = Model.load(models["plain"])
    images = parity.ParityImages(origin="drawn", images=(("a", draw()),))
    engine = model.engine("cpu", "torch")

    def run(image_cyx: np.ndarray) -> np.ndarray:
        planes_kyx = model.task.activations(engine(model.normalization.apply(image_cyx)))
        return planes_kyx + (0 if image_cyx.shape[1:] == (90, 117) else np.float32(0.01))

    found = parity.compare_exports(model, {"onnx": run}, images, logits=False)
    assert found.rows[0].largest == 0
    assert found.rows[0].tiled == pytest.approx(0.01, rel=1e-3)
    assert found.largest == found.rows[0].tiled


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("{plain} -o m.txt", "m.txt: the suffix does not name a format. Use .onnx (onnx), .pt (torchscript), .xml "),
        ("{plain} -o m.onnx --format openvino", "m.onnx: a file of the format openvino ends in .xml. Give -o m.xml."),
        ("{plain} -o m.onnx --licence MIT", "--licence: this option does not apply to the format onnx. Leave it out."),
        ("{ensemble} -o m.onnx --logits", "--logits: the model is an ensemble of 3 nets, whose probabilities are "),
        ("{plain} -o m.zip --logits", "--logits: a bioimage.io package puts out probabilities. Leave it out."),
        ("{plain} -o m.zip --background dark", "--background: the model inverts no images. Leave it out."),
        ("{plain} -o m.zip --licence 'a b'", "--licence: a b is not an identifier of SPDX. Give for example "),
        ("{valid} -o m.zip", "--format bioimageio: the net reads a mirrored margin around the image, which "),
        ("{objects} -o m.zip", "--format bioimageio: the model inverts images with a light background, which a "),
        ("{objects} -o m.zip --background light", "--data: the package would normalise none of the compared images"),
        ("{plain} -o m.onnx --data {plain}", "{plain}: none of the images fits the model. Give images like those"),
        ("{plain} -o {plain} --format onnx", "{plain}: a file of the format onnx ends in .onnx. Give -o plain.onnx."),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    arguments: str, line: str, export: Command, models: dict[str, Path], tmp_path: Path
) -> None:
    code, _, err = export(arguments)
    assert code == 2
    assert err.startswith("error: " + line.format(**models))
    assert err.count("\n") == 1
    assert list(tmp_path.glob("m.*")) == []


def test_integers_stay_and_drawn_images_replace_those_that_do_not_fit(export: Command, tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "files" / "v0.1"
    write_image(tmp_path / "a.png", draw())
    code, out, _ = export(f"{old / 'int8.septa'} -o m.pt --data a.png")
    assert code == 0
    assert "int8.septa: the float32 net is exported, not the 8-bit integers" in out
    code, out, _ = export("{five} -o five.pt")
    assert code == 0
    assert "on drawn cells" in out
    assert "not included: images are resized to 64 x 80 pixels" in out
    (largest,) = set(re.findall(r"drawn 1 +│ 64 x 80 +│ ([\d.e+-]+) ", out))
    assert float(largest) <= 1e-5


def test_a_file_of_others_stays(export: Command, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    write_image(tmp_path / "a.png", draw())
    code, _, err = export("{plain} -o m.onnx --data a.png")
    assert (code, (tmp_path / "m.onnx").read_text()) == (2, "mine")
    assert "not written by septa" in err
    assert export("{plain} -o m.onnx --data a.png --overwrite")[0] == 0


# The example of the docs ---------------------------------------------------------------------------------------------

EXAMPLE = re.findall(
    r"^```python\n(.*?)^```$", (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8"), re.S | re.M
)


@pytest.mark.parametrize("name", ["plain", "objects"])
def test_the_example_of_the_docs_equals_septa(
    name: str, export: Command, models: dict[str, Path], tmp_path: Path
) -> None:
    write_image(tmp_path / "a.png", draw())
    assert export(f"{{{name}}} -o cells.onnx --data a.png")[0] == 0
    (example,) = EXAMPLE
    model = Model.load(models[name])
    for image_cyx in (draw(), 255 - draw()):
        (tmp_path / "image.png").unlink(missing_ok=True)
        write_image(tmp_path / "image.png", image_cyx)
        scope: dict[str, Any] = {}
        exec(example.replace("tile=256", "tile=80"), scope)
        planes_kyx = scope["run"](scope["image_cyx"])
        assert scope["labels_yx"].shape == planes_kyx.shape[1:]
        expected_kyx = model.task.activations(model.logits(image_cyx, engine="torch"))
        np.testing.assert_allclose(planes_kyx, expected_kyx, atol=1e-4)
        whole_kyx = scope["session"].run(None, {"image": scope["image_cyx"][None]})[0][0]
        np.testing.assert_allclose(planes_kyx, whole_kyx, atol=1e-6)


# Packages ------------------------------------------------------------------------------------------------------------


def open_package(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return yaml.safe_load(files["rdf.yaml"]), files


def preprocess(rdf: dict[str, Any], image_bcyx: np.ndarray) -> np.ndarray:
    """Apply the steps as the specification defines them."""
    for step in rdf["inputs"][0]["preprocessing"]:
        settings = step["kwargs"]
        if step["id"] == "scale_range":
            ends = [settings["min_percentile"], settings["max_percentile"]]
            low, high = np.percentile(image_bcyx, ends, axis=(2, 3), keepdims=True)
            image_bcyx = (image_bcyx - low) / (high - low + settings["eps"])
        elif step["id"] == "scale_linear":
            image_bcyx = image_bcyx * settings["gain"] + settings["offset"]
        else:
            assert step["id"] == "ensure_dtype"
    return image_bcyx.astype(np.float32)


@pytest.mark.parametrize(("name", "background"), [("plain", ""), ("objects", "light")])
def test_a_package_states_what_other_programs_need(
    name: str, background: str, export: Command, models: dict[str, Path], tmp_path: Path
) -> None:
    image_cyx = 255 - draw() if background == "light" else draw()
    write_image(tmp_path / "a.png", image_cyx)
    options = f"--background {background}" if background else ""
    arguments = f"{{{name}}} -o m.zip --author 'Ada L' --licence CC-BY-4.0 --data a.png {options}"
    code, out, err = export(arguments)
    assert (code, err) == (0, "")
    assert "a.png, torchscript" in out
    rdf, files = open_package(tmp_path / "m.zip")
    net = Model.load(models[name]).net
    _, channel, y, x = rdf["outputs"][0]["axes"]
    assert y["halo"] == x["halo"] == net.halo
    assert rdf["inputs"][0]["axes"][2]["size"] == {"min": 2 * net.halo + net.multiple, "step": net.multiple}
    assert channel["channel_names"] == (
        ["background", "cell"] if name == "plain" else ["foreground", "distance", "round", "long_cell"]
    )
    assert (rdf["authors"], rdf["license"]) == ([{"name": "Ada L"}], "CC-BY-4.0")
    assert b"&id" not in files["rdf.yaml"]  # not every reader of YAML resolves references
    assert {"weights.onnx", "weights.pt", "cover.png", "README.md"} <= set(files)
    test_input, test_output = (np.load(io.BytesIO(files[f"test_{part}.npy"])) for part in ("input", "output"))
    session = onnxruntime.InferenceSession(files["weights.onnx"], providers=["CPUExecutionProvider"])
    planes_bkyx = session.run(None, {"image": preprocess(rdf, test_input)})[0]
    np.testing.assert_allclose(planes_bkyx, test_output, atol=1e-4)
    # The test tensors are septa's own, of the image that was given.
    np.testing.assert_array_equal(test_input[0], image_cyx[:, : test_input.shape[2], : test_input.shape[3]])
    model = Model.load(models[name])
    expected_kyx = model.task.activations(model.logits(test_input[0], engine="torch"))
    np.testing.assert_allclose(test_output[0], expected_kyx, atol=1e-6)


def test_a_package_without_author_and_licence_is_noted(
    export: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", Path(shipped.__file__).parent)
    _, out, _ = export("{plain} -o m.zip")
    assert "images that ship with septa" in out
    assert "the package names no authors. Give --author NAME" in out
    assert "the package has no licence. Give --licence ID" in out
    rdf, _ = open_package(tmp_path / "m.zip")
    assert "license" not in rdf


@pytest.mark.skipif(find_spec("bioimageio") is None, reason="bioimageio.core is not installed (extra bioimageio)")
@pytest.mark.parametrize(("name", "options"), [("plain", ""), ("objects", "--background dark")])
def test_bioimageio_test_passes(name: str, options: str, export: Command, tmp_path: Path) -> None:
    assert export(f"{{{name}}} -o m.zip --author 'Ada L' --licence CC-BY-4.0 {options}")[0] == 0
    command = [sys.executable, "-m", "bioimageio.core", "test", "m.zip"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "❌" not in done.stdout
