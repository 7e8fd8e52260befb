"""Segmentation in the process that predicts: the visible part first, progress, and decoding again from kept output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, unify_out_of_memory
from septa.images import cut_mirrored
from septa.inference import Engine, ImageTile, WatchedEngine, predict_tiles, smallest_tile_for
from septa.model import Model, PredictionOptions
from septa.notices import Notices
from septa.objects import confidence

from .edits import Part
from .folder import Marks
from .thresholds import Thresholds

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Report = Callable[[float, str], None]
"""Function that receives the share of the work that is done, and what is done now; it may raise to stop."""
Show = Callable[[Part, Int32], object]
"""Function that receives a part of an image, and labels of it."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in memory with the engine that runs it, and its name on the page."""

    name: str
    model: Model
    engine: Engine

    @classmethod
    def load(cls, path: Path, name: str) -> LoadedModel:
        """Load a model.

        Raises
        ------
        InputError
            It cannot be read, or its classes overlap.
        """
        model = Model.load(path)
        if model.task.multilabel:
            problem = "the model finds classes that overlap, and the app shows one class for each pixel"
            raise InputError(name, problem, "Choose another model, or use 'septa predict'")
        return cls(name=name, model=model, engine=model.engine())


@dataclass(frozen=True, kw_only=True)
class NetOutput:
    """The output of a net for an image, with the model that made it."""

    model: Model
    name: str
    logits_kyx: Float32

    @property
    def first_thresholds(self) -> Thresholds:
        """Thresholds of the model."""
        return Thresholds(decoding=self.model.decoding)

    @property
    def marks(self) -> Marks:
        """Marks of labels that the model finds."""
        labels, task = self.model.labels, self.model.task
        values = range(labels.classes) if labels.kind == "color" else labels.raw_values.tolist()
        table = tuple(zip(values, labels.class_names)) if not task.finds_objects or task.object_classes > 1 else ()
        if table and task.finds_objects:
            table = (0, table[0][1]), *table[1:]
        return Marks(model=self.name, classes=table, pixels=not task.finds_objects)

    def decode(self, thresholds: Thresholds) -> tuple[Int32, dict[int, int]]:
        """Find the labels, int32 ``YX``: ids of objects and the class of each, or places of classes."""
        task = replace(self.model, decoding=thresholds.decoding).task
        labels_yx = task.decode(self.logits_kyx)
        if thresholds.confidence > 0 and task.finds_objects:
            ids = np.unique(labels_yx[labels_yx > 0])
            found = self.model.confidence_curve.apply(confidence(labels_yx, self.probability_yx))
            labels_yx = np.where(np.isin(labels_yx, ids[found < thresholds.confidence]), 0, labels_yx).astype(np.int32)
        class_of_id = task.classify(labels_yx, self.logits_kyx)
        if class_of_id is None:
            return labels_yx, {}
        values = self.marks.classes
        return labels_yx, {int(one): values[class_of_id[one]][0] for one in np.unique(labels_yx[labels_yx > 0])}

    @cached_property
    def probability_yx(self) -> Float32:
        """Probability of foreground, or of the class that a pixel has."""
        probability_kyx = self.model.task.probabilities(self.logits_kyx)
        found: Float32 = probability_kyx[1] if self.model.task.finds_objects else probability_kyx.max(0)
        return found


@dataclass(frozen=True, kw_only=True)
class NetRun:
    """A run of a net over an image.

    Attributes
    ----------
    where
        Name of the image.
    tile
        Side of a tile, pixels; progress is reported, and the work can stop, after each.
    visible
        Part of the image that is computed first, if the net allows it; None for none.
    """

    where: str
    tile: int
    visible: Part | None = None

    def run(
        self, loaded: LoadedModel, image_cyx: NDArray[Any], report: Report, notices: Notices, show: Show
    ) -> NetOutput:
        """Run the net of a model over an image.

        Parameters
        ----------
        loaded
            The model.
        image_cyx
            Values of the image.
        report
            Receives the progress.
        notices
            Receives what is assumed or suspected about the image.
        show
            Receives the visible part, and the labels that are found in it alone.

        Raises
        ------
        InputError
            The image does not fit the model.
        """
        image_cyx = loaded.model.as_model_input(image_cyx, self.where, notices)
        loaded, factor = self._fit_size(loaded, image_cyx, notices)
        model, size_yx = loaded.model, image_cyx.shape[1:]
        height, width = model.recipe.data.resize or size_yx
        tile = max(self.tile, smallest_tile_for(model.net)) if model.net.exact_tiles else None
        tiles = model.plan(height, width, tile)
        engine = WatchedEngine(loaded.engine, len(tiles) * model.recipe.inference.tta, report)
        options = PredictionOptions(engine=engine, tile=tile, factor=factor, sums=model.make_sums())
        is_plain = model.recipe.inference.tta == 1 and not model.recipe.data.resize
        with unify_out_of_memory():
            first = [one for one in tiles if self.visible and _touches(one, self.visible)]
            if is_plain and 0 < len(first) < len(tiles):
                rest = [one for one in tiles if one not in first]
                logits_kyx = _compute_in_order(loaded, image_cyx, options, (first, rest), show)
            else:
                logits_kyx = model.compute_logits(image_cyx, options)
            report(1, "finding the objects")
            model.report_unlike(image_cyx, options, self.where, notices)
        return NetOutput(model=model, name=loaded.name, logits_kyx=logits_kyx)

    def _fit_size(self, loaded: LoadedModel, image_cyx: NDArray[Any], notices: Notices) -> tuple[LoadedModel, float]:
        """Return the model at the size of an image, and the factor for the values of the image."""
        options = PredictionOptions(factor=loaded.model.find_factor(image_cyx, self.where, notices))
        model, options = loaded.model.fit_size(image_cyx, options, self.where, notices)
        engine = loaded.engine if model.net is loaded.model.net else model.engine()
        return replace(loaded, model=model, engine=engine), options.factor


def _touches(tile: ImageTile, box: Part) -> bool:
    y, x = tile.core
    return bool(y.start < box.bottom and y.stop > box.top and x.start < box.right and x.stop > box.left)


def _compute_in_order(
    loaded: LoadedModel,
    image_cyx: NDArray[Any],
    options: PredictionOptions,
    tiles: tuple[list[ImageTile], list[ImageTile]],
    show: Show,
) -> Float32:
    """Compute the logits of some tiles, show the labels in them, then compute the other tiles."""
    model = loaded.model
    out_kyx = np.empty((model.net.out_channels, *image_cyx.shape[1:]), np.float32)
    normalization = model.normalization.rescale(options.factor).resolve(image_cyx)
    assert options.engine is not None
    assert not isinstance(options.engine, str)

    def keep(core: tuple[slice, slice], logits_kyx: Float32) -> None:
        out_kyx[(slice(None), *core)] = logits_kyx

    for number, part in enumerate(tiles):
        read = partial(cut_mirrored, image_cyx)
        predict_tiles(options.engine, read, normalization, part, keep, options.sums)
        if number == 0:
            y, x = zip(*((tile.core[0], tile.core[1]) for tile in part))
            edges = min(one.start for one in y), min(one.start for one in x)
            box = Part(*edges, max(one.stop for one in y), max(one.stop for one in x))
            found = NetOutput(model=model, name=loaded.name, logits_kyx=out_kyx[(slice(None), *box.index)])
            show(box, found.decode(found.first_thresholds)[0])
    return out_kyx
