"""The real command in a process of its own, tiny data, and tiny models for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import skimage.draw

from septa.images.write import write_image, write_labels

from ..forks import ForkServer

Run = Callable[..., subprocess.CompletedProcess[str]]
Fault = Callable[..., str]

TINY = ["net.width=4", "net.depth=2", "training.steps=15", "training.batch=4", "training.validations=2"]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a very small training."""
    settings = [*TINY, "sampling.patch=[64, 64]", "training.amp=off"]
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture(scope="session")
def septa(fork_server: ForkServer) -> Run:
    """Return a function ``septa(*arguments, code=0)`` that runs the command and checks its exit code.

    It also checks that no traceback is printed. ``shipping`` is a folder of models that septa then ships. With ``env``
    the command starts as a user's does, since Python reads some of these variables when it starts.
    """

    def run(
        *arguments: object,
        code: int = 0,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        shipping: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        done = fork_server.run(words, folder=cwd, shipping=shipping) if env is None else start(words, cwd, env)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


def start(words: list[str], cwd: Path | None, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "septa", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **env},
        timeout=300,
    )


@pytest.fixture(scope="session")
def fault(septa: Run) -> Fault:
    """Return a function ``fault(*arguments, code=2)`` that runs a failing command.

    It returns the one line on stderr without ``error: ``.
    """

    def run(*arguments: object, code: int = 2, cwd: Path | None = None, shipping: Path | None = None) -> str:
        line = septa(*arguments, code=code, cwd=cwd, shipping=shipping).stderr
        assert line.endswith(".\n"), line
        assert line.count("\n") == 1, line
        assert line.startswith("error: "), line
        line = line.removeprefix("error: ")
        problem, _, remedy = line.strip().partition(". ")
        assert problem, line
        assert remedy, f"no remedy in: {line}"
        return line.strip()

    return run


@pytest.fixture(scope="session")
def model(cells: Path, septa: Run, tiny: list[str]) -> Path:
    """Train a model on `cells` for 15 steps, which separates objects. Not to be changed."""
    path = cells.parent / "tiny.septa"
    septa("train", cells, "-o", path, *tiny)
    return path


@pytest.fixture(scope="session")
def pixel_model(cells: Path, septa: Run, tiny: list[str]) -> Path:
    """Train a model of foreground and background, otherwise as `model`. Not to be changed."""
    path = cells.parent / "pixels.septa"
    septa("train", cells, "-o", path, "--task", "semantic", *tiny)
    return path


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with an image, two folders of label images, and two untrained models.

    The models are ``plain.septa`` and the U-Net++ ``nested.septa``. Not to be changed.
    """
    import torch

    from septa.images.normalize import Normalization
    from septa.labels.mapping import LabelMapping
    from septa.model import Model, build_net
    from septa.recipe import Recipe

    folder = tmp_path_factory.mktemp("variants")
    labels = LabelMapping("binary", ("background", "cell"), (0, 255))
    for name, settings in (("plain", []), ("nested", ["nested=true", "deep_supervision=true"])):
        torch.manual_seed(0)
        recipe = Recipe().with_overrides(["width=2", "depth=2", *settings])
        net = build_net(recipe, 1, 2).eval()
        normalization = Normalization("dataset", (100.0,), (50.0,))
        Model(
            net=net, channels=1, labels=labels, normalization=normalization, recipe=recipe, provenance={"train": []}
        ).save(folder / f"{name}.septa")
    write_image(folder / "x.png", np.full((1, 30, 40), 7, np.uint8))
    for name in ("found", "true"):
        write_labels(folder / name / "x.png", np.eye(30, 40, dtype=np.uint8))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write six 8-bit images with labels {0, 255}, which tests may spoil.

    The files are ``images/a.png`` to ``images/f.png``, and the same names in ``labels``.
    """
    for number, name in enumerate("abcdef"):
        image_yx, labels_yx = blob(number)
        write_image(tmp_path / "data" / "images" / f"{name}.png", image_yx[None])
        write_labels(tmp_path / "data" / "labels" / f"{name}.png", labels_yx)
    return tmp_path / "data"


def blob(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy image of one ellipse, and its labels."""
    rng = np.random.default_rng(number)
    labels_yx = np.zeros((48, 56), np.uint8)
    labels_yx[skimage.draw.ellipse(*rng.uniform(20, 28, 2), *rng.uniform(8, 15, 2), shape=labels_yx.shape)] = 255
    image_yx = rng.normal(60, 12, labels_yx.shape) + 0.4 * labels_yx
    return image_yx.clip(0, 255).astype(np.uint8), labels_yx


@pytest.fixture
def copied(cells: Path, tmp_path: Path) -> Path:
    """Copy `cells`; tests may spoil the copy."""
    return Path(shutil.copytree(cells, tmp_path / "cells"))
