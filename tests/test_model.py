from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import scipy.ndimage
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from septa import tensor_file
from septa.errors import InputError, ModelError, RecipeError, SeptaWarning
from septa.images.normalize import Normalization
from septa.images.write import write_image
from septa.inference.protocol import SingleImageEngine
from septa.inference.tiling import smallest_tile_for
from septa.labels.mapping import LabelMapping
from septa.model import KIND, Model, PredictionOptions, build_net
from septa.nets import Ensemble, list_members
from septa.notices import Notices
from septa.recipe import LossSettings, NetSettings, Recipe
from septa.tasks.instances import Instances
from septa.tasks.make import make_task
from septa.tasks.semantic import Semantic

pytestmark = pytest.mark.usefixtures("one_thread")


def uneven(net: Any) -> Any:
    """Give the norms of a net random statistics, and set the net to evaluation mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return net.eval().requires_grad_(False)


def make_model(channels: int = 1, kind: str = "dataset", classes: int = 3, multilabel: bool = False) -> Model:
    """Make a small model with random norm statistics, whose labels vary over an image."""
    torch.manual_seed(11)
    recipe = Recipe(
        net=NetSettings(depth=2, width=4), loss=LossSettings(cross_entropy=0, bce=1) if multilabel else LossSettings()
    )
    net = uneven(build_net(recipe, channels, classes))
    names = tuple(f"c{k}" for k in range(classes))
    labels = LabelMapping("multilabel", names, ()) if multilabel else LabelMapping("index", names, (0, 5, 9), 255)
    constants = ((100.0,) * channels, (50.0,) * channels) if kind == "dataset" else ((), ())
    return Model(
        net=net,
        channels=channels,
        labels=labels,
        normalization=Normalization(kind, *constants),
        recipe=recipe,
        provenance={"scores": {"dice": 0.5}},
    )  # type: ignore[arg-type]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Return uneven noise 0..255 in the last two axes, uint8."""
    rng = np.random.default_rng(seed)
    bright = np.linspace(0.2, 1, shape[-1])
    return (rng.integers(0, 256, shape) * bright).astype(np.uint8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "cells.septa"
    make_model().save(path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Model.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text.splitlines()) == 1
    return text


# --- one file -------------------------------------------------------------------------------------------------------


def test_round_trip_keeps_every_bit(saved: Path) -> None:
    model, loaded = make_model(), Model.load(saved)
    before, after = model.net.state_dict(), loaded.net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert loaded.weights_sha256 == model.weights_sha256 == loaded.provenance["weights_sha256"]
    for name in ("channels", "labels", "normalization", "recipe", "task"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert loaded.provenance["scores"] == {"dice": 0.5}
    assert not loaded.net.training
    assert not any(p.requires_grad or p.is_meta for p in loaded.net.parameters())
    image = noise(1, 61, 47)
    np.testing.assert_array_equal(loaded.logits(image), model.logits(image))


def test_float16_halves_the_file_and_rounds_the_kernels_alone(tmp_path: Path) -> None:
    model, path = make_model(), tmp_path / "half.septa"
    model.save(path, half=True)
    model.save(tmp_path / "full.septa")
    loaded = Model.load(path)
    before, after = model.net.state_dict(), loaded.net.state_dict()
    assert {tensor.dtype for tensor in after.values()} == {torch.float32, torch.int64}
    for name, tensor in before.items():
        if tensor.ndim > 1:
            expected = torch.from_numpy(tensor.numpy().astype(np.float16).astype(np.float32))
            assert not torch.equal(tensor, expected)
            assert torch.equal(after[name], expected)
        else:
            assert torch.equal(after[name], tensor)
    assert model.round_to_half().weights_sha256 == loaded.weights_sha256 == loaded.provenance["weights_sha256"]
    kernels = sum(2 * tensor.numel() for tensor in before.values() if tensor.ndim > 1)
    assert (tmp_path / "full.septa").stat().st_size - path.stat().st_size == pytest.approx(kernels, abs=100)
    image = noise(1, 61, 47)
    logits, rounded = model.logits(image), loaded.logits(image)
    assert 0 < np.abs(logits - rounded).max() < 2e-3 * np.abs(logits).max()
    np.testing.assert_array_equal(loaded.segment(image, tile=52), loaded.segment(image))
    loaded.save(path, half=True)
    assert Model.load(path).weights_sha256 == loaded.weights_sha256


def test_float16_is_read_only_where_the_header_states_it(saved: Path, tmp_path: Path) -> None:
    """A version of septa that does not know it refuses the file, and names the weight."""
    make_model().save(saved, half=True)
    repack(saved, lambda header: header.pop("weights"))
    assert ".weight' is torch.float16, not torch.float32. Update septa." in refused(saved)
    repack(saved, lambda header: header.update(weights="float8"))
    assert "fit this version of septa: the weights are stored as float8. Update septa." in refused(saved)
    repack(saved, lambda header: header.update(weights="float16"), {"head.bias": torch.zeros(3, dtype=torch.float16)})
    assert "the weight 'head.bias' is torch.float16, not torch.float32" in refused(saved)


def test_weights_beyond_float16_are_not_saved_in_it(tmp_path: Path) -> None:
    model = make_model()
    model.net.head.weight[0, 0] = 7e4
    with pytest.raises(InputError, match=r"^weights: the weight 'head\.weight' is too large for float16\. Store"):
        model.save(tmp_path / "x.septa", half=True)
    assert list(tmp_path.iterdir()) == []
    model.save(tmp_path / "x.septa")
    model.net.head.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"'head\.weight' holds NaN or Inf"):
        model.save(tmp_path / "x.septa", half=True)


def test_with_provenance_adds_and_leaves_the_first_as_it_was() -> None:
    model = make_model()
    more = model.with_provenance(data="abc")
    assert more.provenance == {"scores": {"dice": 0.5}, "data": "abc"}
    assert "data" not in model.provenance


def test_flipped_bytes_are_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(1)
    places = {*range(8), *rng.integers(8, header, 130).tolist(), *rng.integers(header, len(data), 70).tolist()}
    for at in sorted(places):
        damaged = bytearray(data)
        damaged[at] ^= int(rng.integers(1, 256))
        saved.write_bytes(damaged)
        refused(saved)


def test_truncations_are_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    lengths = {*range(20), *np.random.default_rng(2).integers(20, len(data), 60).tolist(), len(data) - 1}
    for length in sorted(lengths):
        saved.write_bytes(data[:length])
        refused(saved)


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return (pytest.fail, ("unpickled",))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.septa"
    torch_zip = tmp_path / "w.pt"
    torch.save({"a": torch.zeros(2)}, torch_zip)
    contents = [
        b"",
        b"\0" * 1000,
        np.random.default_rng(3).bytes(5000),
        pickle.dumps(Trap()),
        torch_zip.read_bytes(),
        safetensors.torch.save(make_model().net.state_dict()),
        tensor_file.pack("septa checkpoint 1", {}, {}),
    ]
    for content in contents:
        path.write_bytes(content)
        assert "the file is not a septa model" in refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "the file cannot be read (no such file" in refused(tmp_path / "none.septa")
    assert "the path is not a regular file" in refused(tmp_path)
    with pytest.raises(ModelError, match=r"the file cannot be read \(its path contains a null character\)"):
        Model.load(tmp_path / "a\0b.septa")


def test_a_pipe_is_refused_without_waiting_for_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.septa")
    assert "the path is not a regular file" in refused(tmp_path / "m.septa")


def repack(path: Path, change: Callable[[dict[str, Any]], Any], tensors: dict[str, Any] | None = None) -> None:
    header, found = tensor_file.unpack(path.read_bytes(), KIND, path)
    change(header)
    path.write_bytes(tensor_file.pack(KIND, header, {**found, **(tensors or {})}))


SEGMENTING = """
import sys, numpy, torch
from septa.model import Model
with torch.inference_mode(sys.argv[2] == "True"):
    Model.load(sys.argv[1]).segment(numpy.zeros((40, 50), numpy.uint8), device="cpu")
print(*sorted(sys.modules))
"""


def run_python(code: str, *arguments: object) -> list[str]:
    """Run code in a fresh process, and return the names of modules that its last line prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("inference_mode", [False, True])
def test_segmenting_loads_neither_the_compiler_of_pytorch_nor_other_slow_packages(
    saved: Path, inference_mode: bool
) -> None:
    loaded = run_python(SEGMENTING, saved, inference_mode)
    assert "torch.nn" in loaded
    assert not {"torch._dynamo", "sympy", "scipy", "skimage.measure", "numba", "matplotlib"} & set(loaded)


TRAINING_ROOMS = ("septa.data", "septa.quantization", "septa.training")

LOADING = """
import sys, numpy, septa
septa.load(sys.argv[1]).segment(numpy.zeros((40, 50), numpy.uint8), device="cpu")
print(*sorted(sys.modules))
"""

PREDICTING = """
import sys
from septa.cli import main
sys.argv = ["septa", "predict", sys.argv[1], sys.argv[2], "-o", sys.argv[3], "--device", "cpu", *sys.argv[4:]]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(*sorted(sys.modules))
"""


@pytest.mark.parametrize("task", ["semantic", "instances"])
def test_loading_and_segmenting_import_no_room_of_training(task: str, tmp_path: Path) -> None:
    member(INDEX if task == "semantic" else OBJECTS, f"task={task}").save(tmp_path / "m.septa")
    loaded = run_python(LOADING, tmp_path / "m.septa")
    assert "septa.model" in loaded
    assert [name for name in loaded if name.startswith(TRAINING_ROOMS)] == []


@pytest.mark.parametrize(
    ("task", "options"), [("semantic", ("--overlay", "--probabilities")), ("instances", ("--geojson", "--certify"))]
)
def test_the_command_predict_imports_no_room_of_training(task: str, options: tuple[str, ...], tmp_path: Path) -> None:
    member(INDEX if task == "semantic" else OBJECTS, f"task={task}").save(tmp_path / "m.septa")
    write_image(tmp_path / "x.png", noise(1, 30, 41))
    loaded = run_python(PREDICTING, tmp_path / "m.septa", tmp_path / "x.png", tmp_path / "out", *options)
    assert "septa.prediction" in loaded
    assert (tmp_path / "out" / "x.png").is_file()
    assert [name for name in loaded if name.startswith(TRAINING_ROOMS)] == []


def test_a_huge_net_in_the_recipe_is_refused_before_memory_is_taken(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = nn.Module.register_parameter

    def checked(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        assert parameter is None or parameter.is_meta or parameter.numel() < 10_000
        real(self, name, parameter)

    monkeypatch.setattr(nn.Module, "register_parameter", checked)
    with pytest.raises(AssertionError):
        build_net(Recipe(net=NetSettings(depth=2, width=16)), 1, 2)
    repack(saved, lambda header: header["recipe"]["net"].update(width=512, depth=7))  # 13 billion weights
    assert "does not fit" in refused(saved)


def remove(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header.pop(key)


def put(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header.update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        *(remove(key) for key in ("channels", "labels", "normalization", "recipe", "provenance")),
        *(put("channels", value) for value in (0, -1, 2, 10**12, 10**18, 10**30, "x", "1", 1.5, True, None, [1])),
        *(put("recipe", value) for value in (None, 3, [], {"nets": {}}, {"net": {"depth": 99}}, {"net": {"depth": 3}})),
        *(put("labels", value) for value in (None, 3, {}, {"kind": "index"}, [1])),
        *(put("normalization", value) for value in (None, 3, {}, {"kind": "dataset", "offset": [0], "scale": [0]})),
        lambda header: header["labels"].update(class_names=["a", "b"], values=[0, 1]),
        lambda header: header["recipe"]["net"].update(norm="none"),
        lambda header: header["recipe"]["net"].update(up="bilinear"),
        lambda header: header["labels"].update(values=[0, 10**20, 2]),
        *(put("normalization", {"kind": "dataset", "offset": [0.0] * n, "scale": [1.0] * n}) for n in (2, 3)),
        *(put("decoding", value) for value in (None, [], {"foreground": 0.5, "seed": 0.5})),
        *(
            put("decoding", {"foreground": 0.5, "seed": 0.5, "least_pixels": 1, "reach": 0} | change)
            for change in (
                *({"foreground": value} for value in ("0.5", True, 0.0)),
                *({"least_pixels": value} for value in (1.5, True, 0, 10**12)),
                *({"reach": value} for value in (-1, 0.5, None, 10**9)),
            )
        ),
        *(put("provenance", value) for value in (None, [], "x", 3)),
        *(put("provenance", {"sketches": value}) for value in (3, "ab", [["a", 1]], [["a", "?"]], [["a", "AAAA"]])),
        *(put("provenance", {key: value}) for key in ("train", "validation") for value in (3, "ab", [1], [["a", 1]])),
    ],
)
def test_a_header_that_does_not_fit_is_refused(saved: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    repack(saved, change)
    assert "the model does not fit this version of septa" in refused(saved)


def test_infinite_numbers_in_a_sealed_header_are_refused(saved: Path) -> None:
    header, tensors = tensor_file.unpack(saved.read_bytes(), KIND, saved)
    text = json.dumps({**header, "channels": float("inf")})
    seal = tensor_file._compute_checksum(KIND, text, tensor_file.digest_tensors(tensors))
    saved.write_bytes(safetensors.torch.save(tensors, {"kind": KIND, "header": text, "sha256": seal}))
    assert "does not fit" in refused(saved)


def test_weights_that_no_training_writes_are_refused(saved: Path) -> None:
    header, tensors = tensor_file.unpack(saved.read_bytes(), KIND, saved)
    variance = next(name for name in tensors if name.endswith("running_var"))
    for name, value, problem in (
        ("head.bias", float("nan"), "the weight 'head.bias' holds NaN or Inf"),
        ("head.bias", float("-inf"), "the weight 'head.bias' holds NaN or Inf"),
        (variance, -1.0, f"the variance '{variance}' is negative"),
    ):
        changed = {**tensors, name: torch.full_like(tensors[name], value)}
        text = json.dumps(header)
        seal = tensor_file._compute_checksum(KIND, text, tensor_file.digest_tensors(changed))
        saved.write_bytes(safetensors.torch.save(changed, {"kind": KIND, "header": text, "sha256": seal}))
        assert problem in refused(saved)


def test_weights_of_another_dtype_are_refused(saved: Path) -> None:
    repack(saved, lambda _: None, {"head.bias": torch.zeros(3, dtype=torch.float64)})
    assert "the weight 'head.bias' is torch.float64, not torch.float32. Update septa." in refused(saved)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, bad: float) -> None:
    model = make_model()
    model.net.head.weight[0, 0] = bad
    path = tmp_path / "x.septa"
    problem = r"the model is not written, because 'head\.weight' holds NaN or Inf"
    with pytest.raises(ModelError, match=rf"{problem}\. Train with a smaller training\.lr\.$"):
        model.save(path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"before")
    with pytest.raises(ModelError):
        model.save(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_file_holds_no_path_and_opens_as_plain_safetensors(saved: Path) -> None:
    data = saved.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    assert set(metadata) == {"kind", "header", "sha256"}
    assert safetensors.torch.load(data).keys() == make_model().net.state_dict().keys()


# --- segmenting -----------------------------------------------------------------------------------------------------


def test_axes_yx_cyx_and_yxc_mean_the_same_image() -> None:
    model = make_model()
    image = noise(37, 50)
    labels = model.segment(image)
    assert labels.shape == (37, 50)
    assert labels.dtype == np.int32
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(model.segment(image[None]), labels)
    np.testing.assert_array_equal(model.segment(image[..., None]), labels)
    color = make_model(channels=3)
    image = noise(3, 37, 50)
    labels = color.segment(image)
    np.testing.assert_array_equal(color.segment(np.moveaxis(image, 0, -1)), labels)
    assert not np.array_equal(color.segment(image[::-1]), labels)
    np.testing.assert_array_equal(color.segment(image[0]), color.segment(np.stack([image[0]] * 3)))


def test_segment_is_the_net_on_the_normalised_image() -> None:
    model = make_model()
    image = noise(36, 48)
    x = torch.from_numpy((image.astype(np.float32) - 100) / 50)[None, None]
    with torch.inference_mode():
        logits = model.net(x)[0].numpy()
    np.testing.assert_allclose(model.logits(image), logits, atol=1e-4)
    np.testing.assert_allclose(model.probabilities(image), np.exp(logits) / np.exp(logits).sum(0), rtol=1e-3, atol=1e-5)
    sure = np.sort(logits, 0)[-1] - np.sort(logits, 0)[-2] > 1e-3
    np.testing.assert_array_equal(model.segment(image)[sure], logits.argmax(0)[sure])


@pytest.mark.parametrize("kind", ["dataset", "image"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_tile_does_not_change_the_result(kind: str, channels: int) -> None:
    model = make_model(channels, kind)
    image = noise(channels, 117, 95)
    whole = model.logits(image, tile=1000)
    assert len(model.plan(117, 95, 1000)) == 1
    # Exact: tiles promise the values of the whole image, here and in the tests of versions and of valid nets below.
    for tile in (64, 81):
        assert len(model.plan(117, 95, tile)) > 1
        np.testing.assert_array_equal(model.logits(image, tile=tile), whole)
    np.testing.assert_array_equal(model.segment(image, tile=64), model.segment(image))


def test_overlapping_classes_give_bit_fields() -> None:
    model = make_model(classes=3, multilabel=True)
    image = noise(40, 40)
    planes = model.logits(image) > 0
    labels = model.segment(image)
    np.testing.assert_array_equal(labels, planes[0] + 2 * planes[1] + 4 * planes[2])
    assert len(np.unique(labels)) > 2
    chances = model.probabilities(image)
    np.testing.assert_array_equal(chances > 0.5, planes)


def test_files_are_segmented_as_their_arrays(tmp_path: Path) -> None:
    model = make_model()
    image = noise(1, 30, 41)
    path = tmp_path / "x.png"
    write_image(path, image)
    np.testing.assert_array_equal(model.segment(path), model.segment(image))
    np.testing.assert_array_equal(model.segment(str(path)), model.segment(image))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.float32, np.float64, ">f4", ">u2"])
def test_the_dtype_does_not_change_the_result(dtype: Any) -> None:
    model = make_model()
    image = noise(33, 35)
    given = image.astype(dtype)
    given.setflags(write=False)
    np.testing.assert_array_equal(model.segment(given), model.segment(image))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 3), (300, 1)])
def test_any_size_is_segmented(size: tuple[int, int]) -> None:
    labels = make_model().segment(noise(*size), tile=64)
    assert labels.shape == size


def with_value(value: float) -> np.ndarray:
    image = noise(20, 20).astype(np.float32)
    image[3, 4] = value
    return image


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (np.zeros((2, 20, 20), np.uint8), "has shape (2, 20, 20), expected YX, or CYX or YXC with 3 channels"),
        (np.zeros((20, 20, 4), np.uint8), "has shape (20, 20, 4)"),
        (np.zeros((20,), np.uint8), "has shape (20,)"),
        (np.zeros((1, 3, 20, 20), np.uint8), "has shape (1, 3, 20, 20)"),
        (np.zeros((20, 20), complex), "has dtype complex128"),
        (np.full((20, 20), "a"), "has dtype <U1"),
        (np.full((20, 20), None), "has dtype object"),
        (with_value(np.nan), "the image holds NaN or Inf. Replace these pixels."),
        (with_value(-np.inf), "the image holds NaN or Inf. Replace these pixels."),
        (np.zeros((0, 20), np.uint8), "the image has no pixels. Give an image of at least 1 x 1 pixels."),
        (np.zeros((3, 20, 0), np.uint8), "the image has no pixels. Give an image of at least 1 x 1 pixels."),
    ],
)
def test_images_that_do_not_fit_are_refused(image: np.ndarray, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        make_model(channels=3).segment(image)
    text = str(caught.value)
    assert text.startswith("image: ")
    assert problem in text
    assert len(text.splitlines()) == 1


def test_a_file_with_other_channels_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rgb.png"
    write_image(path, noise(3, 20, 20))
    with pytest.raises(
        InputError, match=r"rgb\.png: the image has 3 channels, but the model was trained on 1\. Give images with one"
    ):
        make_model().segment(path)
    with pytest.raises(InputError, match=r"none\.png: "):
        make_model().segment(tmp_path / "none.png")


@pytest.mark.parametrize(("channels", "shape"), [(1, (1, 9, 8)), (1, (3, 9, 8)), (3, (1, 9, 8)), (3, (3, 9, 8))])
def test_a_model_input_has_the_models_channels_and_is_adapted_no_further(
    channels: int, shape: tuple[int, int, int]
) -> None:
    model = make_model(channels)
    image = np.broadcast_to(noise(9, 8), shape)
    adapted = model.as_model_input(image, "image")
    np.testing.assert_array_equal(adapted, np.broadcast_to(image[:1], (channels, 9, 8)))
    assert adapted.dtype == image.dtype
    assert model.as_model_input(adapted, "image") is adapted


@pytest.mark.parametrize(
    ("channels", "fingerprint", "color"),
    [
        (2, {"dtype": "uint8"}, False),
        (3, {}, True),
        (3, {"dtype": "uint8"}, True),
        (3, {"dtype": "uint16"}, False),
        (3, {"dtype": "uint16", "color": True}, True),
        (3, {"dtype": "uint8", "color": False}, False),
    ],
)
def test_one_channel_is_repeated_for_colours_alone(
    channels: int, fingerprint: dict[str, Any], color: bool, tmp_path: Path
) -> None:
    model = make_model(channels).with_provenance(fingerprint=fingerprint)
    assert model.color == color
    notices = Notices()
    if color:
        model.as_model_input(noise(1, 9, 8), "a.png", notices)
        assert notices.lines() == ["note: a.png: the grey image is repeated in red, green and blue."]
        return
    remedy = f"Give images with the {channels} channels of the training images, in the same order"
    write_image(tmp_path / "a.png", noise(1, 9, 8))
    with pytest.raises(InputError, match=rf"a\.png: the image has 1 channel, but .* trained on {channels}\. {remedy}"):
        model.segment(tmp_path / "a.png")


def test_alpha_is_read_as_the_model_expects(tmp_path: Path) -> None:
    rgba = np.moveaxis(noise(4, 40, 50), 0, 2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    with pytest.warns(SeptaWarning, match="the alpha channel is not constant, but it is dropped"):
        labels_yx = make_model(3).segment(tmp_path / "a.png")
    np.testing.assert_array_equal(labels_yx, make_model(3).segment(np.moveaxis(rgba[..., :3], 2, 0)))
    four = make_model(4)
    np.testing.assert_array_equal(four.segment(tmp_path / "a.png"), four.segment(np.moveaxis(rgba, 2, 0)))


def test_a_model_describes_its_input() -> None:
    assert make_model(3).describe_input() == "3 channels"
    assert make_model().with_provenance(fingerprint={"dtype": "uint16"}).describe_input() == "1 channel, uint16"


@pytest.mark.parametrize("call", ["segment", "logits", "probabilities"])
@pytest.mark.parametrize("options", [{}, {"tile": 52, "tta": 2}], ids=["plain", "tiles and versions"])
def test_an_image_is_adapted_once(call: str, options: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    original = Model.as_model_input
    monkeypatch.setattr(Model, "as_model_input", lambda *given: (count.append(1), original(*given))[1])
    getattr(make_model(3), call)(noise(3, 70, 60), **options)
    assert count == [1]


@pytest.mark.parametrize("tile", [-5, 0, 51])
def test_a_tile_without_room_is_refused(tile: int) -> None:
    with pytest.raises(
        InputError,
        match=rf"^--tile: a tile of this net must be at least 52 pixels, got {tile}\. Give --tile 52 or more\.$",
    ):
        make_model().segment(noise(200, 200), tile=tile)


@pytest.mark.parametrize("given", [None, 100])
def test_a_tile_out_of_memory_is_halved_until_it_fits(given: int | None) -> None:
    model = make_model()
    image = noise(117, 95)
    expected = model.logits(image)
    inner = model.engine("cpu", "torch")
    sides: list[int] = []

    def compute(image_cyx: Any) -> Any:
        sides.append(max(image_cyx.shape[1:]))
        if sides[-1] > 60:
            raise MemoryError
        return inner(image_cyx)

    np.testing.assert_array_equal(model.logits(image, tile=given, engine=SingleImageEngine(compute)), expected)
    assert max(sides) > 60 >= max(sides[2:])
    fixed = PredictionOptions(tile=1000, engine=SingleImageEngine(compute), fixed_tile=True)
    for options in (fixed, PredictionOptions(engine=SingleImageEngine(refuse_memory))):
        with pytest.raises(MemoryError):
            model.compute_logits(image[None], options)


def refuse_memory(image_cyx: Any) -> Any:
    raise MemoryError


def test_without_a_tile_wide_nets_get_smaller_ones() -> None:
    narrow = make_model()
    net = build_net(Recipe(net=NetSettings(width=512, depth=1)), 1, 3)
    wide = replace(narrow, net=net)
    assert len(narrow.plan(3000, 3000)) < len(wide.plan(3000, 3000))


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="--device: the device must be auto, cpu, cuda, cuda:N or mps, got gpu"):
        make_model().segment(noise(8, 8), device="gpu")


# --- the family -----------------------------------------------------------------------------------------------------

INDEX = LabelMapping("index", ("c0", "c1", "c2"), (0, 5, 9))
BINARY = LabelMapping("binary", ("background", "cell"), (0, 255))
OBJECTS = LabelMapping("instances", ("background", "object"), (0,))
PLANES = LabelMapping("multilabel", ("a", "b", "c"), ())
SIGMOID = ("net.output=sigmoid", "loss.cross_entropy=0", "loss.bce=1")


def member(labels: LabelMapping, *settings: str) -> Model:
    """Make an untrained model with settings that differ from the defaults."""
    torch.manual_seed(5)
    recipe = Recipe().with_overrides(["net.width=3", "net.depth=2", *settings])
    if labels.kind == "multilabel":
        recipe = recipe.with_overrides(["loss.cross_entropy=0", "loss.bce=1"])
    net = uneven(build_net(recipe, 1, make_task(recipe, labels).outputs))
    return Model(
        net=net, channels=1, labels=labels, normalization=Normalization("dataset", (100.0,), (50.0,)), recipe=recipe
    )


def plain_logits(model: Model, image_yx: np.ndarray) -> np.ndarray:
    """Run only the net on the whole normalised image."""
    with torch.inference_mode():
        return model.net(torch.from_numpy((image_yx.astype(np.float32) - 100) / 50)[None, None])[0].numpy()


def plain_probabilities(model: Model, logits_kyx: np.ndarray) -> np.ndarray:
    """Compute probabilities by their formulas, in float64."""
    wide = logits_kyx.astype(np.float64)
    if model.labels.kind == "multilabel":
        return 1 / (1 + np.exp(-wide))
    if len(wide) == 1:
        wide = np.concatenate([np.zeros_like(wide), wide])
    return np.exp(wide) / np.exp(wide).sum(0)


def assert_same_where_sure(labels_yx: np.ndarray, expected_yx: np.ndarray, probabilities_kyx: np.ndarray) -> None:
    """Check that labels agree wherever rounding cannot decide."""
    ranked = np.sort(probabilities_kyx, axis=0)
    sure_yx = ranked[-1] - ranked[-2] > 1e-4
    assert sure_yx.mean() > 0.8
    np.testing.assert_array_equal(labels_yx[sure_yx], expected_yx[sure_yx])


# --- averaging over symmetries --------------------------------------------------------------------------------------


def averaged(model: Model, image_yx: np.ndarray, versions: int) -> np.ndarray:
    """Average the probabilities over quarter turns, then over those of the mirror image.

    Each pixel is located by its number, which was turned in the same way.
    """
    numbers_yx = np.arange(image_yx.size).reshape(image_yx.shape)
    total: Any = 0
    for index in range(versions):
        turned_yx, places_yx = (np.rot90(a[:, ::-1] if index > 3 else a, index % 4) for a in (image_yx, numbers_yx))
        part_kyx = plain_probabilities(model, plain_logits(model, turned_yx))
        back_kn = np.empty((len(part_kyx), image_yx.size))
        back_kn[:, places_yx.ravel()] = part_kyx.reshape(len(part_kyx), -1)
        total = total + back_kn
    return np.asarray(total / versions).reshape(-1, *image_yx.shape)


@pytest.mark.parametrize("versions", [2, 7, 8])
@pytest.mark.parametrize(
    ("labels", "settings"), [(INDEX, ()), (BINARY, SIGMOID), (PLANES, ())], ids=["softmax", "sigmoid", "multilabel"]
)
def test_tta_is_the_mean_of_probabilities_over_symmetries(
    labels: LabelMapping, settings: tuple[str, ...], versions: int
) -> None:
    model, image_yx = member(labels, *settings), noise(37, 50)
    expected_kyx = averaged(model, image_yx, versions)
    chances_kyx = model.probabilities(image_yx, tta=versions)
    np.testing.assert_allclose(chances_kyx, expected_kyx, atol=1e-5)
    assert np.abs(chances_kyx - model.probabilities(image_yx)).max() > 1e-3
    labels_yx = model.segment(image_yx, tta=versions)
    if labels.kind == "multilabel":
        sure_kyx = np.abs(expected_kyx - 0.5) > 1e-4
        planes_kyx = labels_yx >> np.arange(3)[:, None, None] & 1
        np.testing.assert_array_equal(planes_kyx[sure_kyx], (expected_kyx > 0.5)[sure_kyx])
    else:
        assert_same_where_sure(labels_yx, expected_kyx.argmax(0), expected_kyx)


def test_one_version_is_the_plain_image_and_the_recipe_gives_the_default() -> None:
    plain, asking = member(INDEX), member(INDEX, "inference.tta=3")
    image = noise(37, 50)
    np.testing.assert_array_equal(plain.logits(image, tta=1), plain.logits(image))
    np.testing.assert_array_equal(asking.logits(image, tta=1), plain.logits(image))
    np.testing.assert_array_equal(asking.segment(image, tta=1), plain.segment(image))
    np.testing.assert_array_equal(asking.logits(image), plain.logits(image, tta=3))
    np.testing.assert_array_equal(asking.segment(image), plain.segment(image, tta=3))
    assert not np.array_equal(asking.segment(image), plain.segment(image))


@pytest.mark.parametrize(
    "settings", [(), ("net.padding=valid",), ("task=instances",)], ids=["same", "valid", "objects"]
)
def test_tta_of_tiles_is_that_of_the_whole(settings: tuple[str, ...]) -> None:
    model, image = member(BINARY, *settings), noise(95, 117)
    assert len(model.plan(95, 117, 72)) > 1
    whole = model.logits(image, tile=1000, tta=8)
    np.testing.assert_array_equal(model.logits(image, tile=72, tta=8), whole)
    np.testing.assert_array_equal(model.segment(image, tile=72, tta=8), model.segment(image, tile=1000, tta=8))


@pytest.mark.parametrize("versions", [0, -1, 9])
def test_tta_has_one_to_eight_versions(versions: int) -> None:
    with pytest.raises(
        InputError, match=rf"^--tta: the number of versions must be 1 to 8, got {versions}\. Give --tta 8 for all "
    ):
        make_model().segment(noise(8, 8), tta=versions)


# --- images brought to one size -------------------------------------------------------------------------------------


def test_resized_images_get_labels_of_their_own_size() -> None:
    """Compare with means of 2 x 2 pixels, and logits enlarged by torch's bilinear interpolation."""
    model, image_yx = member(INDEX, "data.resize=[24, 32]"), noise(48, 64)
    small_yx = np.rint(image_yx.reshape(24, 2, 32, 2).astype(np.float64).mean(axis=(1, 3)))
    small = torch.from_numpy(plain_logits(model, small_yx))[None]
    large_kyx = functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)[0].numpy()
    np.testing.assert_allclose(model.logits(image_yx), large_kyx, atol=1e-4)
    labels_yx = model.segment(image_yx)
    assert labels_yx.shape == (48, 64)
    assert_same_where_sure(labels_yx, large_kyx.argmax(0), plain_probabilities(model, large_kyx))
    assert not np.array_equal(labels_yx, replace(model, recipe=member(INDEX).recipe).segment(image_yx))


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (24, 32), (101, 33)])
def test_any_size_is_resized_and_tiles_are_of_the_net_s_size(size: tuple[int, int]) -> None:
    model, image = member(INDEX, "data.resize=[24, 32]"), noise(*size)
    assert model.segment(image).shape == size
    assert model.probabilities(image, tta=2).shape == (3, *size)
    covered = sum((t.y.core[1] - t.y.core[0]) * (t.x.core[1] - t.x.core[0]) for t in model.plan(*size))
    assert covered == 24 * 32
    if size == (24, 32):
        np.testing.assert_array_equal(model.logits(image), member(INDEX).logits(image))


# --- one sigmoid output ---------------------------------------------------------------------------------------------


def test_one_sigmoid_output_is_two_classes(tmp_path: Path) -> None:
    model, image_yx = member(BINARY, *SIGMOID), noise(36, 48)
    logits_kyx = plain_logits(model, image_yx)
    assert logits_kyx.shape == (1, 36, 48)
    np.testing.assert_allclose(model.logits(image_yx), logits_kyx, atol=1e-4)
    chances_kyx = model.probabilities(image_yx)
    np.testing.assert_allclose(chances_kyx, plain_probabilities(model, logits_kyx), atol=1e-5)
    labels_yx = model.segment(image_yx)
    assert_same_where_sure(labels_yx, (logits_kyx[0] > 0).astype(int), chances_kyx)
    assert set(np.unique(model.as_written(labels_yx))) == {0, 255}
    model.save(tmp_path / "m.septa")
    loaded = Model.load(tmp_path / "m.septa")
    assert loaded.task == Semantic(2, sigmoid=True)
    np.testing.assert_array_equal(loaded.segment(image_yx, tile=52), labels_yx)


# --- objects --------------------------------------------------------------------------------------------------------


def regions(foreground_yx: np.ndarray) -> np.ndarray:
    """Label 4-connected regions; a hole that one of them surrounds belongs to it."""
    ids_yx, _ = scipy.ndimage.label(foreground_yx)
    holes_yx, count = scipy.ndimage.label(ids_yx == 0)
    at_edges = np.unique(np.concatenate([holes_yx[[0, -1]].ravel(), holes_yx[:, [0, -1]].ravel()]))
    for number in set(range(1, count + 1)) - set(at_edges.tolist()):
        hole_yx = holes_yx == number
        around = np.unique(ids_yx[scipy.ndimage.binary_dilation(hole_yx) & ~hole_yx])
        if len(around) == 1:
            ids_yx[hole_yx] = around[0]
    return np.asarray(ids_yx)


@pytest.mark.parametrize("settings", [(), SIGMOID], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("labels", [OBJECTS, BINARY], ids=["instances", "binary"])
def test_instances_are_the_regions_of_the_foreground(
    labels: LabelMapping, settings: tuple[str, ...], tmp_path: Path
) -> None:
    model, image_yx = member(labels, "task=instances", *settings), noise(61, 75)
    ids_yx = model.segment(image_yx)
    regions_yx = regions(model.probabilities(image_yx)[1] > 0.5)
    assert regions_yx.max() > 3
    assert ids_yx.dtype == np.int32
    assert set(np.unique(ids_yx)) == set(range(regions_yx.max() + 1))
    pairs = set(zip(regions_yx.ravel().tolist(), ids_yx.ravel().tolist()))
    assert len(pairs) == regions_yx.max() + 1  # one region, one id
    assert (0, 0) in pairs
    np.testing.assert_array_equal(model.segment(image_yx, tile=52), ids_yx)
    model.save(tmp_path / "m.septa")
    loaded = Model.load(tmp_path / "m.septa")
    assert loaded.task == Instances(sigmoid=bool(settings))
    np.testing.assert_array_equal(loaded.segment(image_yx), ids_yx)


@pytest.mark.parametrize(
    ("largest", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65_535, np.uint16), (65_536, np.uint32)]
)
def test_object_ids_are_written_as_they_are(largest: int, dtype: Any) -> None:
    ids_yx = np.array([[0, largest // 2, largest]], np.int32)
    for labels in (OBJECTS, BINARY):
        written = member(labels, "task=instances").as_written(ids_yx)
        assert written.dtype == dtype
        np.testing.assert_array_equal(written, ids_yx)


# --- convolutions without padding -----------------------------------------------------------------------------------


def mirrored_logits(model: Model, image_yx: np.ndarray) -> np.ndarray:
    """Run the net on the image with a mirrored margin, and crop the output to the size of the image."""
    margin, sides = model.net.margin, []
    for size in image_yx.shape:
        full = next(side for side in range(size + 2 * margin, 10**4) if model.net.valid_size(side) == side)
        sides.append((margin, full - size - margin))
    logits_kyx = plain_logits(model, np.pad(image_yx, sides, mode="reflect"))
    return logits_kyx[:, : image_yx.shape[0], : image_yx.shape[1]]


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (2, 3), (7, 5), (47, 61), (120, 95)])
@pytest.mark.parametrize("settings", [("net.norm=none",), ("net.up=bilinear",)], ids=["paper", "bilinear"])
def test_a_valid_net_sees_the_image_mirrored_around(settings: tuple[str, ...], size: tuple[int, int]) -> None:
    model, image_yx = member(INDEX, "net.padding=valid", *settings), noise(*size)
    expected_kyx = mirrored_logits(model, image_yx)
    np.testing.assert_allclose(model.logits(image_yx), expected_kyx, atol=1e-4)
    labels_yx = model.segment(image_yx)
    assert labels_yx.shape == size
    if min(size) > 40:
        assert_same_where_sure(labels_yx, expected_kyx.argmax(0), plain_probabilities(model, expected_kyx))


@pytest.mark.parametrize("settings", [("net.norm=none",), ("net.attention=true",), ("net.nested=true",)])
def test_tiles_of_a_valid_net_do_not_change_the_result(settings: tuple[str, ...]) -> None:
    model, image = member(INDEX, "net.padding=valid", *settings), noise(117, 95)
    whole = model.logits(image, tile=1000)
    assert len(model.plan(117, 95, 1000)) == 1
    for tile in (68, 93):
        assert len(model.plan(117, 95, tile)) > 1
        np.testing.assert_array_equal(model.logits(image, tile=tile), whole)
    np.testing.assert_array_equal(model.segment(image, tile=68), model.segment(image))
    with pytest.raises(
        InputError,
        match=r"^--tile: a tile of this net must be at least \d+ pixels, got 20\. Give --tile \d+ or more\.$",
    ):
        model.segment(image, tile=20)


# --- pruning --------------------------------------------------------------------------------------------------------

SUPERVISED = ("net.nested=true", "net.deep_supervision=true", "net.depth=3")


def head_logits(model: Model, image_yx: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of all heads, shallowest first, of a training-mode pass with norms in evaluation mode."""
    model.net.train()
    for module in model.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = torch.from_numpy((image_yx.astype(np.float32) - 100) / 50)[None, None]
    with torch.inference_mode():
        heads = [logits[0].numpy() for logits in model.net(x)]
    model.net.eval()
    return heads[::-1]


@pytest.mark.parametrize("more", [(), ("net.attention=true",), ("net.aspp=true",)], ids=["plain", "gated", "pyramid"])
def test_a_pruned_model_is_a_head_of_the_whole(more: tuple[str, ...], tmp_path: Path) -> None:
    model, image_yx = member(INDEX, *SUPERVISED, *more), noise(48, 56)
    heads = head_logits(model, image_yx)
    assert len(heads) == 3
    np.testing.assert_allclose(model.logits(image_yx), np.mean(heads, axis=0), atol=1e-4)
    for depth, expected_kyx in enumerate(heads, 1):
        small = model.prune(depth)
        assert small.net.depth == small.recipe.net.depth == depth
        np.testing.assert_allclose(small.logits(image_yx), expected_kyx, atol=1e-4)
        small.save(tmp_path / "small.septa")
        loaded = Model.load(tmp_path / "small.septa")
        np.testing.assert_array_equal(loaded.logits(image_yx), small.logits(image_yx))
    assert model.prune(1).net.halo < model.net.halo
    assert model.recipe.net.depth == 3
    np.testing.assert_allclose(model.logits(image_yx), np.mean(heads, axis=0), atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [(), SUPERVISED[:1], SUPERVISED[1:2], (*SUPERVISED, "net.encoder=resnet18")],
    ids=["plain", "nested", "supervised", "resnet"],
)
def test_other_nets_cannot_be_pruned(settings: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"^--prune 1: only a net with nested=true, deep_supervision=true") as caught:
        member(INDEX, *settings).prune(1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [0, 4])
def test_depths_that_are_not_there_are_no_pruning(depth: int) -> None:
    with pytest.raises(InputError, match=rf"^--prune {depth}: depth must be 1 to 3, got {depth}"):
        member(INDEX, *SUPERVISED).prune(depth)


# --- settings that exclude each other -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["net.padding=valid", "net.aspp=true"], ["padding=valid", "aspp=true"]),
        (["net.padding=valid", "net.reduction=2"], ["padding=valid", "reduction=2"]),
        (["net.padding=valid", "net.encoder=resnet18"], ["padding=valid", "encoder=resnet18"]),
    ],
)
def test_nets_that_cannot_be_built_are_recipe_errors(settings: list[str], named: list[str]) -> None:
    recipe = Recipe().with_overrides(["net.width=2", *settings])
    with pytest.raises(RecipeError) as caught:
        build_net(recipe, 1, 2)
    assert_one_line(caught.value, named)


def assert_one_line(error: RecipeError, named: list[str]) -> None:
    text = str(error)
    assert text.startswith("recipe: ")
    assert len(text.splitlines()) == 1
    assert error.exit_code == 2
    for part in named:
        assert part in text


# --- files of the family --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        ["net.block=residual", "net.attention=true"],
        ["net.nested=true", "net.deep_supervision=true"],
        ["net.deep_supervision=true", "net.dropout=0.5"],
        ["net.aspp=true", "net.norm=group"],
        ["net.squeeze=true", "net.reduction=2"],
        ["net.padding=valid", "net.norm=none"],
        ["net.encoder=resnet18", "net.width=4", "net.depth=5"],
    ],
    ids=" ".join,
)
def test_members_of_the_family_are_loaded_as_they_were(settings: list[str], tmp_path: Path) -> None:
    model, image = member(INDEX, *settings), noise(40, 33)
    model.save(tmp_path / "m.septa")
    loaded = Model.load(tmp_path / "m.septa")
    before, after = model.net.state_dict(), loaded.net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.recipe == model.recipe
    assert loaded.weights_sha256 == model.weights_sha256
    np.testing.assert_array_equal(loaded.logits(image), model.logits(image))
    model.save(tmp_path / "m.septa", half=True)
    np.testing.assert_array_equal(Model.load(tmp_path / "m.septa").logits(image), model.round_to_half().logits(image))
    other = loaded.recipe.model_dump(mode="json")
    other["net"]["width"] += 1
    repack(tmp_path / "m.septa", lambda header: header.update(recipe=other))
    assert "does not fit this version of septa" in refused(tmp_path / "m.septa")


# --- ensembles ------------------------------------------------------------------------------------------------------


def make_ensemble(**settings: Any) -> Model:
    """Make a model of three nets with different weights and norm statistics."""
    model = replace(
        make_model(), recipe=make_model().recipe.with_overrides(f"net.{k}={v}" for k, v in settings.items())
    )
    return replace(model, net=Ensemble([uneven(build_net(model.recipe, 1, 3)) for _ in range(3)]))


def list_alone(ensemble: Model) -> list[Model]:
    """Return each net of an ensemble as a model."""
    return [replace(ensemble, net=net) for net in list_members(ensemble.net)]


@pytest.mark.parametrize("settings", [{}, {"padding": "valid", "norm": "none"}, {"up": "bilinear", "reduction": 2}])
def test_tiles_of_an_ensemble_are_exact(settings: dict[str, Any]) -> None:
    model, image = make_ensemble(**settings), noise(1, 180, 161)
    whole = model.logits(image, tile=1000)
    expected = np.mean([member.probabilities(image, tile=1000) for member in list_alone(model)], axis=0)
    np.testing.assert_allclose(model.probabilities(image, tile=1000), expected, atol=2e-6)
    least = smallest_tile_for(model.net)
    assert least < 161
    np.testing.assert_array_equal(model.logits(image, tile=least), whole)
    np.testing.assert_array_equal(model.segment(image, tile=1000), whole.argmax(axis=0))


def test_versions_of_an_ensemble_are_averaged_too() -> None:
    model, image = make_ensemble(), noise(1, 61, 47)
    expected = np.mean([member.probabilities(image, tta=4) for member in list_alone(model)], axis=0)
    np.testing.assert_allclose(model.probabilities(image, tta=4), expected, atol=2e-6)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_other_engines_run_an_ensemble(engine: str) -> None:
    pytest.importorskip(engine)
    pytest.importorskip("onnx")
    model, image = make_ensemble(), noise(1, 61, 47)
    usual = model.probabilities(image)
    np.testing.assert_allclose(model.probabilities(image, engine=engine), usual, atol=1e-4)
    assert np.abs(list_alone(model)[0].probabilities(image) - usual).max() > 0.05


def test_one_file_holds_an_ensemble(tmp_path: Path) -> None:
    model, image = make_ensemble(), noise(1, 61, 47)
    model.save(tmp_path / "three.septa")
    make_model().save(tmp_path / "one.septa")
    size, one = ((tmp_path / name).stat().st_size for name in ("three.septa", "one.septa"))
    assert 2.5 * one < size < 3.5 * one
    loaded = Model.load(tmp_path / "three.septa")
    assert (loaded.members, loaded.describe_members()) == (3, "3 nets, 3 times the time of one")
    assert (make_model().members, make_model().describe_members()) == (1, "")
    assert loaded.weights_sha256 == model.weights_sha256
    np.testing.assert_array_equal(loaded.logits(image), model.logits(image))


def test_a_version_without_ensembles_refuses_them_in_one_line(tmp_path: Path) -> None:
    """It knows no number of members, and looks for the weights of a single net."""
    path = tmp_path / "three.septa"
    make_ensemble().save(path)
    repack(path, lambda header: header.pop("members"))
    line = refused(path)
    assert "does not fit this version of septa: the weight '" in line
    assert line.endswith("is missing. Update septa.")


@pytest.mark.parametrize("members", [0, 2, 4, 101, 10**9, True, "3", 3.0])
def test_a_wrong_number_of_members_is_refused(tmp_path: Path, members: object) -> None:
    path = tmp_path / "three.septa"
    make_ensemble().save(path)
    repack(path, lambda header: header.update(members=members))
    assert "Update septa" in refused(path)
