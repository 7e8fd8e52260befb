"""Train a U-Net on microscopy images and label images, and segment images of any size with it.

>>> import septa
>>> model = septa.train("cells", "cells.septa", minutes=10)  # doctest: +SKIP
>>> labels_yx = model.segment("new.tif")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from septa import losses, metrics, plot
    from septa.errors import SeptaError, SeptaWarning
    from septa.evaluation import evaluate
    from septa.images import read_image
    from septa.inference import tile_predict
    from septa.losses import border_weights
    from septa.model import Model, Prediction
    from septa.nets import UNet
    from septa.progress_bar import ProgressEvent, progress
    from septa.quantization import quantize
    from septa.recipe import Recipe
    from septa.training import Dataset, train

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "Model",
    "Prediction",
    "ProgressEvent",
    "Recipe",
    "SeptaError",
    "SeptaWarning",
    "UNet",
    "__version__",
    "border_weights",
    "evaluate",
    "load",
    "losses",
    "metrics",
    "plot",
    "progress",
    "quantize",
    "read_image",
    "tile_predict",
    "train",
]

_MODULES = {
    "Dataset": "septa.training",
    "Model": "septa.model",
    "Prediction": "septa.model",
    "ProgressEvent": "septa.progress_bar",
    "Recipe": "septa.recipe",
    "SeptaError": "septa.errors",
    "SeptaWarning": "septa.errors",
    "UNet": "septa.nets",
    "border_weights": "septa.losses",
    "evaluate": "septa.evaluation",
    "progress": "septa.progress_bar",
    "quantize": "septa.quantization",
    "read_image": "septa.images",
    "tile_predict": "septa.inference",
    "train": "septa.training",
}
_ROOMS = ("losses", "metrics", "plot")
"""Rooms that are public names themselves."""


def load(path: str) -> Model:
    """Read a model file, or a shipped model by its name; see `septa.model.Model.load`."""
    from septa.model import Model

    return Model.load(path)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"septa.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'septa' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
