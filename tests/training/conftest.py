"""Fixtures: a tiny dataset, trainings on it in this process, and the command line in this or another process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch

from septa import cli
from septa.data.folder import find_pairs, read_pair_labels
from septa.data.samples import Examples, Sampler
from septa.images.normalize import Normalization
from septa.images.write import write_image, write_labels
from septa.labels.detect import find_mapping
from septa.model import build_net
from septa.recipe import DataSettings, Recipe
from septa.tasks.make import make_task
from septa.tasks.task import Task
from septa.training.checkpoint import Checkpoints
from septa.training.job import TrainingJob
from septa.training.loop import run_training_loop
from septa.training.state import TrainingState

TINY = (
    "net.width=4",
    "net.depth=2",
    "sampling.patch=[32, 32]",
    "training.steps=20",
    "training.batch=2",
    "training.validations=4",
    "training.checkpoint_every=4",
    "training.amp=off",
    "training.workers=1",
)
TIMED = {"minutes", "images_per_s", "data_wait"}
"""Columns of the history that depend on the clock."""


def draw(seed: int, size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Draw bright discs on a noisy background: an image, uint8 ``CYX``, and its labels, {0, 1} ``YX``."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    labels_yx = np.zeros(size, np.uint8)
    for _ in range(4):
        (cy, cx), radius = rng.uniform(0, size[0], 2), rng.uniform(4, 11)
        labels_yx[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = 1
    image_yx = rng.normal(60, 15, size) + 70 * labels_yx
    return image_yx.clip(0, 255).astype(np.uint8)[None], labels_yx


def write_tiny(folder: Path, count: int = 8) -> Path:
    for index in range(count):
        image_cyx, labels_yx = draw(index)
        write_image(folder / "images" / f"im{index}.png", image_cyx)
        write_labels(folder / "labels" / f"im{index}.png", labels_yx)
    return folder


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Killed(Exception):
    """Sudden end of a training in this process."""


class DyingSampler(Sampler):
    """Sampler that ends the training when sample ``limit`` is requested."""

    limit = 0

    def batch(self, number: int, size: int) -> Any:
        if number >= self.limit:
            raise Killed
        return super().batch(number, size)


class Bench:
    """Trainings by `run_training_loop` in this process, without the workflow around it."""

    def __init__(
        self,
        data: Path,
        *overrides: str,
        recipe: Recipe | None = None,
        encoding: Literal["index", "instances"] = "index",
    ) -> None:
        self.recipe = recipe or Recipe().with_overrides((*TINY, *overrides))
        self.pairs = find_pairs(data).pairs
        raws = ((pair.name, read_pair_labels(pair)) for pair in self.pairs)
        self.mapping = find_mapping(raws, DataSettings(encoding=encoding))
        self.normalization = Normalization("dataset", (70.0,), (30.0,))

    @property
    def task(self) -> Task:
        return make_task(self.recipe, self.mapping)

    def job(self, folder: Path, *, dies_before: int | None = None, started: float | None = None) -> TrainingJob:
        objects, resize = self.recipe.task == "instances", self.recipe.data.resize
        train, validation = (
            Examples(pairs, self.mapping, channels=1, memory=2**30, objects=objects, resize=resize)
            for pairs in (self.pairs[2:], self.pairs[:2])
        )
        with torch.device("meta"):
            margin = build_net(self.recipe, 1, self.task.outputs).margin
        kind = Sampler if dies_before is None else DyingSampler
        encode = partial(self.task.encode, terms=self.recipe.loss)
        sampler = kind(train, self.normalization, self.recipe, encode=encode, margin=margin)
        if dies_before is not None:
            object.__setattr__(sampler, "limit", dies_before * self.images_per_step)
        return TrainingJob(
            recipe=self.recipe,
            task=self.task,
            sampler=sampler,
            validation=validation,
            class_weights_k=None,
            device=torch.device("cpu"),
            workers=self.recipe.training.workers or 1,
            checkpoints=Checkpoints(folder),
            data_digest="digest",
            started=time.monotonic() if started is None else started,
        )

    @property
    def images_per_step(self) -> int:
        return self.recipe.training.batch * self.recipe.training.accumulate

    def state(self, seed: int = 0) -> TrainingState:
        torch.manual_seed(seed)
        return TrainingState.create(build_net(self.recipe, 1, self.task.outputs), self.recipe, torch.device("cpu"))

    def run(self, folder: Path) -> TrainingState:
        """Train without an interruption."""
        state = self.state()
        for _ in run_training_loop(self.job(folder), state):
            pass
        return state

    def die(self, folder: Path, before: int, seed: int = 0, *, started: float | None = None) -> None:
        """Train, from the newest checkpoint if there is one, and end suddenly in step ``before + 1``."""
        state = self.state(seed)
        self._restore(folder, state)
        with pytest.raises(Killed):
            for _ in run_training_loop(self.job(folder, dies_before=before, started=started), state):
                pass

    def resume(self, folder: Path, seed: int = 99, *, started: float | None = None) -> TrainingState:
        """Resume from the newest checkpoint, with a net that was initialised with other weights."""
        state = self.state(seed)
        assert self._restore(folder, state)
        for _ in run_training_loop(self.job(folder, started=started), state):
            pass
        return state

    def _restore(self, folder: Path, state: TrainingState) -> bool:
        checkpoints = Checkpoints(folder)
        if checkpoints.list_states():
            header, tensors, _ = checkpoints.load_newest()
            state.load_checkpoint(header, tensors)
        return bool(checkpoints.list_states())


def assert_same_states(first: TrainingState, second: TrainingState) -> None:
    """Assert that two states are equal, bit for bit, except for times."""
    (one, tensors), (two, others) = first.to_checkpoint(), second.to_checkpoint()
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name
    assert drop_times(one.pop("history")) == drop_times(two.pop("history"))
    one.pop("elapsed"), two.pop("elapsed")
    assert one == two


def drop_times(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMED} for row in history]


class Septa:
    """Runner of the command ``septa train DATA -o OUTPUT`` with tiny settings, in another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, data: Path, output: Path, *more: str, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
        settings = [part for setting in TINY for part in ("--set", setting)]
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "septa", "train", str(data), "-o", str(output), *settings, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            cwd=self.folder,
        )

    def end(self, process: subprocess.Popen[str]) -> Result:
        out, err = process.communicate(timeout=300)
        return Result(process.returncode, out, err)

    def run(self, data: Path, output: Path, *more: str, launcher: Sequence[str] = ()) -> Result:
        return self.end(self.start(data, output, *more, launcher=launcher))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: tiny nets gain nothing from more, and results depend on their number in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data"))


@pytest.fixture
def bench(data: Path) -> Callable[..., Bench]:
    return lambda *overrides, folder=data, **more: Bench(folder, *overrides, **more)


@pytest.fixture(scope="session")
def septa(tmp_path_factory: pytest.TempPathFactory) -> Septa:
    return Septa(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that runs the command line in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.setattr(sys, "argv", ["septa", "--no-prepare", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Result(end.value.code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    return TINY


@pytest.fixture
def tiny_options() -> list[str]:
    return [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture
def without_times() -> Callable[..., list[dict[str, Any]]]:
    return drop_times


@pytest.fixture
def assert_equal() -> Callable[[TrainingState, TrainingState], None]:
    return assert_same_states
