"""The job of a training: everything that stays the same from its first step to its last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from septa.data import Examples, Sampler
from septa.model import Model
from septa.recipe import Recipe
from septa.tasks import Task
from septa.training.checkpoint import Checkpoints
from septa.training.state import TrainingState


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything that `septa.training.loop.run_training_loop` works on and that stays the same during the training.

    Attributes
    ----------
    recipe
        Resolved recipe.
    task
        Task, for targets, loss and scores.
    sampler
        Training samples.
    validation
        Validation images.
    class_weights_k
        Weight of each class, float32 on the device; None if all are equal.
    device
        Device of this process.
    workers
        Number of threads that prepare samples.
    checkpoints
        Folder for the checkpoints.
    data_digest
        Digest of the dataset.
    started
        Value of `time.monotonic` from which ``training.minutes`` count.
    rank, world
        Number of this process and number of processes.
    reasons
        Reasons of the recipe's settings, by their keys.
    profile
        Folder for the profile of one epoch; None for no profile.
    previews
        Folder for pictures of validation images; None for no pictures.
    parent
        Facts of the model that the training started from, as of `septa.training.parent.collect_facts`; None for new
        weights.
    """

    recipe: Recipe
    task: Task
    sampler: Sampler
    validation: Examples
    class_weights_k: Tensor | None
    device: torch.device
    workers: int
    checkpoints: Checkpoints
    data_digest: str
    started: float
    rank: int = 0
    world: int = 1
    reasons: Mapping[str, str] = field(default_factory=dict)
    profile: Path | None = None
    previews: Path | None = None
    parent: Mapping[str, Any] | None = None

    @property
    def writes(self) -> bool:
        """True if this process writes files."""
        return self.rank == 0

    @property
    def scores_parent(self) -> bool:
        """True if the weights before the first step can be scored, since all outputs are those of the parent."""
        return self.parent is not None and self.parent["outputs_kept"] == self.parent["outputs"]

    @cached_property
    def gain_of_one_object(self) -> float:
        """Change of the validation score if one object more is found; 0 for a task without objects."""
        if not self.task.finds_objects:
            return 0.0
        labels = (self.validation[index].labels_yx for index in range(len(self.validation)))
        objects = sum(np.unique(labels_yx[labels_yx > 0]).size for labels_yx in labels)
        return 1 / max(1, objects)

    @property
    def images_per_step(self) -> int:
        """Number of samples of one optimiser step, over all processes."""
        return self.recipe.training.batch * self.recipe.training.accumulate

    def make_model(self, state: TrainingState) -> Model:
        """Make a model of the current weights, or of their moving average."""
        return Model(
            net=state.inference_net,
            channels=self.validation.channels,
            labels=self.validation.labels,
            normalization=self.sampler.normalization,
            recipe=self.recipe,
            decoding=self.task.decoding,
        )
