"""The training loop: batches, steps, validations and checkpoints. Read `run_training_loop` from top to bottom."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from septa.data import Batch, Examples, Loader, Sampler
from septa.errors import Interrupted, SeptaError
from septa.model import Model
from septa.recipe import Recipe, TrainingSettings
from septa.tasks import Task
from septa.training.checkpoint import Checkpoints
from septa.training.clock import SignalCatcher, TrainingClock
from septa.training.profile import Profiler, TrainingProfile
from septa.training.schedule import compute_lr_factor
from septa.training.state import HistoryRow, StepResult, TrainingState, update_average
from septa.training.validate import Validation, validate

LOG_EVERY = 10
"""Steps between two rows of the history."""
_VALIDATION_SHARE = 0.1
"""Largest share of the time that validations may take if the minutes are limited."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything that `run_training_loop` works on and that stays the same during the training.

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

    @property
    def writes(self) -> bool:
        """True if this process writes files."""
        return self.rank == 0

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


def run_training_loop(job: TrainingJob, state: TrainingState) -> Iterator[HistoryRow | TrainingProfile]:
    """Train until the steps or minutes of the recipe are used up.

    Yields
    ------
    HistoryRow
        A new row of the history. A row of training has ``step``, ``loss`` (mean since the last such row), ``lr``,
        ``images_per_s``, ``data_wait`` (share of the time spent waiting for samples) and ``minutes``. A row of
        validation has ``step``, ``score``, ``val_loss``, ``dice_<class>`` and ``minutes``.
    TrainingProfile
        Once, if ``job.profile`` is given.

    Raises
    ------
    Interrupted
        SIGINT or SIGTERM was received. The step was completed and the state saved.
    SeptaError
        A loss or gradient became NaN or Inf at most `LOG_EVERY` steps ago. The message names the images of the batch,
        and nothing was saved since.
    """
    training = job.recipe.training
    clock = TrainingClock(training, job.started, state)
    net = _wrap_net(job, state.net)
    local_batch = training.batch // job.world
    loader = Loader(
        job.sampler,
        first=state.step * job.images_per_step + job.rank * local_batch,
        size=local_batch,
        stride=training.batch,
        workers=job.workers,
    )
    profiler = Profiler(job.profile, job.device, math.ceil(len(job.sampler.examples) / job.images_per_step))
    with SignalCatcher() as signals, closing(loader.batches()) as batches, closing(profiler):
        if not state.step:
            _save_checkpoint(job, state, clock)
        while not state.finished:
            progress = clock.compute_progress(state)
            due = _is_validation_due(progress, state, clock)
            progress, received, due = _agree(job, progress, signals.received, due)
            if received:
                _save_checkpoint(job, state, clock)
                raise _make_interrupted(job, received)
            if due:
                yield _run_validation(job, state, clock)
                stalled = training.early_stop is not None and state.stale >= training.early_stop
                state.finished = progress >= 1 or stalled
                if state.finished:
                    break
            lr = training.lr * compute_lr_factor(progress, training, state.drops)
            profiler.next_step()
            state.pending.append(_run_step(job, state, net, batches, lr, profiler))
            if profiler.complete:
                yield _finish_profile(job, state, profiler)
            if state.step % LOG_EVERY == 0:
                yield _log_row(job, state, lr, clock, loader)
            if state.step % training.checkpoint_every == 0:
                _save_checkpoint(job, state, clock)
        if profiler.running:
            yield _finish_profile(job, state, profiler)
    _save_checkpoint(job, state, clock)


def _run_step(
    job: TrainingJob, state: TrainingState, net: nn.Module, batches: Iterator[Batch], lr: float, profiler: Profiler
) -> StepResult:
    """Take one optimiser step on ``training.accumulate`` batches."""
    training = job.recipe.training
    # The seed of the dropout is a function of seed, step and rank, so a resumed training repeats it.
    torch.manual_seed(((job.recipe.seed * 2**31 + state.step) * job.world + job.rank) % 2**63)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=job.device)
    names: list[str] = []
    for part in range(training.accumulate):
        with profiler.phase("data"):
            batch = next(batches)
            names += batch.names
        with profiler.phase("transfer"):
            tensors = _move_batch(batch, job.device)
        with profiler.phase("forward"):
            last = part == training.accumulate - 1
            loss = _compute_loss(job, net, tensors, state.net.supervision_weights, last=last) / training.accumulate
            total += loss.detach()
        with profiler.phase("backward"):
            state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    with profiler.phase("optimiser"):
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(state.net.parameters(), training.clip or math.inf)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        if job.world > 1:  # all processes use the batch norm statistics of rank 0, which validates and saves
            for buffer in state.net.buffers():
                dist.broadcast(buffer, 0)
        if state.average is not None:
            update_average(state.average, state.net, min(training.ema, (1 + state.step) / (10 + state.step)))
    return StepResult(state.step, tuple(names), total, None if state.scaler.is_enabled() else norm)


def _move_batch(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Move images, targets and weight maps to the device; a GPU copies them asynchronously from pinned memory."""

    def move(array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    image_bcyx = move(batch.image_bcyx).contiguous(memory_format=torch.channels_last)
    return image_bcyx, move(batch.target_byx), None if batch.weights_byx is None else move(batch.weights_byx)


def _compute_loss(
    job: TrainingJob,
    net: nn.Module,
    tensors: tuple[Tensor, Tensor, Tensor | None],
    weights_s: tuple[float, ...],
    *,
    last: bool,
) -> Tensor:
    """Compute the loss of a batch, a scalar: the sum over the outputs of the net, several with deep supervision.

    Parameters
    ----------
    job, net
        Job, and its net, which may be compiled or distributed.
    tensors
        Images, targets and weight maps on the device.
    weights_s
        Weight of each output of the net.
    last
        True for the last batch of a step, after which the processes average their gradients.
    """
    image_bcyx, target_byx, weights_byx = tensors
    amp = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.recipe.training.amp)
    class_weights_k = job.class_weights_k if weights_byx is None else None  # a weight map contains the class weights
    synchronise = nullcontext() if last or job.world == 1 else net.no_sync()  # type: ignore[operator]
    with synchronise, torch.autocast(job.device.type, amp, enabled=amp is not None):
        outputs = net(image_bcyx)
    total = torch.zeros((), device=job.device)
    for weight, logits_bkyx in zip(weights_s, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
        loss = job.task.loss(
            logits_bkyx.float(), target_byx, job.recipe.loss, class_weights_k=class_weights_k, weights_byx=weights_byx
        )
        total = total + weight * loss
    return total


def _finish_profile(job: TrainingJob, state: TrainingState, profiler: Profiler) -> TrainingProfile:
    """Finish the profile, with a validation whose scores are not used."""
    state.read_results()
    model = job.make_model(state)
    return profiler.finish(lambda: _validate(job, model), write=job.writes)


def _validate(job: TrainingJob, model: Model) -> Validation:
    return validate(model, job.validation, job.device, job.rank, job.world, job.class_weights_k)


def _is_validation_due(progress: float, state: TrainingState, clock: TrainingClock) -> bool:
    training = clock.training
    if progress >= 1:
        return True
    if math.floor(progress * training.validations + 1e-9) <= state.validated:
        return False
    # Only a time budget reduces the number of validations. Without one, the training is a function of the step alone.
    return training.minutes is None or clock.validating + clock.longest <= _VALIDATION_SHARE * clock.read_elapsed()


def _run_validation(job: TrainingJob, state: TrainingState, clock: TrainingClock) -> HistoryRow:
    """Validate, save the weights if they are the best so far, and return the new row of the history."""
    training = job.recipe.training
    state.read_results()
    begin = time.monotonic()
    result = _validate(job, job.make_model(state))
    progress = clock.compute_progress(state)
    state.validated = max(state.validated + 1, math.floor(progress * training.validations + 1e-9))
    if state.best is None or result.score > state.best["score"]:
        state.best = {"step": state.step, "score": result.score}
        state.stale = 0
        if job.writes:
            with _refuse_not_finite(state):
                job.checkpoints.save_best(state.step, dict(state.inference_net.state_dict()))
    else:
        state.stale += 1
        state.drops += is_plateau_reached(state.stale, training)
    row: HistoryRow = {"step": state.step, "score": result.score, "val_loss": result.loss}
    names = job.validation.labels.pixel_names(job.task.finds_objects)
    row |= {f"dice_{name}": value for name, value in zip(names, result.dice)}
    row["minutes"] = clock.read_elapsed() / 60
    state.history.append(row)
    clock.add_validation(time.monotonic() - begin)
    return row


def is_plateau_reached(stale: int, training: TrainingSettings) -> bool:
    """Return True if the schedule ``plateau`` divides the rate after ``stale`` validations without a better score.

    It does so where PyTorch's ``ReduceLROnPlateau`` of the same patience does, with a threshold of 0.
    """
    return training.schedule == "plateau" and stale > 0 and stale % (training.patience + 1) == 0


def _log_row(job: TrainingJob, state: TrainingState, lr: float, clock: TrainingClock, loader: Loader) -> HistoryRow:
    """Return a new row of the history about the steps since the last one."""
    state.read_results()
    now = time.monotonic()
    before, step, waited = clock.last_row
    clock.last_row = (now, state.step, loader.waited)
    seconds = max(now - before, 1e-9)
    row: HistoryRow = {
        "step": state.step,
        "loss": float(np.mean(state.losses)),
        "lr": lr,
        "images_per_s": (state.step - step) * job.images_per_step / seconds,
        "data_wait": (loader.waited - waited) / seconds,
        "minutes": clock.read_elapsed() / 60,
    }
    state.losses = []
    state.history.append(row)
    return row


def _save_checkpoint(job: TrainingJob, state: TrainingState, clock: TrainingClock) -> None:
    state.read_results()
    state.elapsed = clock.read_elapsed()
    if not job.writes:
        return
    header, tensors = state.to_checkpoint()
    header |= {
        "recipe": job.recipe.model_dump(mode="json"),
        "normalization": job.sampler.normalization.to_json(),
        "reasons": dict(job.reasons),
        "data": job.data_digest,
        "train": [pair.name for pair in job.sampler.examples.pairs],
        "validation": [pair.name for pair in job.validation.pairs],
    }
    with _refuse_not_finite(state):
        job.checkpoints.save_state(header, tensors)


@contextmanager
def _refuse_not_finite(state: TrainingState) -> Iterator[None]:
    """Translate the error of a checkpoint with NaN or Inf."""
    try:
        yield
    except ValueError as error:
        raise SeptaError(f"step {state.step}", f"{error}, so nothing was saved", "Lower training.lr") from None


def _agree(job: TrainingJob, progress: float, received: int, due: bool) -> tuple[float, int, bool]:
    """Return the largest progress, signal number and need to validate of all processes, on which all of them act.

    Their clocks differ. If only some of them validated, each would wait for the others forever.
    """
    if job.world == 1:
        return progress, received, due
    values = torch.tensor([progress, received, due], dtype=torch.float64, device=job.device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    progress, received, due = values.tolist()
    return progress, int(received), bool(due)


def _wrap_net(job: TrainingJob, net: nn.Module) -> nn.Module:
    """Compile the net and distribute it among the processes, where asked for."""
    if job.recipe.training.compile:
        net = torch.compile(net)  # type: ignore[assignment]
    if job.world == 1:
        return net
    devices = [job.device] if job.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(net, device_ids=devices, broadcast_buffers=False)


def _make_interrupted(job: TrainingJob, number: int) -> Interrupted:
    problem = f"{signal.Signals(number).name} was received and the state is saved"
    return Interrupted(job.checkpoints.folder, problem, "Continue with --resume", number)
