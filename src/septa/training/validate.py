"""Validation: whole images pass through the prediction code and are scored as `septa evaluate` scores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from septa.data import Example, Examples
from septa.model import Model, PredictionOptions


@dataclass(frozen=True)
class Validation:
    """The result of a validation.

    Attributes
    ----------
    score
        Mean of `septa.tasks.Task.score` over the images.
    loss
        Mean of the loss over the images, each of which is the mean over its pixels.
    dice
        Dice of each class, as the mean over the images.
    labels
        Predicted labels ``YX`` of the images that are kept, by their number.
    """

    score: float
    loss: float
    dice: tuple[float, ...]
    labels: Mapping[int, NDArray[np.int32]] = field(default_factory=dict)


def validate(
    model: Model,
    examples: Examples,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    class_weights_k: Tensor | None = None,
    keep: int = 0,
) -> Validation:
    """Segment whole images and score them; the processes share the images.

    The loss is that of the training, with class weights. Versions of the image (``inference.tta``) are averaged only
    after the training.

    Parameters
    ----------
    model
        Current weights as a model. Its net is left in the mode in which it was.
    examples
        Validation images.
    device
        Device of this process.
    rank, world
        Number of this process, and number of processes.
    class_weights_k
        Weight of each class, float32 of shape (K,); None if all are equal.
    keep
        Number of images, from the first, whose predicted labels are kept if this process segments them.
    """
    task = model.task
    net = model.net
    rows = torch.zeros(len(examples), task.classes + 2, dtype=torch.float64)
    training = net.training
    kept: dict[int, NDArray[np.int32]] = {}
    for index in range(rank, len(examples), world):
        example = examples[index]
        labels_yx, loss = _segment(model, example, device, class_weights_k)
        score, each = task.score(example.labels_yx, labels_yx)
        if index < keep:
            kept[index] = labels_yx
        rows[index] = torch.tensor([score, loss, *each])
    net.train(training)
    if world > 1:
        rows = rows.to(device)
        dist.all_reduce(rows)
    means = rows.mean(dim=0).tolist()
    return Validation(means[0], means[1], tuple(means[2:]), kept)


def _segment(
    model: Model, example: Example, device: torch.device, class_weights_k: Tensor | None
) -> tuple[NDArray[np.int32], float]:
    """Return the predicted labels of a whole image, int32 ``YX``, and the mean of its loss."""
    task = model.task
    terms = model.recipe.loss
    size = example.labels_yx.shape
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
        # A target may have planes before its Y and X axes.
        target_byx = torch.from_numpy(np.ascontiguousarray(target_yx[(..., *core)]))[None]
        weighting["weights_byx"] = _cut_weights(weights_yx, core)
        part = task.loss(torch.from_numpy(part_kyx)[None], target_byx, terms, **weighting)
        loss += part.item() * predicted_yx[core].size / predicted_yx.size

    with torch.inference_mode():
        model.run(example.image_cyx, consume, PredictionOptions(device=str(device), fixed_tile=True))
    return predicted_yx if logits_kyx is None else task.decode(logits_kyx), loss


def _cut_weights(weights_yx: NDArray[np.float32] | None, core: tuple[slice, slice]) -> Tensor | None:
    """Return the weight map of a tile as a batch of one."""
    return None if weights_yx is None else torch.from_numpy(np.ascontiguousarray(weights_yx[core]))[None]
