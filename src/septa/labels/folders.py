"""Names of the folders of a labelled dataset, and of a prediction's output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from septa.errors import InputError

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
"""Names of a folder of images, in lower case."""
LABEL_FOLDERS = ("labels", "label", "masks", "mask")
"""Names of a folder of labels, in lower case."""
CLASS_FOLDERS = ("classes", "types")
"""Names of a folder with the classes of objects, in lower case."""
_LABEL_WORD = r"(?:annotations?|anno|(?:cp[-_ ])?masks?|labels?|seg|segmentations?|gt|rois?|roiset)"
LABEL_END = re.compile(rf"(?:^|[-_. ]){_LABEL_WORD}$", re.IGNORECASE)
"""Ending of a stem that marks a label file."""
OVERLAYS = "overlays"
"""Folder for pictures inside an output."""
PROBABILITIES = "probabilities"
"""Folder for probabilities inside an output."""
OUTLINES = "outlines"
"""Folder for outlines inside an output."""
CLASSES = "classes"
"""Folder for the classes of objects inside an output."""
OUTPUT_FOLDERS = (OVERLAYS, PROBABILITIES, OUTLINES, CLASSES)
"""Folders inside an output that do not hold its labels."""


def list_folder(folder: Path) -> list[Path]:
    """Return the sorted entries of a folder.

    Raises
    ------
    InputError
        The folder cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        problem = f"the folder cannot be listed ({error.strerror})"
        raise InputError(folder, problem, "Make it readable") from None


def find_subfolders(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the sorted subfolders with one of some names, in upper or lower case; errors as for `list_folder`."""
    return [path for path in list_folder(folder) if path.is_dir() and path.name.lower() in names]


def find_class_folders(data: Path) -> list[Path]:
    """Return the folders that may hold the classes of objects, next to a folder of images and one of labels.

    The list is empty if one of the others is missing. Errors are those of `list_folder`.
    """
    if not find_subfolders(data, IMAGE_FOLDERS) or not find_subfolders(data, LABEL_FOLDERS):
        return []
    return find_subfolders(data, CLASS_FOLDERS)
