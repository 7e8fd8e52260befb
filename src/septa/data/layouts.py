"""Layouts of folders with images and labels: they are recognised by the names of files and folders."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

from septa.data.matching import LABEL_END, get_stem, match_files
from septa.data.pairs import PairingError
from septa.errors import InputError, format_count, shorten_list
from septa.images import IMAGE_SUFFIXES, read_info
from septa.labels import IMAGE_FOLDERS, LABEL_FOLDERS, find_class_folders, find_subfolders, list_folder

LAYOUTS = (
    "Arrange the folder as images/ and labels/ with equal names, as x.png beside x_mask.png, as two TIFF stacks "
    "(train-volume.tif, train-labels.tif), or as one folder per image with images/ and masks/; "
    "or name the files with --images and --labels"
)
"""Remedy for a folder in none of the layouts."""

_STACK_IMAGE = re.compile(r"volume|image|raw", re.IGNORECASE)
_STACK_LABELS = re.compile(r"label|mask", re.IGNORECASE)


class FilePair(NamedTuple):
    """Files of one image.

    Attributes
    ----------
    name
        Stem of the image file, or name of the image's folder.
    image
        Image file.
    labels
        Label file, or one mask file for each object.
    """

    name: str
    image: Path
    labels: Path | tuple[Path, ...]


class FolderLayout(NamedTuple):
    """Files of a folder, paired as its layout says.

    Attributes
    ----------
    name
        Name of the layout, printable.
    pairs
        Files that belong together.
    reasons
        Why each remaining file cannot be paired: a clause for each path.
    """

    name: str
    pairs: list[FilePair]
    reasons: dict[Path, str]


def recognise_layout(data: Path, notes: list[str]) -> FolderLayout:
    """Recognise the layout of a folder and pair its files.

    Parameters
    ----------
    data
        Folder; `septa.data.folder.find_pairs` describes the layouts.
    notes
        List that lines about ignored files are appended to.

    Raises
    ------
    PairingError
        If several folders may hold the images, the labels or the classes, or no file is named as the labels of
        another.
    InputError
        If the folder follows no layout.
    """
    entries = list_folder(data)
    folders = [path for path in entries if path.is_dir() and not _is_hidden(path)]
    image_folders = [path for path in folders if path.name.lower() in IMAGE_FOLDERS]
    label_folders = [path for path in folders if path.name.lower() in LABEL_FOLDERS]
    if image_folders and label_folders:
        return _pair_two_folders(data, image_folders, label_folders, notes)
    if image_folders or label_folders:
        present, missing = ("images", "labels") if image_folders else ("labels", "images")
        raise InputError(data, f"the folder holds {present}/ but no {missing}/", LAYOUTS)
    per_image = [path for path in folders if find_subfolders(path, IMAGE_FOLDERS + LABEL_FOLDERS)]
    if per_image:
        _note_ignored(data, [path for path in entries if path not in per_image], notes)
        return _pair_folders(data, per_image, notes)
    files = _select_images(entries, notes, data)
    if not files:
        raise InputError(data, "the folder holds no images" if entries else "the folder is empty", LAYOUTS)
    return _pair_flat(data, files, notes)


def _pair_two_folders(
    data: Path, image_folders: Sequence[Path], label_folders: Sequence[Path], notes: list[str]
) -> FolderLayout:
    several = [*image_folders, *label_folders]
    if len(several) > 2:
        reasons = dict.fromkeys(image_folders, "it may hold the images")
        reasons |= dict.fromkeys(label_folders, "it may hold the labels")
        remedy = "Keep one folder of each, or name the files with --images and --labels"
        raise PairingError(data, "several folders may hold the images or the labels", remedy, reasons)
    known = {*several, find_classes_folder(data)}
    _note_ignored(data, [path for path in list_folder(data) if path not in known], notes)
    files, label_files = (_select_images(list_folder(folder), notes, folder) for folder in several)
    name = " and ".join(f"{folder.name}/" for folder in several)
    if not files and not label_files:
        raise InputError(data, f"{name} hold no images", LAYOUTS)
    return FolderLayout(name, *_pair_lists(data, files, label_files, notes))


def _pair_folders(data: Path, folders: Iterable[Path], notes: list[str]) -> FolderLayout:
    pairs: list[FilePair] = []
    reasons: dict[Path, str] = {}
    datasets = []
    for folder in folders:
        image_folder = next(iter(find_subfolders(folder, IMAGE_FOLDERS)), None)
        mask_folder = next(iter(find_subfolders(folder, LABEL_FOLDERS)), None)
        files = _select_images(list_folder(image_folder), notes, image_folder) if image_folder else []
        masks = _select_images(list_folder(mask_folder), notes, mask_folder) if mask_folder else []
        if len(files) == 1 and masks:
            pairs.append(FilePair(folder.name, files[0], tuple(masks)))
        elif not files and masks:
            reasons |= dict.fromkeys(masks, "the mask has no image")
        elif not files:
            reasons[folder] = "the folder holds neither image nor masks"
        elif len(files) > 1:
            reasons |= dict.fromkeys(files, f"it is one of {len(files)} images in one folder")
            datasets.append(folder)
        else:
            reasons[files[0]] = "the image has no masks"
    if datasets and not pairs:
        problem = f"the folder holds several datasets ({shorten_list(folder.name for folder in datasets)})"
        raise InputError(data, problem, f"Give one of them, such as {datasets[0]}")
    return FolderLayout("one folder per image", pairs, reasons)


def _pair_flat(data: Path, files: list[Path], notes: list[str]) -> FolderLayout:
    stacks = _find_two_stacks(files)
    if stacks:
        return FolderLayout("two stacks", [FilePair(get_stem(stacks[0]), *stacks)], {})
    labels = [path for path in files if LABEL_END.search(get_stem(path))]
    chosen = set(labels)
    images = [path for path in files if path not in chosen]
    if not labels or not images:
        reasons = dict.fromkeys(files, "no other file has a matching name")
        problem = f"the folder holds {format_count(len(files), 'image')}, and none is named as the labels of another"
        raise PairingError(data, problem, LAYOUTS, reasons)
    return FolderLayout("one folder, labels named by a suffix", *_pair_lists(data, images, labels, notes))


def _find_two_stacks(files: Sequence[Path]) -> tuple[Path, Path] | None:
    if len(files) != 2 or not all(path.suffix.lower() in (".tif", ".tiff") for path in files):
        return None
    for image, labels in (files, files[::-1]):
        # A name may hold both words ("raw-labels"), so the other name must not speak of labels.
        only_labels = _STACK_LABELS.search(labels.name) and not _STACK_LABELS.search(image.name)
        if only_labels and _STACK_IMAGE.search(image.name):
            return image, labels
    return None


def pair_patterns(data: Path, images: str, labels: str, notes: list[str]) -> FolderLayout:
    """Pair the files that match two patterns.

    Parameters
    ----------
    data
        Folder that the patterns are relative to.
    images, labels
        Patterns or folders; see `septa.data.folder.find_pairs`.
    notes
        List that lines about ignored files are appended to.

    Raises
    ------
    InputError
        If a pattern matches no image, or both match the label files only.
    """
    label_files = _expand_pattern(data, labels, notes)
    chosen = set(label_files)
    files = [path for path in _expand_pattern(data, images, notes) if path not in chosen]
    if not files:
        problem = "the pattern for images matches only label files"
        raise InputError(images, problem, "Give a pattern that matches the images")
    return FolderLayout("patterns", *_pair_lists(data, files, label_files, notes))


def _expand_pattern(data: Path, pattern: str, notes: list[str]) -> list[Path]:
    # Path.glob takes no absolute pattern.
    hits = [data / hit for hit in sorted(glob(pattern, root_dir=data, recursive=True))]  # noqa: PTH207
    files: list[Path] = []
    for hit in hits:
        files += _select_images(list_folder(hit), notes, hit) if hit.is_dir() and len(hits) == 1 else []
    files += _select_images([hit for hit in hits if hit.is_file()], notes, data)
    if not files:
        remedy = f"Give a pattern relative to {data} or an absolute one, in quotes, such as 'images/*.png'"
        raise InputError(pattern, "the pattern matches no image", remedy)
    return files


def _pair_lists(
    data: Path, images: Sequence[Path], labels: Sequence[Path], notes: list[str]
) -> tuple[list[FilePair], dict[Path, str]]:
    matches, reasons = match_files(images, labels, notes)
    stems = [get_stem(image) for image, _ in matches]
    if len(set(stems)) < len(stems):
        stems = ["_".join([*_make_relative(image, data).parent.parts, get_stem(image)]) for image, _ in matches]
    return [FilePair(stem, image, label) for stem, (image, label) in zip(stems, matches, strict=True)], reasons


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


def pair_classes(folder: Path, labels: Sequence[Path], notes: list[str]) -> dict[Path, Path]:
    """Find the class file of each label file.

    It has the same stem as the label file, with or without an ending such as ``_mask``.

    Parameters
    ----------
    folder
        Folder with the classes of objects.
    labels
        Label files.
    notes
        List that lines about ignored files are appended to.

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
    for path in _select_images(list_folder(folder), notes, folder):
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


def _select_images(paths: Sequence[Path], notes: list[str], folder: Path) -> list[Path]:
    """Return the image files among some paths, and note the others as ignored."""
    images = [path for path in paths if path.is_file() and not _is_hidden(path) and _is_image(path)]
    kept = set(images)
    _note_ignored(folder, [path for path in paths if path not in kept], notes)
    return images


def _note_ignored(folder: Path, paths: Sequence[Path], notes: list[str]) -> None:
    if paths:
        notes.append(f"ignored in {folder}: {shorten_list(path.name for path in paths)}")


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini")


def _is_image(path: Path) -> bool:
    """Return True for a known suffix, so that a damaged image is not ignored; else decide by the content."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        read_info(path)
    except InputError:
        return False
    return True


def _make_relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
