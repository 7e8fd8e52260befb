"""Segmentation of open images: models, progress, and decoding again from the kept output of the net."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, unify_out_of_memory
from septa.images import cut_mirrored
from septa.inference import ImageTile, WatchedEngine, predict_tiles, smallest_tile_for
from septa.model import Model, PredictionOptions
from septa.notices import Notices
from septa.objects import confidence
from septa.pretrained import list_shipped

from .document import Thresholds
from .edits import Part
from .folder import ImageFolder, Marks
from .picture import Picture

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Report = Callable[[float, str], None]
"""Function that receives the share of the work that is done, and what is done now."""
Show = Callable[[Part, Int32], object]
"""Function that receives a part of an image, and labels of it."""
_TILE = 768
"""Side of a tile, pixels: small enough that progress is shown and a job can be cancelled."""
_KEPT = 2
"""Number of images whose net output is kept."""


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A model that can be chosen.

    Attributes
    ----------
    name
        Name on the page.
    path
        Model file.
    origin
        Where it comes from: ``septa``, ``folder`` or ``--model``.
    summary
        What it segments; empty if that is not known.
    """

    name: str
    path: Path
    origin: str
    summary: str = ""


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
    def has_thresholds(self) -> bool:
        """True if the thresholds can be moved."""
        return self.model.task.finds_objects

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
            found = self.model.confidence_curve.apply(confidence(labels_yx, self.foreground_yx))
            labels_yx = np.where(np.isin(labels_yx, ids[found < thresholds.confidence]), 0, labels_yx).astype(np.int32)
        class_of_id = task.classify(labels_yx, self.logits_kyx)
        if class_of_id is None:
            return labels_yx, {}
        values = self.marks.classes
        return labels_yx, {int(one): values[class_of_id[one]][0] for one in np.unique(labels_yx[labels_yx > 0])}

    @cached_property
    def foreground_yx(self) -> Float32:
        """Probability of foreground."""
        foreground_yx: Float32 = self.model.task.probabilities(self.logits_kyx)[1]
        return foreground_yx


class Segmenter:
    """Models of a folder, and the outputs of their nets.

    Parameters
    ----------
    folder
        Folder whose model files can be chosen.
    model
        Another model file, which is chosen first; None for none.
    """

    def __init__(self, folder: ImageFolder, model: ModelChoice | None = None) -> None:
        self._folder = folder
        self._first = model
        self._loaded: tuple[tuple[Path, int], Model] | None = None
        self._outputs: OrderedDict[str, NetOutput] = OrderedDict()

    def list_models(self) -> list[ModelChoice]:
        """List the models that can be chosen; the first is the default."""
        found = [] if self._first is None else [self._first]
        shipped = [
            ModelChoice(name=one.name, path=one.path, origin="septa", summary=one.summary) for one in list_shipped()
        ]
        own = self._folder.list_models().items()
        found += [*shipped, *(ModelChoice(name=name, path=path, origin="folder") for name, path in own)]
        unique: dict[Path, ModelChoice] = {}
        for one in found:
            unique.setdefault(one.path.resolve(), one)
        return list(unique.values())

    def find(self, name: str) -> ModelChoice:
        """Return the model of a name.

        Raises
        ------
        InputError
            There is no such model.
        """
        choice = next((one for one in self.list_models() if one.name == name), None)
        if choice is None:
            raise InputError(name, "there is no such model", "Choose one of the list")
        return choice

    def load(self, name: str) -> Model:
        """Load the model of a name; the last one stays in memory.

        Raises
        ------
        InputError
            There is no such model, it cannot be read, or its classes overlap.
        """
        choice = self.find(name)
        key = choice.path, choice.path.stat().st_mtime_ns
        if self._loaded is None or self._loaded[0] != key:
            model = Model.load(choice.path)
            if model.task.multilabel:
                problem = "the model finds classes that overlap, and the app shows one class for each pixel"
                raise InputError(name, problem, "Choose another model, or use 'septa predict'")
            self._loaded = key, model
        return self._loaded[1]

    def compute(
        self,
        picture: Picture,
        name: str,
        report: Report,
        notices: Notices,
        visible: Part | None = None,
        show: Show = print,
    ) -> NetOutput:
        """Run the net of a model over an image.

        Parameters
        ----------
        picture
            The image.
        name
            Name of the model.
        report
            Function that receives the share of the work that is done and what is done now; it may raise to stop.
        notices
            Receives what is assumed or suspected about the image.
        visible
            Part of the image that is computed first, if the net allows it.
        show
            Function that receives this part, and the labels that are found in it alone.

        Raises
        ------
        InputError
            The image is too large, does not fit the model, or the model cannot be used.
        """
        report(0, "reading the model")
        model, where = self.load(name), picture.name
        image_cyx = model.as_model_input(picture.image_cyx, where, notices)
        height, width = model.recipe.data.resize or picture.size_yx
        tile = max(_TILE, smallest_tile_for(model.net)) if model.net.exact_tiles else None
        tiles = model.plan(height, width, tile)
        engine = WatchedEngine(model.engine(), len(tiles) * model.recipe.inference.tta, report)
        factor = model.find_factor(image_cyx, where, notices)
        options = PredictionOptions(engine=engine, tile=tile, factor=factor, sums=model.make_sums())
        is_plain = model.recipe.inference.tta == 1 and not model.recipe.data.resize
        with unify_out_of_memory():
            first = [one for one in tiles if visible and _touches(one, visible)]
            if is_plain and 0 < len(first) < len(tiles):
                rest = [one for one in tiles if one not in first]
                logits_kyx = _compute_in_order(model, image_cyx, options, (first, rest), name, show)
            else:
                logits_kyx = model.compute_logits(image_cyx, options)
            report(1, "finding the objects")
            model.report_unlike(image_cyx, options, where, notices)
        return NetOutput(model=model, name=name, logits_kyx=logits_kyx)

    def keep(self, image: str, output: NetOutput) -> None:
        """Keep the output of a net for an image; that of an image of long ago is dropped."""
        self._outputs[image] = output
        self._outputs.move_to_end(image)
        while len(self._outputs) > _KEPT:
            self._outputs.popitem(last=False)

    def get(self, image: str) -> NetOutput | None:
        """Return the kept output of a net for an image."""
        return self._outputs.get(image)


def _touches(tile: ImageTile, box: Part) -> bool:
    y, x = tile.core
    return bool(y.start < box.bottom and y.stop > box.top and x.start < box.right and x.stop > box.left)


def _compute_in_order(
    model: Model,
    image_cyx: NDArray[Any],
    options: PredictionOptions,
    tiles: tuple[list[ImageTile], list[ImageTile]],
    name: str,
    show: Show,
) -> Float32:
    """Compute the logits of some tiles, show the labels in them, then compute the other tiles."""
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
            found = NetOutput(model=model, name=name, logits_kyx=out_kyx[(slice(None), *box.index)])
            show(box, found.decode(found.first_thresholds)[0])
    return out_kyx
