"""Validation: whole images through the prediction code, scored as `septa evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from septa import recipe
from septa.data.samples import Example, Examples
from septa.images.normalize import Normalization
from septa.inference.engines import Engine, torch_engine
from septa.inference.predict import predict_tiles
from septa.inference.tiling import Tile, activation_bytes, auto_tile, plan
from septa.metrics.pixels import Counts, class_counts, confusion, confusion_multilabel, dice
from septa.nets import UNet
from septa.tasks.semantic import Semantic


@dataclass(frozen=True)
class Validation:
    """``score``: mean Dice over the foreground classes and images; ``dice``: of each class; ``loss``: mean over
    pixels.
    """

    score: float
    loss: float
    dice: tuple[float, ...]


def validate(
    net: UNet,
    task: Semantic,
    terms: recipe.Loss,
    normalization: Normalization,
    examples: Examples,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Validation:
    """Segment every example whole, this process every ``world``-th of them, and score them all."""
    scores = torch.zeros(len(examples), task.classes + 1, dtype=torch.float64)
    training = net.training
    engine = torch_engine(net, device)
    per_pixel = activation_bytes(net.width, net.reduction)
    tile = auto_tile(halo=net.halo, multiple=net.multiple, bytes_per_pixel=per_pixel)
    for index in range(rank, len(examples), world):
        example = examples[index]
        height, width = example.labels_yx.shape
        tiles = plan(height, width, halo=net.halo, multiple=net.multiple, tile=tile)
        labels_yx, loss = _segment(engine, tiles, task, terms, normalization, example)
        counts = _counts(example.labels_yx, labels_yx, task)
        scores[index] = torch.from_numpy(np.append(dice(counts), loss))
    net.train(training)
    if world > 1:
        scores = scores.to(device)
        dist.all_reduce(scores)
    means = scores.mean(dim=0).tolist()
    return Validation(_foreground(means[:-1], task), means[-1], tuple(means[:-1]))


def foreground_dice(truth_yx: NDArray[np.int32], predicted_yx: NDArray[np.int32], task: Semantic) -> float:
    """Mean Dice over the foreground classes of one image."""
    return _foreground(dice(_counts(truth_yx, predicted_yx, task)).tolist(), task)


def _counts(truth_yx: NDArray[np.int32], predicted_yx: NDArray[np.int32], task: Semantic) -> Counts:
    count = confusion_multilabel if task.multilabel else confusion
    return class_counts(count(truth_yx, predicted_yx, task.classes))


def _foreground(values: Sequence[float], task: Semantic) -> float:
    return float(np.mean(values if task.multilabel else values[1:]))


def _segment(
    engine: Engine,
    tiles: Sequence[Tile],
    task: Semantic,
    terms: recipe.Loss,
    normalization: Normalization,
    example: Example,
) -> tuple[NDArray[np.int32], float]:
    predicted_yx = np.empty(example.labels_yx.shape, np.int32)
    loss = 0.0

    def consume(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
        nonlocal loss
        predicted_yx[core] = task.decode(logits_kyx)
        truth_byx = torch.from_numpy(example.labels_yx[core]).long()[None]
        part = task.loss(torch.from_numpy(np.ascontiguousarray(logits_kyx))[None], truth_byx, terms)
        loss += part.item() * truth_byx.numel() / predicted_yx.size

    resolved = normalization.resolve(example.image_cyx)
    with torch.inference_mode():
        predict_tiles(engine, example.image_cyx, resolved, tiles, consume)
    return predicted_yx, loss
