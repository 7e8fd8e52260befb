"""Places that hold zarr images: folders on disk, zip files, and addresses. The reader needs nothing else of them.

A place is a file or folder, which need not exist. `find_place` makes the place of a path or an address.
"""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Protocol

from septa.errors import InputError
from septa.images._info import make_damage_error
from septa.images.sources.addresses import Location, is_address

ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
"""Files that hold the metadata of a zarr group or array, format 3 or 2."""
ZIP_SUFFIXES = (".zip", ".ozx")
_ZIP_MAGIC = b"PK\3\4"
_HEADER_BYTES = 30
_COMPRESSED_SHARD_BYTES = 2**28


class ZarrFile(Protocol):
    """An open file of a zarr image."""

    def __enter__(self) -> ZarrFile:
        """Return the file, which the end of the ``with`` statement closes."""
        ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        ...

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    def read(self, begin: int, count: int, *, keep: bool = False) -> bytes:
        """Return at most ``count`` bytes from ``begin``; fewer only if the file ends.

        ``keep`` asks a file that is far away to keep these bytes, because they will be read again.

        Raises
        ------
        OSError
            If the file cannot be read; FileNotFoundError if it does not exist.
        """
        ...


class Place(Protocol):
    """A file or folder of a zarr image."""

    threads: int
    """Number of files that are best read at once."""

    @property
    def location(self) -> Location:
        """Path or address, for messages and to open the place again."""
        ...

    @property
    def name(self) -> str:
        """Last part of the path."""
        ...

    @property
    def parents(self) -> Sequence[Place]:
        """Folders around the place, the nearest first."""
        ...

    def __truediv__(self, name: str) -> Place:
        """Return a place inside this folder; ``name`` may have several parts."""
        ...

    def open_file(self) -> ZarrFile:
        """Open the file; a missing one raises FileNotFoundError now or when it is read."""
        ...

    def list_names(self) -> list[str]:
        """Return the names of the entries of this folder; none if they cannot be listed."""
        ...

    def list_versions(self, keys: Iterator[str]) -> Iterator[Path]:
        """Yield the files on disk whose size and time change with those files of this folder."""
        ...

    def close(self) -> None:
        """Close what is open for all places of the same image."""
        ...


def find_place(location: str | os.PathLike[str]) -> Place | None:
    """Return the place of a folder, of a part of a zip file, or of an address; None for other paths.

    Raises
    ------
    InputError
        If a zip file is damaged; if an address is not a valid one, or the packages that read it are not installed.
    """
    if is_address(location):
        from septa.images.sources.remote import open_address

        return open_address(str(location))
    path = Path(location)
    return FolderPlace(path) if path.is_dir() else _find_in_zip(path)


def is_zarr(location: str | os.PathLike[str]) -> bool:
    """Return True if a path is a zarr group or array: a folder, a zip file, or a folder in a zip file.

    An address is always taken for one, since septa reads nothing else from there.
    """
    if is_address(location):
        return True
    path = Path(location)
    if path.is_dir():
        return any((path / name).is_file() for name in ZARR_METADATA)
    try:
        place = _find_in_zip(path)
    except InputError:
        return True  # a zip file of zarr by its name, whose damage is reported when it is opened
    if place is None:
        return False
    with_metadata = {*place.list_names()}.intersection(ZARR_METADATA)
    place.close()
    return bool(with_metadata)


class FolderPlace:
    """A file or folder on disk."""

    threads = 1

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def location(self) -> Path:
        """Path of the file or folder."""
        return self._path

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self._path.absolute().name

    @property
    def parents(self) -> list[FolderPlace]:
        """Folders around the place."""
        return [FolderPlace(path) for path in self._path.absolute().parents]

    def __truediv__(self, name: str) -> FolderPlace:
        """Return a place inside this folder."""
        return FolderPlace(self._path / name)

    def open_file(self) -> _DiskFile:
        """Open the file."""
        return _DiskFile(self._path)

    def list_names(self) -> list[str]:
        """Return the names of the entries."""
        return [entry.name for entry in self._path.iterdir()]

    def list_versions(self, keys: Iterator[str]) -> Iterator[Path]:
        """Yield the files themselves, also those that do not exist."""
        return (self._path / key for key in keys)

    def close(self) -> None:
        """Do nothing: no file stays open."""


class _DiskFile:
    """A file on disk."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")

    def __enter__(self) -> _DiskFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    @property
    def size(self) -> int:
        return os.fstat(self._stream.fileno()).st_size

    def read(self, begin: int, count: int, *, keep: bool = False) -> bytes:
        self._stream.seek(begin)
        return self._stream.read(min(count, max(0, self.size - begin)))  # Python reserves as many bytes as it is asked


class _OpenZip:
    """A zip file that several threads read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        try:
            self.archive = zipfile.ZipFile(path)
            self.stream: IO[bytes] = path.open("rb")
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise make_damage_error(path, "zip") from error
        except OSError as error:
            problem = f"the file cannot be read ({error.strerror})"
            raise InputError(path, problem, "Check the path and its permissions") from error
        self.root = self._find_root()

    def _find_root(self) -> str:
        """Return the folder of the image: the top of the zip file, or its only folder there."""
        names = self.archive.NameToInfo
        tops = {name.partition("/")[0] for name in names}
        only = f"{next(iter(tops))}/" if len(tops) == 1 else ""
        has_metadata = any(only + name in names for name in ZARR_METADATA)
        return only if only and has_metadata else ""

    def close(self) -> None:
        """Close the file."""
        self.archive.close()
        self.stream.close()

    def __del__(self) -> None:
        if hasattr(self, "stream"):
            self.stream.close()


class ZipPlace:
    """A file or folder in a zip file."""

    threads = 1

    def __init__(self, file: _OpenZip, key: str) -> None:
        self._zip = file
        self._key = key

    @property
    def location(self) -> Path:
        """Path of the zip file, followed by that inside it."""
        return self._zip.path / self._key

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.location.name

    @property
    def parents(self) -> list[ZipPlace]:
        """Folders around the place, inside the zip file."""
        if not self._key:
            return []
        return [ZipPlace(self._zip, str(path).removeprefix(".")) for path in PurePosixPath(self._key).parents]

    def __truediv__(self, name: str) -> ZipPlace:
        """Return a place inside this folder."""
        key = PurePosixPath(self._key, name)
        return ZipPlace(self._zip, str(key).removeprefix("."))

    def open_file(self) -> _ZippedFile:
        """Open the file."""
        found = self._zip.archive.NameToInfo.get(self._zip.root + self._key)
        if found is None:
            raise FileNotFoundError(str(self.location))
        return _ZippedFile(self._zip, found)

    def list_names(self) -> list[str]:
        """Return the names of the entries."""
        start = self._zip.root + (f"{self._key}/" if self._key else "")
        names = self._zip.archive.NameToInfo
        return sorted({name[len(start) :].partition("/")[0] for name in names if name.startswith(start)} - {""})

    def list_versions(self, keys: Iterator[str]) -> Iterator[Path]:
        """Yield the zip file."""
        yield self._zip.path

    def close(self) -> None:
        """Close the zip file."""
        self._zip.close()


class _ZippedFile:
    """A file in a zip file. A part of an uncompressed one is read from where it lies."""

    def __init__(self, file: _OpenZip, found: zipfile.ZipInfo) -> None:
        self._zip = file
        self._found = found

    def __enter__(self) -> _ZippedFile:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def size(self) -> int:
        return self._found.file_size

    def read(self, begin: int, count: int, *, keep: bool = False) -> bytes:
        found = self._found
        if begin == 0 and count >= found.file_size:
            return self._read_whole(count)  # with its checksum
        if found.compress_type != zipfile.ZIP_STORED or found.flag_bits & 1:
            if found.file_size > _COMPRESSED_SHARD_BYTES:
                where = f"{self._zip.path}/{found.filename}"
                problem = "the zip file has compressed this shard, so its parts cannot be read one by one"
                raise InputError(where, problem, "Make the zip file without compression, as 'zip -0' does")
            return self._read_whole(found.file_size)[begin : begin + count]
        with self._zip.lock:
            self._zip.stream.seek(found.header_offset)
            header = self._zip.stream.read(_HEADER_BYTES)
            if not header.startswith(_ZIP_MAGIC):
                raise zipfile.BadZipFile
            names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            self._zip.stream.seek(found.header_offset + _HEADER_BYTES + names + begin)
            return self._zip.stream.read(min(count, max(0, found.file_size - begin)))

    def _read_whole(self, count: int) -> bytes:
        with self._zip.archive.open(self._found) as stream:
            return stream.read(count)


def _find_in_zip(path: Path) -> ZipPlace | None:
    """Return the place of a zip file, or of a path inside one; None for other paths."""
    for file in (path, *path.parents):
        if file.suffix.lower() in ZIP_SUFFIXES and file.is_file():
            with file.open("rb") as stream:
                if stream.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
                    return None
            key = path.relative_to(file).as_posix()
            return ZipPlace(_OpenZip(file), key.removeprefix("."))
    return None
