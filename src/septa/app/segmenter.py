"""Segmentation of open images: models, progress, and decoding again from the kept output of the net."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, unify_out_of_memory
from septa.inference import Engine, smallest_tile_for
from septa.model import Model, PredictionOptions
from septa.notices import Notices
from septa.pretrained import list_shipped
from septa.tasks import Decoding

from .folder import ImageFolder
from .picture import Picture

Float32 = NDArray[np.float32]
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

    def decode(self, decoding: Decoding) -> NDArray[np.int32]:
        """Find the objects with some thresholds, int32 ``YX``."""
        return replace(self.model, decoding=decoding).task.decode(self.logits_kyx)

    @property
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

    def load(self, name: str) -> Model:
        """Load the model of a name; the last one stays in memory.

        Raises
        ------
        InputError
            There is no such model, it cannot be read, or it does not find objects.
        """
        choice = next((one for one in self.list_models() if one.name == name), None)
        if choice is None:
            raise InputError(name, "there is no such model", "Choose one of the list")
        key = choice.path, choice.path.stat().st_mtime_ns
        if self._loaded is None or self._loaded[0] != key:
            model = Model.load(choice.path)
            if not model.task.finds_objects:
                problem = "the model finds classes of pixels, and the app shows objects"
                raise InputError(name, problem, "Choose a model of the task instances, or use 'septa predict'")
            self._loaded = key, model
        return self._loaded[1]

    def compute(self, picture: Picture, name: str, report: Callable[[float, str], None], notices: Notices) -> NetOutput:
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

        Raises
        ------
        InputError
            The image is too large, does not fit the model, or the model cannot be used.
        """
        report(0, "reading the model")
        model, where = self.load(name), picture.path.name
        image_cyx = model.as_model_input(picture.image_cyx, where, notices)
        height, width = model.recipe.data.resize or picture.size_yx
        tile = max(_TILE, smallest_tile_for(model.net)) if model.net.exact_tiles else None
        count = len(model.plan(height, width, tile)) * model.recipe.inference.tta
        engine = _WatchedEngine(model.engine(), count, report)
        factor = model.find_factor(image_cyx, where, notices)
        options = PredictionOptions(engine=engine, tile=tile, factor=factor, sums=model.make_sums())
        with unify_out_of_memory():
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


class _WatchedEngine:
    """An engine that reports each window that it has computed.

    Parameters
    ----------
    engine
        Engine that computes.
    count
        Expected number of windows.
    report
        Function that receives the share that is done; it may raise to stop.
    """

    def __init__(self, engine: Engine, count: int, report: Callable[[float, str], None]) -> None:
        self._engine = engine
        self._count = count
        self._done = 0
        self._report = report
        run = getattr(engine, "run_with_statistics", None)
        if run is not None:
            self.run_with_statistics = lambda images: self._watch(run(images))

    def __call__(self, image_cyx: Float32) -> Float32:
        """Compute the logits of one image; see `Engine`."""
        return self._engine(image_cyx)

    def run_many(self, images: Iterable[Float32]) -> Iterator[Float32]:
        """Yield the logits of each image; see `Engine`."""
        return self._watch(self._engine.run_many(images))

    def _watch(self, results: Iterator[Any]) -> Iterator[Any]:
        self._tick()
        for result in results:
            self._done += 1
            self._tick()
            yield result

    def _tick(self) -> None:
        self._report(self._done / max(self._count, 1), f"{min(self._done, self._count)} of {self._count} tiles")
