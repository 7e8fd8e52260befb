"""Which blocks of the store are written: an append-only file of their checksums."""

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
    """Digests of the blocks of a store, kept beside it.

    A line that a kill cut short counts for nothing, and its block is written again, to the same bytes.

    Parameters
    ----------
    file
        Made when the first line is added.
    path, specs
        The store.
    """

    def __init__(self, file: Path, path: Path, specs: Sequence[StoreSpec]) -> None:
        self._file, self._path = file, path
        self._numbers = {(spec.kind, spec.name): number for number, spec in enumerate(specs)}
        self._noted: dict[tuple[int, ...], str] = {}
        try:
            lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
        except (OSError, UnicodeDecodeError):
            lines = []  # nothing is known, so everything is written again
        for line in lines:
            try:
                *key, digest = json.loads(line)
                self._noted[tuple(int(part) for part in key)] = str(digest)
            except (ValueError, TypeError):
                continue

    def holds(self, spec: StoreSpec, level: int, index: BlockIndex) -> bool:
        """Whether a block was written and its file is still the same."""
        noted = self._noted.get(self._key(spec, level, index))
        return noted is not None and noted == store.digest_store_block(self._path, spec, level, index)

    def add(self, spec: StoreSpec, level: int, index: BlockIndex, digest: str) -> None:
        """Note a block that is written and flushed.

        Raises
        ------
        ResourceError, InputError
            The disk is full, or the file cannot be written.
        """
        key = self._key(spec, level, index)
        self._noted[key] = digest
        try:
            with self._file.open("a", encoding="ascii") as lines:
                # A line of its own begins here, whatever a kill left of the one before.
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
