"""Batch norm in a training: statistics that stay fixed in its last part, and the loss with both kinds of statistics.

In training, batch norm uses the mean and variance of the batch; in prediction, running ones of all batches. If images
differ much and batches are small, the two differ, and a net that is good in one mode is worse in the other. With fixed
statistics, training computes what prediction computes, so the weights adapt to that.

References
----------
Ioffe 2017, "Batch renormalization" (arXiv 1702.03275), on the difference. Wu, Johnson 2021, "Rethinking 'batch' in
BatchNorm" (arXiv 2105.07576), section 3.3, on training with fixed statistics.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from septa.training.job import TrainingJob
from septa.training.state import TrainingState
from septa.training.step import compute_output_loss, move_batch, run_net

_PROBES = 8
"""Training patches on which the loss is computed in both modes."""


class ModeLosses(NamedTuple):
    """Mean loss of the same training patches and weights.

    Attributes
    ----------
    as_trained
        With the statistics of each batch.
    as_predicted
        With the running statistics.
    """

    as_trained: float
    as_predicted: float


def find_batch_norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the batch norms of a net."""
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def set_training_mode(state: TrainingState) -> None:
    """Set the net to training mode, in which batch norms with fixed statistics stay as in prediction."""
    state.net.train()
    if state.frozen:
        for norm in find_batch_norms(state.net):
            norm.eval()


def freeze_statistics(state: TrainingState) -> None:
    """Let batch norm use its running statistics from here on.

    They start as those of the moving average of the weights, if there is one, which cover more batches.
    """
    state.frozen = True
    if state.average is not None:
        for buffer, kept in zip(state.net.buffers(), state.average.buffers(), strict=True):
            buffer.copy_(kept)


@torch.no_grad()
def compare_modes(job: TrainingJob, state: TrainingState) -> ModeLosses | None:
    """Compute the loss of a few training patches in both modes of batch norm; None for a net without batch norm.

    The patches are the first ones of the training, always the same. The net is that of `TrainingState.inference_net`,
    and does not change.
    """
    net = state.inference_net
    norms = find_batch_norms(net)
    if not norms:
        return None
    size = job.recipe.training.batch // job.world
    parts = [
        move_batch(job.sampler.batch(number * size, size), job.device) for number in range(math.ceil(_PROBES / size))
    ]
    training = net.training
    buffers = [buffer.clone() for buffer in net.buffers()]
    losses = {}
    for batch_statistics in (False, True):  # the statistics of a batch change the running ones
        net.eval()
        for norm in norms:
            norm.train(batch_statistics)
        total = torch.zeros((), device=job.device)
        for part in parts:
            (logits_bkyx,) = run_net(job, net, part)
            total += compute_output_loss(job, logits_bkyx, part.target_byx, part.weights_byx)
        losses[batch_statistics] = total / len(parts)
    for buffer, before in zip(net.buffers(), buffers, strict=True):
        buffer.copy_(before)
    net.train(training)
    return ModeLosses(*torch.stack([losses[True], losses[False]]).tolist())
