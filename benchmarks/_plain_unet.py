"""The peer of ``time_to_quality.py``: the widely used padded U-Net with batch norm, and the plain loop that trains it.

Written for this comparison after what such repositories have in common: two 3 x 3 convolutions a level, each with batch
norm and ReLU, max pooling, transposed convolutions on the way up; batches of one whole image, values divided by 255,
cross entropy plus soft Dice, gradients clipped at 1, channels last, float32, no augmentation and a constant rate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from septa.data.samples import Examples
from septa.metrics.pixels import class_counts, confusion, dice

FIRST, GROWTH = 20, 1.15
"""A validation comes the limit's FIRST part after the last one, or at GROWTH times its time where that is later."""


@dataclass(frozen=True)
class Point:
    """A validation: after so many steps, processor and wall seconds of training, its score."""

    step: int
    seconds: float
    wall: float
    score: float


@dataclass
class Watch:
    """Processor time of all threads of this process and wall time, less what was left out of this thread's."""

    _began: tuple[float, float] = field(default_factory=lambda: (time.process_time(), time.perf_counter()))
    _out: tuple[float, float] = (0.0, 0.0)

    def read(self) -> tuple[float, float]:
        """Processor and wall seconds."""
        return time.process_time() - self._began[0] - self._out[0], time.perf_counter() - self._began[1] - self._out[1]

    @staticmethod
    def mark() -> tuple[float, float]:
        """A moment for `leave_out`."""
        return time.thread_time(), time.perf_counter()

    def leave_out(self, since: tuple[float, float]) -> None:
        """What this thread did since a mark does not count; what other threads did meanwhile does."""
        now = self.mark()
        self._out = self._out[0] + now[0] - since[0], self._out[1] + now[1] - since[1]


class PlainUNet(nn.Module):
    """One level of a U-Net, the levels below it inside: features ``BCYX`` to features of ``width`` channels."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.down = _double(channels, width)
        self.below = PlainUNet(width, 2 * width, depth - 1) if depth else None
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2) if depth else None
        self.merge = _double(2 * width, width) if depth else None

    def forward(self, image_bcyx: Tensor) -> Tensor:
        """Same height and width, which are multiples of ``2**depth``."""
        fine: Tensor = self.down(image_bcyx)
        if self.below is None or self.up is None or self.merge is None:
            return fine
        coarse = self.up(self.below(F.max_pool2d(fine, 2)))
        merged: Tensor = self.merge(torch.cat([fine, coarse], 1))
        return merged


def _double(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (channels, width):
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Loop:
    """A plain training: optimiser ``rmsprop`` (rate 1e-5, momentum 0.999, decay 1e-8) or ``adam`` (rate 1e-3), and
    the factor by which images are scaled for the net; scores are of labels at the images' own size.
    """

    optimizer: str
    scale: float
    width: int
    depth: int
    classes: int

    def points(self, train: Examples, validation: Examples, limit: float) -> Iterator[Point]:
        """Train for ``limit`` processor seconds, validating every now and then."""
        watch = Watch()
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        net = nn.Sequential(
            PlainUNet(train.channels, self.width, self.depth), nn.Conv2d(self.width, self.classes, 1)
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = (
            torch.optim.RMSprop(net.parameters(), lr=1e-5, momentum=0.999, weight_decay=1e-8, foreach=True)
            if self.optimizer == "rmsprop"
            else torch.optim.Adam(net.parameters(), lr=1e-3)
        )
        step, due = 0, limit / FIRST
        while True:
            for index in rng.permutation(len(train)):
                example = train[int(index)]
                image_bcyx = self.prepared(example.image_cyx)
                target_byx = self.fitted(torch.from_numpy(example.labels_yx)[None, None].float(), "nearest")[
                    :, 0
                ].long()
                optimizer.zero_grad(set_to_none=True)
                loss = _loss(net(image_bcyx), target_byx)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                step += 1
                seconds, wall = watch.read()
                if seconds >= due:
                    mark = watch.mark()
                    yield Point(step, seconds, wall, self.score(net, validation))
                    watch.leave_out(mark)
                    due = min(limit, max(GROWTH * seconds, seconds + limit / FIRST))
                if seconds >= limit:
                    return

    def prepared(self, image_cyx: NDArray[np.uint8]) -> Tensor:
        """An image as the net takes it, ``BCYX``: scaled, 0 to 1, mirrored to a multiple of ``2**depth``."""
        image_bcyx = self.fitted(torch.from_numpy(image_cyx)[None].float() / 255, "bicubic")
        return image_bcyx.to(memory_format=torch.channels_last)

    def fitted(self, values_bcyx: Tensor, mode: str) -> Tensor:
        """Scaled, then mirrored at the bottom and at the right."""
        if self.scale != 1:
            values_bcyx = F.interpolate(values_bcyx, scale_factor=self.scale, mode=mode)
        down, right = (-side % (1 << self.depth) for side in values_bcyx.shape[2:])
        return F.pad(values_bcyx, (0, right, 0, down), mode="reflect")

    def score(self, net: nn.Module, validation: Examples) -> float:
        """Mean over images of the mean Dice over the foreground classes, as septa's validation tells it."""
        net.eval()
        scores = []
        with torch.inference_mode():
            for index in range(len(validation)):
                truth_yx = validation[index].labels_yx
                logits_bkyx = net(self.prepared(validation[index].image_cyx))
                size = [int(side * self.scale) for side in truth_yx.shape]
                logits_bkyx = logits_bkyx[:, :, : size[0], : size[1]]
                if self.scale != 1:
                    logits_bkyx = F.interpolate(logits_bkyx, truth_yx.shape, mode="bilinear")
                predicted_yx = logits_bkyx[0].argmax(0).numpy()
                counts = class_counts(confusion(truth_yx, predicted_yx, self.classes))
                scores.append(float(np.mean(dice(counts)[1:])))
        net.train()
        return float(np.mean(scores))


def _loss(logits_bkyx: Tensor, target_byx: Tensor) -> Tensor:
    truth_bkyx = F.one_hot(target_byx, logits_bkyx.shape[1]).permute(0, 3, 1, 2).float()
    chance_bkyx = logits_bkyx.softmax(1)
    both_bk = (chance_bkyx * truth_bkyx).sum((2, 3))
    overlap = (2 * both_bk + 1e-6) / (chance_bkyx.sum((2, 3)) + truth_bkyx.sum((2, 3)) + 1e-6)
    return F.cross_entropy(logits_bkyx, target_byx) + 1 - overlap.mean()
