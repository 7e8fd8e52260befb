"""Windows and macOS, as far as Linux can imitate them: no POSIX modules, spawned processes, files in use, cp1252."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMITATION = """
import multiprocessing, os, pathlib, sys

for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None  # an import of it is an ImportError
for name in ("fork", "sysconf", "sched_getaffinity", "pread", "getuid", "mkfifo", "killpg"):
    delattr(os, name)

def refuse_open_files(function):
    def work(*paths, **options):
        names = {os.path.realpath(path) for path in paths if isinstance(path, (str, os.PathLike))}
        for handle in os.listdir("/proc/self/fd"):
            try:
                held = os.path.realpath(os.readlink(f"/proc/self/fd/{handle}"))
            except OSError:
                continue
            if held in names:
                raise PermissionError(13, "the file is in use", held)
        return function(*paths, **options)
    return work

for name in ("rename", "replace", "unlink", "remove"):
    setattr(os, name, refuse_open_files(getattr(os, name)))

"""

WORK = (
    IMITATION
    + """
from torch.utils.data import DataLoader

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    import septa
    from septa.cli import main

    def run(*arguments):
        sys.argv = ["septa", *arguments]
        try:
            main()
        except SystemExit as end:
            assert not end.code, (arguments, end.code)

    data = sys.argv[1]
    small = ["--set", "training.steps=3", "--set", "training.batch=2", "--set", "net.width=4", "--set", "net.depth=1"]
    run("check", data, "--html", "check.html")
    run("train", data, "-o", "cells.septa", "--from", "scratch", *small)
    run("predict", "cells.septa", f"{data}/images", "-o", "out", "--table", "table.csv")
    import septa.streaming.budget

    assert septa.streaming.budget.resident_bytes() > 1e8
    loader = DataLoader(septa.Dataset(data, overrides=["sampling.patch=[32, 32]"]), batch_size=2, num_workers=1)
    print("images", next(iter(loader))["image"].shape)
    left = [str(path) for path in pathlib.Path().rglob(".septa-*.lock")]
    assert not left, left
    blocked = [name for name in ("fcntl", "resource", "pwd") if sys.modules[name] is not None]
    assert not blocked, blocked
"""
)


def test_everything_works_without_posix(cells: Path, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK, encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, str(script), str(cells)], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    text = (done.stdout + done.stderr).decode("cp1252")
    assert done.returncode == 0, text
    assert "images torch.Size([2, 1, 32, 32])" in text
    assert "Traceback" not in text
    assert {path.name for path in tmp_path.iterdir()} >= {"cells.septa", "cells-run", "out", "table.csv"}


@pytest.mark.parametrize("name", ["a.txt"])
def test_the_imitation_refuses_files_in_use(name: str, tmp_path: Path) -> None:
    code = f"{IMITATION}\nfile = open({name!r}, 'w')\nos.unlink({name!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "the file is in use" in done.stderr
