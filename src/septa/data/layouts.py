"""The layouts of image and label folders: recognised by their names, and told when they do not fit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path

from septa.errors import InputError
from septa.images import read_info

LAYOUTS = (
    "arrange DATA as images/ and labels/ with equal names, as x.png beside x_mask.png, as two TIFF stacks "
    "(train-volume.tif, train-labels.tif), or as one folder per image with images/ and masks/, "
    "or name the files with --images and --labels"
)
_SUFFIXES = (".ome.tiff", ".ome.tif", ".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".tif", ".tiff")
_IMAGE_FOLDERS = ("images", "image", "imgs", "img")
_LABEL_FOLDERS = ("labels", "label", "masks", "mask")
_CLASS_FOLDERS = ("classes", "types")
_LABEL_WORD = r"(?:annotations?|anno|masks?|labels?|seg|segmentations?|gt)"
_LABEL_END = re.compile(rf"(?:^|[-_. ]){_LABEL_WORD}$", re.IGNORECASE)
_IMAGE_END = re.compile(r"(?:^|[-_. ])(?:volume|images?|img|raw)$", re.IGNORECASE)
_STACK_IMAGE = re.compile(r"volume|image|raw", re.IGNORECASE)
_STACK_LABELS = re.compile(r"label|mask", re.IGNORECASE)


class PairingError(InputError):
    """Images and labels that cannot be paired, with every file concerned.

    Attributes
    ----------
    files
        Every file concerned; the message names each in an indented line of its own, with what is wrong with it.
    rest
        The files that can be paired all the same, as `recognise` returns them.
    pairing
        The `septa.data.folder.Pairing` of these, or None.
    """

    def __init__(
        self, where: str | Path, problem: str, remedy: str, reasons: Mapping[Path, str], rest: Found | None = None
    ) -> None:
        super().__init__(where, problem, remedy)
        self.files = tuple(reasons)
        self.rest: Found = rest or []
        self.pairing: object = None
        lines = [f"  {file} ({reason})" for file, reason in reasons.items()]
        self.args = ("\n".join([str(self), *lines]),)


Found = list[tuple[str, Path, "Path | tuple[Path, ...]"]]
"""Name, image file and label file (or one mask file per object) of each image."""


def recognise(data: Path, notes: list[str]) -> tuple[str, Found]:
    """Recognise the layout of a folder and pair its files; see `septa.data.folder.find_pairs`.

    What is ignored is appended to ``notes``.
    """
    entries = _entries(data)
    folders = [path for path in entries if path.is_dir() and not _is_hidden(path)]
    image_folders = [path for path in folders if path.name.lower() in _IMAGE_FOLDERS]
    label_folders = [path for path in folders if path.name.lower() in _LABEL_FOLDERS]
    if image_folders and label_folders:
        return _pair_two_folders(data, image_folders, label_folders, notes)
    if image_folders or label_folders:
        there, missing = ("images", "labels") if image_folders else ("labels", "images")
        raise InputError(data, f"holds a folder of {there} but none of {missing}", LAYOUTS)
    per_image = [path for path in folders if _inner(path, _IMAGE_FOLDERS) or _inner(path, _LABEL_FOLDERS)]
    if per_image:
        _note_ignored(data, [path for path in entries if path not in per_image], notes)
        return "one folder per image", _pair_folders(data, per_image, notes)
    files = _only_images(entries, notes, data)
    if not files:
        raise InputError(data, "holds no images" if entries else "is empty", LAYOUTS)
    return _pair_flat(data, files, notes)


def _pair_two_folders(
    data: Path, image_folders: Sequence[Path], label_folders: Sequence[Path], notes: list[str]
) -> tuple[str, Found]:
    several = [*image_folders, *label_folders]
    if len(several) > 2:
        reasons = {path: "images" if path in image_folders else "labels" for path in several}
        remedy = "keep one folder of each, or name the files with --images and --labels"
        raise PairingError(data, "several folders may hold the images or the labels", remedy, reasons)
    known = {*several, find_classes_folder(data)}
    _note_ignored(data, [path for path in _entries(data) if path not in known], notes)
    files, label_files = (_only_images(_entries(folder), notes, folder) for folder in several)
    names = " and ".join(f"{folder.name}/" for folder in several)
    if not files and not label_files:
        raise InputError(data, f"{names} hold no images", LAYOUTS)
    return names, _pair_lists(data, files, label_files, notes)


def _inner(folder: Path, names: Sequence[str]) -> Path | None:
    return next((path for path in _entries(folder) if path.is_dir() and path.name.lower() in names), None)


def _pair_folders(data: Path, folders: Iterable[Path], notes: list[str]) -> Found:
    found: Found = []
    reasons: dict[Path, str] = {}
    own_data = []
    for folder in folders:
        image_folder, mask_folder = _inner(folder, _IMAGE_FOLDERS), _inner(folder, _LABEL_FOLDERS)
        files = _only_images(_entries(image_folder), notes, image_folder) if image_folder else []
        masks = _only_images(_entries(mask_folder), notes, mask_folder) if mask_folder else []
        if len(files) == 1 and masks:
            found.append((folder.name, files[0], tuple(masks)))
        elif not files:
            reasons |= dict.fromkeys(masks or [folder], "no image" if masks else "neither image nor masks")
        elif len(files) > 1:
            reasons |= dict.fromkeys(files, "several images in one folder")
            own_data.append(folder)
        else:
            reasons[files[0]] = "no masks"
    if own_data and not found:
        shown = ", ".join(folder.name for folder in own_data[:5])
        raise InputError(data, f"holds folders that are data of their own ({shown})", f"give {own_data[0]}")
    _refuse(data, reasons, found)
    return found


def _pair_flat(data: Path, files: list[Path], notes: list[str]) -> tuple[str, Found]:
    stacks = _two_stacks(files)
    if stacks:
        return "two stacks", [(_stem(stacks[0]), *stacks)]
    labels = [path for path in files if _LABEL_END.search(_stem(path))]
    chosen = set(labels)
    images = [path for path in files if path not in chosen]
    if not labels or not images:
        problem = f"holds {len(files)} images, and none is named as the labels of another"
        raise PairingError(data, problem, LAYOUTS, dict.fromkeys(files, "no partner"))
    return "one folder, labels named by a suffix", _pair_lists(data, images, labels, notes)


def _two_stacks(files: Sequence[Path]) -> tuple[Path, Path] | None:
    if len(files) != 2 or not all(path.name.lower().endswith((".tif", ".tiff")) for path in files):
        return None
    for image, labels in (files, files[::-1]):
        # A name may hold both words ("raw-labels"), so the other name must not speak of labels.
        told = _STACK_LABELS.search(labels.name) and not _STACK_LABELS.search(image.name)
        if told and _STACK_IMAGE.search(image.name):
            return image, labels
    return None


def pair_patterns(data: Path, images: str, labels: str, notes: list[str]) -> Found:
    """Pair the files that match two patterns; see `septa.data.folder.find_pairs`."""
    label_files = _matches(data, labels, notes)
    chosen = set(label_files)
    files = [path for path in _matches(data, images, notes) if path not in chosen]
    if not files:
        raise InputError(images, "matches the label files only", "give a pattern that the images match")
    return _pair_lists(data, files, label_files, notes)


def _matches(data: Path, pattern: str, notes: list[str]) -> list[Path]:
    # Path.glob takes no absolute pattern.
    hits = [data / hit for hit in sorted(glob(pattern, root_dir=data, recursive=True))]  # noqa: PTH207
    files: list[Path] = []
    for hit in hits:
        files += _only_images(_entries(hit), notes, hit) if hit.is_dir() and len(hits) == 1 else []
    files += _only_images([hit for hit in hits if hit.is_file()], notes, data)
    if not files:
        remedy = f"give a pattern relative to {data} or an absolute one, in quotes, such as 'images/*.png'"
        raise InputError(pattern, "matches no image", remedy)
    return files


_Matched = tuple[list[tuple[Path, Path]], dict[Path, str]]


def _pair_lists(data: Path, images: Sequence[Path], labels: Sequence[Path], notes: list[str]) -> Found:
    pairs, reasons = _match(images, labels, *_stem_keys(images, labels))
    if reasons and len(images) > 1:
        varying, unmatched = _match(images, labels, _varying(images), _varying(labels))
        if not unmatched and set(pairs) <= set(varying):
            pairs, reasons = varying, {}
            notes.append(f"paired by the part of the names that varies, as {pairs[0][0].name} with {pairs[0][1].name}")
    stems = [_stem(image) for image, _ in pairs]
    if len(set(stems)) < len(stems):
        stems = ["_".join([*_relative(image, data).parent.parts, _stem(image)]) for image, _ in pairs]
    found: Found = [(stem, image, label) for stem, (image, label) in zip(stems, pairs, strict=True)]
    _refuse(data, reasons, found)
    return found


def find_classes_folder(data: Path) -> Path | None:
    """The folder of objects' classes beside those of images and labels, if there is one.

    Raises
    ------
    PairingError
        There are several.
    """
    folders = [path for path in _entries(data) if path.is_dir() and path.name.lower() in _CLASS_FOLDERS]
    if not folders or not _inner(data, _IMAGE_FOLDERS) or not _inner(data, _LABEL_FOLDERS):
        return None
    if len(folders) > 1:
        reasons = dict.fromkeys(folders, "classes")
        raise PairingError(data, "several folders may hold the objects' classes", "keep one of them", reasons)
    return folders[0]


def pair_classes(folder: Path, labels: Sequence[Path], notes: list[str]) -> dict[Path, Path]:
    """The file of classes for each label file: the one of equal stem, or of that without an ending such as ``_mask``.

    Raises
    ------
    PairingError
        Labels have no file of classes or several, or such a file belongs to no labels.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for path in _only_images(_entries(folder), notes, folder):
        files[_stem(path)].append(path)
    found: dict[Path, Path] = {}
    reasons: dict[Path, str] = {}
    for path in dict.fromkeys(labels):
        keys = (_stem(path), _LABEL_END.sub("", _stem(path)))
        matching = next((files.pop(key) for key in keys if key in files), [])
        if len(matching) == 1:
            found[path] = matching[0]
        else:
            reasons |= {path: "labels without classes"} if not matching else dict.fromkeys(matching, "one of several")
    reasons |= dict.fromkeys((path for rest in files.values() for path in rest), "classes without labels")
    if reasons:
        remedy = f"give each label image one image of classes with the same name, or move {folder.name}/ away"
        raise PairingError(folder, "labels and classes cannot be paired", remedy, reasons)
    return found


def _stem_keys(images: Sequence[Path], labels: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Keys that are equal for an image and its labels: the stem, without a known ending where needed."""
    image_keys = {path: _stem(path) for path in images}
    stems = set(image_keys.values())
    label_keys = {}
    for path in labels:
        stem = _stem(path)
        label_keys[path] = stem if stem in stems else _LABEL_END.sub("", stem)
    wanted = set(label_keys.values())
    for path, stem in image_keys.items():
        bare = _IMAGE_END.sub("", stem)
        if stem not in wanted and bare in wanted:
            image_keys[path] = bare
    return image_keys, label_keys


def _varying(files: Sequence[Path]) -> dict[Path, str]:
    """The middle of each path (without the suffix), after the common beginning and before the common end."""
    texts = [str(path.parent / _stem(path)) for path in files]
    # A number is compared whole: the tens that all files share must not be dropped.
    start = len(texts[0][: _common_start(texts)].rstrip("0123456789"))
    rest = [text[start:] for text in texts]
    shared = rest[0][len(rest[0]) - _common_start([text[::-1] for text in rest]) :]
    end = len(shared.lstrip("0123456789"))
    return {path: text[: len(text) - end] for path, text in zip(files, rest, strict=True)}


def _common_start(texts: Sequence[str]) -> int:
    # What the first and the last in order share, all between them share too.
    first, last = min(texts), max(texts)
    return next((k for k, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))


def _match(
    images: Sequence[Path], labels: Sequence[Path], image_keys: Mapping[Path, str], label_keys: Mapping[Path, str]
) -> _Matched:
    """Pairs with equal keys, and for every file that cannot be paired the reason."""
    by_key: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, files, keys in ((0, images, image_keys), (1, labels, label_keys)):
        for path in files:
            by_key[keys[path]][side].append(path)
    pairs: list[tuple[Path, Path]] = []
    reasons: dict[Path, str] = {}
    for mine, theirs in by_key.values():
        if len(mine) == 1 and len(theirs) == 1:
            pairs.append((mine[0], theirs[0]))
        elif not theirs:
            reasons |= dict.fromkeys(mine, "image without labels")
        elif not mine:
            reasons |= dict.fromkeys(theirs, "labels without image")
        else:
            reasons |= dict.fromkeys(mine, f"one of {len(mine)} images" if len(mine) > 1 else "image")
            reasons |= dict.fromkeys(theirs, f"one of {len(theirs)} label files for {mine[0].name}")
    return pairs, reasons


def _refuse(data: Path, reasons: Mapping[Path, str], rest: Found) -> None:
    if reasons:
        problem = f"{len(reasons)} file{'s' if len(reasons) > 1 else ''} cannot be paired"
        remedy = "give each image exactly one label file of the same name, or move these files away"
        raise PairingError(data, problem, remedy, reasons, rest)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(folder, f"cannot be listed ({error.strerror})", "make it readable") from None


def _only_images(paths: Sequence[Path], notes: list[str], folder: Path) -> list[Path]:
    images = [path for path in paths if path.is_file() and not _is_hidden(path) and _is_image(path)]
    kept = set(images)
    _note_ignored(folder, [path for path in paths if path not in kept], notes)
    return images


def _note_ignored(folder: Path, paths: Sequence[Path], notes: list[str]) -> None:
    if paths:
        shown = ", ".join(path.name for path in paths[:5]) + (", ..." if len(paths) > 5 else "")
        notes.append(f"ignored in {folder}: {shown} ({len(paths)} in all)")


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini")


def _is_image(path: Path) -> bool:
    """By name where that tells (a damaged image must not vanish), else by content."""
    if _has_image_suffix(path):
        return True
    try:
        read_info(path)
    except InputError:
        return False
    return True


def _has_image_suffix(path: Path) -> bool:
    return path.name.lower().endswith(_SUFFIXES)


def _stem(path: Path) -> str:
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
