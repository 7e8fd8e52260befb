"""One optimiser step: batches, loss, gradient, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from septa.data import Batch
from septa.training.job import TrainingJob
from septa.training.profile import Profiler
from septa.training.state import StepResult, TrainingState, update_average


class BatchTensors(NamedTuple):
    """A batch on the device."""

    image_bcyx: Tensor
    target_byx: Tensor
    weights_byx: Tensor | None


def run_step(
    job: TrainingJob, state: TrainingState, net: nn.Module, batches: Iterator[Batch], lr: float, profiler: Profiler
) -> StepResult:
    """Take one optimiser step on ``training.accumulate`` batches.

    Parameters
    ----------
    job, state
        Job, and its state, which changes.
    net
        Net of the state, which may be compiled or distributed.
    batches
        Batches, of which the next ones are used.
    lr
        Learning rate.
    profiler
        Profiler that measures the phases.
    """
    training = job.recipe.training
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.zero_grad(set_to_none=True)
    with profiler.phase("data"):
        read = [next(batches) for _ in range(training.accumulate)]
    with profiler.phase("transfer"):
        parts = [move_batch(batch, job.device) for batch in read]
    if len(parts) == 1:
        with profiler.phase("forward"):
            _set_seed(job, state)
            loss = _compute_loss(job, state, run_net(job, net, parts[0]), parts)
        with profiler.phase("backward"):
            state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    else:
        loss = _accumulate(job, state, net, parts, profiler)
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
    names = tuple(name for batch in read for name in batch.names)
    return StepResult(state.step, names, loss.detach(), None if state.scaler.is_enabled() else norm)


def _accumulate(
    job: TrainingJob, state: TrainingState, net: nn.Module, parts: Sequence[BatchTensors], profiler: Profiler
) -> Tensor:
    """Add the gradient of the loss of all batches as one, with the memory of one batch; return the loss.

    The loss of several batches is not the mean of their losses: Dice and weighted means divide by sums over all of
    them. So each batch passes through the net twice: once for its logits, of which the loss and its gradient are
    computed as those of one large batch, and once more to lead that gradient back to the weights.

    References
    ----------
    Gao, Zhang, Han, Callan 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
    (arXiv 2101.06983), which computes losses over large batches in this way.
    """
    with profiler.phase("forward"):
        buffers = [buffer.clone() for buffer in state.net.buffers()]
        with torch.no_grad():
            logits = []
            for number, part in enumerate(parts):
                _set_seed(job, state, number)
                logits.append(run_net(job, net, part))
            for buffer, before in zip(state.net.buffers(), buffers, strict=True):
                buffer.copy_(before)  # the second pass updates the statistics of the norms
        joined = tuple(torch.cat(each).requires_grad_() for each in zip(*logits, strict=True))
        loss = _compute_loss(job, state, joined, parts)
    with profiler.phase("backward"):
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    size = len(parts[0].image_bcyx)
    for number, part in enumerate(parts):
        with profiler.phase("forward"):
            _set_seed(job, state, number)
            outputs = run_net(job, net, part, last=number == len(parts) - 1)
        with profiler.phase("backward"):
            gradients = [each.grad[number * size : (number + 1) * size] for each in joined if each.grad is not None]
            torch.autograd.backward(outputs, gradients)
    return loss


def _set_seed(job: TrainingJob, state: TrainingState, number: int = 0) -> None:
    """Set the seed of the dropout: a function of seed, step, batch and rank, so a resumed training repeats it."""
    step = state.step * job.recipe.training.accumulate + number
    torch.manual_seed(((job.recipe.seed * 2**31 + step) * job.world + job.rank) % 2**63)


def move_batch(batch: Batch, device: torch.device) -> BatchTensors:
    """Move images, targets and weight maps to the device; a GPU copies them asynchronously from pinned memory."""

    def move(array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    image_bcyx = move(batch.image_bcyx).contiguous(memory_format=torch.channels_last)
    return BatchTensors(
        image_bcyx, move(batch.target_byx), None if batch.weights_byx is None else move(batch.weights_byx)
    )


def run_net(job: TrainingJob, net: nn.Module, part: BatchTensors, *, last: bool = True) -> tuple[Tensor, ...]:
    """Return the outputs of the net in float32, several with deep supervision.

    ``last`` is True for the last batch of a step, after which the processes average their gradients.
    """
    amp = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.recipe.training.amp)
    synchronise = nullcontext() if last or job.world == 1 else net.no_sync()  # type: ignore[operator]
    with synchronise, torch.autocast(job.device.type, amp, enabled=amp is not None):
        outputs = net(part.image_bcyx)
    return tuple(logits_bkyx.float() for logits_bkyx in (outputs if isinstance(outputs, tuple) else (outputs,)))


def _compute_loss(
    job: TrainingJob, state: TrainingState, outputs: tuple[Tensor, ...], parts: Sequence[BatchTensors]
) -> Tensor:
    """Compute the loss of some batches as one, a scalar: the weighted sum over the outputs of the net."""
    target_byx = _join([part.target_byx for part in parts])
    maps = [part.weights_byx for part in parts if part.weights_byx is not None]
    weights_byx = _join(maps) if maps else None
    total = torch.zeros((), device=job.device)
    for weight, logits_bkyx in zip(state.net.supervision_weights, outputs, strict=True):
        total = total + weight * compute_output_loss(job, logits_bkyx, target_byx, weights_byx)
    return total


def compute_output_loss(
    job: TrainingJob, logits_bkyx: Tensor, target_byx: Tensor, weights_byx: Tensor | None
) -> Tensor:
    """Compute the loss of one output of the net, a scalar, with the class weights of the job."""
    class_weights_k = None if weights_byx is not None else job.class_weights_k  # a weight map contains them
    return job.task.loss(
        logits_bkyx, target_byx, job.recipe.loss, class_weights_k=class_weights_k, weights_byx=weights_byx
    )


def _join(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
