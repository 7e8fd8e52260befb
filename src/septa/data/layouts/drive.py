"""The layout of DRIVE, retinal images with vessels, as it is downloaded."""

from __future__ import annotations

import re
from pathlib import Path

from septa.data.layouts.folder_layout import FilePair, FolderLayout
from septa.data.listing import PairingNotes, note_ignored, select_images
from septa.data.matching import LABELS_WITHOUT_IMAGE, get_stem
from septa.labels import list_folder

_LABELS, _FIELD, _PART = "1st_manual", "mask", "training"
_NUMBER = re.compile(r"(\d+)_(?:training|test|manual1|training_mask|test_mask)")


def find_drive(data: Path, notes: PairingNotes) -> FolderLayout | None:
    """Pair the images of DRIVE, or of its part ``training``; None if the folder is neither.

    Pixels outside the field of view, which ``mask/`` holds, count in no loss and no score.
    """
    folder = data
    if not _is_drive(data):
        folder = data / _PART
        if not _is_drive(folder):
            return None
        note_ignored(data, [path for path in list_folder(data) if path != folder], notes)
    images, labels, fields = (_list_numbers(folder / name, notes) for name in ("images", _LABELS, _FIELD))
    reasons = {path: "the image has no labels" for key, path in images.items() if key not in labels}
    reasons |= {path: LABELS_WITHOUT_IMAGE for key, path in labels.items() if key not in images}
    reasons |= {path: "the image has no field of view" for key, path in images.items() if fields and key not in fields}
    known = {folder / name for name in ("images", _LABELS, _FIELD)}
    note_ignored(folder, [path for path in list_folder(folder) if path not in known], notes)
    part = "" if folder == data else f"{_PART}/, "
    ignored = f"; pixels outside {_FIELD}/ are ignored" if fields else ""
    return FolderLayout(
        name=f"DRIVE ({part}images/ and {_LABELS}/{ignored})",
        pairs=[
            FilePair(name=get_stem(path), image=path, labels=labels[key], field=fields.get(key))
            for key, path in images.items()
            if key in labels and path not in reasons
        ],
        reasons=reasons,
    )


def _is_drive(folder: Path) -> bool:
    """Return True if labels and images of DRIVE lie in a folder, known by the names of their files."""
    inner = folder / _LABELS
    if not inner.is_dir() or not (folder / "images").is_dir():
        return False
    return any(_NUMBER.fullmatch(get_stem(path)) for path in list_folder(inner))


def _list_numbers(folder: Path, notes: PairingNotes) -> dict[str, Path]:
    """Return the images of a folder by the number in their names."""
    if not folder.is_dir():
        return {}
    found = {}
    for path in select_images(list_folder(folder), notes, folder):
        match = _NUMBER.fullmatch(get_stem(path))
        found[match[1] if match else get_stem(path)] = path
    return found
