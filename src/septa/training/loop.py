"""The training loop: batches, steps, validations and checkpoints. Read `run_training_loop` from top to bottom."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from septa.data import Loader
from septa.errors import Interrupted, SeptaError
from septa.model import Model
from septa.training.clock import SignalCatcher, TrainingClock
from septa.training.job import TrainingJob
from septa.training.previews import MOST_PREVIEWS, write_previews
from septa.training.profile import Profiler, TrainingProfile
from septa.training.schedule import compute_lr_factor, count_drops
from septa.training.state import HistoryRow, TrainingState
from septa.training.statistics import compare_modes, freeze_statistics, set_training_mode
from septa.training.step import run_step
from septa.training.validate import Validation, validate

LOG_EVERY = 10
"""Steps between two rows of the history."""
_VALIDATION_SHARE = 0.1
"""Largest share of the time that validations may take if the minutes are limited."""


def run_training_loop(job: TrainingJob, state: TrainingState) -> Iterator[HistoryRow | TrainingProfile]:
    """Train until the steps or minutes of the recipe are used up.

    Yields
    ------
    HistoryRow
        A new row of the history. A row of training has ``step``, ``loss`` (mean since the last such row), ``lr``,
        ``images_per_s``, ``data_wait`` (share of the time spent waiting for samples) and ``minutes``. A row of
        validation has ``step``, ``score``, ``val_loss``, ``dice_<class>`` and ``minutes``, and for a net with batch
        norm ``loss_as_trained`` and ``loss_as_predicted``, see `septa.training.statistics.compare_modes`.
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
    profiler = Profiler(job.profile, job.device, math.ceil(job.sampler.epoch / job.images_per_step))
    with SignalCatcher() as signals, closing(loader.batches()) as batches, closing(profiler):
        if not state.step:
            _save_checkpoint(job, state, clock)
            if job.scores_parent and job.writes:
                job.checkpoints.save_first(dict(state.net.state_dict()))
            if job.scores_parent and state.best is None:
                yield _run_validation(job, state, clock)
                state.validated = 0
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
            if training.freeze_statistics and not state.frozen and progress >= 1 - training.freeze_statistics:
                freeze_statistics(state)
            set_training_mode(state)
            profiler.next_step()
            state.pending.append(run_step(job, state, net, batches, lr, profiler))
            if profiler.complete:
                yield _finish_profile(job, state, profiler)
            if state.step % LOG_EVERY == 0:
                yield _log_row(job, state, lr, clock, loader)
            if state.step % training.checkpoint_every == 0:
                _save_checkpoint(job, state, clock)
        if profiler.running:
            yield _finish_profile(job, state, profiler)
    _save_checkpoint(job, state, clock)


def _finish_profile(job: TrainingJob, state: TrainingState, profiler: Profiler) -> TrainingProfile:
    """Finish the profile, with a validation whose scores are not used."""
    state.read_results()
    model = job.make_model(state)
    return profiler.finish(lambda: _validate(job, model), write=job.writes)


def _validate(job: TrainingJob, model: Model) -> Validation:
    keep = 0 if job.previews is None else MOST_PREVIEWS
    return validate(model, job.validation, job.device, job.rank, job.world, job.class_weights_k, keep)


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
    if job.writes and job.previews is not None:
        write_previews(job.previews, job.validation, result.labels, job.task)
    progress = clock.compute_progress(state)
    state.validated = max(state.validated + 1, math.floor(progress * training.validations + 1e-9))
    if state.best is None or result.score > state.best["score"] + find_least_gain(job, state):
        state.best = {"step": state.step, "score": result.score}
        state.stale = 0
        if job.writes:
            with _refuse_not_finite(state):
                job.checkpoints.save_best(state.step, dict(state.inference_net.state_dict()))
    else:
        state.stale += 1
    row: HistoryRow = {"step": state.step, "score": result.score, "val_loss": result.loss}
    names = job.validation.labels.pixel_names(job.task.finds_objects)
    row |= {f"dice_{name}": value for name, value in zip(names, result.dice)}
    losses = compare_modes(job, state)
    if losses is not None:
        row |= {"loss_as_trained": losses.as_trained, "loss_as_predicted": losses.as_predicted}
    row["minutes"] = clock.read_elapsed() / 60
    state.history.append(row)
    if training.schedule == "plateau":
        state.drops = count_drops([each["score"] for each in state.history if "score" in each], training.patience)
    clock.add_validation(time.monotonic() - begin)
    return row


def find_least_gain(job: TrainingJob, state: TrainingState) -> float:
    """Return the gain in score that new weights need to be the best.

    Against the weights of the parent it is that of one object, as a smaller one is luck. On few images it is large.
    """
    return job.gain_of_one_object if state.best is not None and not state.best["step"] else 0.0


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
        "decoding": job.task.decoding.to_json(),
        "parent": job.parent,
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
