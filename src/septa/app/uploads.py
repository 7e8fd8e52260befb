"""Files that are dropped on the page: checked, and saved in the folder under a name that no other file has."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from septa.errors import InputError, ResourceError
from septa.images import IMAGE_SUFFIXES, MAX_PIXELS
from septa.prediction import find_stem

from .decoder import Decoders
from .folder import ImageFolder

MOST_BYTES = 4 * 2**30
"""Largest file that can be dropped, bytes."""
MOST_PIXELS = MAX_PIXELS
"""Largest image that can be dropped, pixels of all planes."""
_SPARE = 100 * 2**20
"""Bytes of the disk that stay free."""
_LONGEST = 120
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_PART = ".septa-upload-"


def clean_name(given: str) -> str:
    r"""Return a safe file name: without folders, control characters, and signs that some systems forbid.

    Raises
    ------
    InputError
        Nothing of the name is left, or its ending is not that of an image.

    Examples
    --------
    >>> clean_name("../..\\\\evil:name?.PNG")
    'evil_name_.PNG'
    >>> clean_name(".hidden.tif")
    'hidden.tif'
    """
    name = PurePosixPath(unicodedata.normalize("NFC", given).replace("\\", "/")).name
    name = "".join(sign for sign in name if sign.isprintable())
    name = re.sub(r'[<>:"|?*#%]', "_", name).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    if not dot or f".{suffix.lower()}" not in IMAGE_SUFFIXES or not stem.strip(" ._"):
        kinds = ", ".join(sorted(one for one in IMAGE_SUFFIXES))
        problem = f"the file {name or 'without a name'} is not an image that the app takes"
        raise InputError("", problem, f"Drop files that end in {kinds}")
    if _RESERVED.fullmatch(name):
        stem = f"_{stem}"
    return f"{stem[:_LONGEST].rstrip(' .')}.{suffix}"


def check_room(folder: ImageFolder, size: int) -> None:
    """Check the size of a file before it is received.

    Raises
    ------
    InputError
        It is too large.
    ResourceError
        The disk has no room for it.
    """
    if size > MOST_BYTES:
        problem = f"the file has {size} bytes, and the app takes at most {MOST_BYTES}"
        raise InputError("", problem, "Copy it into the folder instead")
    if shutil.disk_usage(folder.images).free < size + _SPARE:
        raise ResourceError(folder.images, "the disk has no room for the file", "Free some space")


def open_part(folder: ImageFolder) -> Path:
    """Return the path of a new hidden file beside the images, which receives a file."""
    folder.check_inside(folder.images)
    return folder.images / f"{_PART}{secrets.token_hex(8)}"


def accept(folder: ImageFolder, decoders: Decoders, part: Path, name: str) -> str:
    """Check a file that was received, and move it to a free name in the folder, which is returned.

    Raises
    ------
    InputError, ResourceError
        The file is not an image, is damaged or too large; it is removed.
    """
    try:
        header = decoders.describe(part)
        if header.images == 1:
            frames, _, planes, height, width = header.shape
            if frames * planes * height * width > MOST_PIXELS:
                problem = f"the image has {frames * planes * height * width} pixels, more than {MOST_PIXELS}"
                raise InputError("", problem, "Copy it into the folder instead")
        return _move(folder, part, name).name
    except InputError as error:
        raise InputError(name, error.problem, error.remedy) from None
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def reserve_file(folder: ImageFolder, name: str) -> Iterator[tuple[Path, Path]]:
    """Give a hidden path to write to, and the empty file that it will replace; nothing stays if an error is raised."""
    part = open_part(folder).with_suffix(Path(name).suffix)
    try:
        target = _claim(folder, name)
        try:
            yield part, target
            part.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    finally:
        part.unlink(missing_ok=True)


def _move(folder: ImageFolder, part: Path, name: str) -> Path:
    target = _claim(folder, name)
    part.replace(target)
    return target


def _claim(folder: ImageFolder, name: str) -> Path:
    """Make an empty file whose name and stem no other image has."""
    folder.check_inside(folder.images)
    stem, suffix = Path(name).stem, Path(name).suffix
    taken = {find_stem(path).casefold() for path in folder.images.iterdir()}
    for number in range(1, 10_000):
        target = folder.images / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}"
        if find_stem(target).casefold() in taken:
            continue
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        except OSError as error:
            problem = f"the file cannot be written ({error.strerror})"
            raise ResourceError(folder.images, problem, "Make the folder writable") from None
        return target
    raise InputError(name, "the folder has too many images of this name", "Rename the file")


def remove_parts(folder: ImageFolder) -> None:
    """Remove what uploads left that were interrupted by a kill."""
    for path in folder.images.glob(f"{_PART}*"):
        with suppress(OSError):
            path.unlink()
