"""Train the widely used padded U-Net with batch norm in a plain loop, for ``time_to_quality.py``.

This code was written for the comparison, and follows the common design of such repositories. The net has two 3 x 3
convolutions per level, each with batch norm and ReLU, max pooling, and transposed convolutions for upsampling. The loop
uses batches of one whole image, values divided by 255, cross entropy plus soft Dice, gradients clipped at 1,
channels last, float32, no augmentation, and a constant learning rate.
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

from septa.data import Examples
from septa.metrics import class_counts, confusion, dice

FIRST = 20
GROWTH = 1.15
"""A validation comes ``limit / FIRST`` seconds after the last one, or at `GROWTH` times its time if that is later."""


@dataclass(frozen=True)
class Point:
    """A validation: its step, the processor and wall seconds of training before it, and its score."""

    step: int
    seconds: float
    wall: float
    score: float


@dataclass
class Watch:
    """A stopwatch for the processor time of this process and wall time; it can exclude work of this thread."""

    _start: tuple[float, float] = field(default_factory=lambda: (time.process_time(), time.perf_counter()))
    _excluded: tuple[float, float] = (0.0, 0.0)

    def read(self) -> tuple[float, float]:
        """Return the processor seconds of all threads and the wall seconds, without the excluded work."""
        processor = time.process_time() - self._start[0] - self._excluded[0]
        wall = time.perf_counter() - self._start[1] - self._excluded[1]
        return processor, wall

    @staticmethod
    def mark() -> tuple[float, float]:
        """Return the present moment, for `exclude_since`."""
        return time.thread_time(), time.perf_counter()

    def exclude_since(self, mark: tuple[float, float]) -> None:
        """Exclude the work of this thread since a mark; the work of other threads still counts."""
        now = self.mark()
        processor = self._excluded[0] + now[0] - mark[0]
        wall = self._excluded[1] + now[1] - mark[1]
        self._excluded = (processor, wall)


class PlainUNet(nn.Module):
    """One level of a U-Net with all levels below it: from features ``BCYX`` to features of ``width`` channels."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.down = _make_convolutions(channels, width)
        self.below = PlainUNet(width, 2 * width, depth - 1) if depth else None
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2) if depth else None
        self.merge = _make_convolutions(2 * width, width) if depth else None

    def forward(self, image_bcyx: Tensor) -> Tensor:
        """Compute features of the same height and width; both must be multiples of ``2**depth``."""
        fine: Tensor = self.down(image_bcyx)
        if self.below is None or self.up is None or self.merge is None:
            return fine
        coarse = self.up(self.below(F.max_pool2d(fine, 2)))
        merged: Tensor = self.merge(torch.cat([fine, coarse], 1))
        return merged


def _make_convolutions(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (channels, width):
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class PlainLoop:
    """A plain training loop.

    Attributes
    ----------
    optimizer
        ``rmsprop`` (learning rate 1e-5, momentum 0.999, decay 1e-8) or ``adam`` (learning rate 1e-3).
    scale
        Factor by which images are scaled for the net. Scores are computed at the original image size.
    width, depth
        Channels of the first level, and number of downsamplings.
    classes
        Number of classes with the background.
    """

    optimizer: str
    scale: float
    width: int
    depth: int
    classes: int

    def train(self, train: Examples, validation: Examples, limit: float) -> Iterator[Point]:
        """Train for ``limit`` processor seconds; yield each validation."""
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
        step = 0
        due = limit / FIRST
        while True:
            for index in rng.permutation(len(train)):
                example = train[int(index)]
                image_bcyx = self.prepare(example.image_cyx)
                labels_bcyx = torch.from_numpy(example.labels_yx)[None, None].float()
                target_byx = self.scale_and_pad(labels_bcyx, "nearest")[:, 0].long()
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
                    watch.exclude_since(mark)
                    due = min(limit, max(GROWTH * seconds, seconds + limit / FIRST))
                if seconds >= limit:
                    return

    def prepare(self, image_cyx: NDArray[np.uint8]) -> Tensor:
        """Return the input of the net, ``BCYX``, 0 to 1: scaled, and padded to a multiple of ``2**depth``."""
        image_bcyx = self.scale_and_pad(torch.from_numpy(image_cyx)[None].float() / 255, "bicubic")
        return image_bcyx.to(memory_format=torch.channels_last)

    def scale_and_pad(self, values_bcyx: Tensor, mode: str) -> Tensor:
        """Scale values, then pad them by reflection at the bottom and on the right."""
        if self.scale != 1:
            values_bcyx = F.interpolate(values_bcyx, scale_factor=self.scale, mode=mode)
        down, right = (-side % (1 << self.depth) for side in values_bcyx.shape[2:])
        return F.pad(values_bcyx, (0, right, 0, down), mode="reflect")

    def score(self, net: nn.Module, validation: Examples) -> float:
        """Return the mean Dice over foreground classes and then over images, as septa's validation computes it."""
        net.eval()
        scores = []
        with torch.inference_mode():
            for index in range(len(validation)):
                truth_yx = validation[index].labels_yx
                logits_bkyx = net(self.prepare(validation[index].image_cyx))
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
