"""Layouts of folders with images and labels: they are recognised by the names of files and folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from septa.data.layouts.cell_tracking import find_cell_tracking
from septa.data.layouts.classes import find_classes_folder
from septa.data.layouts.drive import find_drive
from septa.data.layouts.folder_layout import LAYOUTS, FilePair, FolderLayout, pair_lists
from septa.data.layouts.nnunet import find_nnunet
from septa.data.layouts.own_labels import find_own_labels
from septa.data.layouts.subfolders import find_class_masks, find_nested, find_object_masks
from septa.data.listing import (
    EMPTY,
    PairingNotes,
    describe_contents,
    list_folder_images,
    list_folder_labels,
    list_subfolders,
    note_ignored,
    refuse_empty,
    select_images,
    select_labels,
)
from septa.data.matching import get_stem, match_files
from septa.data.pairs import PairingError
from septa.data.siblings import find_partners, look_like_labels, suggest_patterns
from septa.errors import InputError, format_count, shorten_list
from septa.labels import (
    IMAGE_FOLDERS,
    LABEL_END,
    LABEL_FOLDERS,
    find_subfolders,
    get_file,
    is_outlines,
    list_folder,
)

_STACK_IMAGE = re.compile(r"volume|image|raw", re.IGNORECASE)
_STACK_LABELS = re.compile(r"label|mask", re.IGNORECASE)


def recognise_layout(data: Path, notes: PairingNotes) -> FolderLayout:
    """Recognise the layout of a folder and pair its files.

    Parameters
    ----------
    data
        Folder; `septa.data.folder.find_pairs` describes the layouts.
    notes
        Notes that those about ignored files are added to.

    Raises
    ------
    PairingError
        If several folders may hold the images, the labels or the classes, or no file is named as the labels of
        another.
    InputError
        If the folder follows no layout, or a folder of images or labels holds none.
    """
    for find in (find_nnunet, find_cell_tracking, find_drive):
        layout = find(data, notes)
        if layout is not None:
            return layout
    entries = list_folder(data)
    folders = list_subfolders(entries)
    image_folders = [path for path in folders if path.name.lower() in IMAGE_FOLDERS]
    label_folders = [path for path in folders if path.name.lower() in LABEL_FOLDERS]
    if image_folders and not label_folders:
        outlines = [path for path in select_labels(entries, PairingNotes(), data) if is_outlines(path)]
        if len(image_folders) == 1 and match_files(list_folder_images(image_folders[0]), outlines, [])[0]:
            return _pair_beside(data, image_folders[0], outlines, notes)
    if image_folders or label_folders:
        return _pair_two_folders(data, *_choose_folders(data, image_folders, label_folders, folders), notes)
    per_image = [path for path in folders if find_subfolders(path, IMAGE_FOLDERS + LABEL_FOLDERS)]
    if per_image:
        note_ignored(data, [path for path in entries if path not in per_image], notes)
        return _pair_folders(data, per_image, notes)
    files = select_labels(entries, notes, data)
    if not files:
        contents = describe_contents(entries)
        problem = f"the folder holds no images ({contents})" if contents != EMPTY else "the folder is empty"
        raise InputError(data, problem, LAYOUTS)
    return find_own_labels(data, files) or _pair_flat(data, files, notes)


def _choose_folders(
    data: Path, image_folders: Sequence[Path], label_folders: Sequence[Path], folders: Sequence[Path]
) -> tuple[Path, Path]:
    """Return the folder of images and that of labels.

    One of them has a known name. The other is known too, or it is the only folder whose files match.
    """
    if len(image_folders) > 1 or len(label_folders) > 1:
        reasons = dict.fromkeys(image_folders, "it may hold the images")
        reasons |= dict.fromkeys(label_folders, "it may hold the labels")
        example = suggest_patterns((image_folders or folders)[0], (label_folders or folders)[0])
        remedy = f"Keep one folder of each, or name the files, such as {example}"
        raise PairingError(data, "several folders may hold the images or the labels", remedy, reasons)
    known, given, missing = image_folders or label_folders, "images", "labels"
    if not image_folders:
        given, missing = missing, given
    files = list_folder_images(known[0])
    others = [folder for folder in folders if folder not in (*image_folders, *label_folders)]
    if image_folders and label_folders:
        classes = find_classes_folder(data)
        least = len(match_files(files, list_folder_labels(label_folders[0]), [])[0])
        rivals = find_partners(files, [folder for folder in others if folder != classes], least)
        rivals = {folder: count for folder, count in rivals.items() if look_like_labels(folder)}
        if rivals:
            _refuse_rivals(data, image_folders[0], {label_folders[0]: least} | rivals)
        return image_folders[0], label_folders[0]
    partners = find_partners(
        files, others, list_files=list_folder_labels if missing == "labels" else list_folder_images
    )
    if missing == "labels":
        partners = {folder: count for folder, count in partners.items() if look_like_labels(folder)}
    if len(partners) > 1 and missing == "labels":
        _refuse_rivals(data, known[0], partners)
    if len(partners) != 1:
        rest = [path for path in list_folder(data) if path != known[0]]
        contents = describe_contents(rest, named=True)
        beside = "" if contents == EMPTY else f" (beside it: {contents})"
        raise InputError(data, f"the folder holds {known[0].name}/ but no {missing}/{beside}", LAYOUTS)
    partner = next(iter(partners))
    return (known[0], partner) if given == "images" else (partner, known[0])


def _refuse_rivals(data: Path, images: Path, matches: Mapping[Path, int]) -> NoReturn:
    """Raise the error for several folders whose files match the images."""
    reasons = {
        folder: f"it may hold the labels: {format_count(count, 'file')} match the images"
        for folder, count in matches.items()
    }
    remedy = f"Name the files of one of them, such as {suggest_patterns(images, list(matches)[-1])}"
    raise PairingError(data, "several folders may hold the labels", remedy, reasons)


def _pair_two_folders(data: Path, image_folder: Path, label_folder: Path, notes: PairingNotes) -> FolderLayout:
    known = {image_folder, label_folder, find_classes_folder(data)}
    note_ignored(data, [path for path in list_folder(data) if path not in known], notes)
    if nested := find_nested(data, image_folder, label_folder, notes):
        return nested
    files = select_images(list_folder(image_folder), notes, image_folder)
    for find in (find_object_masks, find_class_masks):
        divided = find(data, image_folder, label_folder, files, notes)
        if divided is not None:
            return divided
    label_files = select_labels(list_folder(label_folder), notes, label_folder)
    for folder, found in ((image_folder, files), (label_folder, label_files)):
        if not found:
            raise refuse_empty(data, folder, LAYOUTS)
    name = f"{image_folder.name}/ and {label_folder.name}/"
    pairs, reasons = pair_lists(data, files, label_files, notes)
    return FolderLayout(name=name, pairs=pairs, reasons=reasons)


def _pair_beside(data: Path, image_folder: Path, outlines: Sequence[Path], notes: PairingNotes) -> FolderLayout:
    """Pair a folder of images with files of outlines next to it."""
    known = {image_folder, *map(get_file, outlines)}
    note_ignored(data, [path for path in list_folder(data) if path not in known], notes)
    files = select_images(list_folder(image_folder), notes, image_folder)
    shown = shorten_list(dict.fromkeys(get_file(path).name for path in outlines), 2)
    pairs, reasons = pair_lists(data, files, outlines, notes)
    return FolderLayout(name=f"{image_folder.name}/ and {shown}", pairs=pairs, reasons=reasons)


def _pair_folders(data: Path, folders: Iterable[Path], notes: PairingNotes) -> FolderLayout:
    pairs: list[FilePair] = []
    reasons: dict[Path, str] = {}
    datasets = []
    strays: list[Path] = []
    for folder in folders:
        image_folder = next(iter(find_subfolders(folder, IMAGE_FOLDERS)), None)
        mask_folder = next(iter(find_subfolders(folder, LABEL_FOLDERS)), None)
        strays += [path for path in list_folder(folder) if path not in (image_folder, mask_folder)]
        files = select_images(list_folder(image_folder), notes, image_folder) if image_folder else []
        masks = select_images(list_folder(mask_folder), notes, mask_folder) if mask_folder else []
        if len(files) == 1 and masks:
            pairs.append(FilePair(name=folder.name, image=files[0], labels=tuple(masks)))
        elif not files and masks:
            reasons |= dict.fromkeys(masks, "the mask has no image")
        elif not files:
            reasons[folder] = "the folder holds neither image nor masks"
        elif len(files) > 1:
            reasons |= dict.fromkeys(files, f"it is one of {len(files)} images in one folder")
            datasets.append(folder)
        else:
            contents = f" ({mask_folder.name}/: {describe_contents(list_folder(mask_folder))})" if mask_folder else ""
            reasons[files[0]] = f"the image has no masks{contents}"
    note_ignored(data, strays, notes)
    if datasets and not pairs:
        problem = f"the folder holds several datasets ({shorten_list(folder.name for folder in datasets)})"
        raise InputError(data, problem, f"Give one of them, such as {datasets[0]}")
    return FolderLayout(name="one folder per image", pairs=pairs, reasons=reasons)


def _pair_flat(data: Path, files: list[Path], notes: PairingNotes) -> FolderLayout:
    stacks = _find_two_stacks(files)
    if stacks:
        pair = FilePair(name=get_stem(stacks[0]), image=stacks[0], labels=stacks[1])
        return FolderLayout(name="two stacks", pairs=[pair])
    labels = [path for path in files if LABEL_END.search(get_stem(path)) or is_outlines(path)]
    chosen = set(labels)
    images = [path for path in files if path not in chosen]
    if not labels or not images:
        reasons = dict.fromkeys(files, "no other file has a matching name")
        problem = f"the folder holds {format_count(len(files), 'image')}, and none is named as the labels of another"
        raise PairingError(data, problem, LAYOUTS, reasons)
    pairs, reasons = pair_lists(data, images, labels, notes)
    return FolderLayout(name="one folder, labels named by a suffix", pairs=pairs, reasons=reasons)


def _find_two_stacks(files: Sequence[Path]) -> tuple[Path, Path] | None:
    if len(files) != 2 or not all(path.suffix.lower() in (".tif", ".tiff") for path in files):
        return None
    for image, labels in (files, files[::-1]):
        # A name may hold both words ("raw-labels"), so the other name must not speak of labels.
        only_labels = _STACK_LABELS.search(labels.name) and not _STACK_LABELS.search(image.name)
        if only_labels and _STACK_IMAGE.search(image.name):
            return image, labels
    return None
