from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from septa import sealed
from septa.data.labels import LabelMapping
from septa.errors import InputError, ModelError
from septa.images.normalize import Normalization
from septa.images.write import write_image
from septa.model import KIND, Model, build_net
from septa.recipe import Net, Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def make_model(channels: int = 1, kind: str = "dataset", classes: int = 3, multilabel: bool = False) -> Model:
    """A small model whose norms have statistics of their own and whose labels vary over an image."""
    torch.manual_seed(11)
    recipe = Recipe(net=Net(depth=2, width=4))
    net = build_net(recipe, channels, classes).eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    names = tuple(f"c{k}" for k in range(classes))
    labels = LabelMapping("multilabel", names, ()) if multilabel else LabelMapping("index", names, (0, 5, 9), 255)
    constants = ((100.0,) * channels, (50.0,) * channels) if kind == "dataset" else ((), ())
    return Model(net, channels, labels, Normalization(kind, *constants), recipe, {"scores": {"dice": 0.5}})  # type: ignore[arg-type]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Uneven noise 0..255 in the last two axes, uint8."""
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
        sealed.pack("septa checkpoint 1", {}, {}),
    ]
    for content in contents:
        path.write_bytes(content)
        assert "is no septa model" in refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "cannot be read (no such file" in refused(tmp_path / "none.septa")
    assert "cannot be read (is a directory" in refused(tmp_path)


def repack(path: Path, change: Callable[[dict[str, Any]], Any], tensors: dict[str, Any] | None = None) -> None:
    header, found = sealed.unpack(path.read_bytes(), KIND, path)
    change(header)
    path.write_bytes(sealed.pack(KIND, header, {**found, **(tensors or {})}))


def test_a_huge_net_in_the_recipe_is_refused_before_memory_is_taken(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = nn.Module.register_parameter

    def checked(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        assert parameter is None or parameter.is_meta or parameter.numel() < 10_000
        real(self, name, parameter)

    monkeypatch.setattr(nn.Module, "register_parameter", checked)
    with pytest.raises(AssertionError):
        build_net(Recipe(net=Net(depth=2, width=16)), 1, 2)
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
        *(put("channels", value) for value in (0, -1, 2, 10**12, 10**18, 10**30, "x", None, [1])),
        *(put("recipe", value) for value in (None, 3, [], {"nets": {}}, {"net": {"depth": 99}}, {"net": {"depth": 3}})),
        *(put("labels", value) for value in (None, 3, {}, {"kind": "index"}, [1])),
        *(put("normalization", value) for value in (None, 3, {}, {"kind": "dataset", "offset": [0], "scale": [0]})),
        lambda header: header["labels"].update(class_names=["a", "b"], values=[0, 1]),
        lambda header: header["recipe"]["net"].update(norm="none"),
        lambda header: header["recipe"]["net"].update(up="bilinear"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(saved: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    repack(saved, change)
    assert "does not fit this version of septa" in refused(saved)


def test_infinite_numbers_in_a_sealed_header_are_refused(saved: Path) -> None:
    header, tensors = sealed.unpack(saved.read_bytes(), KIND, saved)
    text = json.dumps({**header, "channels": float("inf")})
    seal = sealed._seal(KIND, text, sealed.digest(tensors))
    saved.write_bytes(safetensors.torch.save(tensors, {"kind": KIND, "header": text, "sha256": seal}))
    assert "does not fit" in refused(saved)


def test_weights_of_another_dtype_are_refused(saved: Path) -> None:
    repack(saved, lambda _: None, {"head.bias": torch.zeros(3, dtype=torch.float64)})
    assert "'head.bias' is torch.float64, not torch.float32" in refused(saved)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, bad: float) -> None:
    model = make_model()
    model.net.head.weight[0, 0] = bad
    path = tmp_path / "x.septa"
    with pytest.raises(ModelError, match=r"'head\.weight' holds NaN or Inf"):
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
    ("image", "told"),
    [
        (np.zeros((2, 20, 20), np.uint8), "has shape (2, 20, 20), expected YX, or CYX or YXC with 3 channels"),
        (np.zeros((20, 20, 4), np.uint8), "has shape (20, 20, 4)"),
        (np.zeros((20,), np.uint8), "has shape (20,)"),
        (np.zeros((1, 3, 20, 20), np.uint8), "has shape (1, 3, 20, 20)"),
        (np.zeros((20, 20), complex), "has dtype complex128"),
        (np.full((20, 20), "a"), "has dtype <U1"),
        (np.full((20, 20), None), "has dtype object"),
        (with_value(np.nan), "holds NaN or Inf"),
        (with_value(-np.inf), "holds NaN or Inf"),
        (np.zeros((0, 20), np.uint8), "has no pixels"),
        (np.zeros((3, 20, 0), np.uint8), "has no pixels"),
    ],
)
def test_images_that_do_not_fit_are_refused(image: np.ndarray, told: str) -> None:
    with pytest.raises(InputError) as caught:
        make_model(channels=3).segment(image)
    text = str(caught.value)
    assert text.startswith("image: ")
    assert told in text
    assert len(text.splitlines()) == 1


def test_a_file_with_other_channels_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rgb.png"
    write_image(path, noise(3, 20, 20))
    with pytest.raises(InputError, match=r"rgb\.png: has 3 channels, the model was trained on 1\."):
        make_model().segment(path)
    with pytest.raises(InputError, match=r"none\.png: "):
        make_model().segment(tmp_path / "none.png")


@pytest.mark.parametrize("tile", [-5, 0, 51])
def test_a_tile_without_room_is_refused(tile: int) -> None:
    with pytest.raises(InputError, match=rf"--tile {tile}: is less than .* halo needs \(24 pixels .* at least 52\."):
        make_model().segment(noise(200, 200), tile=tile)


def test_without_a_tile_wide_nets_get_smaller_ones() -> None:
    narrow = make_model()
    net = build_net(Recipe(net=Net(width=512, depth=1)), 1, 3)
    wide = replace(narrow, net=net)
    assert len(narrow.plan(3000, 3000)) < len(wide.plan(3000, 3000))


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="--device gpu: is no device"):
        make_model().segment(noise(8, 8), device="gpu")
