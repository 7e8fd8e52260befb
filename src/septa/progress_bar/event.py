"""The state of long work, as callbacks receive it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """The state of long work, which a callback receives again and again.

    Attributes
    ----------
    stage
        Name of the work: ``check`` and ``train`` during a training, ``predict`` during a prediction.
    done, total
        Number of items that are done, and of all: files read, optimiser steps, images segmented.
    share
        Share of the work that is done, 0 to 1. It may run ahead of ``done / total``, as a training also ends with its
        minutes, and it grows within one large image.
    values
        Figures by their names: those of the newest row of the history of a training, such as ``loss`` and ``score``.
        Empty for other stages.

    Examples
    --------
    >>> event = ProgressEvent(stage="train", done=30, total=120, share=0.25, values={"loss": 0.4})
    >>> event.describe()
    'train 30 of 120: loss 0.4'
    """

    stage: str
    done: int
    total: int
    share: float
    values: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def describe(self) -> str:
        """Return the state as one line of text."""
        shown = ("loss", "score", "val_loss")
        figures = ", ".join(f"{name} {self.values[name]:.3g}" for name in shown if name in self.values)
        return f"{self.stage} {self.done} of {self.total}" + (f": {figures}" if figures else "")


ProgressCallback = Callable[[ProgressEvent], object]
"""Function that long work calls with each `ProgressEvent`; what it returns is not used, and what it raises ends the
work."""


def report_counts(callback: ProgressCallback | None, stage: str) -> Callable[[int, int], None] | None:
    """Return a function of the done and the total number of items that calls a callback; None for no callback."""
    if callback is None:
        return None

    def report(done: int, total: int) -> None:
        callback(ProgressEvent(stage=stage, done=done, total=total, share=done / total if total else 1.0))

    return report
