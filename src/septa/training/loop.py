"""The training loop: batches to steps, validations, checkpoints. It reads from top to bottom in `fit`."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from septa.data.samples import Batch, Examples, Loader, Sampler
from septa.errors import Interrupted, SeptaError
from septa.nets import UNet
from septa.recipe import Recipe, Training
from septa.tasks.semantic import Semantic
from septa.training.checkpoint import Checkpoints
from septa.training.schedule import lr_factor
from septa.training.validate import Validation, validate

LOG_EVERY = 10
"""Steps between two rows of the history."""
_RESERVE = 0.03
_VALIDATION_SHARE = 0.1
_PLAIN = ("step", "elapsed", "best", "stale", "drops", "validated", "finished", "losses", "history")
"""What a state holds besides tensors."""

Row = dict[str, float]


@dataclass(frozen=True)
class Job:
    """What `fit` works on; nothing in it changes while it trains.

    ``started`` is the value of `time.monotonic` from which ``training.minutes`` count. ``rank`` of ``world``
    processes share the work; the one of rank 0 writes. ``reasons`` are those of the recipe's settings, by their keys.
    """

    recipe: Recipe
    task: Semantic
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

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0


@dataclass
class State:
    """Everything that a training carries from one step to the next.

    ``elapsed`` are seconds of training, over all its runs; ``best`` tells step and score of the best validation;
    ``stale`` counts the validations since; ``drops`` the reductions of the learning rate on a plateau. ``finished``
    tells that the last step and its validation are over.
    """

    net: UNet
    average: UNet | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    elapsed: float = 0.0
    best: dict[str, float] | None = None
    stale: int = 0
    drops: int = 0
    validated: int = 0
    finished: bool = False
    losses: list[float] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)

    @property
    def kept(self) -> UNet:
        """The net that is validated and kept: the moving average if there is one."""
        return self.net if self.average is None else self.average

    @classmethod
    def fresh(cls, net: UNet, recipe: Recipe, device: torch.device) -> State:
        """The state before the first step."""
        net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = copy.deepcopy(net).requires_grad_(False) if recipe.training.ema else None
        scaler = torch.amp.GradScaler(device.type, enabled=recipe.training.amp == "fp16")
        return cls(net, average, make_optimizer(net, recipe.training, device), scaler)

    def save(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and tensors for a checkpoint."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
        header = {name: getattr(self, name) for name in _PLAIN}
        return header | {"scaler": self.scaler.state_dict()}, tensors

    def restore(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Take over what `save` gave."""
        _load(self.net, tensors, "net.")
        if self.average is not None:
            _load(self.average, tensors, "average.")
        moments: dict[int, dict[str, Tensor]] = {}
        parameters = [value for group in self.optimizer.param_groups for value in group["params"]]
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                index, key = int(name.split(".")[1]), name.split(".")[2]
                moments.setdefault(index, {})[key] = _laid_out_as(parameters[index], value)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(header["scaler"])
        for name in _PLAIN:
            setattr(self, name, header[name])


def fit(job: Job, state: State) -> Iterator[Row]:
    """Train until the recipe's steps or minutes are over; yields each new row of the history.

    Rows of training tell ``step``, ``loss`` (mean since the last row), ``lr``, ``images_per_s``, ``data_wait`` (share
    of the time spent waiting for samples) and ``minutes``; rows of validation ``step``, ``score``, ``val_loss`` and
    ``dice_<class>``.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM: the step was finished and the state saved.
    SeptaError
        A loss or gradient became NaN or Inf; the images of the batch are named, and nothing was saved since.
    """
    training = job.recipe.training
    clock = _Clock(job, state)
    net = _wrapped(job, state.net)
    take = training.batch * training.accumulate
    local = training.batch // job.world
    loader = Loader(job.sampler, state.step * take + job.rank * local, local, training.batch, job.workers)
    with Signals() as signals, closing(loader.batches()) as batches:
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
            state.losses.append(_step(job, state, net, batches, lr))
            if state.step % LOG_EVERY == 0:
                yield _logged(state, lr, clock, loader, take)
            if state.step % training.checkpoint_every == 0:
                _save(job, state, clock)
    _save(job, state, clock)


def _step(job: Job, state: State, net: nn.Module, batches: Iterator[Batch], lr: float) -> float:
    training = job.recipe.training
    torch.manual_seed(((job.recipe.seed * 2**31 + state.step) * job.world + job.rank) % 2**63)  # dropout
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    names: list[str] = []
    for part in range(training.accumulate):
        batch = next(batches)
        names += batch.names
        loss = _loss(job, net, batch, last=part == training.accumulate - 1) / training.accumulate
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.net.parameters(), training.clip or math.inf).item()
    if not math.isfinite(total) or not (math.isfinite(norm) or state.scaler.is_enabled()):
        what = "the loss" if not math.isfinite(total) else "the gradient"
        raise SeptaError(
            f"step {state.step + 1}",
            f"{what} became NaN or Inf with a batch from {', '.join(dict.fromkeys(names))}",
            "check these images ('septa check'), lower training.lr, or set training.amp to off",
        )
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    if job.world > 1:  # statistics of batch norm: what rank 0 validates, averages and saves is what all have
        for buffer in state.net.buffers():
            dist.broadcast(buffer, 0)
    if state.average is not None:
        _average(state.average, state.net, min(training.ema, (1 + state.step) / (10 + state.step)))
    return total


def _loss(job: Job, net: nn.Module, batch: Batch, *, last: bool) -> Tensor:
    amp = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.recipe.training.amp)
    image_bcyx = torch.from_numpy(batch.image_bcyx).to(job.device, memory_format=torch.channels_last)
    labels_byx = torch.from_numpy(batch.labels_byx).to(job.device, torch.int64)
    together = nullcontext() if last or job.world == 1 else net.no_sync()  # type: ignore[operator]
    with together, torch.autocast(job.device.type, amp, enabled=amp is not None):
        logits_bkyx = net(image_bcyx)
    return job.task.loss(logits_bkyx.float(), labels_byx, job.recipe.loss, class_weights_k=job.class_weights_k)


def make_optimizer(net: nn.Module, training: Training, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser. Only convolution weights decay: biases, scales and shifts of norms do not."""
    kernels = [value for value in net.parameters() if value.ndim > 1]
    others = [value for value in net.parameters() if value.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = device.type in ("cpu", "cuda")
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.lr, momentum=training.momentum, fused=fused)
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=training.lr, betas=(training.momentum, 0.999), fused=fused)


class Signals:
    """Notes SIGINT and SIGTERM instead of dying from them; a second one acts as it would without this."""

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> Signals:
        self._before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller's handlers stay
                break
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


class _Clock:
    """Time spent, and the progress that follows from it where minutes are given."""

    def __init__(self, job: Job, state: State) -> None:
        self.training = job.recipe.training
        self.begin = time.monotonic() - state.elapsed
        self.setup = 0.0 if state.elapsed else self.begin - job.started
        self.validating, self.longest = 0.0, 0.0
        self.last_row = (time.monotonic(), state.step, 0.0)

    def elapsed(self) -> float:
        return time.monotonic() - self.begin

    def progress(self, state: State) -> float:
        share = state.step / self.training.steps
        if self.training.minutes is None:
            return min(1.0, share)
        budget = 60 * self.training.minutes
        # The last validation, the model's final evaluation and the report come after the last step.
        reserve = max(3.5 * self.longest, _RESERVE * budget)
        return min(1.0, max(share, self.elapsed() / max(1e-9, budget - self.setup - reserve)))


def _validation_due(progress: float, state: State, clock: _Clock) -> bool:
    training = clock.training
    if progress >= 1:
        return True
    if math.floor(progress * training.validations + 1e-9) <= state.validated:
        return False
    # Only a budget of minutes makes validations rarer: without one, what happens is a function of the step alone.
    return training.minutes is None or clock.validating + clock.longest <= _VALIDATION_SHARE * clock.elapsed()


def _validated(job: Job, state: State, clock: _Clock) -> Row:
    begin = time.monotonic()
    result: Validation = validate(
        state.kept,
        job.task,
        job.recipe.loss,
        job.sampler.normalization,
        job.validation,
        job.device,
        job.rank,
        job.world,
    )
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
    row: Row = {"step": state.step, "score": result.score, "val_loss": result.loss}
    row |= {f"dice_{name}": value for name, value in zip(job.validation.labels.class_names, result.dice)}
    row["minutes"] = clock.elapsed() / 60
    state.history.append(row)
    spent = time.monotonic() - begin
    clock.validating, clock.longest = clock.validating + spent, max(clock.longest, spent)
    clock.last_row = (clock.last_row[0] + spent, *clock.last_row[1:])
    return row


def _logged(state: State, lr: float, clock: _Clock, loader: Loader, take: int) -> Row:
    now, (then, step, waited) = time.monotonic(), clock.last_row
    clock.last_row = (now, state.step, loader.waited)
    seconds = max(now - then, 1e-9)
    row: Row = {"step": state.step, "loss": float(np.mean(state.losses)), "lr": lr}
    row |= {"images_per_s": (state.step - step) * take / seconds, "data_wait": (loader.waited - waited) / seconds}
    row["minutes"] = clock.elapsed() / 60
    state.losses = []
    state.history.append(row)
    return row


def _save(job: Job, state: State, clock: _Clock) -> None:
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


def _agree(job: Job, progress: float, received: int, due: bool) -> tuple[float, int, bool]:
    """Progress, signal and need to validate that every process acts upon: the largest of any.

    Clocks differ, and processes of which only some validate would wait for each other for ever.
    """
    if job.world == 1:
        return progress, received, due
    all_three = torch.tensor([progress, received, due], dtype=torch.float64, device=job.device)
    dist.all_reduce(all_three, dist.ReduceOp.MAX)
    progress, received, due = all_three.tolist()
    return progress, int(received), bool(due)


def _wrapped(job: Job, net: nn.Module) -> nn.Module:
    if job.recipe.training.compile:
        net = torch.compile(net)  # type: ignore[assignment]
    if job.world == 1:
        return net
    devices = [job.device] if job.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(net, device_ids=devices, broadcast_buffers=False)


def _interrupted(job: Job, number: int) -> Interrupted:
    name = signal.Signals(number).name
    return Interrupted(job.checkpoints.folder, f"{name} received, the state is saved", "go on with --resume", number)


def _average(average: nn.Module, net: nn.Module, decay: float) -> None:
    kept, new = average.state_dict(), net.state_dict()
    floats = [name for name, value in kept.items() if value.is_floating_point()]
    torch._foreach_lerp_([kept[name] for name in floats], [new[name] for name in floats], 1 - decay)
    for name in kept.keys() - set(floats):
        kept[name].copy_(new[name])


def _load(net: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    net.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """``value`` in the memory layout of its parameter, in which a fused optimiser expects it."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value
