"""The training loop: batches to steps, validations, checkpoints. It reads from top to bottom in `run_loop`."""

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
from septa.recipe import Recipe
from septa.tasks import Task
from septa.training.checkpoint import Checkpoints
from septa.training.clock import Clock, Signals
from septa.training.profile import Profile, Profiled
from septa.training.schedule import lr_factor
from septa.training.state import HistoryRow, Outcome, State, move_average
from septa.training.validate import Validation, validate

LOG_EVERY = 10
"""Steps between two rows of the history."""
_VALIDATION_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What `run_loop` works on; nothing in it changes while it trains.

    ``started`` is the value of `time.monotonic` from which ``training.minutes`` count. ``rank`` of ``world``
    processes share the work; the one of rank 0 writes. ``reasons`` are those of the recipe's settings, by their keys.
    ``profile`` is the folder that a profile of one epoch goes to, if there is to be one.
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
        """Whether this process writes files."""
        return self.rank == 0

    def model(self, state: State) -> Model:
        """The net that is kept, as a model."""
        return Model(
            state.kept,
            self.validation.channels,
            self.validation.labels,
            self.sampler.normalization,
            self.recipe,
            decoding=self.task.decoding,
        )


def run_loop(job: TrainingJob, state: State) -> Iterator[HistoryRow | Profiled]:
    """Train until the recipe's steps or minutes are over; yields each new row of the history.

    Rows of training tell ``step``, ``loss`` (mean since the last row), ``lr``, ``images_per_s``, ``data_wait`` (share
    of the time spent waiting for samples) and ``minutes``; rows of validation ``step``, ``score``, ``val_loss`` and
    ``dice_<class>``. A profile, if there is to be one, comes between them.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM: the step was finished and the state saved.
    SeptaError
        A loss or gradient became NaN or Inf, at most `LOG_EVERY` steps ago; the images of the batch are named, and
        nothing was saved since.
    """
    training = job.recipe.training
    clock = Clock(training, job.started, state)
    net = _wrapped(job, state.net)
    take = training.batch * training.accumulate
    local = training.batch // job.world
    loader = Loader(
        job.sampler,
        first=state.step * take + job.rank * local,
        size=local,
        stride=training.batch,
        workers=job.workers,
    )
    profile = Profile(job.profile, job.device, math.ceil(len(job.sampler.examples) / take))
    with Signals() as signals, closing(loader.batches()) as batches, closing(profile):
        if not state.step:
            _save(job, state, clock)
        while not state.finished:
            progress = clock.progress(state)
            progress, stop, due = _agree(job, progress, signals.received, _validation_due(progress, state, clock))
            if stop:
                _save(job, state, clock)
                raise _interrupted(job, stop)
            if due:
                yield _validated(job, state, clock)
                stalled = training.early_stop is not None and state.stale >= training.early_stop
                state.finished = progress >= 1 or stalled
                if state.finished:
                    break
            lr = training.lr * lr_factor(progress, training, state.drops)
            profile.next_step()
            state.unseen.append(_step(job, state, net, batches, lr, profile))
            if profile.complete:
                yield _profiled(job, state, profile)
            if state.step % LOG_EVERY == 0:
                yield _logged(state, lr, clock, loader, take)
            if state.step % training.checkpoint_every == 0:
                _save(job, state, clock)
        if profile.running:
            yield _profiled(job, state, profile)
    _save(job, state, clock)


def _step(
    job: TrainingJob, state: State, net: nn.Module, batches: Iterator[Batch], lr: float, profile: Profile
) -> Outcome:
    training = job.recipe.training
    torch.manual_seed(((job.recipe.seed * 2**31 + state.step) * job.world + job.rank) % 2**63)  # dropout
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=job.device)
    names: list[str] = []
    for part in range(training.accumulate):
        with profile.phase("data"):
            batch = next(batches)
            names += batch.names
        with profile.phase("transfer"):
            moved = _moved(batch, job.device)
        with profile.phase("forward"):
            last = part == training.accumulate - 1
            loss = _loss(job, net, moved, state.net.supervision_weights, last=last) / training.accumulate
            total += loss.detach()
        with profile.phase("backward"):
            state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    with profile.phase("optimiser"):
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(state.net.parameters(), training.clip or math.inf)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        if job.world > 1:  # statistics of batch norm: what rank 0 validates, averages and saves is what all have
            for buffer in state.net.buffers():
                dist.broadcast(buffer, 0)
        if state.average is not None:
            move_average(state.average, state.net, min(training.ema, (1 + state.step) / (10 + state.step)))
    return Outcome(state.step, tuple(names), total, None if state.scaler.is_enabled() else norm)


def _moved(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, targets and weight maps on the device; a GPU fetches them while the program goes on."""

    def move(array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    image_bcyx = move(batch.image_bcyx).contiguous(memory_format=torch.channels_last)
    return image_bcyx, move(batch.target_byx), None if batch.weights_byx is None else move(batch.weights_byx)


def _loss(
    job: TrainingJob,
    net: nn.Module,
    moved: tuple[Tensor, Tensor, Tensor | None],
    weights_s: tuple[float, ...],
    *,
    last: bool,
) -> Tensor:
    """The loss of a batch, summed over the net's outputs with their weights: several under deep supervision."""
    image_bcyx, target_byx, weights_byx = moved
    amp = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.recipe.training.amp)
    class_weights_k = job.class_weights_k if weights_byx is None else None  # they are in the weight map
    together = nullcontext() if last or job.world == 1 else net.no_sync()  # type: ignore[operator]
    with together, torch.autocast(job.device.type, amp, enabled=amp is not None):
        outputs = net(image_bcyx)
    total = torch.zeros((), device=job.device)
    for weight, logits_bkyx in zip(weights_s, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
        loss = job.task.loss(
            logits_bkyx.float(), target_byx, job.recipe.loss, class_weights_k=class_weights_k, weights_byx=weights_byx
        )
        total = total + weight * loss
    return total


def _profiled(job: TrainingJob, state: State, profile: Profile) -> Profiled:
    """The profile, with a validation that counts for nothing else."""
    state.look()
    model = job.model(state)
    return profile.finish(lambda: _validation(job, model), write=job.writes)


def _validation(job: TrainingJob, model: Model) -> Validation:
    return validate(model, job.validation, job.device, job.rank, job.world, job.class_weights_k)


def _validation_due(progress: float, state: State, clock: Clock) -> bool:
    training = clock.training
    if progress >= 1:
        return True
    if math.floor(progress * training.validations + 1e-9) <= state.validated:
        return False
    # Only a budget of minutes makes validations rarer: without one, what happens is a function of the step alone.
    return training.minutes is None or clock.validating + clock.longest <= _VALIDATION_SHARE * clock.elapsed()


def _validated(job: TrainingJob, state: State, clock: Clock) -> HistoryRow:
    state.look()
    begin = time.monotonic()
    result = _validation(job, job.model(state))
    progress = clock.progress(state)
    state.validated = max(state.validated + 1, math.floor(progress * job.recipe.training.validations + 1e-9))
    if state.best is None or result.score > state.best["score"]:
        state.best, state.stale = {"step": state.step, "score": result.score}, 0
        if job.writes:
            with _nothing_else_saved(state):
                job.checkpoints.save_best(state.step, dict(state.kept.state_dict()))
    else:
        state.stale += 1
        if job.recipe.training.schedule == "plateau" and state.stale % job.recipe.training.patience == 0:
            state.drops += 1
    row: HistoryRow = {"step": state.step, "score": result.score, "val_loss": result.loss}
    names = job.validation.labels.pixel_names(job.task.finds_objects)
    row |= {f"dice_{name}": value for name, value in zip(names, result.dice)}
    row["minutes"] = clock.elapsed() / 60
    state.history.append(row)
    spent = time.monotonic() - begin
    clock.validating, clock.longest = clock.validating + spent, max(clock.longest, spent)
    clock.last_row = (clock.last_row[0] + spent, *clock.last_row[1:])
    return row


def _logged(state: State, lr: float, clock: Clock, loader: Loader, take: int) -> HistoryRow:
    state.look()
    now, (then, step, waited) = time.monotonic(), clock.last_row
    clock.last_row = (now, state.step, loader.waited)
    seconds = max(now - then, 1e-9)
    row: HistoryRow = {"step": state.step, "loss": float(np.mean(state.losses)), "lr": lr}
    row |= {"images_per_s": (state.step - step) * take / seconds, "data_wait": (loader.waited - waited) / seconds}
    row["minutes"] = clock.elapsed() / 60
    state.losses = []
    state.history.append(row)
    return row


def _save(job: TrainingJob, state: State, clock: Clock) -> None:
    state.look()
    state.elapsed = clock.elapsed()
    if not job.writes:
        return
    header, tensors = state.save()
    header |= {"recipe": job.recipe.model_dump(mode="json"), "reasons": dict(job.reasons), "data": job.data_digest}
    header |= {"train": [pair.name for pair in job.sampler.examples.pairs]}
    header |= {"validation": [pair.name for pair in job.validation.pairs]}
    with _nothing_else_saved(state):
        job.checkpoints.save(header, tensors)


@contextmanager
def _nothing_else_saved(state: State) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise SeptaError(f"step {state.step}", f"{error}, nothing was saved", "lower training.lr") from None


def _agree(job: TrainingJob, progress: float, received: int, due: bool) -> tuple[float, int, bool]:
    """Progress, signal and need to validate that every process acts upon: the largest of any.

    Clocks differ, and processes of which only some validate would wait for each other for ever.
    """
    if job.world == 1:
        return progress, received, due
    all_three = torch.tensor([progress, received, due], dtype=torch.float64, device=job.device)
    dist.all_reduce(all_three, dist.ReduceOp.MAX)
    progress, received, due = all_three.tolist()
    return progress, int(received), bool(due)


def _wrapped(job: TrainingJob, net: nn.Module) -> nn.Module:
    if job.recipe.training.compile:
        net = torch.compile(net)  # type: ignore[assignment]
    if job.world == 1:
        return net
    devices = [job.device] if job.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(net, device_ids=devices, broadcast_buffers=False)


def _interrupted(job: TrainingJob, number: int) -> Interrupted:
    name = signal.Signals(number).name
    return Interrupted(job.checkpoints.folder, f"{name} received, the state is saved", "go on with --resume", number)
