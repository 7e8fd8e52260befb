"""Segment images that are open in napari. Nothing here needs napari or Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, unify_out_of_memory
from septa.images import MAX_PIXELS, Calibration
from septa.inference import WatchedEngine, smallest_tile_for
from septa.model import Model, PredictionOptions
from septa.notices import Notices
from septa.objects import measure_predicted
from septa.pretrained import list_shipped

Array = NDArray[Any]
Span = tuple[int, int]
Report = Callable[[float, str], None]
Part = Literal["visible part", "current plane", "all planes"]

PARTS: tuple[Part, ...] = ("visible part", "current plane", "all planes")
_TILE = 768
"""Side of a tile, pixels: small enough that progress is shown and the work can be cancelled."""
_MICROMETRES = {"micrometer", "micrometre", "micron", "um", "µm", "μm"}


@dataclass(frozen=True, kw_only=True)
class LayerImage:
    """The pixels of one image layer, or of several that are the channels of one image.

    Attributes
    ----------
    name
        Name of the image.
    channels
        Array of each layer: ``(..., Y, X)``, or ``(..., Y, X, 3)`` with ``rgb``. They may read their pixels late.
    names
        Name of each layer.
    rgb
        True if the last axis holds colours.
    scale, translate
        Size of a pixel, and place of the first one, along all axes but colours.
    units
        Name of the unit along each of them.
    """

    name: str
    channels: Sequence[Any]
    names: Sequence[str] = ()
    rgb: bool = False
    scale: Sequence[float] = ()
    translate: Sequence[float] = ()
    units: Sequence[str] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along all axes but colours."""
        shape = tuple(int(side) for side in self.channels[0].shape)
        return shape[:-1] if self.rgb else shape

    @property
    def planes(self) -> list[tuple[int, ...]]:
        """Index of each plane."""
        return list(np.ndindex(self.shape[:-2]))

    @property
    def pixel_size_um(self) -> tuple[float, float] | None:
        """Height and width of a pixel in micrometres, if the layer states this unit."""
        units = [str(unit).lower() for unit in self.units[-2:]]
        if len(units) < 2 or not set(units) <= _MICROMETRES or len(self.scale) < 2:
            return None
        return float(self.scale[-2]), float(self.scale[-1])

    def read(self, plane: tuple[int, ...], rows: Span, columns: Span) -> Array:
        """Return a window ``CYX`` of a plane in its own values.

        Raises
        ------
        InputError
            The layers differ in size.
        """
        if len({tuple(channel.shape) for channel in self.channels}) > 1:
            problem = "the selected layers differ in size, so they are not the channels of one image"
            raise InputError(self.name, problem, "Select layers of one size")
        window = (*plane, slice(*rows), slice(*columns))
        parts = [np.asarray(channel[window]) for channel in self.channels]
        if self.rgb:
            return np.ascontiguousarray(np.moveaxis(parts[0][..., :3], -1, 0))
        return np.stack(parts)


@dataclass(frozen=True, kw_only=True)
class SegmentSettings:
    """The settings of a segmentation.

    Attributes
    ----------
    model
        Name of a shipped model, or path of a model file.
    engine
        Engine as for `septa.Model.segment`; the model's own choice if None.
    tile
        Largest side of a tile, pixels; chosen if None.
    measure
        Measurements as for `septa.objects.measure_objects`.
    """

    model: str
    engine: str | None = None
    tile: int | None = None
    measure: tuple[str, ...] = ("basic",)


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation:
    """Labels for a layer, and what is known about them.

    Attributes
    ----------
    name
        Name for the layer.
    labels
        Labels of all planes that were segmented: as many axes as the image, of length 1 along those of a single plane.
    begin
        First pixel of the labels in the image, along each axis.
    features
        Columns of the features table; ``index`` holds the label values.
    lines
        Notes and warnings, printable.
    """

    name: str
    labels: Array
    begin: tuple[int, ...]
    features: dict[str, Array]
    lines: tuple[str, ...]


def list_models() -> dict[str, str]:
    """Return the names of the shipped models, and what each segments."""
    return {one.name: one.summary for one in list_shipped()}


def find_window(
    image: LayerImage, part: Part, plane: Sequence[int], corners: Array | None
) -> tuple[list[tuple[int, ...]], Span, Span]:
    """Return the planes, rows and columns of a part of an image.

    Parameters
    ----------
    image, part
        The image and the part.
    plane
        Index of the plane that is shown.
    corners
        First and last visible pixel of the layer, ``(2, axes)``, in pixels of the full size; None if unknown.

    Raises
    ------
    InputError
        Nothing of the image is visible.

    Examples
    --------
    >>> image = LayerImage(name="a", channels=[np.zeros((5, 40, 60))])
    >>> find_window(image, "visible part", (3,), np.array([[0, -4, 20], [4, 9, 200]]))
    ([(3,)], (0, 10), (20, 60))
    """
    height, width = image.shape[-2:]
    planes = image.planes if part == "all planes" else [tuple(int(place) for place in plane)]
    if part != "visible part" or corners is None:
        return planes, (0, height), (0, width)
    (top, left), (bottom, right) = (np.asarray(corner)[-2:].astype(int).tolist() for corner in corners)
    rows = max(0, top), min(height, bottom + 1)
    columns = max(0, left), min(width, right + 1)
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        raise InputError(image.name, "nothing of the image is visible", "Move it into view, or choose another part")
    return planes, rows, columns


def segment_layer(
    image: LayerImage,
    window: tuple[list[tuple[int, ...]], Span, Span],
    settings: SegmentSettings,
    report: Report,
) -> Segmentation:
    """Segment a part of an image.

    Parameters
    ----------
    image, window
        The image, and the part of it from `find_window`.
    settings
        The settings.
    report
        Function that receives the share of the work that is done and what is done now; it may raise to stop.

    Raises
    ------
    InputError
        The model cannot be used, or the image does not fit it.
    ResourceError
        The image does not fit into memory.
    """
    planes, rows, columns = window
    report(0.0, "reading the model")
    model = Model.load(settings.model)
    if model.task.multilabel:
        problem = "the classes of this model overlap, and a labels layer holds one value for each pixel"
        raise InputError(settings.model, problem, "Use 'septa predict', and open its output")
    size = len(planes) * (rows[1] - rows[0]) * (columns[1] - columns[0])
    if size > MAX_PIXELS:
        problem = f"{size / 1e6:.0f} megapixels are too many for memory"
        raise InputError(image.name, problem, "Choose a smaller part, or use 'septa predict' with a store as output")
    notices = Notices()
    engine = model.engine("auto", settings.engine)
    parts, tables, latest = [], [], 0
    for number, plane in enumerate(planes):
        done = _Steps(report, number, len(planes))
        values_cyx = image.read(plane, rows, columns)
        labels_yx, columns_of_plane = _segment_plane(model, engine, image, values_cyx, settings, done, notices)
        if model.task.finds_objects:
            labels_yx = np.where(labels_yx > 0, labels_yx + latest, 0)
            columns_of_plane["index"] = columns_of_plane["index"] + latest
            latest = int(labels_yx.max(initial=0)) or latest
        parts.append(labels_yx)
        tables.append(columns_of_plane)
    leading = image.shape[:-2] if len(planes) > 1 else (1,) * len(image.shape[:-2])
    labels = np.stack(parts).reshape(*leading, *parts[0].shape)
    first = planes[0] if len(planes) == 1 else (0,) * len(leading)
    name = f"{image.name} {Path(settings.model).stem}"
    features = _join_features(tables) if model.task.finds_objects else tables[0]
    report(1.0, f"{latest} objects" if model.task.finds_objects else "done")
    return Segmentation(
        name=name,
        labels=labels,
        begin=(*first, rows[0], columns[0]),
        features=features,
        lines=tuple(notices.lines()),
    )


@dataclass(frozen=True)
class _Steps:
    """Progress of one plane out of several."""

    report: Report
    number: int
    count: int

    def __call__(self, share: float, text: str) -> None:
        prefix = f"plane {self.number + 1} of {self.count}: " if self.count > 1 else ""
        self.report((self.number + share) / self.count, prefix + text)


def _segment_plane(
    model: Model,
    engine: Any,
    image: LayerImage,
    values_cyx: Array,
    settings: SegmentSettings,
    report: Report,
    notices: Notices,
) -> tuple[Array, dict[str, Array]]:
    """Return the labels of a plane and the columns of its features."""
    image_cyx = model.as_model_input(values_cyx, image.name, notices)
    options = PredictionOptions(factor=model.find_factor(image_cyx, image.name, notices))
    sized, options = model.fit_size(image_cyx, options, image.name, notices)
    if sized.net is not model.net:
        engine = sized.engine()
    model = sized
    height, width = model.recipe.data.resize or image_cyx.shape[1:]
    tile = settings.tile or (max(_TILE, smallest_tile_for(model.net)) if model.net.exact_tiles else None)
    model.check_tile(tile)
    count = len(model.plan(height, width, tile)) * model.recipe.inference.tta
    options = PredictionOptions(
        engine=WatchedEngine(engine, count, lambda share, text: report(0.9 * share, text)),
        tile=tile,
        factor=options.factor,
        sums=model.make_sums(),
    )
    with unify_out_of_memory():
        logits_kyx = model.compute_logits(image_cyx, options)
        report(0.9, "finding the objects" if model.task.finds_objects else "finding the classes")
        model.report_unlike(image_cyx, options, image.name, notices)
        labels_yx = model.task.decode(logits_kyx)
    if not model.task.finds_objects:
        names = np.array(model.labels.class_names)
        values = model.as_written(np.arange(len(names), dtype=np.int32)[None])[0]
        return model.as_written(labels_yx), {"index": values, "class": names}
    class_of_id = model.task.classify(labels_yx, logits_kyx)
    _, table = measure_predicted(
        labels_yx,
        image_cyx,
        model.task.probabilities(logits_kyx)[1],
        calibration=Calibration(pixel_size_um=image.pixel_size_um, channel_names=tuple(image.names)),
        class_yx=None if class_of_id is None else class_of_id[labels_yx],
        class_names=model.labels.class_names,
        curve=model.confidence_curve,
        measure=settings.measure,
    )
    columns = dict(table.columns)
    return labels_yx, {"index": columns.pop("label"), **columns}


def _join_features(tables: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
