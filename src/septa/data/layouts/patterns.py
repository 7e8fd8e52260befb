"""Datasets whose files are named by patterns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from septa.data.layouts.folder_layout import FolderLayout, pair_lists
from septa.data.listing import PairingNotes, describe_contents, list_subfolders, select_images, select_labels
from septa.errors import InputError
from septa.images import find_matches, is_zarr
from septa.labels import list_folder

Select = Callable[[Iterable[Path], PairingNotes, Path], list[Path]]
"""Function that returns the images, or the label files, of a folder."""


def pair_patterns(data: Path, images: str, labels: str, notes: PairingNotes) -> FolderLayout:
    """Pair the files that match two patterns.

    Parameters
    ----------
    data
        Folder that the patterns are relative to.
    images, labels
        Patterns or folders; see `septa.data.folder.find_pairs`.
    notes
        Notes that those about ignored files are added to.

    Raises
    ------
    InputError
        If a pattern matches no image, or both match the label files only.
    """
    label_files = _expand_pattern(data, labels, notes, select_labels)
    chosen = set(label_files)
    files = [path for path in _expand_pattern(data, images, notes, select_images) if path not in chosen]
    if not files:
        problem = "the pattern for images matches only label files"
        raise InputError(images, problem, "Give a pattern that matches the images")
    pairs, reasons = pair_lists(data, files, label_files, notes)
    return FolderLayout(name="patterns", pairs=pairs, reasons=reasons)


def _expand_pattern(data: Path, pattern: str, notes: PairingNotes, select: Select) -> list[Path]:
    hits = [hit for hit in find_matches(pattern, data) if not any(map(is_zarr, hit.parents)) or _is_label_group(hit)]
    folders = list_subfolders(hits)
    if folders and len(folders) == len(hits):
        files = [path for folder in folders for path in select(list_folder(folder), notes, folder)]
        hits = [path for folder in folders for path in list_folder(folder)]
    else:
        chosen = {path.parent for path in hits}
        files = select([path for path in hits if path not in chosen], notes, data)
    if not files:
        found = f" ({describe_contents(hits)})" if hits else ""
        remedy = f"Give a pattern relative to {data} or an absolute one, in quotes, such as 'images/*.png'"
        raise InputError(pattern, f"the pattern matches no image{found}", remedy)
    return files


def _is_label_group(path: Path) -> bool:
    """Return True for the labels inside an OME-Zarr image."""
    return path.parent.name == "labels" and is_zarr(path)
