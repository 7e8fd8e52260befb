"""Test kit: small models with random weights, images of several blocks, and the command run in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from septa import cli
from septa.images.normalize import Normalization
from septa.labels.mapping import LabelMapping
from septa.model import Model, build_net
from septa.recipe import Recipe
from septa.streaming import StreamFinished, StreamRequest, budget, plan, stream
from septa.tasks.decoding import Decoding
from septa.tasks.instances import Instances
from septa.tasks.make import make_task

Array = NDArray[Any]

LABELS = {
    "softmax": LabelMapping("index", ("background", "nerve", "muscle"), (0, 7, 300)),
    "sigmoid": LabelMapping("binary", ("background", "foreground"), (0, 255)),
    "multilabel": LabelMapping("multilabel", ("a", "b", "c"), ()),
    "walls": LabelMapping("binary", ("membrane", "interior"), (0, 255)),
    "instances": LabelMapping("instances", ("background", "object"), (0,)),
    "classes": LabelMapping("instances", ("background", "round", "long"), (0, 3, 200)),
}
ENCODINGS = ("seam", "border", "distance")


def texture(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> Array:
    """Draw an image of blobs of several sizes, which uses most of the range of its type."""
    rng = np.random.default_rng(seed)
    still = (0,) * (len(shape) - 2)
    noise = (rng.normal(size=shape) for _ in range(3))
    parts = (ndimage.gaussian_filter(part, (*still, s, s), mode="wrap") * s for part, s in zip(noise, (0.7, 2, 5)))
    image: Array = np.sum(list(parts), axis=0)
    image = (image - image.min()) / (np.ptp(image) or 1)
    if np.dtype(dtype).kind == "f":
        return np.asarray(4 * image - 1, dtype)
    return np.asarray((image * np.iinfo(dtype).max * 0.9).astype(dtype))


@cache
def make(
    kind: str, padding: str = "same", channels: int = 1, per_image: bool = False, dtype: str = "uint16", seed: int = 0
) -> Model:
    """Make a model with random weights. Its batch statistics, biases and thresholds are set so that its outputs vary.

    ``kind`` is an encoding of instances or one of `LABELS`; ``classes`` are objects with classes.
    Models are shared between tests.
    """
    torch.manual_seed(seed)
    instances = kind in (*ENCODINGS, "classes")
    bce = kind in ("sigmoid", "multilabel")
    recipe = Recipe.parse(
        {
            "task": "instances" if instances else "semantic",
            "net": {
                "depth": 2,
                "width": 4,
                "padding": padding,
                "output": "sigmoid" if kind == "sigmoid" else "softmax",
            },
            "loss": {"cross_entropy": 0 if bce else 1, "bce": 1 if bce else 0},
            "semantic": {"walls": kind == "walls"},
            **({"instances": {"encoding": kind if kind in ENCODINGS else "border"}} if instances else {}),
        }
    )
    labels = LABELS["instances" if kind in ENCODINGS else kind]
    net = build_net(recipe, channels, make_task(recipe, labels).outputs)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = None
    sample_cyx = texture((channels, 132, 132), dtype, seed + 1)
    rule = Normalization("image")
    constants = rule.resolve(sample_cyx)
    seen = torch.from_numpy(constants.apply(sample_cyx))[None]
    bias = net.head.bias
    assert bias is not None
    with torch.no_grad():
        net.train()(seen)
        logits = net.eval()(seen)[0].flatten(1)
        net.head.weight.mul_(2 / logits.std())
        bias.mul_(2 / logits.std())
        logits = net(seen)[0].flatten(1)
        bias.sub_(logits.median(dim=1).values)
    net.requires_grad_(False)
    model = Model(
        net=net, channels=channels, labels=labels, normalization=rule if per_image else constants, recipe=recipe
    )
    if kind == "walls":
        low, high = np.quantile(model.probabilities(sample_cyx)[1], (0.4, 0.6))
        return replace(model, decoding=Decoding(float(low), float(high), reach=2))
    if not instances:
        return model
    task = model.task
    assert isinstance(task, Instances)
    foreground_yx, inner_yx = task.compute_maps(model.logits(sample_cyx))
    foreground = float(np.quantile(foreground_yx, 0.6))
    seed_value = float(np.quantile(inner_yx, 0.75))
    return replace(model, decoding=Decoding(foreground, seed_value, least_pixels=4))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Use blocks of 64 pixels, so that small images have many blocks, and do not flush files to disk."""
    set_blocks(monkeypatch, 64, 32)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def set_blocks(monkeypatch: pytest.MonkeyPatch, block: int, chunk: int) -> None:
    """Set the sides of blocks and chunks in new plans."""
    monkeypatch.setattr(budget, "BLOCKS", (block,))
    monkeypatch.setattr(budget, "CHUNK", chunk)
    monkeypatch.setattr(plan, "CHUNK", chunk)


def write_image(
    path: Path,
    image: Array,
    axes: str,
    pixel: float | None = 0.5,
    origin: float = 0.0,
    levels: int = 1,
    chunk: int = 50,
) -> Path:
    """Write an OME-Zarr image whose chunks do not divide blocks; levels are subsampled."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    unit = {} if pixel is None else {"unit": "micrometer"}
    kinds = {"T": "time", "C": "channel"}
    datasets: list[Any] = []
    for level in range(levels):
        part = image[..., :: 2**level, :: 2**level]
        group.create_array(
            str(level), shape=part.shape, dtype=part.dtype, chunks=(1,) * (part.ndim - 2) + (chunk, chunk)
        )[...] = part
        scale = [*(1.0 for _ in axes[:-2]), *(((pixel or 1) * 2**level,) * 2)]
        moves: list[Any] = [{"type": "scale", "scale": scale}]
        if origin:
            moves.append({"type": "translation", "translation": [0.0] * (len(axes) - 2) + [origin, origin]})
        datasets.append({"path": str(level), "coordinateTransformations": moves})
    named = [{"name": a.lower(), "type": kinds.get(a, "space"), **(unit if a in "YX" else {})} for a in axes]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}
    return path


def run(request: StreamRequest) -> StreamFinished:
    """Run a request to its end and return the last event."""
    *_, last = stream(request)
    assert isinstance(last, StreamFinished)
    return last


def read(path: Path, name: str | None = None, level: int = 0) -> Array:
    """Read a label image of a store with zarr; the probabilities if no name is given."""
    array = zarr.open_array(path / (f"labels/{name}/{level}" if name else str(level)), mode="r")
    return np.asarray(array[...])


def assert_same_objects(found_yx: Array, expected_yx: Array) -> None:
    """Assert that two label images hold the same objects; both number them 1..n, in any order."""
    pairs = np.unique(np.stack([found_yx.ravel().astype(np.int64), expected_yx.ravel()]), axis=1)
    assert ((pairs[0] == 0) == (pairs[1] == 0)).all()
    count = int(expected_yx.max(initial=0))
    assert pairs.shape[1] == count + int((expected_yx == 0).any())
    for part in pairs:
        assert np.unique(part).size == part.size
    assert found_yx.max(initial=0) == count


def files(path: Path) -> dict[str, bytes]:
    """Return the contents of all files in a folder, or of one file."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Return the functions of this file."""
    return SimpleNamespace(
        texture=texture,
        make=make,
        set_blocks=set_blocks,
        write_image=write_image,
        run=run,
        read=read,
        files=files,
        assert_same_objects=assert_same_objects,
    )


@pytest.fixture
def septa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command line: exit code, stdout, and stderr without ``error: ``."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["septa", "--no-prepare", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        code = int(ended.value.code or 0)
        assert not code or err.startswith("error: "), err
        return code, out, err.removeprefix("error: ")

    return call
