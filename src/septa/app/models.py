"""The models that can be chosen: those that ship with septa, those of the folder, and that of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from septa.errors import InputError
from septa.pretrained import list_shipped

from .folder import ImageFolder


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


class Models:
    """The models that can be chosen.

    Parameters
    ----------
    folder
        Folder whose model files can be chosen.
    first
        Another model file, which is chosen first; None for none.
    """

    def __init__(self, folder: ImageFolder, first: ModelChoice | None = None) -> None:
        self._folder = folder
        self._first = first

    def list_models(self) -> list[ModelChoice]:
        """List the models; the first is the default."""
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
