"""The image files that the arguments of a prediction name."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from septa.errors import InputError
from septa.images import IMAGE_SUFFIXES


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Find the image files that some arguments name.

    Parameters
    ----------
    inputs
        Files, folders (without their subfolders), and globs.

    Returns
    -------
    list of Path
        Files in the order of the arguments, each once.

    Raises
    ------
    InputError
        An argument names no file, or two files would have label files of one name.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            images = [file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]
            files = [file for file in images if file.is_file() and not file.name.startswith(".")]
        elif path.exists():
            files = [path]
        else:
            files = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - may be absolute
        if not files:
            problem = "the folder contains no images" if path.is_dir() else "the file does not exist"
            raise InputError(text, problem, "Give image files, a folder of images, or a glob in quotes")
        found += files
    unique = list(dict.fromkeys(found))
    stems: dict[str, Path] = {}
    for path in unique:
        other = stems.setdefault(find_stem(path), path)
        if other != path:
            problem = f"its label file would have the same name as that of {other}"
            raise InputError(path, problem, "Segment them into two folders")
    return unique


def find_stem(path: Path) -> str:
    """Return the stem of the names of all files that are written for an image file."""
    return path.stem.removesuffix(".ome")
