"""Validation: whole images through the prediction code, scored as `septa evaluate` does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from septa.data import Example, Examples
from septa.model import Model, PredictionOptions


@dataclass(frozen=True)
class Validation:
    """``score``: mean over images of `Task.score`; ``dice``: of each class; ``loss``: mean over pixels."""

    score: float
    loss: float
    dice: tuple[float, ...]


def validate(
    model: Model,
    examples: Examples,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    class_weights_k: Tensor | None = None,
) -> Validation:
    """Segment every example whole, this process every ``world``-th of them, and score them all.

    The loss is that of the training, with the weight of each class. Averaging over rotated and mirrored versions, if
    the recipe has it, waits for the end of the training.
    """
    task, net = model.task, model.net
    rows = torch.zeros(len(examples), task.classes + 2, dtype=torch.float64)
    training = net.training
    for index in range(rank, len(examples), world):
        example = examples[index]
        labels_yx, loss = _segment(model, example, device, class_weights_k)
        score, each = task.score(example.labels_yx, labels_yx)
        rows[index] = torch.tensor([score, loss, *each])
    net.train(training)
    if world > 1:
        rows = rows.to(device)
        dist.all_reduce(rows)
    means = rows.mean(dim=0).tolist()
    return Validation(means[0], means[1], tuple(means[2:]))


def _segment(
    model: Model, example: Example, device: torch.device, class_weights_k: Tensor | None
) -> tuple[NDArray[np.int32], float]:
    """Predicted labels, and the loss over the whole image."""
    task, terms, size = model.task, model.recipe.loss, example.labels_yx.shape
    weights_k = None if class_weights_k is None else class_weights_k.cpu()
    origin = (task, terms, None if weights_k is None else tuple(weights_k.tolist()))
    if example.encoded is None or example.encoded[0] != origin:
        weights = None if weights_k is None else weights_k.numpy()
        encoded = task.encode(example.labels_yx, terms, weights, class_of_id=example.class_of_id)
        example.encoded = origin, *encoded
    _, target_yx, weights_yx = example.encoded
    weighting = {"class_weights_k": weights_k if weights_yx is None else None}
    predicted_yx = np.empty(size, np.int32)
    logits_kyx = None if task.tilewise else np.empty((task.outputs, *size), np.float32)
    loss = 0.0

    def consume(core: tuple[slice, slice], part_kyx: NDArray[np.float32]) -> None:
        nonlocal loss
        part_kyx = np.ascontiguousarray(part_kyx)
        if logits_kyx is None:
            predicted_yx[core] = task.decode(part_kyx)
        else:
            logits_kyx[(slice(None), *core)] = part_kyx
        target_byx = torch.from_numpy(np.ascontiguousarray(target_yx[(..., *core)]))[None]  # may have planes before YX
        weighting["weights_byx"] = _batched(weights_yx, core)
        part = task.loss(torch.from_numpy(part_kyx)[None], target_byx, terms, **weighting)
        loss += part.item() * predicted_yx[core].size / predicted_yx.size

    with torch.inference_mode():
        model.run(example.image_cyx, consume, PredictionOptions(device=str(device)))
    return predicted_yx if logits_kyx is None else task.decode(logits_kyx), loss


def _batched(weights_yx: NDArray[np.float32] | None, core: tuple[slice, slice]) -> Tensor | None:
    return None if weights_yx is None else torch.from_numpy(np.ascontiguousarray(weights_yx[core]))[None]
