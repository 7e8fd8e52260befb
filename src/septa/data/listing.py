"""Contents of the folders of a dataset: which entries are images, and what the others are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from septa.errors import InputError, format_count, shorten_list
from septa.images import IMAGE_SUFFIXES, sort_entries
from septa.labels import expand_outlines, is_outlines, list_folder
from septa.notices import Notices

EMPTY = "it is empty"
"""Description of a folder without entries."""
_HARMLESS = ("the file is not a ", "the file is empty")
"""Reasons of `sort_entries` for files that nobody takes for images."""


@dataclass(frozen=True)
class PairingNotes:
    """Facts about the files of a dataset that are worth a line.

    Attributes
    ----------
    lines
        Printable lines about the layout, ignored files and groups.
    notices
        Assumptions, and warnings about files that a user would expect to be used.
    """

    lines: list[str] = field(default_factory=list)
    notices: Notices = field(default_factory=Notices)


def is_broken_link(path: Path) -> bool:
    """Return True for a symbolic link that leads to no file."""
    return path.is_symlink() and not path.exists()


def select_images(paths: Iterable[Path], notes: PairingNotes, folder: Path) -> list[Path]:
    """Return the images among some paths of a folder, and note the others as ignored.

    A zarr store is an image, and so is a broken link with the suffix of one: reading it reports the fault.
    """
    paths = list(paths)
    images = list_images(paths)
    kept = set(images)
    note_ignored(folder, [path for path in paths if path not in kept], notes)
    return images


def list_images(paths: Iterable[Path]) -> list[Path]:
    """Return the images among some paths, in their order; see `select_images`."""
    paths = list(paths)
    entries = sort_entries(paths)
    links = [path for path in entries.broken_links if path.suffix.lower() in IMAGE_SUFFIXES]
    images = {*entries.files, *entries.stores, *links}
    return [path for path in paths if path in images]


def select_labels(paths: Iterable[Path], notes: PairingNotes, folder: Path) -> list[Path]:
    """Return the label files among some paths of a folder, images and outlines, and note the others as ignored.

    A file with the outlines of several images stands for one label file for each of them.
    """
    paths = list(paths)
    labels = list_labels(paths)
    kept = set(labels)
    note_ignored(folder, [path for path in paths if path not in kept], notes)
    return expand_outlines(labels)


def list_labels(paths: Iterable[Path]) -> list[Path]:
    """Return the label files among some paths, in their order; see `select_labels`."""
    paths = list(paths)
    images = set(list_images(paths))
    return [path for path in paths if path in images or (path.is_file() and is_outlines(path))]


def list_folder_images(folder: Path) -> list[Path]:
    """Return the images directly in a folder; none if it cannot be listed."""
    try:
        return list_images(list_folder(folder))
    except InputError:
        return []


def list_folder_labels(folder: Path) -> list[Path]:
    """Return the label files directly in a folder; none if it cannot be listed."""
    try:
        return expand_outlines(list_labels(list_folder(folder)))
    except InputError:
        return []


def list_subfolders(paths: Iterable[Path]) -> list[Path]:
    """Return the folders among some paths, without hidden ones and zarr stores."""
    return sort_entries(path for path in paths if path.is_dir()).folders


def note_ignored(folder: Path, paths: Iterable[Path], notes: PairingNotes) -> None:
    """Note that some paths of a folder are ignored, and warn about those that a user would expect to be used."""
    paths = list(paths)
    if paths:
        notes.lines.append(f"ignored in {folder}: {shorten_list(path.name for path in paths)}")
    entries = sort_entries(paths)
    for path in entries.broken_links:
        remedy = "Restore the file that it leads to, or remove the link"
        notes.notices.add(path, "the link leads to no file and is not used", remedy, warning=True)
    for path, reason in entries.others.items():
        if not reason.startswith(_HARMLESS):
            notes.notices.add(path, f"the file is not used: {reason}", "Export it as TIFF or PNG", warning=True)
    for path in entries.folders:
        if list_folder_images(path):
            remedy = "Move them up or away, or name all files with --images and --labels"
            notes.notices.add(path, "the folder holds images that are not used", remedy, warning=True)


def refuse_empty(data: Path, folder: Path, remedy: str) -> InputError:
    """Return the error for a folder of a dataset without images, which says what it holds instead.

    Parameters
    ----------
    data
        Folder of the dataset.
    folder
        Folder without images, inside ``data``.
    remedy
        Remedy if there are no images in its subfolders either.
    """
    entries = list_folder(folder)
    inner = [path for path in list_subfolders(entries) if list_folder_images(path)]
    if inner:
        pattern = f"{escape(folder.name)}/{escape(inner[0].name)}/*"
        remedy = (
            f"Save one file for each image in {folder.name}/, or name the files with --images and --labels, such as"
        )
        remedy += f" '{pattern}'"
    return InputError(data, f"{folder.name}/ holds no images ({describe_contents(entries)})", remedy)


def describe_contents(entries: Iterable[Path], *, named: bool = False) -> str:
    """Describe entries of a folder among which there is no image.

    Parameters
    ----------
    entries
        Files, links and folders.
    named
        True to leave files out, so that only folders and broken links are described.

    Returns
    -------
    str
        Printable text such as ``3 .geojson files, which septa cannot read``, or `EMPTY`.
    """
    found = sort_entries(entries)
    kinds = Counter(path.suffix.lower() for path in found.others)
    parts = []
    if kinds and not named:
        counts = shorten_list(format_count(count, f"{suffix} file".strip()) for suffix, count in kinds.most_common())
        parts.append(f"{counts}, which septa cannot read")
    for noun, paths in (("folder", found.folders), ("broken link", found.broken_links)):
        if paths:
            parts.append(f"{format_count(len(paths), noun)}: {shorten_list(path.name for path in paths)}")
    return "; ".join(parts) or EMPTY
