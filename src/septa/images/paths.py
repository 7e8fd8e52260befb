"""Paths of images that are not files of their own: datasets inside an HDF5 file, and channels in separate files.

``a.h5:/raw`` is the dataset ``/raw`` of the file ``a.h5``. ``a_{dapi,gfp}.tif`` is one image, whose channels are those
of ``a_dapi.tif`` and ``a_gfp.tif`` in this order. Both are understood in patterns too, as in ``raw/*_{dapi,gfp}.tif``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from septa.errors import InputError, format_count, shorten_list

_CHANNELS = re.compile(r"\{([^{}]*,[^{}]*)\}")
_DATASET = re.compile(r":[/\\]")
_DOUBLE_SUFFIXES = (
    *(".ome.tif", ".ome.tiff", ".ome.tf2", ".ome.tf8", ".ome.btf", ".nii.gz"),
    *(".ome.zarr.zip", ".zarr.zip", ".ome.zarr"),
)


def split_dataset(path: Path) -> tuple[Path, str]:
    """Return the file of a path such as ``a.h5:/raw`` and the dataset inside; of other paths, the path and ''."""
    text = str(path)
    for mark in _DATASET.finditer(text):
        file = Path(text[: mark.start()])
        if file.is_file():
            return file, text[mark.end() - 1 :].replace("\\", "/")
    return path, ""


def list_channel_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a path such as ``a_{dapi,gfp}.tif``, one for each word; () for other paths."""
    found = _find_group(str(path))
    if found is None or path.exists():
        return ()
    return tuple(Path(f"{found[0]}{word}{found[2]}") for word in found[1])


def list_image_files(path: Path) -> tuple[Path, ...]:
    """Return the files, or zarr folders, that an image is read from."""
    return tuple(split_dataset(part)[0] for part in list_channel_files(path) or (path,))


def image_exists(path: Path) -> bool:
    """Return True if all files of an image exist."""
    return all(file.exists() for file in list_image_files(path))


def find_image_stem(path: Path) -> str:
    """Return the name of an image without suffix.

    It is the name of the file for a dataset inside one, that of the image for labels inside an OME-Zarr image, and the
    common part of the names for channels in separate files.

    Examples
    --------
    >>> names = "a.ome.tif", "b.zarr.zip", "c_{dapi,gfp}.tif", "d.ome.zarr/labels/cells", "{red,green}/e.png"
    >>> [find_image_stem(Path(name)) for name in names]
    ['a', 'b', 'c', 'd', 'e']
    """
    path = split_dataset(path)[0]
    if path.parent.name == "labels":
        path = next((folder for folder in path.parents if folder.suffix == ".zarr"), path)
    name = path.name
    group = _CHANNELS.search(name)
    if group is not None:
        name = re.sub(r"[-_. ]+(?=\.|$)", "", name[: group.start()] + name[group.end() :], count=1)
    double = next((suffix for suffix in _DOUBLE_SUFFIXES if name.lower().endswith(suffix)), "")
    stem = name[: -len(double)] if double else Path(name).stem
    return stem.strip("-_. ") if group is not None else stem


def find_matches(pattern: str, root: Path | None = None) -> list[Path]:
    """Find the paths that match a pattern.

    Parameters
    ----------
    pattern
        Glob, absolute or relative to ``root``; ``**`` crosses folders. With ``:/DATASET`` at its end, the dataset of
        each file; with words such as ``{dapi,gfp}``, one path for the files that differ in these words only.
    root
        Folder; the current one if None.

    Returns
    -------
    list of Path
        Sorted paths.

    Raises
    ------
    InputError
        A channel of an image has no file.
    """
    mark = next((mark for mark in _DATASET.finditer(pattern) if mark.start() > 1), None)
    if mark is not None:
        return [Path(f"{file}{pattern[mark.start() :]}") for file in find_matches(pattern[: mark.start()], root)]
    group = _find_group(pattern)
    if group is None or _glob(pattern, root):
        return _glob(pattern, root)
    before, words, after = group
    return _join_channels(pattern, words, [_glob(f"{before}{word}{after}", root) for word in words])


def _glob(pattern: str, root: Path | None) -> list[Path]:
    # Path.glob takes no absolute pattern.
    return [(root or Path()) / hit for hit in sorted(glob(pattern, root_dir=root, recursive=True))]  # noqa: PTH207


def _find_group(text: str) -> tuple[str, tuple[str, ...], str] | None:
    """Return the text before the last list of words in braces, the words, and the text after it."""
    groups = list(_CHANNELS.finditer(text))
    if not groups:
        return None
    return text[: groups[-1].start()], tuple(groups[-1][1].split(",")), text[groups[-1].end() :]


def _join_channels(pattern: str, words: Sequence[str], hits: Sequence[Sequence[Path]]) -> list[Path]:
    """Join the files of each channel, given by the word in their names, to images."""
    files = [set(paths) for paths in hits]
    joined: list[Path] = []
    alone: dict[Path, str] = {}
    used: set[Path] = set()
    for number, paths in enumerate(hits):
        for path in paths:
            if path in used:
                continue
            start, parts = _find_best_place(str(path), number, words, files)
            used |= set(parts.values())
            missing = [word for k, word in enumerate(words) if k not in parts]
            text = str(path)
            if missing:
                alone[path] = f"{', '.join(missing)} is missing" if len(missing) == 1 else "the others are missing"
            else:
                joined.append(Path(f"{text[:start]}{{{','.join(words)}}}{text[start + len(words[number]) :]}"))
    if alone:
        listed = shorten_list(f"{path.name} ({reason})" for path, reason in alone.items())
        problem = f"{format_count(len(alone), 'file')} of the pattern lack other channels: {listed}"
        raise InputError(pattern, problem, "Give each image a file for each channel, or move the others away")
    return sorted(joined)


def _find_best_place(
    text: str, number: int, words: Sequence[str], files: Sequence[set[Path]]
) -> tuple[int, dict[int, Path]]:
    """Return the place of a word in a path at which the most other channels exist, and the file of each channel."""
    word = words[number]
    best: tuple[int, dict[int, Path]] = (0, {number: Path(text)})
    start = text.find(word)
    while start >= 0:
        parts = {
            k: other
            for k, each in enumerate(words)
            if (other := Path(text[:start] + each + text[start + len(word) :])) in files[k]
        }
        if len(parts) >= len(best[1]):
            best = start, parts
        start = text.find(word, start + 1)
    return best
