"""Trainings of all nets, losses and tasks: compared with a plain loop, and resumed bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor, nn
from torch.nn import functional

from septa.images.write import write_image, write_labels
from septa.recipe import IGNORE
from septa.training.checkpoint import Checkpoints
from septa.training.loop import run_training_loop
from septa.training.state import TrainingState

SIGMOID = ("net.output=sigmoid", "loss.cross_entropy=0", "loss.bce=1")
PAPER = (
    "net.padding=valid",
    "net.norm=none",
    "sampling.patch=[52, 52]",
    "loss.border_weight=10",
    "loss.border_sigma=4",
)
PLAIN = (
    "net.norm=none",
    "loss.dice=0",
    "training.steps=3",
    "training.validations=1",
    "training.optimizer=sgd",
    "training.lr=0.05",
    "training.momentum=0",
    "training.weight_decay=0",
    "training.schedule=constant",
    "training.warmup=0",
    "training.clip=0",
    "training.ema=0",
)
"""Settings for plain steps along the gradient."""

Loss = Callable[[nn.Module, int], Tensor]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six images of squares, most of which touch another; their ids have gaps."""
    folder = tmp_path_factory.mktemp("cells")
    for index in range(6):
        rng = np.random.default_rng(index)
        ids_yx = np.zeros((60, 60), np.uint16)
        for number, (row, column) in enumerate(np.ndindex(4, 4)):
            if rng.random() < 0.8:
                ids_yx[15 * row : 15 * row + rng.integers(10, 16), 15 * column : 15 * column + 15] = 7 * number + 300
        image_yx = rng.normal(60, 15, ids_yx.shape) + 70 * (ids_yx > 0)
        write_image(folder / "images" / f"{index}.png", image_yx.clip(0, 255).astype(np.uint8)[None])
        write_labels(folder / "labels" / f"{index}.png", ids_yx)
    return folder


def assert_steps(bench: Any, folder: Path, loss: Loss, *, job: Any = None) -> None:
    """Assert that `run_training_loop` changes the weights as plain gradient steps on ``loss`` do."""
    trained, born = bench.state(), bench.state().net
    for _ in run_training_loop(job or bench.job(folder), trained):
        pass
    net, lr = bench.state().net, bench.recipe.training.lr
    for step in range(bench.recipe.training.steps):
        net.zero_grad()
        loss(net, step).backward()
        with torch.no_grad():
            for value in net.parameters():
                value -= lr * value.grad
    moved = 0.0
    for (name, value), expected, before in zip(trained.net.named_parameters(), net.parameters(), born.parameters()):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")
        moved = max(moved, float((expected - before).detach().abs().max()))
    assert moved > 1e-3


# Deep supervision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        (("net.nested=true",), (1 / 3, 1 / 3, 1 / 3)),
        ((), (4 / 7, 2 / 7, 1 / 7)),
        (("net.padding=valid", "sampling.patch=[60, 60]", "net.depth=2"), (2 / 3, 1 / 3)),
    ],
    ids=["nested", "plain", "valid"],
)
def test_the_loss_is_the_weighted_sum_over_the_outputs(
    settings: tuple[str, ...], weights: tuple[float, ...], bench: Any, tmp_path: Path
) -> None:
    bench = bench(*PLAIN, "net.deep_supervision=true", "net.depth=3", *settings)
    job = bench.job(tmp_path)
    seen: list[int] = []

    def loss(net: nn.Module, step: int) -> Tensor:
        batch = job.sampler.batch(2 * step, 2)
        outputs = net.train()(torch.from_numpy(batch.image_bcyx))
        assert len(outputs) == len(weights)
        target_byx = torch.from_numpy(batch.target_byx).long()
        seen.append(len({output.shape[2:] for output in outputs} | {target_byx.shape[1:]}))
        losses = [functional.cross_entropy(output, target_byx, ignore_index=IGNORE) for output in outputs]
        return sum(w * one for w, one in zip(weights, losses))  # type: ignore[return-value]

    assert_steps(bench, tmp_path, loss)
    assert seen == [1, 1, 1]


# Weight maps ---------------------------------------------------------------------------------------------------------


def cut_seams(ids_yx: np.ndarray) -> np.ndarray:
    """Cut seams between touching cells, pixel by pixel: first to the right and below, then along diagonals."""
    height, width = ids_yx.shape
    for steps in (((0, 1), (1, 0)), ((1, -1), (1, 1))):
        out_yx = ids_yx.copy()
        for y, x in np.argwhere(ids_yx > 0):
            for row, column in ((y + dy, x + dx) for dy, dx in steps):
                if row < height and 0 <= column < width and 0 < ids_yx[row, column] != ids_yx[y, x]:
                    out_yx[y, x] = 0
        ids_yx = out_yx
    return ids_yx


def compute_equation_2(ids_yx: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Compute the second term of the paper's equation 2 from the distances to each single cell."""
    cells = [ids_yx == value for value in np.unique(ids_yx) if value > 0]
    if len(cells) < 2:
        return np.zeros(ids_yx.shape)
    distances = np.sort([scipy.ndimage.distance_transform_edt(~cell) for cell in cells], axis=0)
    return w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))


def compute_weighted_entropy(
    logits_bkyx: Tensor, target_byx: np.ndarray, weights_byx: np.ndarray, *, sigmoid: bool = False
) -> Tensor:
    """Compute the weighted mean of the pixels' cross entropies in float64."""
    if sigmoid:
        logits_bkyx = torch.cat([torch.zeros_like(logits_bkyx), logits_bkyx], dim=1)
    logs_bkyx = logits_bkyx.double().log_softmax(1)
    target, counted = torch.from_numpy(np.maximum(target_byx, 0)).long(), torch.from_numpy(target_byx != IGNORE)
    losses_byx = -logs_bkyx.gather(1, target[:, None])[:, 0]
    weights = torch.from_numpy(weights_byx).double() * counted
    return (losses_byx * weights).sum() / weights.sum()


@pytest.mark.parametrize(
    "settings",
    [(), SIGMOID, ("net.padding=valid",), ("task=instances",), ("task=instances", "net.padding=valid", *SIGMOID)],
    ids=["classes", "sigmoid", "valid", "instances", "all"],
)
@pytest.mark.parametrize("class_weights", [None, (0.5, 3.0)], ids=["", "class weights"])
def test_border_weights_reach_the_loss(
    settings: tuple[str, ...], class_weights: tuple[float, ...] | None, bench: Any, cells: Path, tmp_path: Path
) -> None:
    bench = bench(
        *PLAIN,
        "sampling.patch=[52, 52]",
        "loss.border_weight=10",
        "loss.border_sigma=4",
        *settings,
        folder=cells,
        encoding="instances",
    )
    job, margin = bench.job(tmp_path), bench.state().net.margin
    weights_k = None if class_weights is None else np.array(class_weights, np.float32)
    if weights_k is not None:
        encode = partial(job.task.encode, terms=job.recipe.loss, class_weights_k=weights_k)
        job = replace(job, sampler=replace(job.sampler, encode=encode), class_weights_k=torch.from_numpy(weights_k))
    whole: list[np.ndarray] = []

    def keep(labels_yx: np.ndarray, *, class_of_id: None) -> tuple[np.ndarray, None]:
        whole.append(labels_yx)
        return labels_yx, None

    labels_only = replace(job.sampler, encode=keep)
    heaviest: list[float] = []

    def loss(net: nn.Module, step: int) -> Tensor:
        whole.clear()
        batch = labels_only.batch(2 * step, 2)
        targets, maps = [], []
        for labels_yx in whole:
            ids_yx = cut_seams(labels_yx) if job.sampler.examples.objects else scipy.ndimage.label(labels_yx == 1)[0]
            target_yx = np.where(labels_yx < 0, labels_yx, np.minimum(ids_yx, 1))
            of_class = np.array(class_weights or (1, 1))[np.maximum(target_yx, 0)]
            inside = (slice(margin, 52 - margin),) * 2
            targets.append(target_yx[inside])
            maps.append((of_class + compute_equation_2(ids_yx, 10, 4))[inside])
        heaviest.append(np.max(maps))
        logits_bkyx = net.train()(torch.from_numpy(batch.image_bcyx))
        return compute_weighted_entropy(logits_bkyx, np.stack(targets), np.stack(maps), sigmoid=SIGMOID[0] in settings)

    assert_steps(bench, tmp_path, loss, job=job)
    assert max(heaviest) > 3.5


def test_class_weights_are_applied_once_without_border_weights(bench: Any, tmp_path: Path) -> None:
    bench = bench(*PLAIN)
    weights_k = torch.tensor([0.5, 3.0])
    job = replace(bench.job(tmp_path), class_weights_k=weights_k)

    def loss(net: nn.Module, step: int) -> Tensor:
        batch = job.sampler.batch(2 * step, 2)
        assert batch.weights_byx is None
        maps = weights_k.numpy()[np.maximum(batch.target_byx, 0)]
        return compute_weighted_entropy(net.train()(torch.from_numpy(batch.image_bcyx)), batch.target_byx, maps)

    assert_steps(bench, tmp_path, loss, job=job)


# Optimisers ----------------------------------------------------------------------------------------------------------


def test_rmsprop_follows_its_formula(bench: Any, tmp_path: Path) -> None:
    """Hinton's running mean of squares with decay 0.99, then momentum; weight decay only for kernels."""
    given = ("training.optimizer=rmsprop", "training.lr=1e-3", "training.momentum=0.8", "training.weight_decay=0.1")
    bench = bench(*PLAIN, *given, "training.steps=4")
    trained, job = bench.run(tmp_path), bench.job(tmp_path)
    net = bench.state().net
    squares, pushes = ([torch.zeros_like(value) for value in net.parameters()] for _ in range(2))
    for step in range(4):
        batch = job.sampler.batch(2 * step, 2)
        image_bcyx = torch.from_numpy(batch.image_bcyx).to(memory_format=torch.channels_last)
        net.zero_grad()
        job.task.loss(net(image_bcyx), torch.from_numpy(batch.target_byx).long(), bench.recipe.loss).backward()
        with torch.no_grad():
            for value, square, push in zip(net.parameters(), squares, pushes):
                slope = value.grad + (0.1 * value if value.ndim > 1 else 0)
                square.copy_(0.99 * square + 0.01 * slope**2)
                push.copy_(0.8 * push + slope / (square.sqrt() + 1e-8))
                value -= 1e-3 * push
    for name, value in net.named_parameters():
        found = trained.net.get_parameter(name)
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5)


# Bit for bit ---------------------------------------------------------------------------------------------------------

VARIANTS = {
    "paper": (
        *PAPER,
        "task=instances",
        "loss.dice=0",
        "net.dropout=0.5",
        "training.optimizer=sgd",
        "training.momentum=0.99",
        "training.lr=1e-3",
        "training.ema=0",
        "training.clip=0",
        "training.checkpoint_every=3",
        "training.workers=2",
    ),
    "paper averaged": (*PAPER, "net.dropout=0.3", "training.optimizer=sgd", "training.momentum=0"),
    "rmsprop": ("training.optimizer=rmsprop", "training.lr=1e-3", "training.momentum=0.9"),
    "rmsprop alone": ("training.optimizer=rmsprop", "training.lr=1e-3", "training.momentum=0"),
    "nested": ("net.nested=true", "net.deep_supervision=true", *SIGMOID),
    "supervised": ("net.deep_supervision=true", "net.block=residual", "net.attention=true", "net.dropout=0.2"),
    "pooling": ("net.squeeze=true", "net.aspp=true", "task=instances", "inference.tta=4"),
    "resized": ("data.resize=[40, 48]", "net.reduction=2", "training.steps=12"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_training_ends_bit_for_bit_as_an_undisturbed_one(
    variant: str, bench: Any, cells: Path, tmp_path: Path, assert_equal: Callable[[TrainingState, TrainingState], None]
) -> None:
    bench = bench(*VARIANTS[variant], folder=cells, encoding="instances")
    undisturbed = bench.run(tmp_path / "one")
    last = undisturbed.step
    bench.die(tmp_path / "two", before=5, seed=0)
    bench.die(tmp_path / "two", before=last - 1, seed=5)
    resumed = bench.resume(tmp_path / "two")
    assert last == bench.recipe.training.steps
    assert_equal(undisturbed, resumed)
    assert undisturbed.best is not None
    weights = [Checkpoints(tmp_path / folder).load_best(int(undisturbed.best["step"])) for folder in ("one", "two")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_paper_variant_has_margins_weights_and_dropout(bench: Any, cells: Path, tmp_path: Path) -> None:
    bench = bench(*VARIANTS["paper"], folder=cells, encoding="instances")
    state, job = bench.state(), bench.job(tmp_path)
    assert state.net.margin > 0
    batch = job.sampler.batch(0, 2)
    assert batch.target_byx.shape == (2, 52 - 2 * state.net.margin, 52 - 2 * state.net.margin)
    assert batch.weights_byx is not None
    assert batch.weights_byx.max() > 3
    undropped = type(bench)(cells, *VARIANTS["paper"], "net.dropout=0", encoding="instances")
    assert not torch.equal(bench.run(tmp_path / "a").net.head.weight, undropped.run(tmp_path / "b").net.head.weight)
