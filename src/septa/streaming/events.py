"""The request of a run, and the events that the run yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from septa.model import Model
from septa.streaming.budget import Budget
from septa.streaming.identity import StreamInput
from septa.streaming.plan import StreamPlan


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """The settings of a streamed segmentation.

    Attributes
    ----------
    model
        The model's file.
    input
        The image.
    output
        Path that ends in ``.zarr`` (OME-Zarr), or in ``.tif`` or ``.tiff`` (OME-TIFF).
    memory
        Budget of the process in bytes; `default_memory` if None.
    tile
        Largest side of a tile, pixels; as the budget allows if None.
    diameter
        Typical diameter of the objects, pixels; measured in the image if None and the model needs it.
    device
        ``auto``, or a device of torch.
    name
        Name of the label image in the store; the name of the model's file if None.
    probabilities
        True to write the probabilities of the classes, too.
    skip_empty
        True to skip blocks that show nothing but background.
    overwrite
        True to replace an existing output and existing files, and to start again instead of resuming.
    table, geojson
        Files of the measurements and of the outlines of all objects; None to write no such file. Outlines of a stack
        get a file for each page, whose number is added to the name.
    measure
        Measurements in both: names as for `septa.objects.measure_objects`.
    min_confidence
        Least confidence of an object that is kept (0..1); all are kept if None.
    image_name
        Name of the image in the table; that of the image's file if empty.
    engine
        Name of the engine that runs the net; the model's own if None.
    precision
        ``float32`` or ``bf16``; chosen by the model if None.
    zarr
        Version of OME-Zarr that is written, 0.4 or 0.5; that of the image if labels go into the image, else 0.5.
    into_image
        True to write the labels into the ``labels`` group of the image; ``output`` is not used then.
    fast_bf16
        True if every process that runs the net is fast in bfloat16; found out for this process if None.
    """

    model: Path
    input: StreamInput
    output: Path
    memory: int | None = None
    tile: int | None = None
    diameter: float | None = None
    device: str = "auto"
    name: str | None = None
    probabilities: bool = False
    skip_empty: bool = False
    overwrite: bool = False
    table: Path | None = None
    geojson: Path | None = None
    measure: tuple[str, ...] = ("basic",)
    min_confidence: float | None = None
    image_name: str = ""
    engine: str | None = None
    precision: str | None = None
    zarr: str | None = None
    into_image: bool = False
    fast_bf16: bool | None = None


@dataclass(frozen=True, kw_only=True)
class StreamStarted:
    """The first event: a description of the run.

    Attributes
    ----------
    plan, budget, model
        The plan, the sizes that fit into the memory budget, and the model.
    blocks, done
        Number of blocks, and of those that an earlier run has done.
    notes
        Sentences for the user.
    """

    plan: StreamPlan
    budget: Budget
    model: Model
    blocks: int
    done: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StreamStep:
    """Progress in a stage.

    Attributes
    ----------
    stage
        ``segmenting``, ``scoring`` (confidences of objects), ``writing`` or ``measuring``.
    done, total
        Megapixels that are segmented, or blocks that are done, so far and in the end.
    """

    stage: str
    done: float
    total: float


@dataclass(frozen=True, kw_only=True)
class StreamFinished:
    """The last event: a summary of the run.

    Attributes
    ----------
    output, megapixels
        The output, and its size.
    segmented
        Megapixels that this run has segmented. Earlier runs have done the others, or they are skipped.
    seconds
        Time of this run, from opening the model's file to the last byte of the output.
    net_seconds
        Time within ``seconds`` in which the net ran; None if other processes ran it.
    objects
        Number of objects; None for a semantic task.
    dropped
        Number of objects that were dropped for their confidence.
    skipped
        Share of the pixels that lie in skipped blocks.
    already_complete
        True if the output was complete before this run, which then has done nothing.
    conflicts
        Pixels at borders of blocks about which two blocks disagree. An engine that gives the same values in every tile
        leaves none.
    notes
        Printable lines about what was found while blocks were read.
    """

    output: Path
    megapixels: float
    segmented: float
    seconds: float
    net_seconds: float | None
    objects: int | None
    skipped: float
    already_complete: bool = False
    conflicts: int = 0
    notes: tuple[str, ...] = ()
    dropped: int = 0


StreamEvent = StreamStarted | StreamStep | StreamFinished
