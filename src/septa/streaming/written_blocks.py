"""The list of blocks that are written into the store: a file to which lines with their digests are appended."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

from septa.errors import InputError, ResourceError
from septa.images import store
from septa.images.store import BlockIndex, StoreSpec


class WrittenBlocks:
    """The digests of the written blocks of a store.

    A line that a kill has cut short is ignored. Its block is written again, with the same bytes.

    Parameters
    ----------
    file
        The file. It is created with the first line.
    path, specs
        Path of the store, and its images.
    """

    def __init__(self, file: Path, path: Path, specs: Sequence[StoreSpec]) -> None:
        self._file = file
        self._path = path
        self._numbers = {(spec.kind, spec.name): number for number, spec in enumerate(specs)}
        self._digests: dict[tuple[int, ...], str] = {}
        try:
            lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
        except (OSError, UnicodeDecodeError):
            lines = []  # every block is written again
        for line in lines:
            try:
                *key, digest = json.loads(line)
                self._digests[tuple(int(part) for part in key)] = str(digest)
            except (ValueError, TypeError):
                continue

    def is_written(self, spec: StoreSpec, level: int, index: BlockIndex) -> bool:
        """Return True if a block was written and its file has not changed since."""
        digest = self._digests.get(self._key(spec, level, index))
        return digest is not None and digest == store.digest_store_block(self._path, spec, level, index)

    def add(self, spec: StoreSpec, level: int, index: BlockIndex, digest: str) -> None:
        """Add a block that is written and flushed to disk.

        Raises
        ------
        InputError
            The file cannot be written.
        ResourceError
            The disk is full.
        """
        key = self._key(spec, level, index)
        self._digests[key] = digest
        try:
            with self._file.open("a", encoding="ascii") as lines:
                # The first line break ends a line that a kill has cut short.
                lines.write(f"\n{json.dumps([*key, digest])}\n")
                lines.flush()
                os.fsync(lines.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError(self._file, "the disk or the quota is full", "Free some space") from error
            problem = f"the file cannot be written ({error.strerror})"
            raise InputError(self._file, problem, "Check its permissions") from error

    def _key(self, spec: StoreSpec, level: int, index: BlockIndex) -> tuple[int, ...]:
        return (self._numbers[spec.kind, spec.name], level, *index)
