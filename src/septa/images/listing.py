"""What the entries of a folder are: image files, zarr images, broken links, subfolders, or anything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from septa.errors import InputError, format_count, shorten_list
from septa.images.formats.container import MissingReaderError
from septa.images.paths import image_exists, list_image_files
from septa.images.read import IMAGE_SUFFIXES, read_info
from septa.images.sources.places import is_zarr

_HIDDEN = ("thumbs.db", "desktop.ini")


@dataclass
class Entries:
    """Entries of a folder, sorted into kinds; each list keeps their order.

    Attributes
    ----------
    files
        Image files: those with a known suffix, also if they are damaged, and those that are images by their content.
    stores
        Folders and zip files that are zarr groups or arrays.
    broken_links
        Links to nothing.
    folders
        Other folders.
    others
        Other files, each with the reason why it is not read: a clause with a subject and a verb.
    hidden
        Entries that are hidden or written by an operating system.
    """

    files: list[Path] = field(default_factory=list)
    stores: list[Path] = field(default_factory=list)
    broken_links: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    others: dict[Path, str] = field(default_factory=dict)
    hidden: list[Path] = field(default_factory=list)

    def describe(self) -> str:
        """Return what the entries are instead of images, such as ``2 .txt, 1 .csv and 1 folder``.

        Examples
        --------
        >>> Entries(folders=[Path("a")], others={Path(name): "" for name in ("a.TXT", "b.txt", "c")}).describe()
        '2 .txt, 1 file without a suffix, 1 folder'
        """
        suffixes = Counter(path.suffix.lower() for path in (*self.others, *self.files))
        parts = [
            f"{count} {suffix}" if suffix else format_count(count, "file") + " without a suffix"
            for suffix, count in suffixes.most_common()
        ]
        kinds = {"zarr store": self.stores, "folder": self.folders, "broken link": self.broken_links}
        parts += [format_count(len(paths), noun) for noun, paths in kinds.items() if paths]
        return shorten_list(parts, 6) if parts else "nothing"


def sort_entries(paths: Iterable[Path]) -> Entries:
    """Sort files and folders into kinds; nothing is decoded.

    A file with a known suffix is taken for an image, so that a damaged one is reported and not passed over. Any other
    file is opened, because images come with many suffixes (.svs, .lsm, .btf).
    """
    entries = Entries()
    for path in paths:
        try:
            _sort_entry(path, entries)
        except OSError as error:
            entries.others[path] = f"the file cannot be read ({error.strerror})"
    return entries


def _sort_entry(path: Path, entries: Entries) -> None:
    if path.name.startswith(".") or path.name.lower() in _HIDDEN:
        entries.hidden.append(path)
    elif list_image_files(path) != (path,) and image_exists(path):
        entries.files.append(path)
    elif not path.exists():
        entries.broken_links.append(path)
    elif is_zarr(path):
        entries.stores.append(path)
    elif path.is_dir():
        entries.folders.append(path)
    elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        entries.files.append(path)
    elif reason := _find_fault(path):
        entries.others[path] = reason
    else:
        entries.files.append(path)


def _find_fault(path: Path) -> str:
    """Return the reason why a file cannot be read; empty if it is an image."""
    try:
        read_info(path)
    except MissingReaderError:
        return ""  # reading it names what to install
    except InputError as error:
        return error.problem
    return ""


def check_outside_zarr(output: Path) -> None:
    """Refuse an output inside a zarr group or array, whose readers may not expect it there.

    Raises
    ------
    InputError
        A folder around the output is a zarr group or array.
    """
    for folder in output.resolve().parents:
        if is_zarr(folder):
            problem = f"the output lies inside the zarr folder {folder}, which septa does not change"
            raise InputError(output, problem, "Give -o a name outside it")
