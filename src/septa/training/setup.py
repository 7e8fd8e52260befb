"""The set-up of a training: its processes, and the task, samples, net and weights that follow from recipe and data."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from septa import runtime
from septa.data import (
    DatasetCheck,
    Examples,
    Fingerprint,
    Sampler,
    combine_facts,
    count_repeats,
    find_style,
)
from septa.errors import RecipeError
from septa.images import Normalization
from septa.model import build_net
from septa.nets import ResNetEncoder, TimmEncoder, UNet, load_pretrained
from septa.recipe import Recipe
from septa.tasks import Decoding, Task, make_task
from septa.training.automatic import RecipeChoice
from septa.training.checkpoint import Checkpoints
from septa.training.job import TrainingJob
from septa.training.normalization import choose_normalization, inherit_normalization
from septa.training.parent import collect_facts, inherit_decoding, inherit_weights
from septa.training.state import TrainingState


@dataclass(frozen=True)
class TrainingProcess:
    """A process of a training.

    Attributes
    ----------
    rank
        Number of this process, from 0. Only the process of rank 0 writes files and reports.
    world
        Number of processes.
    device
        Device of this process.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """True if this process writes files."""
        return self.rank == 0


@contextmanager
def join_processes(name: str) -> Iterator[TrainingProcess]:
    """Join the process group if ``torchrun`` started this process, and leave it in the end.

    Parameters
    ----------
    name
        Device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield TrainingProcess(0, 1, runtime.pick_device(name))
        return
    rank = int(os.environ["RANK"])
    device = runtime.pick_device(name)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, runtime.count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield TrainingProcess(rank, world, device)
    finally:
        dist.destroy_process_group()


def prepare_job(
    check: DatasetCheck,
    choice: RecipeChoice,
    checkpoints: Checkpoints,
    process: TrainingProcess,
    started: float,
    *,
    saved: Mapping[str, Any] | None = None,
) -> tuple[TrainingJob, TrainingState]:
    """Prepare everything that a training works on, and its state before the first step.

    Parameters
    ----------
    check
        Result of a dataset check without errors.
    choice
        Resolved recipe.
    checkpoints
        Folder for the checkpoints.
    process
        This process.
    started
        Value of `time.monotonic` from which the minutes count.
    saved
        Header of the checkpoint that will replace the state; None for a new training, whose encoder gets pretrained
        weights.

    Raises
    ------
    RecipeError
        The batch cannot be divided among the processes, or the class weights do not fit the classes.
    InputError
        The pretrained weights cannot be used.
    """
    assert check.pairing is not None
    assert check.mapping is not None
    assert check.fingerprint is not None
    recipe = choice.recipe
    channels = check.fingerprint.channels
    if recipe.training.batch % process.world:
        problem = f"the batch must be a multiple of the number of processes, which is {process.world}"
        raise RecipeError(f"training.batch={recipe.training.batch}", problem, "Change training.batch")
    task, facts = choose_task(check, choice, saved)
    torch.manual_seed(recipe.seed)
    net = build_net(recipe, channels, task.outputs)
    if choice.parent is not None:
        inherit_weights(choice.parent, net, task)
    if saved is None and recipe.net.pretrained is not None and isinstance(net.encoder, ResNetEncoder | TimmEncoder):
        load_pretrained(net.encoder, recipe.net.pretrained)
    memory = runtime.find_memory_limit() // 4 // process.world
    samples = prepare_samples(check, choice, net, task, facts, memory=memory, saved=saved)
    weights_k = samples.class_weights_k
    job = TrainingJob(
        recipe=recipe,
        task=task,
        sampler=samples.sampler,
        validation=samples.validation,
        class_weights_k=None if weights_k is None else torch.from_numpy(weights_k).to(process.device),
        device=process.device,
        workers=recipe.training.workers or 1,
        checkpoints=checkpoints,
        data_digest=check.fingerprint.digest,
        started=started,
        rank=process.rank,
        world=process.world,
        reasons=choice.reasons,
        parent=collect_facts(choice.parent, task, choice.seen) if choice.parent else (saved or {}).get("parent"),
    )
    return job, TrainingState.create(net, recipe, process.device)


@dataclass(frozen=True, kw_only=True)
class TrainingSamples:
    """The samples of a training and the images that it validates on.

    Attributes
    ----------
    sampler
        Training samples.
    validation
        Validation images.
    class_weights_k
        Weight of each class, float32 ``(K,)``; None if all are equal.
    """

    sampler: Sampler
    validation: Examples
    class_weights_k: NDArray[np.float32] | None


def choose_task(
    check: DatasetCheck, choice: RecipeChoice, saved: Mapping[str, Any] | None = None
) -> tuple[Task, Fingerprint]:
    """Choose the task, with its thresholds before they are tuned, and combine the facts of the training images."""
    assert check.mapping is not None
    assert check.fingerprint is not None
    trained = set(check.train)
    facts = combine_facts([item for item in check.facts if item.name in trained], channels=check.fingerprint.channels)
    task = make_task(choice.recipe, check.mapping)
    return make_task(choice.recipe, check.mapping, _choose_decoding(choice, task, facts, saved)), facts


def prepare_samples(
    check: DatasetCheck,
    choice: RecipeChoice,
    net: UNet,
    task: Task,
    facts: Fingerprint,
    *,
    memory: int,
    saved: Mapping[str, Any] | None = None,
) -> TrainingSamples:
    """Prepare the samples of a training.

    Parameters
    ----------
    check, choice, saved
        As for `prepare_job`.
    net
        Net, for its margin and for the values that its weights expect.
    task, facts
        Task and facts of `choose_task`.
    memory
        Bytes for decoded training images; validation images get a quarter of it.

    Raises
    ------
    RecipeError
        The class weights do not fit the classes.
    """
    assert check.pairing is not None
    assert check.mapping is not None
    recipe = choice.recipe
    pairs = {pair.name: pair for pair in check.pairing.pairs}
    make_examples = partial(
        Examples,
        labels=check.mapping,
        channels=net.in_channels,
        objects=task.finds_objects,
        resize=recipe.data.resize,
        largest=recipe.data.largest,
    )
    weights_k = _compute_class_weights(recipe, task.pixel_shares(facts.class_shares))
    sampler = Sampler(
        make_examples([pairs[name] for name in check.train], memory=memory),
        _choose_constants(check, choice, facts, net, saved),
        recipe,
        encode=partial(task.encode, terms=recipe.loss, class_weights_k=weights_k),
        margin=net.margin,
        repeats=_count_repeats(check, recipe),
    )
    validation = make_examples([pairs[name] for name in check.validation], memory=memory // 4)
    return TrainingSamples(sampler=sampler, validation=validation, class_weights_k=weights_k)


def _count_repeats(check: DatasetCheck, recipe: Recipe) -> tuple[int, ...]:
    """Return how often each training image is drawn in an epoch."""
    styles = {item.name: find_style(item) for item in check.facts}
    return count_repeats([styles[name] for name in check.train], recipe.sampling.balance)


def _choose_constants(
    check: DatasetCheck, choice: RecipeChoice, facts: Fingerprint, net: UNet, saved: Mapping[str, Any] | None
) -> Normalization:
    """Return the normalisation of the images. The nets of an ensemble share the constants of all images."""
    assert check.fingerprint is not None
    trained = set(check.train)
    items = [item for item in check.facts if check.folds or item.name in trained]
    inherited = None if choice.parent is None else inherit_normalization(choice.parent.model, choice.recipe, items)
    statistics = getattr(net.encoder, "statistics", None)
    return inherited or choose_normalization(
        choice.recipe, check.fingerprint if check.folds else facts, statistics, saved
    )


def _choose_decoding(
    choice: RecipeChoice, task: Task, fingerprint: Fingerprint, saved: Mapping[str, Any] | None
) -> Decoding:
    """Choose how objects are decoded during the training, before the thresholds are tuned.

    Specks smaller than a quarter of a small object are dropped. Otherwise they would decide which weights are the best.
    """
    if saved is not None and "decoding" in saved:
        return Decoding.from_json(saved["decoding"])
    recipe = choice.recipe
    small = fingerprint.diameter_percentiles[0]
    decoding = Decoding(
        least_pixels=1 if recipe.data.resize else max(1, round(math.pi / 16 * small**2)),
        close_seams=recipe.instances.encoding == "seam",
        fill_holes=recipe.instances.fill_holes,
    )
    return decoding if choice.parent is None else inherit_decoding(choice.parent, task, decoding)


def _compute_class_weights(recipe: Recipe, shares: Sequence[float]) -> NDArray[np.float32] | None:
    """Compute the weight of each class, float32 of shape (K,); None if all classes have the same.

    By frequency, it is the inverse of the class's share of the pixels, so that all classes have the same total weight.
    """
    weights = recipe.loss.class_weights
    if weights == "none":
        return None
    if weights == "frequency":
        present = sum(share > 0 for share in shares)
        return np.array([1 / (share * present) if share > 0 else 0.0 for share in shares], np.float32)
    if not sum(weights):
        problem = "all class weights are 0, so nothing is trained"
        raise RecipeError("loss.class_weights", problem, "Give at least one class a weight above 0")
    if len(weights) != len(shares):
        problem = f"there are {len(weights)} weights for {len(shares)} classes"
        raise RecipeError("loss.class_weights", problem, "Give one weight for each class")
    return np.array(weights, np.float32)
