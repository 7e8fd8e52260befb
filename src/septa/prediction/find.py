"""The images that the arguments of a prediction name: files, zarr images, and the images in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from septa.errors import InputError
from septa.images import (
    Entries,
    Location,
    count_images,
    find_image_stem,
    find_matches,
    image_exists,
    is_address,
    is_zarr,
    list_fields,
    sort_entries,
)
from septa.labels import list_folder
from septa.notices import Notices

_REMEDY = "Give image files, a folder of images, or a glob in quotes"


@dataclass(frozen=True)
class InputImage:
    """An image that is segmented.

    Attributes
    ----------
    path
        Its file, its zarr folder or zip file, or its address.
    number
        Number of the image in a path that holds several; None for the only one.
    field
        Name of the image in its plate, such as ``plate_A1_0``; None for other images.
    """

    path: Location
    number: int | None = None
    field: str | None = None

    @property
    def stem(self) -> str:
        """Stem of the names of all files that are written for the image."""
        return find_stem(self.path, self.number) if self.field is None else self.field

    @property
    def file(self) -> Path:
        """Path of an image that is read as a whole.

        Raises
        ------
        InputError
            If it is at an address.
        """
        if isinstance(self.path, Path):
            return self.path
        raise InputError(self.path, "an image at an address is segmented in blocks, not as a file", "Use septa predict")


def find_images(inputs: Sequence[str], notices: Notices | None = None) -> list[Location]:
    """Find the image files and zarr images that some arguments name.

    Parameters
    ----------
    inputs
        Files, zarr folders, zip files and addresses, other folders (without their subfolders), and globs; see also
        `septa.images.find_matches`.
    notices
        Receives the entries of folders that are passed over.

    Returns
    -------
    list of Path or str
        Paths and addresses in the order of the arguments, each once.

    Raises
    ------
    InputError
        An argument names no image, or two files would have label files of one name.
    """
    notices = Notices() if notices is None else notices
    found: list[Location] = []
    for text in inputs:
        path = Path(text)
        if is_address(text):
            found.append(text.rstrip("/"))
        elif path.is_dir() and not is_zarr(path):
            found += _select(text, "folder", list_folder(path), notices)
        elif image_exists(path) or is_zarr(path):
            found.append(path)
        else:
            if path.is_symlink():
                raise InputError(text, "the link leads to no file", _REMEDY)
            matches = find_matches(text)
            if not matches:
                raise InputError(text, "the file does not exist", _REMEDY)
            found += _select(text, "pattern", _leave_stores_whole(matches), notices)
    unique = list(dict.fromkeys(found))
    _check_names(map(InputImage, unique))
    return unique


def _check_names(images: Iterable[InputImage]) -> None:
    """Refuse images of two paths whose labels would have one name; a zarr image and a file never have."""
    paths: dict[tuple[str, bool], Location] = {}
    for one in images:
        other = paths.setdefault((one.stem, is_zarr(one.path)), one.path)
        if other != one.path:
            part = "its labels" if one.number is None else f"the labels of its image {one.number}"
            problem = f"{part} would have the same name as those of {other}"
            raise InputError(one.path, problem, "Segment them into two folders")


def _leave_stores_whole(paths: Iterable[Path]) -> list[Path]:
    """Drop the paths inside zarr folders, which a recursive pattern matches."""
    every = list(paths)
    folders = {folder for path in every for folder in path.parents}
    stores = {folder for folder in folders if is_zarr(folder)}
    return [path for path in every if stores.isdisjoint(path.parents)]


def _select(text: str, kind: str, paths: Sequence[Path], notices: Notices) -> list[Path]:
    """Return the images among the entries of a folder or the matches of a pattern, and note all others."""
    entries = sort_entries(paths)
    chosen = {*entries.files, *entries.stores}
    images = [path for path in paths if path in chosen]
    if not images:
        verb = "contains" if kind == "folder" else "matches"
        found = f", but {entries.describe()}" if entries.describe() != "nothing" else ""
        raise InputError(text, f"the {kind} {verb} no images{found}", _REMEDY)
    _note_others(entries, notices)
    return images


def _note_others(entries: Entries, notices: Notices) -> None:
    for path in entries.broken_links:
        notices.add(path, "the link leads to no file and is passed over", warning=True)
    for path, reason in entries.others.items():
        notices.add(path, f"{reason}, and is passed over")
    for path in entries.folders:
        notices.add(path, "the subfolder is not searched for images", "Give its path, too, if it holds some")


def as_images(images: Iterable[Location | InputImage]) -> list[InputImage]:
    """Return images; a path stands for all its pages."""
    return [one if isinstance(one, InputImage) else InputImage(one) for one in images]


def expand_images(
    paths: Sequence[Location], image: int | None = None, wells: Sequence[str] | None = None
) -> list[InputImage]:
    """Return the images in files, zarr images and plates.

    Parameters
    ----------
    paths
        Paths as of `find_images`.
    image
        Number of the only image of each path, or of the only field of each well, that is wanted; None for all.
    wells
        Wells of plates that are wanted, as of `septa.images.list_fields`; None for all.

    Raises
    ------
    InputError
        Images of two paths would have labels of one name; or ``wells`` are given, but no plate has them.
    """
    found: list[InputImage] = []
    has_wells = False
    for path in paths:
        if fields := _expand_plate(path, wells):
            has_wells = True
            found += [one for one in fields if image is None or image == one.number]
        else:
            found += _expand_image(path, image)
    if wells is not None and not has_wells:
        raise InputError("--wells", "none of the images is a plate with wells", "Leave the option out")
    if not found:
        raise InputError("--image", f"no well has a field {image}", "Give another number, or leave the option out")
    images = [one if one.field is None else InputImage(one.path, field=one.field) for one in found]
    _check_names(images)
    return images


def _expand_plate(path: Location, wells: Sequence[str] | None) -> list[InputImage]:
    """Return the fields of a plate, with their numbers in their wells; none for any other path."""
    if not is_zarr(path):
        return []
    try:
        fields = list_fields(path, wells)
    except InputError:
        if wells is not None:
            raise
        return []  # the fault is reported when the image is read
    stem = find_stem(path)
    return [InputImage(field.location, field.number, f"{stem}_{field.well}_{field.number}") for field in fields]


def _expand_image(path: Location, image: int | None) -> list[InputImage]:
    try:
        count = count_images(path)
    except InputError:
        count = 1  # the fault is reported when the image is read
    if count == 1:
        return [InputImage(path, image or None)]
    return [InputImage(path, number) for number in (range(count) if image is None else (image,))]


def find_stem(path: Location, image: int | None = None) -> str:
    """Return the stem of the names of all files that are written for an image of a file or zarr image."""
    stem = find_image_stem(Path(path))
    return stem if image is None else f"{stem}_image{image}"
