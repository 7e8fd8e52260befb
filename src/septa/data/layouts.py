"""Layouts of folders with images and labels: they are recognised by the names of files and folders."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple, NoReturn

from septa.data.listing import (
    EMPTY,
    PairingNotes,
    describe_contents,
    is_broken_link,
    list_folder_images,
    list_folder_labels,
    list_subfolders,
    note_ignored,
    refuse_empty,
    select_images,
    select_labels,
)
from septa.data.matching import LABELS_WITHOUT_IMAGE, get_stem, match_files
from septa.data.pairs import PairingError
from septa.data.siblings import find_partners, look_like_labels, suggest_patterns
from septa.errors import InputError, format_count, shorten_list
from septa.images import is_zarr
from septa.labels import (
    IMAGE_FOLDERS,
    LABEL_END,
    LABEL_FOLDERS,
    find_class_folders,
    find_subfolders,
    get_file,
    is_inside_file,
    is_outlines,
    list_folder,
)

LAYOUTS = (
    "Arrange the folder as images/ and labels/ with equal names, as x.png beside x_mask.png, as two TIFF stacks "
    "(train-volume.tif, train-labels.tif), or as one folder per image with images/ and masks/; "
    "or name the files with --images and --labels"
)
"""Remedy for a folder in none of the layouts."""

Select = Callable[[Iterable[Path], PairingNotes, Path], list[Path]]
"""Function that returns the images, or the label files, of a folder."""

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
    return _pair_flat(data, files, notes)


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
    files = select_images(list_folder(image_folder), notes, image_folder)
    label_files = select_labels(list_folder(label_folder), notes, label_folder)
    for folder, found in ((image_folder, files), (label_folder, label_files)):
        if not found:
            raise refuse_empty(data, folder, LAYOUTS)
    name = f"{image_folder.name}/ and {label_folder.name}/"
    return FolderLayout(name, *_pair_lists(data, files, label_files, notes))


def _pair_beside(data: Path, image_folder: Path, outlines: Sequence[Path], notes: PairingNotes) -> FolderLayout:
    """Pair a folder of images with files of outlines next to it."""
    known = {image_folder, *map(get_file, outlines)}
    note_ignored(data, [path for path in list_folder(data) if path not in known], notes)
    files = select_images(list_folder(image_folder), notes, image_folder)
    shown = shorten_list(dict.fromkeys(get_file(path).name for path in outlines), 2)
    return FolderLayout(f"{image_folder.name}/ and {shown}", *_pair_lists(data, files, outlines, notes))


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
            pairs.append(FilePair(folder.name, files[0], tuple(masks)))
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
    return FolderLayout("one folder per image", pairs, reasons)


def _pair_flat(data: Path, files: list[Path], notes: PairingNotes) -> FolderLayout:
    stacks = _find_two_stacks(files)
    if stacks:
        return FolderLayout("two stacks", [FilePair(get_stem(stacks[0]), *stacks)], {})
    labels = [path for path in files if LABEL_END.search(get_stem(path)) or is_outlines(path)]
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
    return FolderLayout("patterns", *_pair_lists(data, files, label_files, notes))


def _expand_pattern(data: Path, pattern: str, notes: PairingNotes, select: Select) -> list[Path]:
    # Path.glob takes no absolute pattern.
    hits = [data / hit for hit in sorted(glob(pattern, root_dir=data, recursive=True))]  # noqa: PTH207
    hits = [hit for hit in hits if not any(map(is_zarr, hit.parents))]
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


def _pair_lists(
    data: Path, images: Sequence[Path], labels: Sequence[Path], notes: PairingNotes
) -> tuple[list[FilePair], dict[Path, str]]:
    matches, reasons = match_files(images, labels, notes.lines)
    _note_absent_images([path for path in reasons if is_inside_file(path)], reasons, notes)
    reasons = {path: "the link leads to no file" if is_broken_link(path) else text for path, text in reasons.items()}
    stems = [get_stem(image) for image, _ in matches]
    if len(set(stems)) < len(stems):
        stems = ["_".join([*_make_relative(image, data).parent.parts, get_stem(image)]) for image, _ in matches]
    return [FilePair(stem, image, label) for stem, (image, label) in zip(stems, matches, strict=True)], reasons


def _note_absent_images(paths: Sequence[Path], reasons: dict[Path, str], notes: PairingNotes) -> None:
    """Warn of images that a file of outlines describes but that are not there, instead of giving them as reasons."""
    absent: Counter[Path] = Counter()
    for path in paths:
        if reasons[path] == LABELS_WITHOUT_IMAGE:
            del reasons[path]
            absent[get_file(path)] += 1
    for file, count in absent.items():
        text = "images that the file describes are not in the dataset ({} of them)"
        notes.notices.add(file, text, "Check that no image is missing", warning=True, amount=count)


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


def _make_relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
