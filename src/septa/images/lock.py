"""Locks of outputs, so that no two processes write one output at the same time.

A lock is a file ``.septa-TIME-TOKEN.lock`` in the folder of the outputs. It holds the process, its machine and the
names that it writes. The system keeps the file locked (flock, or a locked byte on Windows) until the process ends,
however it ends, so a lock that a killed process left behind is recognised and removed.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from septa.errors import InputError
from septa.images.write import make_write_error

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows, where open files can be neither renamed nor removed
    _POSIX = False
else:
    _POSIX = True

_PATTERN = ".septa-*.lock"
_ATTEMPTS = 20
_PAUSE_S = 0.05
_BYTES = 2**26
_LOCKED_BYTE = 2**30
"""Place of the byte that is locked on Windows, far behind the text, which others may then read."""


@dataclass(frozen=True)
class _Holder:
    """The process that holds a lock, its machine, and the names of the outputs in the folder of the lock."""

    pid: int
    host: str
    names: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """True if the process is one of this machine and has ended; False if that cannot be known."""
        if self.host != socket.gethostname() or os.name != "posix":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


@contextmanager
def lock_outputs(paths: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, ...]]:
    """Lock outputs as long as the context lasts; missing folders are created.

    Parameters
    ----------
    paths
        Files or folders that only this process may write; they need not exist.

    Yields
    ------
    tuple
        A clause for each lock that was left by a process that has ended.

    Raises
    ------
    InputError
        Another process writes one of the outputs; or a folder cannot be written.
    ResourceError
        The disk is full.
    """
    names_of_folder: dict[Path, set[str]] = {}
    for path in (Path(path).resolve() for path in paths):
        names_of_folder.setdefault(path.parent, set()).add(path.name)
    notes: list[str] = []
    with ExitStack() as stack:
        for folder, names in sorted(names_of_folder.items()):
            stack.enter_context(_lock_folder(folder, names, notes))
        yield tuple(notes)


@contextmanager
def _lock_folder(folder: Path, names: Collection[str], notes: list[str]) -> Iterator[None]:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _acquire(folder, names, notes)
        except OSError as error:
            raise make_write_error(folder, error) from error
        yield
    finally:
        if lock is not None:
            _release(*lock)
        with suppress(OSError):  # a folder that was filled stays
            for path in missing:
                path.rmdir()


def _acquire(folder: Path, names: Collection[str], notes: list[str]) -> tuple[Path, int]:
    """Write a lock and return its path and handle.

    Whoever continues has seen no other lock of the same names while its own was there, so there is only one. A process
    that sees a later lock than its own tries again, since the other may have looked before its own was there.
    """
    holder = _Holder(os.getpid(), socket.gethostname(), tuple(sorted(names)))
    for _ in range(_ATTEMPTS):
        path, handle = _write_lock(folder, holder)
        try:
            rival = _find_rival(folder, path, holder, notes)
        except BaseException:
            _release(path, handle)
            raise
        if rival is None:
            return path, handle
        _release(path, handle)
        if rival[0].name < path.name:
            break
        time.sleep(_PAUSE_S)
    assert rival is not None
    other, common = rival[1], min(set(rival[1].names) & set(names))
    remedy = "Wait until it has ended, or give -o another name"
    if other.host != holder.host:
        remedy += f"; remove {rival[0]} if it has ended already"
    raise InputError(folder / common, f"process {other.pid} on {other.host} is writing this output", remedy)


def _write_lock(folder: Path, holder: _Holder) -> tuple[Path, int]:
    path = folder / f".septa-{time.time_ns():020d}-{secrets.token_hex(4)}.lock"
    # Where an open file cannot be renamed, others may see a lock without its text, which they pass over.
    temporary = path.with_suffix(".tmp") if _POSIX else path
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        _flock(handle)
        os.lseek(handle, 0, os.SEEK_SET)
        data = json.dumps(asdict(holder)).encode()
        while data:
            data = data[os.write(handle, data) :]
        if _POSIX:
            temporary.rename(path)  # from here on, others see the lock, which is complete and held
    except BaseException:
        _release(temporary, handle)
        raise
    return path, handle


def _release(path: Path, handle: int) -> None:
    if not _POSIX:
        os.close(handle)
    with suppress(OSError):
        path.unlink(missing_ok=True)
    if _POSIX:
        os.close(handle)


def _find_rival(folder: Path, own: Path, holder: _Holder, notes: list[str]) -> tuple[Path, _Holder] | None:
    """Return a lock of another process for one of the names, and its holder; remove the locks of ended processes."""
    for path in sorted(folder.glob(_PATTERN)):
        if path == own:
            continue
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            other = _read_holder(handle)
            is_common = other is not None and not set(other.names).isdisjoint(holder.names)
            has_ended = other is None or _flock(handle) or other.has_ended
        finally:
            os.close(handle)
        if has_ended:
            with suppress(PermissionError):  # on Windows, its process is just writing it
                path.unlink(missing_ok=True)
            if other is not None and is_common:
                notes.append(f"the lock of process {other.pid} on {other.host}, which has ended, was removed")
        elif other is not None and is_common:
            return path, other
    return None


def _read_holder(handle: int) -> _Holder | None:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        values = json.loads(os.read(handle, _BYTES))
        return _Holder(int(values["pid"]), str(values["host"]), tuple(map(str, values["names"])))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _flock(handle: int) -> bool:
    """Lock an open file if no process holds it; return False if one does, or if the file system has no such locks."""
    if not _POSIX:
        return _lock_byte(handle)
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return False
        raise
    return True


def _lock_byte(handle: int) -> bool:
    """Lock a byte of an open file on Windows, as `_flock` locks the file; return False on other systems."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        with suppress(OSError):
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            return True
    return False
