"""The folder with the classes of objects, beside those of images and labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from septa.data.listing import PairingNotes, select_images
from septa.data.matching import get_stem
from septa.data.pairs import PairingError
from septa.labels import LABEL_END, find_class_folders, list_folder


def find_classes_folder(data: Path) -> Path | None:
    """Find the folder with the classes of objects, beside those of images and labels.

    Returns
    -------
    Path or None
        None if there is no such folder.

    Raises
    ------
    PairingError
        If there are several.
    """
    folders = find_class_folders(data)
    if len(folders) > 1:
        reasons = dict.fromkeys(folders, "it may hold the classes")
        raise PairingError(data, "several folders may hold the classes of objects", "Keep one of them", reasons)
    return folders[0] if folders else None


def pair_classes(folder: Path, labels: Sequence[Path], notes: PairingNotes) -> dict[Path, Path]:
    """Find the class file of each label file.

    It has the same stem as the label file, with or without an ending such as ``_mask``.

    Parameters
    ----------
    folder
        Folder with the classes of objects.
    labels
        Label files.
    notes
        Notes that those about ignored files are added to.

    Returns
    -------
    dict of Path to Path
        Class file of each label file.

    Raises
    ------
    PairingError
        If a label file has no class file or several, or a class file belongs to no label file.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for path in select_images(list_folder(folder), notes, folder):
        files[get_stem(path)].append(path)
    found: dict[Path, Path] = {}
    reasons: dict[Path, str] = {}
    for path in dict.fromkeys(labels):
        keys = (get_stem(path), LABEL_END.sub("", get_stem(path)))
        matching = next((files.pop(key) for key in keys if key in files), [])
        if len(matching) == 1:
            found[path] = matching[0]
        elif matching:
            reasons |= dict.fromkeys(matching, f"it is one of {len(matching)} class files for {path.name}")
        else:
            reasons[path] = "the labels have no class file"
    reasons |= dict.fromkeys((path for rest in files.values() for path in rest), "the class file has no labels")
    if reasons:
        remedy = f"Give each label file one class file of the same name, or move {folder.name}/ away"
        raise PairingError(folder, "labels and classes cannot be paired", remedy, reasons)
    return found
