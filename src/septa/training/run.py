"""The training workflow, from a folder of images and labels to a model and its report. Read `train_steps` from top to
bottom.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from septa import runtime
from septa.data import DatasetCheck, Examples, Fingerprint, Pair, Sampler, combine_facts
from septa.errors import InputError, RecipeError
from septa.images import MAX_PIXELS, Normalization, write_text
from septa.metrics import Evaluation
from septa.model import Model, build_net
from septa.nets import ChannelStatistics, ResNetEncoder, TimmEncoder, imagenet_statistics, load_pretrained
from septa.recipe import Recipe
from septa.runtime import Progress
from septa.tasks import Decoding, make_task
from septa.training.automatic import Choice
from septa.training.checkpoint import Checkpoints
from septa.training.finish import finish_training
from septa.training.log import history_log
from septa.training.loop import TrainingJob, run_loop
from septa.training.plan import TrainingRequest, plan_recipe
from septa.training.profile import Profiled
from septa.training.resume import as_before, claim, discard, find_saved, refuse_other, restore
from septa.training.state import HistoryRow, State

_CURVE = 20.0
"""Of data.normalization=asinh: what is 5 % as bright as the brightest objects is seen at a quarter of their value."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What is about to be trained: the first event of a training."""

    check: DatasetCheck
    choice: Choice
    folder: Path
    device: str
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingDone:
    """What was trained: the last event."""

    model: Model
    path: Path
    report: Path
    evaluation: Evaluation


@dataclass(frozen=True)
class AlreadyTrained:
    """Nothing was left to resume: the model of this training is there. The only event."""

    path: Path


TrainingEvent = TrainingPlan | TrainingDone | AlreadyTrained | HistoryRow


def train(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    images: str | None = None,
    labels: str | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    minutes: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Model:
    """Train a U-Net on a folder of images and label images.

    Parameters
    ----------
    data
        Folder of images and labels; see `septa.data.folder.find_pairs` for the layouts.
    output
        Model file to write, ``NAME.septa``; the folder's name in the current folder when not given. Log, checkpoints
        and ``report.html`` go to ``NAME-run`` beside it.
    images, labels
        Globs for data in no known layout.
    recipe
        A recipe or the path of one; chosen from the data and the machine when not given.
    overrides
        ``section.key=value`` assignments on top of the recipe.
    minutes
        Time budget for all of it; the learning rate's schedule ends with it.
    resume, overwrite
        Go on from the newest checkpoint of this output; begin again where there is one or a model.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    max_pixels
        Largest image that is decoded, pixels.

    Returns
    -------
    Model
        The weights with the best validation score.

    Raises
    ------
    InputError
        The data cannot be trained on, or a setting is wrong.
    Interrupted
        SIGINT or SIGTERM came; the state is saved and ``resume`` goes on.
    """
    given = Recipe.load(recipe) if isinstance(recipe, str | os.PathLike) else recipe
    output = Path(output) if output is not None else Path(f"{Path(data).resolve().name}.septa")
    extra = () if minutes is None else (f"training.minutes={minutes}",)
    asked = (*overrides, *extra)
    request = TrainingRequest(
        data=Path(data),
        output=output,
        images=images,
        labels=labels,
        recipe=given,
        overrides=asked,
        resume=resume,
        overwrite=overwrite,
        device=device,
        max_pixels=max_pixels,
    )
    model = None
    for event in train_steps(request):
        if isinstance(event, TrainingDone):
            model = event.model
    return model if model is not None else Model.load(output)


def train_steps(
    request: TrainingRequest, progress: Progress | None = None, profiled: Callable[[Profiled], None] | None = None
) -> Iterator[TrainingEvent]:
    """Train, telling a `TrainingPlan` first, then every row of the history, then `TrainingDone`; see `train`.

    Where a finished training is to be resumed, `AlreadyTrained` is all. ``profiled`` is given the profile of one epoch;
    without it none is made.

    In a process group (``torchrun``) every process runs this, and only the first writes files and tells anything.
    """
    started = time.monotonic()
    cv2.setNumThreads(1)  # its pool would fight with the net's for the cores
    with _process_group(request.device) as (rank, world, device):
        if rank == 0:
            claim(request)
        checkpoints = Checkpoints(request.folder / "checkpoints")
        saved = find_saved(request)
        check, choice = plan_recipe(as_before(request, saved), progress)
        if saved is not None:
            refuse_other(saved, choice.recipe, check, request)
            choice = replace(choice, reasons=saved.header["reasons"])
        if saved is not None and saved.tensors is None:
            if rank == 0:
                yield AlreadyTrained(request.output)
            return
        job, state = _prepare(check, choice, checkpoints, device, started, rank, world, fresh=saved is None)
        job = replace(job, profile=None if profiled is None else request.folder)
        notes = restore(state, saved, request)
        if saved is None:
            _refuse_spent(choice.recipe, time.monotonic() - started)
        if rank == 0:
            discard(request)
            write_text(request.folder / "recipe.yaml", choice.recipe.to_yaml(choice.reasons))
            yield TrainingPlan(
                check=check,
                choice=choice,
                folder=request.folder,
                device=str(device),
                train=tuple(job.sampler.examples.pairs),
                validation=tuple(job.validation.pairs),
                notes=notes,
            )
        rows = run_loop(job, state)
        if rank:
            for _ in rows:
                pass
            dist.barrier()  # until the model is written
            return
        with history_log(request, state) as write:
            for row in rows:
                if isinstance(row, Profiled):
                    assert profiled is not None
                    profiled(row)
                    continue
                write(row)
                yield row
        model, report, evaluation = finish_training(request, job, state, check, choice)
        if world > 1:
            dist.barrier()
        yield TrainingDone(model=model, path=request.output, report=report, evaluation=evaluation)


# Setting up ----------------------------------------------------------------------------------------------------------


def _prepare(
    check: DatasetCheck,
    choice: Choice,
    checkpoints: Checkpoints,
    device: torch.device,
    started: float,
    rank: int,
    world: int,
    *,
    fresh: bool,
) -> tuple[TrainingJob, State]:
    assert check.pairing is not None
    assert check.mapping is not None
    assert check.fingerprint is not None
    recipe, mapping, channels = choice.recipe, check.mapping, check.fingerprint.channels
    if recipe.training.batch % world:
        raise RecipeError(
            f"training.batch={recipe.training.batch}", f"is no multiple of {world} processes", "change it"
        )
    pairs = {pair.name: pair for pair in check.pairing.pairs}
    memory = runtime.usable_memory() // 4 // world
    names = set(check.train)
    facts = [item for item in check.facts if item.name in names]
    task = make_task(recipe, mapping, _first_decoding(recipe, combine_facts(facts, channels=channels)))
    make_examples = partial(
        Examples, labels=mapping, channels=channels, objects=task.finds_objects, resize=recipe.data.resize
    )
    train = make_examples([pairs[name] for name in check.train], memory=memory)
    validation = make_examples([pairs[name] for name in check.validation], memory=memory // 4)
    torch.manual_seed(recipe.seed)
    net = build_net(recipe, channels, task.outputs)
    expected = getattr(net.encoder, "statistics", None)
    normalization = _normalization(recipe, combine_facts(facts, channels=channels), expected)
    if fresh and recipe.net.pretrained is not None and isinstance(net.encoder, ResNetEncoder | TimmEncoder):
        load_pretrained(net.encoder, recipe.net.pretrained)
    weights_k = _class_weights(recipe, task.pixel_shares(combine_facts(facts, channels=channels).class_shares))
    encode = partial(task.encode, terms=recipe.loss, class_weights_k=weights_k)
    sampler = Sampler(train, normalization, recipe, encode=encode, margin=net.margin)
    tensor_k = None if weights_k is None else torch.from_numpy(weights_k).to(device)
    job = TrainingJob(
        recipe=recipe,
        task=task,
        sampler=sampler,
        validation=validation,
        class_weights_k=tensor_k,
        device=device,
        workers=recipe.training.workers or 1,
        checkpoints=checkpoints,
        data_digest=check.fingerprint.digest,
        started=started,
        rank=rank,
        world=world,
        reasons=choice.reasons,
    )
    return job, State.fresh(net, recipe, device)


def _first_decoding(recipe: Recipe, fingerprint: Fingerprint) -> Decoding:
    """How objects are found until the training is over: specks of less than a quarter of a small object are none.

    Else they would decide which weights are the best.
    """
    small = fingerprint.diameter_percentiles[0]
    return Decoding(least_pixels=1 if recipe.data.resize else max(1, round(math.pi / 16 * small**2)))


def _refuse_spent(recipe: Recipe, seconds: float) -> None:
    """Refuse a budget that ended before the first step: an untrained net is no model."""
    minutes = recipe.training.minutes
    if minutes is not None and seconds >= 0.9 * 60 * minutes:
        spent = f"the check of the data alone took {seconds / 60:.2g} minutes"
        raise InputError(f"--minutes {minutes:g}", spent, "give more minutes")


def _normalization(
    recipe: Recipe, fingerprint: Fingerprint, expected: ChannelStatistics | None = None
) -> Normalization:
    kind = recipe.data.normalization
    if kind in ("image", "asinh"):
        return Normalization("image", curve=_CURVE if kind == "asinh" else 0.0)
    if kind == "dataset":
        scale = tuple(deviation if deviation > 0 else 1.0 for deviation in fingerprint.std)
        return Normalization("dataset", fingerprint.mean, scale)
    full, channels = _full_scale(fingerprint), fingerprint.channels
    if kind == "unit":
        return Normalization("dataset", (0.0,) * channels, (full,) * channels)
    mean, deviation = imagenet_statistics(channels, expected)
    return Normalization("dataset", tuple(full * m for m in mean), tuple(full * d for d in deviation))


def _full_scale(fingerprint: Fingerprint) -> float:
    """The value that stands for 1: the largest of an integer dtype; of floats the largest 99.5 percentile."""
    dtype = np.dtype(fingerprint.dtype)
    if dtype.kind in "ui":
        return float(np.iinfo(dtype).max)
    return max((high for *_, high in fingerprint.percentiles), default=1.0) or 1.0


def _class_weights(recipe: Recipe, shares: Sequence[float]) -> NDArray[np.float32] | None:
    """Weight of each class; from frequencies, the inverse share, so that each class weighs the same in sum."""
    wanted = recipe.loss.class_weights
    if wanted == "none":
        return None
    if wanted == "frequency":
        present = sum(share > 0 for share in shares)
        return np.array([1 / (share * present) if share > 0 else 0.0 for share in shares], np.float32)
    if not sum(wanted):
        raise RecipeError("loss.class_weights", "are all 0, which trains nothing", "give some class a weight above 0")
    if len(wanted) != len(shares):
        problem = f"has {len(wanted)} values for {len(shares)} classes"
        raise RecipeError("loss.class_weights", problem, "give one weight for each class")
    return np.array(wanted, np.float32)


@contextmanager
def _process_group(name: str) -> Iterator[tuple[int, int, torch.device]]:
    """Rank, number of processes and device: alone, or as ``torchrun`` started this process."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1, runtime.pick_device(name)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    device = runtime.pick_device(name)
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, runtime.usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield rank, world, device
    finally:
        dist.destroy_process_group()
