"""Folders of images and labels that are divided into subfolders: by sample, or by the class of the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from septa.data.layouts.folder_layout import FilePair, FolderLayout, pair_lists
from septa.data.listing import (
    PairingNotes,
    list_folder_images,
    list_folder_labels,
    list_subfolders,
    note_ignored,
    select_images,
    select_labels,
)
from septa.data.matching import get_stem
from septa.errors import format_count, shorten_list
from septa.labels import list_folder

_MOST_LEVELS = 4


def find_nested(data: Path, image_folder: Path, label_folder: Path, notes: PairingNotes) -> FolderLayout | None:
    """Pair the files in subfolders that both folders have; None if one of the folders holds files itself.

    The names of images are those of their subfolder and file.
    """
    if list_folder_images(image_folder) or list_folder_labels(label_folder):
        return None
    inside = {path.relative_to(image_folder) for path in _list_image_folders(image_folder)}
    other = {path.relative_to(label_folder) for path in _list_image_folders(label_folder)}
    if not inside & other:
        return None
    pairs: list[FilePair] = []
    reasons: dict[Path, str] = {}
    for place in sorted(inside | other):
        images, labels = image_folder / place, label_folder / place
        image_files = select_images(list_folder(images), notes, images) if place in inside else []
        label_files = select_labels(list_folder(labels), notes, labels) if place in other else []
        found, unpaired = pair_lists(data, image_files, label_files, notes)
        prefix = "_".join(place.parts)
        pairs += [replace(pair, name=f"{prefix}_{get_stem(pair.image)}") for pair in found]
        reasons |= unpaired
    count = format_count(len(inside | other), "subfolder")
    name = f"{image_folder.name}/*/ and {label_folder.name}/*/ ({count})"
    return FolderLayout(name=name, pairs=pairs, reasons=reasons)


def _list_image_folders(folder: Path, level: int = 1) -> list[Path]:
    """Return the folders below a folder that hold images or labels."""
    found = []
    for inner in list_subfolders(list_folder(folder)):
        if list_folder_images(inner) or list_folder_labels(inner):
            found.append(inner)
        elif level < _MOST_LEVELS:
            found += _list_image_folders(inner, level + 1)
    return found


def find_object_masks(
    data: Path, image_folder: Path, label_folder: Path, images: Sequence[Path], notes: PairingNotes
) -> FolderLayout | None:
    """Pair images with the masks of their objects, which lie in a folder named after the image; None for others."""
    folders = {path.name: path for path in list_subfolders(list_folder(label_folder))}
    if not images or not all(get_stem(path) in folders for path in images):
        return None
    masks = {path: select_images(list_folder(folders[get_stem(path)]), notes, label_folder) for path in images}
    known = {folders[get_stem(path)] for path in images}
    note_ignored(label_folder, [path for path in list_folder(label_folder) if path not in known], notes)
    return FolderLayout(
        name=f"{image_folder.name}/ and {label_folder.name}/IMAGE/ (a mask for each object)",
        pairs=[
            FilePair(name=get_stem(path), image=path, labels=tuple(files)) for path, files in masks.items() if files
        ],
        reasons={path: "the image has no masks" for path, files in masks.items() if not files},
    )


def find_class_masks(
    data: Path, image_folder: Path, label_folder: Path, images: Sequence[Path], notes: PairingNotes
) -> FolderLayout | None:
    """Pair images with the masks of each class, which lie in a folder named after the class; None for other folders.

    The masks of an image become the planes of its labels, so classes may overlap.
    """
    entries = list_folder(label_folder)
    folders = [folder for folder in list_subfolders(entries) if list_folder_images(folder)]
    if not images or not folders or list_folder_labels(label_folder):
        return None
    note_ignored(label_folder, [path for path in entries if path not in folders], notes)
    masks = {folder: select_images(list_folder(folder), notes, folder) for folder in folders}
    first = folders[0]
    found, reasons = pair_lists(data, images, masks[first], notes)
    if not found:
        return None
    pairs: list[FilePair] = []
    used = {first: {pair.labels for pair in found}} | {folder: set() for folder in folders[1:]}
    for pair in found:
        assert isinstance(pair.labels, Path)
        files = {folder: folder / pair.labels.name for folder in folders}
        missing = [folder.name for folder, file in files.items() if file not in masks[folder]]
        if missing:
            reasons[pair.image] = f"there is no mask {pair.labels.name} of {shorten_list(missing)}"
            continue
        for folder, file in files.items():
            used[folder].add(file)
        words = ",".join(folder.name for folder in folders)
        path = label_folder / f"{{{words}}}" / pair.labels.name if len(folders) > 1 else pair.labels
        pairs.append(replace(pair, labels=path))
    for folder in folders[1:]:
        reasons |= {file: "the mask has no image" for file in masks[folder] if file not in used[folder]}
    names = tuple(folder.name for folder in folders)
    many = len(folders) > 1
    meaning = "a folder of masks for each class; classes may overlap" if many else f"masks of {names[0]}"
    return FolderLayout(
        name=f"{image_folder.name}/ and {label_folder.name}/*/ ({meaning})",
        pairs=pairs,
        reasons=reasons,
        settings={"encoding": "multilabel", "class_names": names} if many else {"class_names": ("background", *names)},
    )
