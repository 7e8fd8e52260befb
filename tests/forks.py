"""Run the command in forks of a process that has imported the packages it needs, so that no run waits for imports.

Nothing else differs from ``python -m septa``: each run is a process of its own, with its own working folder, files and
exit code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

PACKAGES = "cv2 rich.progress scipy.ndimage scipy.special tifffile torch._dynamo"
"""Packages of other authors that the commands import when they need them."""

ROOMS = "data evaluation images labels metrics model nets objects prediction report tasks training"
"""Rooms of septa whose names are all loaded before the first command."""

NOTHING = Path(os.devnull)
"""Folder without models."""

SERVER = f"""
import importlib, json, os, pathlib, runpy, sys
from septa.pretrained import shipped

for name in {PACKAGES!r}.split():
    importlib.import_module(name)
for room in {ROOMS!r}.split():
    module = importlib.import_module("septa." + room)
    for name in getattr(module, "__all__", ()):
        getattr(module, name)
import septa.cli
"""

SERVER += """
def run(order):
    os.chdir(order["folder"])
    for number, path in enumerate((os.devnull, order["output"], order["errors"])):
        file = os.open(path, os.O_RDWR)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors=errors, closefd=False)
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    shipped.FOLDER = pathlib.Path(order["shipping"])
    sys.argv = ["septa", *order["arguments"]]
    runpy.run_module("septa", run_name="__main__", alter_sys=True)

answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        answers = None
        run(json.loads(line))
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)
"""


class ForkServer:
    """A process that runs commands one after the other, each in a fork of itself."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def run(
        self, arguments: Sequence[str], *, folder: Path | None = None, shipping: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``septa ARGUMENTS`` in a folder; the models in ``shipping`` are the shipped ones, by default none."""
        with tempfile.NamedTemporaryFile("rb") as output, tempfile.NamedTemporaryFile("rb") as errors:
            order = {
                "arguments": list(arguments),
                "folder": str(folder or Path.cwd()),
                "shipping": str(shipping or NOTHING),
                "output": output.name,
                "errors": errors.name,
            }
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(["septa", *arguments], code, _read(output), _read(errors))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def _read(file: IO[bytes]) -> str:
    return file.read().decode()
