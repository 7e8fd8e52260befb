"""Train a U-Net on microscopy images and label images, and segment images of any size with it.

>>> import septa
>>> model = septa.train("cells", "cells.septa", minutes=10)  # doctest: +SKIP
>>> labels_yx = model.segment("new.tif")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from septa.errors import SeptaWarning
    from septa.evaluation import evaluate
    from septa.model import Model
    from septa.quantization import quantize
    from septa.recipe import Recipe
    from septa.training import train

__version__ = "0.1.0"
__all__ = ["Model", "Recipe", "SeptaWarning", "__version__", "evaluate", "load", "quantize", "train"]

_MODULES = {
    "Model": "septa.model",
    "Recipe": "septa.recipe",
    "SeptaWarning": "septa.errors",
    "evaluate": "septa.evaluation",
    "quantize": "septa.quantization",
    "train": "septa.training",
}


def load(path: str) -> Model:
    """Read a model file, or a shipped model by its name; see `septa.model.Model.load`."""
    from septa.model import Model

    return Model.load(path)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'septa' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
