"""OME-Zarr images that hold their own labels, in the group ``labels`` of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from septa.data.layouts.folder_layout import FilePair, FolderLayout
from septa.data.matching import get_stem
from septa.errors import InputError, shorten_list
from septa.images import is_zarr
from septa.labels import list_folder


def find_own_labels(data: Path, files: Sequence[Path]) -> FolderLayout | None:
    """Pair OME-Zarr images with the labels inside; None if another file is among them, or an image has no labels.

    Raises
    ------
    InputError
        The images have labels of several names.
    """
    groups = {path: _list_labels(path) for path in files if is_zarr(path)}
    if len(groups) < len(files) or not all(groups.values()):
        return None
    shared = set.intersection(*map(set, groups.values()))
    if len(shared) != 1:
        names = sorted(shared or {name for found in groups.values() for name in found})
        problem = f"the images hold labels of several names ({shorten_list(names)})"
        suffix = files[0].suffix
        remedy = f"Name one, such as --images '*{suffix}' --labels '*{suffix}/labels/{names[0]}'"
        raise InputError(data, problem, remedy)
    (name,) = shared
    pairs = [FilePair(name=get_stem(path), image=path, labels=path / "labels" / name) for path in files]
    return FolderLayout(name=f"OME-Zarr images with their own labels (labels/{name})", pairs=pairs)


def _list_labels(store: Path) -> list[str]:
    folder = store / "labels"
    return [path.name for path in list_folder(folder) if is_zarr(path)] if folder.is_dir() else []
