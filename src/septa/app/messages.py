"""Requests and answers of the interface: typed, checked when they come in, JSON on the way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Tool = Literal["brush", "eraser", "polygon", "fill", "delete", "merge", "split"]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e7, allow_inf_nan=False)]
Label = Annotated[int, Field(ge=1, le=2**31 - 2)]


class Request(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EditRequest(Request):
    """An edit with a tool.

    Attributes
    ----------
    tool
        Tool.
    points
        Points (x, y) in pixels of the image: a stroke, the corners of a polygon, or one point.
    radius
        Radius of the brush or the eraser, pixels.
    label
        Object that is edited; None for a new one, and for the eraser for all.
    into
        Object that ``label`` is merged into.
    over
        True to paint over other objects.
    """

    tool: Tool
    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=20_000)] = []
    radius: Annotated[float, Field(ge=0.5, le=500)] = 0.5
    label: Label | None = None
    into: Label | None = None
    over: bool = False


class SegmentRequest(Request):
    """Segment an image with a model; ``replace`` allows it to replace corrections."""

    model: str
    replace: bool = False


class DecodeRequest(Request):
    """Decode again with other thresholds; None for those of the model. ``replace`` allows it to replace corrections."""

    foreground: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Annotated[float, Field(gt=0, lt=1)] | None = None
    least_pixels: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    replace: bool = False


class CheckRequest(Request):
    """Mark the labels of an image as ground truth, or take the mark away."""

    checked: bool


class ImageAnswer(BaseModel):
    """An image in the list."""

    name: str
    labels: bool
    checked: bool
    corrections: int
    model: str


class ChannelAnswer(BaseModel):
    """A channel as the page shows it at first."""

    name: str
    color: str
    low: float
    high: float


class LabelsAnswer(BaseModel):
    """The labels of an image after a request.

    Attributes
    ----------
    version, saved_version
        Number of the last change, and of the last one that is on disk.
    count
        Number of objects.
    label
        Object that the request made or changed; None if there is none.
    can_undo, can_redo
        True if there is an edit to undo or to do again.
    corrections
        Number of corrections since a model found the labels.
    checked
        True if the labels are marked as ground truth.
    file
        Label file, relative to the folder.
    error
        Error line of the last attempt to save; empty if it succeeded.
    replaceable
        True if the error is that the file was not written by septa.
    decoding
        Thresholds in use, and those of the model; None if the output of the net is not kept.
    """

    version: int
    saved_version: int
    count: int
    label: int | None = None
    can_undo: bool
    can_redo: bool
    corrections: int
    checked: bool
    file: str
    error: str
    replaceable: bool
    decoding: dict[str, dict[str, float]] | None = None


class PictureAnswer(BaseModel):
    """An image that was opened.

    Attributes
    ----------
    name
        Name.
    key
        Part of the addresses of tiles that changes when the file does.
    levels
        (height, width) of each level, the full size first.
    tile
        Side of a tile, pixels.
    dtype, offset, scale
        Type of samples (little endian); a value of the image is ``offset + scale * sample``.
    channels
        Channels.
    pixel_size_um
        (y, x) micrometres per pixel, if they are known.
    problem
        Reason why the image can only be looked at; empty if it can be segmented and corrected.
    labels
        Its labels; None if it can only be looked at.
    """

    name: str
    key: str
    levels: list[tuple[int, int]]
    tile: int
    dtype: str
    offset: float
    scale: float
    channels: list[ChannelAnswer]
    pixel_size_um: tuple[float, float] | None
    problem: str
    labels: LabelsAnswer | None


class JobAnswer(BaseModel):
    """Work that runs or has ended; see `septa.app.jobs.Job`."""

    number: int
    kind: str
    image: str
    state: str
    share: float
    text: str
    error: str
    lines: list[str]


class ObjectsAnswer(BaseModel):
    """Measurements of objects: columns, and a row for each object."""

    version: int
    columns: list[str]
    rows: list[list[float | None]]
