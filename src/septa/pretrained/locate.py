"""The file that a path or the name of a shipped model stands for."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from septa.notices import Notices

from .shipped import find_shipped


def locate_model(path: str | PathLike[str], notices: Notices | None = None) -> Path:
    """Return the file that a path or the name of a shipped model stands for.

    A file has precedence over the shipped model of the same name; a folder, which is not a model, has not.

    Parameters
    ----------
    path
        Path of a model file, or the name of a shipped model.
    notices
        Receives a note if a file or folder has the name of a shipped model.

    Returns
    -------
    Path
        The file of the shipped model, or the path itself, which may not exist.
    """
    name = os.fspath(path)
    shipped = find_shipped(name)
    if shipped is None:
        return Path(path)
    if Path(path).is_dir():
        _note(notices, name, "the shipped model of this name is used, not the folder", "")
    elif os.path.lexists(path):
        _note(notices, name, "the file of this name is used, not the shipped model", f"Give {shipped} to use the model")
        return Path(path)
    return shipped


def _note(notices: Notices | None, name: str, text: str, remedy: str) -> None:
    if notices is not None:
        notices.add(name, text, remedy)
