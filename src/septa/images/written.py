"""Records of the files that septa has written: any other file is replaced only if the user asks for it.

Each folder that septa writes to gets a hidden file `RECORD`, which also covers the subfolders of an output. It has one
line of JSON for each file: its name, a digest of its content, and the image that it was made from. A file may be
replaced if its name and content are recorded for the same image. So a file that a person or another program made or
changed stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from septa.errors import InputError, format_count, shorten_list

RECORD = ".septa-written.jsonl"
"""Name of the record in a folder that septa writes to."""

Guard = Callable[[Path, Path], None]
"""Function that receives a target and the complete file that will replace it, and raises if it must not."""

_DIGEST_BYTES = 16
_FOREIGN = "not written by septa"
_CHANGED = "changed after septa wrote it"
_OTHER = "written by septa for another image"
_PLURALS = {_FOREIGN: _FOREIGN, _CHANGED: "changed after septa wrote them", _OTHER: "written by septa for other images"}


class WrittenFiles:
    """The files that septa has written, and the decision which files it may replace.

    Methods may be called from several threads, as long as one of them writes at a time.

    Parameters
    ----------
    overwrite
        True to replace any file that is not protected.
    protected
        Files that are never replaced, such as the images that are read.
    folder
        Output folder, whose record covers its subfolders. Other files are recorded in their own folder.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from septa.images import write_text
    >>> with TemporaryDirectory() as folder:
    ...     mine, other = Path(folder) / "mine.csv", Path(folder) / "other.csv"
    ...     write_text(mine, "1", guard=WrittenFiles().guard())
    ...     _ = other.write_text("drawn by hand")
    ...     WrittenFiles().explain_refusal(mine), WrittenFiles().explain_refusal(other)
    ('', 'not written by septa')
    """

    def __init__(
        self, overwrite: bool = False, protected: Iterable[str | Path] = (), folder: str | Path | None = None
    ) -> None:
        self._overwrite = overwrite
        self._folder = None if folder is None else Path(folder)
        self._protected = frozenset(found for path in protected if (found := _identify(Path(path))) is not None)
        self._records: dict[Path, dict[str, set[tuple[str, str]]]] = {}

    def guard(self, source: str | Path | None = None) -> Guard:
        """Return the guard of files that are made from the image ``source``, or from several images.

        Raises
        ------
        InputError
            By the guard, if the file must not be replaced.
        """

        def admit(target: Path, complete: Path) -> None:
            self.check({target: source})
            digest = _compute_digest(complete)
            self._add(target, digest, source)

        return admit

    def explain_refusal(self, target: str | Path, source: str | Path | None = None) -> str:
        """Return the reason why an existing file must not be replaced by one made from ``source``; empty if it may."""
        target = Path(target)
        if self._overwrite or not target.exists():
            return ""
        folder, name = self._locate(target)
        entries = self._read(folder).get(name)
        if not entries:
            return _FOREIGN
        digest = _compute_digest(target) if target.is_file() else ""
        sources = {made_from for recorded, made_from in entries if recorded == digest}
        if not sources:
            return _CHANGED
        return "" if _describe_source(folder, source) in sources else _OTHER

    def check(self, targets: Mapping[Path, str | Path | None]) -> None:
        """Check files before any work.

        Parameters
        ----------
        targets
            Each file that will be written, and the image that it is made from, or None if it is made from several.

        Raises
        ------
        InputError
            Files must not be replaced; the error names them.
        """
        where = self._folder
        other = "Give another name for the output" if where is None else "Give another folder with -o"
        for target in targets:
            if self._protected and _identify(target) in self._protected:
                raise InputError(target, "the output would overwrite an input", other)
            if target.exists() and not target.is_file() and not target.is_dir():
                raise InputError(target, "the path is not a regular file", other)
        refused: dict[str, list[Path]] = {}
        for target, source in targets.items():
            if reason := self.explain_refusal(target, source):
                refused.setdefault(reason, []).append(target)
        if not refused:
            return
        reason, files = next(iter(refused.items()))
        remedy = f"{other}, or --overwrite to replace {'it' if len(files) == 1 else 'them'}"
        if len(files) == 1:
            raise InputError(files[0], f"the file was {reason}", remedy)
        where = where or Path(os.path.commonpath(files))
        names = shorten_list(sorted(os.path.relpath(file, where) for file in files))
        problem = f"{format_count(len(files), 'file')} in it were {_PLURALS[reason]} ({names})"
        raise InputError(where, problem, remedy)

    def _read(self, folder: Path) -> dict[str, set[tuple[str, str]]]:
        """Return the digests and sources of each name in the record of a folder; other lines are skipped."""
        if folder not in self._records:
            found: dict[str, set[tuple[str, str]]] = {}
            try:
                lines = (folder / RECORD).read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                lines = []
            for line in lines:
                try:
                    entry = json.loads(line)
                    found.setdefault(entry["name"], set()).add((entry["digest"], entry["source"]))
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue
            self._records[folder] = found
        return self._records[folder]

    def _locate(self, target: Path) -> tuple[Path, str]:
        """Return the folder of the record that lists a file, and the name of the file in it."""
        if self._folder is not None and target.is_relative_to(self._folder):
            return self._folder, target.relative_to(self._folder).as_posix()
        return target.parent, target.name

    def _add(self, target: Path, digest: str, source: str | Path | None) -> None:
        folder, name = self._locate(target)
        entries = self._read(folder).setdefault(name, set())
        made_from = _describe_source(folder, source)
        if (digest, made_from) in entries:
            return
        line = json.dumps({"name": name, "digest": digest, "source": made_from})
        with (folder / RECORD).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        entries.add((digest, made_from))


def _describe_source(folder: Path, source: str | Path | None) -> str:
    """Describe an image by its path from the folder of its record, which a move of both leaves unchanged."""
    if source is None:
        return ""
    path = Path(source).resolve()
    try:
        return Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:  # another drive on Windows
        return path.as_posix()


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _compute_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.blake2b, digest_size=_DIGEST_BYTES)).hexdigest()
