"""Requests and answers of the interface: typed, checked when they come in, JSON on the way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Tool = Literal["brush", "eraser", "polygon", "fill", "delete", "merge", "split", "class"]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e7, allow_inf_nan=False)]
Edge = Annotated[int, Field(ge=-1_000_000, le=10_000_000)]
Box = tuple[Edge, Edge, Edge, Edge]
Label = Annotated[int, Field(ge=1, le=2**31 - 2)]


class Request(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChangeRequest(Request):
    """A change of labels.

    Attributes
    ----------
    base
        Version of the labels that the client has seen. The change is refused if they are others by now; None to change
        them as they are.
    """

    base: int | None = None


class EditRequest(ChangeRequest):
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
        Object that is edited; None for a new one, and for the eraser for all. If the labels are classes of pixels, the
        place of the class that is painted.
    into
        Object that ``label`` is merged into.
    value
        Value of the class that the tool ``class`` gives to the object.
    over
        True to paint over other objects.
    """

    tool: Tool
    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=20_000)] = []
    radius: Annotated[float, Field(ge=0.5, le=500)] = 0.5
    label: Label | None = None
    into: Label | None = None
    value: Label | None = None
    over: bool = False


class SegmentRequest(ChangeRequest):
    """Segment an image with a model; ``replace`` allows it to replace corrections.

    ``visible`` is the part that is computed first: first row and column, and the ones after the last.
    """

    model: str
    visible: Box | None = None
    replace: bool = False


class CutRequest(Request):
    """Save a part of an image as an image of its own: first row and column, and the ones after the last."""

    box: Box


class DecodeRequest(ChangeRequest):
    """Decode again with other thresholds; None for those of the model. ``replace`` allows it to replace corrections."""

    foreground: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Annotated[float, Field(gt=0, lt=1)] | None = None
    least_pixels: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    replace: bool = False


class CheckRequest(ChangeRequest):
    """Mark the labels of an image as ground truth, or take the mark away.

    ``area`` is a rectangle for which this holds: first row and column, and the ones after the last; None for the image.
    """

    checked: bool
    area: Box | None = None


class ImageAnswer(BaseModel):
    """An image in the list; of a file of several pages, ``checked_pages`` are checked, and ``areas`` in all of them."""

    name: str
    labels: bool
    checked_pages: int
    checked: bool
    areas: int
    corrections: int
    model: str


class ChannelAnswer(BaseModel):
    """A channel as the page shows it at first."""

    name: str
    color: str
    low: float
    high: float


class ClassAnswer(BaseModel):
    """A class: its value in files, and its name."""

    value: int
    name: str


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
    areas
        Rectangles whose labels are marked as ground truth: first row and column, and the ones after the last.
    classes
        Classes of objects or pixels, the background first; empty without classes.
    pixels
        True if labels are places in ``classes``, False if they are objects.
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
    areas: list[tuple[int, int, int, int]]
    classes: list[ClassAnswer]
    pixels: bool
    file: str
    error: str
    replaceable: bool
    decoding: dict[str, dict[str, float]] | None = None


class PictureAnswer(BaseModel):
    """An image that was opened.

    Attributes
    ----------
    name
        Full name of the page.
    file
        Name of its file.
    images, image
        Number of images in the file, and number of this one.
    pages, page
        Number of planes of the image, and number of this one.
    position
        Text that says which plane it is; empty for the only one.
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
    can_cut
        True if the image is large, so that parts of it can be cut out.
    labels
        Its labels; None if it can only be looked at.
    """

    name: str
    file: str
    images: int
    image: int
    pages: int
    page: int
    position: str
    key: str
    levels: list[tuple[int, int]]
    tile: int
    dtype: str
    offset: float
    scale: float
    channels: list[ChannelAnswer]
    pixel_size_um: tuple[float, float] | None
    problem: str
    can_cut: bool
    labels: LabelsAnswer | None


class JobAnswer(BaseModel):
    """A prediction that waits, runs or has ended; see `septa.app.jobs`.

    Attributes
    ----------
    place
        Number of predictions that are done before it; 0 if it runs or has ended.
    """

    number: int
    kind: str
    image: str
    model: str
    state: str
    place: int
    share: float
    text: str
    error: str
    lines: list[str]


class ObjectsAnswer(BaseModel):
    """Measurements of objects: columns, and a row for each object."""

    version: int
    columns: list[str]
    rows: list[list[float | None]]


class TrainingFolderAnswer(BaseModel):
    """The folder for a training; ``ignore`` is the value of pixels that are not checked, None if all are."""

    path: str
    images: list[str]
    ignore: int | None
