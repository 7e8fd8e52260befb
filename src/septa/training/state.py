"""What a training carries from one step to the next, and how it is saved and restored."""

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

_PLAIN = ("step", "elapsed", "best", "stale", "drops", "validated", "finished", "losses", "history")
"""What a state holds besides tensors."""

HistoryRow = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What a step came to, still on the device: number of the step, names of its images, loss, and norm of the gradient
    (None where a scaler deals with gradients that are not finite).
    """

    step: int
    names: tuple[str, ...]
    loss: Tensor
    norm: Tensor | None


@dataclass
class State:
    """Everything that a training carries from one step to the next.

    ``elapsed`` are seconds of training, over all its runs; ``best`` tells step and score of the best validation;
    ``stale`` counts the validations since; ``drops`` the reductions of the learning rate on a plateau. ``finished``
    tells that the last step and its validation are over. ``losses`` are those since the last row of the history;
    of the steps in ``unseen`` nothing has been read yet: see `look`.
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
    history: list[HistoryRow] = field(default_factory=list)
    unseen: list[Outcome] = field(default_factory=list)

    def look(self) -> None:
        """Read the outcomes of the steps since the last look; to be done before anything is told, validated or saved.

        A GPU works behind the program, and whoever reads a number waits for it: so not after every step.

        Raises
        ------
        SeptaError
            A loss or gradient is NaN or Inf; names the first such step and the images of its batch.
        """
        if not self.unseen:
            return
        numbers = torch.stack([value for one in self.unseen for value in (one.loss, _or_zero(one.norm, one.loss))])
        outcomes, self.unseen = self.unseen, []
        for outcome, (loss, norm) in zip(outcomes, numbers.view(-1, 2).tolist()):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what = "the gradient" if math.isfinite(loss) else "the loss"
                raise SeptaError(
                    f"step {outcome.step}",
                    f"{what} became NaN or Inf with a batch from {', '.join(dict.fromkeys(outcome.names))}",
                    "check these images ('septa check'), lower training.lr, or set training.amp to off",
                )
            self.losses.append(loss)

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


def make_optimizer(net: nn.Module, training: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser. Only convolution weights decay: biases, scales and shifts of norms do not."""
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


def move_average(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move each floating-point tensor of ``average`` towards that of ``net`` by ``1 - decay``; copy the others."""
    kept, new = average.state_dict(), net.state_dict()
    floats = [name for name, value in kept.items() if value.is_floating_point()]
    torch._foreach_lerp_([kept[name] for name in floats], [new[name] for name in floats], 1 - decay)
    for name in kept.keys() - set(floats):
        kept[name].copy_(new[name])


def _or_zero(norm: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if norm is None else norm.to(like.dtype)


def _load(net: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    net.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """``value`` in the memory layout of its parameter, in which a fused optimiser expects it."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value
