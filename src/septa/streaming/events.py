"""What is asked of a run, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from septa.model import Model
from septa.streaming.budget import Budget
from septa.streaming.plan import Input, Plan


@dataclass(frozen=True)
class Request:
    """What is to be done, and with what.

    ``memory`` is in bytes; ``output`` ends in ``.zarr``, ``.tif`` or ``.tiff``; ``name`` is that of the label image,
    the model's file name when None.
    """

    model: Path
    input: Input
    output: Path
    memory: int | None = None
    tile: int | None = None
    device: str = "auto"
    name: str | None = None
    probabilities: bool = False
    skip_empty: bool = False
    overwrite: bool = False
    engine: str = "torch"


@dataclass(frozen=True)
class Started:
    """What will be done: the first event. ``done`` are blocks that an earlier run has left."""

    plan: Plan
    budget: Budget
    model: Model
    blocks: int
    done: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """Where the work stands in one of its stages: units (megapixels, or blocks) done and in all."""

    stage: str
    done: float
    total: float


@dataclass(frozen=True)
class Finished:
    """The last event; ``objects`` is None where pixels are labelled, ``seconds`` are those of this run's net.

    ``conflicts`` are pixels on lines between blocks that two blocks see differently, which no exact engine leaves.
    """

    output: Path
    megapixels: float
    segmented: float
    seconds: float
    objects: int | None
    skipped: float
    again: bool = False
    conflicts: int = 0


Event = Started | Step | Finished
