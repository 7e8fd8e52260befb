from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from septa.errors import InputError, ResourceError
from septa.images import lock
from septa.images.lock import lock_outputs

HOLD = """
import sys, time
from septa.images.lock import lock_outputs
with lock_outputs(sys.argv[1:]) as notes:
    print(notes, flush=True)
    time.sleep(60)
"""


def hold(*paths: Path) -> subprocess.Popen[str]:
    """Start a process that holds locks."""
    command = [sys.executable, "-c", HOLD, *map(str, paths)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "()\n"
    process.stdout.close()
    return process


def write_lock(folder: Path, **values: Any) -> Path:
    """Write a lock that no process holds."""
    folder.mkdir(exist_ok=True)
    file = folder / f".septa-{1:020d}-0.lock"
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "names": ["a"], **values}
    file.write_text(json.dumps(holder))
    return file


def test_a_second_process_is_refused_until_the_first_has_ended_however_it_ends(tmp_path: Path) -> None:
    output = tmp_path / "new" / "a.ome.zarr"
    process = hold(output, tmp_path / "b")
    with lock_outputs([tmp_path / "new" / "other"]):
        pass
    for path in (output, tmp_path / "b", tmp_path / "new" / ".." / "b"):
        with pytest.raises(InputError) as caught, lock_outputs([tmp_path / "c", path]):
            pass
        holder = f"process {process.pid} on {socket.gethostname()} is writing this output"
        assert str(caught.value) == f"{path.resolve()}: {holder}. Wait until it has ended, or give -o another name."
    assert len(list(tmp_path.rglob("*.lock"))) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lock_outputs([output]) as notes:
        assert notes == (f"the lock of process {process.pid} on {socket.gethostname()}, which has ended, was removed",)
    with lock_outputs([tmp_path / "x"]) as notes:
        assert notes == ()
    assert not list(tmp_path.rglob("*.lock"))


def test_folders_that_a_lock_has_made_are_removed_if_they_stay_empty(tmp_path: Path) -> None:
    with lock_outputs([tmp_path / "a" / "b" / "c"]):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    with lock_outputs([tmp_path / "a" / "b" / "c"]):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]


def test_of_many_that_start_together_exactly_one_goes_first(tmp_path: Path) -> None:
    inside, most, refused = 0, 0, 0
    start = threading.Barrier(8)
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, refused
        start.wait()
        try:
            with lock_outputs([tmp_path / "a"]):
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.3)
                with guard:
                    inside -= 1
        except InputError:
            refused += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused >= 1


def test_without_locks_of_the_file_system_the_process_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "flock", fail)
    file = write_lock(tmp_path, pid=os.getpid())
    with pytest.raises(InputError, match=f"process {os.getpid()} on "), lock_outputs([tmp_path / "a"]):
        pass
    file = write_lock(tmp_path, host="elsewhere")
    with pytest.raises(InputError) as caught, lock_outputs([tmp_path / "a"]):
        pass
    assert str(caught.value).endswith(f" or give -o another name; remove {file} if it has ended already.")
    for values in ({"pid": 2**22 + 1}, {"names": 3}):
        write_lock(tmp_path, **values)
        with lock_outputs([tmp_path / "a"]) as notes:
            assert len(notes) == ("pid" in values)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the file cannot be written"), lock_outputs([tmp_path / "file" / "a"]):
        pass

    def fail(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(ResourceError, match="the disk or the quota is full"), lock_outputs([tmp_path / "a"]):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
