"""The state of a training: everything that one step passes to the next, and its conversion to and from a checkpoint."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from septa.errors import SeptaError
from septa.nets import UNet
from septa.recipe import Recipe, TrainingSettings

_HEADER_FIELDS = ("step", "elapsed", "best", "stale", "drops", "validated", "finished", "losses", "history")
"""Attributes of a state that a checkpoint keeps in its header; the file format fixes their names."""

HistoryRow = dict[str, float]
"""One row of the history; see `septa.training.loop.run_training_loop` for its columns."""


@dataclass(frozen=True)
class StepResult:
    """The result of one optimiser step, still on the device.

    Attributes
    ----------
    step
        Number of the step, from 1.
    names
        Names of the images in its batches.
    loss
        Mean loss of the batches, a scalar.
    norm
        Norm of the gradient before clipping, a scalar. None if a gradient scaler handles gradients that are not finite.
    """

    step: int
    names: tuple[str, ...]
    loss: Tensor
    norm: Tensor | None


@dataclass(kw_only=True)
class TrainingState:
    """Everything that a training passes from one step to the next.

    Attributes
    ----------
    net
        Net that is trained.
    average
        Exponential moving average of its weights; None if the recipe has none.
    optimizer, scaler
        Optimiser, and gradient scaler, which is disabled except for fp16.
    step
        Number of steps so far.
    elapsed
        Seconds of training, over all its runs.
    best
        ``step`` and ``score`` of the best validation; None before the first one.
    stale
        Number of validations since the best one.
    drops
        Number of reductions of the learning rate by the schedule ``plateau``.
    validated
        Number of due validations that are done.
    finished
        True if the last step and its validation are done.
    frozen
        True if the statistics of batch norm stay as they are from here on.
    losses
        Losses since the last row of the history.
    history
        All rows so far.
    pending
        Results of the steps since the last `read_results`.
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
    frozen: bool = False
    losses: list[float] = field(default_factory=list)
    history: list[HistoryRow] = field(default_factory=list)
    pending: list[StepResult] = field(default_factory=list)

    @classmethod
    def create(cls, net: UNet, recipe: Recipe, device: torch.device) -> TrainingState:
        """Create the state before the first step."""
        net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            net=net,
            average=copy.deepcopy(net).requires_grad_(False) if recipe.training.ema else None,
            optimizer=make_optimizer(net, recipe.training, device),
            scaler=torch.amp.GradScaler(device.type, enabled=recipe.training.amp == "fp16"),
        )

    @property
    def inference_net(self) -> UNet:
        """The net that is validated and saved in the model: the moving average if there is one."""
        return self.net if self.average is None else self.average

    def read_results(self) -> None:
        """Read the pending results from the device; call it before anything is reported, validated or saved.

        Steps on a GPU run asynchronously, and reading a number waits for them, so this is not done after every step.

        Raises
        ------
        SeptaError
            A loss or gradient is NaN or Inf. The message names the first such step and the images of its batch.
        """
        if not self.pending:
            return
        results = self.pending
        self.pending = []
        numbers = torch.stack([value for one in results for value in (one.loss, _norm_or_zero(one))])
        for result, (loss, norm) in zip(results, numbers.view(-1, 2).tolist()):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                wrong = "the gradient" if math.isfinite(loss) else "the loss"
                raise SeptaError(
                    f"step {result.step}",
                    f"{wrong} became NaN or Inf with a batch from {', '.join(dict.fromkeys(result.names))}",
                    "Check these images with 'septa check', lower training.lr, or set training.amp to off",
                )
            self.losses.append(loss)

    def to_checkpoint(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return header and tensors for a checkpoint."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
        header = {name: getattr(self, name) for name in _HEADER_FIELDS}
        return header | {"frozen": self.frozen, "scaler": self.scaler.state_dict()}, tensors

    def load_checkpoint(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Replace the state by header and tensors of `to_checkpoint`."""
        _load_net(self.net, tensors, "net.")
        if self.average is not None:
            _load_net(self.average, tensors, "average.")
        moments: dict[int, dict[str, Tensor]] = {}
        parameters = [value for group in self.optimizer.param_groups for value in group["params"]]
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                moments.setdefault(int(index), {})[key] = _match_layout(parameters[int(index)], value)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(header["scaler"])
        for name in _HEADER_FIELDS:
            setattr(self, name, header[name])
        self.frozen = header.get("frozen", False)  # checkpoints of septa 0.1.0 before it lack the key


def make_optimizer(net: nn.Module, training: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    """Make the optimiser of a recipe.

    Weight decay applies to convolution weights only, not to biases and not to the scales and shifts of norms.
    """
    kernels = [value for value in net.parameters() if value.ndim > 1]
    others = [value for value in net.parameters() if value.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = device.type in ("cpu", "cuda")
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.lr, momentum=training.momentum, fused=fused)
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=training.lr, momentum=training.momentum, foreach=True)
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=training.lr, betas=(training.momentum, 0.999), fused=fused)


def update_average(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move each floating-point tensor of ``average`` towards that of ``net`` by ``1 - decay``; copy the others."""
    kept = average.state_dict()
    new = net.state_dict()
    floats = [name for name, value in kept.items() if value.is_floating_point()]
    torch._foreach_lerp_([kept[name] for name in floats], [new[name] for name in floats], 1 - decay)
    for name in kept.keys() - set(floats):
        kept[name].copy_(new[name])


def _norm_or_zero(result: StepResult) -> Tensor:
    return torch.zeros_like(result.loss) if result.norm is None else result.norm.to(result.loss.dtype)


def _load_net(net: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    net.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})


def _match_layout(parameter: Tensor, value: Tensor) -> Tensor:
    """Copy ``value`` into the memory layout of its parameter, which a fused optimiser expects."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value
