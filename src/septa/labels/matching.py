"""Pairs of predicted and true label files, in two folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from septa.errors import InputError, format_count, shorten_list
from septa.images import find_image_stem, sort_entries
from septa.labels.folders import LABEL_END, OUTPUT_FOLDERS
from septa.labels.outlines import expand_outlines, get_file, is_outlines

_SHOWN = 20
"""Largest number of files that a message lists."""


@dataclass(frozen=True)
class MatchedFolders:
    """Pairs of two folders.

    Attributes
    ----------
    pairs
        Name, prediction file and label file of each pair, sorted by name.
    unpaired
        Printable clauses about files without a partner, such as ``1 label image without prediction (a.png)``.
    """

    pairs: tuple[tuple[str, Path, Path], ...]
    unpaired: tuple[str, ...]


def match_folders(predictions: Path, labels: Path) -> MatchedFolders:
    """Pair prediction files with label files by their path inside the folder, without suffix, in any Unicode form.

    If more files pair up without them, endings such as ``_mask`` and ``_seg`` are removed from all names. Images and
    outlines are found by their content; hidden files and other files are ignored. A file with the outlines of several
    images counts as one label file for each of them, in the folder of the file.

    Raises
    ------
    InputError
        A folder is missing or contains no image, both folders are the same, several files have one name, or no files
        pair up; the error lists them.
    """
    if predictions.resolve() == labels.resolve():
        raise InputError(labels, "the folder is given as predictions and as labels", "Give two folders")
    prediction_files, more = _find_image_files(predictions, "predictions")
    label_files, others = _find_image_files(labels, "label images")
    left, right = _group_by_name(predictions, prediction_files, False), _group_by_name(labels, label_files, False)
    if left.keys() != right.keys():
        stripped = _group_by_name(predictions, prediction_files, True), _group_by_name(labels, label_files, True)
        # An image beside its labels has their name without the ending: it must not pass for them.
        _check_unique(predictions, stripped[0])
        _check_unique(labels, stripped[1])
        if len(stripped[0].keys() & stripped[1].keys()) > len(left.keys() & right.keys()):
            left, right = stripped
    _check_unique(predictions, left)
    _check_unique(labels, right)
    unpaired = (
        *_list_unpaired(predictions, left, right, "without labels"),
        *_list_unpaired(labels, right, left, "without prediction"),
        *more,
        *others,
    )
    if not left.keys() & right.keys():
        problem = f"predictions and labels do not pair up: {'; '.join(unpaired)}"
        raise InputError(predictions, problem, f"Give each prediction the name of its label file in {labels}")
    pairs = tuple((name, left[name][0], right[name][0]) for name in sorted(left.keys() & right.keys()))
    return MatchedFolders(pairs, unpaired)


def _find_image_files(folder: Path, content: str) -> tuple[list[Path], list[str]]:
    """Return the images of a folder and its subfolders, and clauses about those that cannot be scored."""
    if not folder.is_dir():
        problem = "the path is not a folder" if folder.exists() else "the folder does not exist"
        raise InputError(folder, problem, f"Give the folder of the {content}")
    entries = sort_entries(
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") or part in OUTPUT_FOLDERS for part in path.relative_to(folder).parts)
    )
    outlines = [path for path in entries.others if is_outlines(path)]
    files = [
        path
        for path in expand_outlines(sorted([*entries.files, *outlines]))
        if not any(store in path.parents for store in entries.stores)
    ]
    if not files:
        problem = f"the folder contains no image files but {entries.describe()}"
        raise InputError(folder, problem, f"Give the folder of the {content}")
    stores = [path for path in entries.stores if not any(store in path.parents for store in entries.stores)]
    skipped = {"zarr store": stores, "broken link": entries.broken_links}
    return files, [
        f"{format_count(len(paths), kind)} ({_list_names(folder, paths)})" for kind, paths in skipped.items() if paths
    ]


def _list_names(folder: Path, paths: Iterable[Path]) -> str:
    return shorten_list((path.relative_to(folder).as_posix() for path in paths), _SHOWN)


def _group_by_name(folder: Path, paths: Iterable[Path], strip: bool) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        stem = find_image_stem(path)
        if strip:
            stem = LABEL_END.sub("", stem) or stem
        file = get_file(path)
        place = file.parent if file == path else file.parent / path.parent.relative_to(file)
        name = normalize("NFC", (place.relative_to(folder) / stem).as_posix())
        groups.setdefault(name, []).append(path)
    return groups


def _check_unique(folder: Path, groups: Mapping[str, list[Path]]) -> None:
    for name, paths in sorted(groups.items()):
        if len(paths) > 1:
            problem = f"several files are named '{name}' ({_list_names(folder, paths)})"
            raise InputError(folder, problem, "Keep one of them")


def _list_unpaired(
    folder: Path, groups: Mapping[str, list[Path]], others: Mapping[str, list[Path]], reason: str
) -> list[str]:
    files = [groups[name][0] for name in sorted(groups.keys() - others.keys())]
    return [f"{len(files)} {reason} ({_list_names(folder, files)})"] if files else []
