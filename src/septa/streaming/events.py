"""What is asked of a run, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from septa.model import Model
from septa.streaming.budget import Budget
from septa.streaming.plan import StreamInput, StreamPlan


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """What is to be done, and with what.

    ``memory`` is in bytes; ``output`` ends in ``.zarr``, ``.tif`` or ``.tiff``; ``name`` is that of the label image,
    the model's file name when None; ``engine`` is the model's own when None.
    """

    model: Path
    input: StreamInput
    output: Path
    memory: int | None = None
    tile: int | None = None
    device: str = "auto"
    name: str | None = None
    probabilities: bool = False
    skip_empty: bool = False
    overwrite: bool = False
    engine: str | None = None


@dataclass(frozen=True, kw_only=True)
class StreamStarted:
    """What will be done: the first event. ``done`` are blocks that an earlier run has left."""

    plan: StreamPlan
    budget: Budget
    model: Model
    blocks: int
    done: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StreamStep:
    """Where the work stands in one of its stages: units (megapixels, or blocks) done and in all."""

    stage: str
    done: float
    total: float


@dataclass(frozen=True, kw_only=True)
class StreamFinished:
    """The last event.

    Attributes
    ----------
    output, megapixels
        What was written; its size.
    segmented
        Megapixels that this run has segmented; the others were done or are skipped.
    seconds
        Of all of this run, from the model's file to the last byte of the output.
    net_seconds
        Of these, those in which the net was at work; None where other processes have done it.
    objects
        Number of objects; None where pixels are labelled.
    skipped
        Share of the pixels that lie in blocks passed over as empty.
    again
        Whether all was done before this run, which then has done nothing.
    conflicts
        Pixels on lines between blocks that two blocks see differently, which no exact engine leaves.
    """

    output: Path
    megapixels: float
    segmented: float
    seconds: float
    net_seconds: float | None
    objects: int | None
    skipped: float
    again: bool = False
    conflicts: int = 0


StreamEvent = StreamStarted | StreamStep | StreamFinished
