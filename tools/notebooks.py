"""Run the notebooks of `examples/`: `make notebooks`, or `python tools/notebooks.py 03 09` for some of them.

Each source is a Python file with cells (`# %%`). It is run as a notebook, and the notebook with its outputs is written
to `build/notebooks`. A notebook whose code has not changed since is not run again, unless `--again` is given.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 15
"""Time limit of a cell."""


def run_notebooks(sources: Sequence[Path], folder: Path, *, execute: bool = True, again: bool = False) -> list[Path]:
    """Run sources as notebooks, and return the notebooks with their outputs.

    Parameters
    ----------
    sources
        Python files with cells.
    folder
        Folder of the notebooks.
    execute
        False to write notebooks without outputs where there are none yet.
    again
        True to run notebooks whose code has not changed, too.
    """
    import jupytext
    import nbformat

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source in sources:
        target = folder / f"{source.stem}.ipynb"
        written.append(target)
        notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        digest = hashlib.sha256("\0".join(cell.source for cell in code).encode()).hexdigest()
        earlier = nbformat.read(target, as_version=4) if target.is_file() else None
        if earlier is not None and earlier.metadata.get("septa_code") == digest and not again:
            outputs = [cell.outputs for cell in earlier.cells if cell.cell_type == "code"]
            for cell, output in zip(code, outputs, strict=True):
                cell.outputs = output
            notebook.metadata["septa_code"] = digest
        elif execute:
            begin = time.monotonic()
            _execute(notebook)
            notebook.metadata["septa_code"] = digest
            print(f"{source.name}: {time.monotonic() - begin:.0f} s", flush=True)
        for cell in code:
            cell.outputs = _join_streams(cell.outputs)
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"  # jupytext draws ids at random
        text = nbformat.writes(notebook)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
    return written


def _join_streams(outputs: list[Any]) -> list[Any]:
    """Join texts that a cell printed one after the other, as a terminal would show them in the end."""
    joined: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = show_as_terminal(output.text)
    return [output for output in joined if output.output_type != "stream" or output.text.strip()]


def show_as_terminal(text: str) -> str:
    r"""Return what remains of a text on a terminal: no erased lines, such as those of progress bars, and no colours.

    Examples
    --------
    >>> show_as_terminal("10 %\r\x1b[2K\x1b[32m100 %\x1b[0m\r\n\x1b[?25h\x1b[1A\x1b[2Kdone\n")
    'done\n'
    """
    text = re.sub(r"\r+\n", "\n", text)
    text = re.sub(r"[^\n]*\n(?:\x1b\[\?25h)?\r?\x1b\[1A(?:\r?\x1b\[2K)", "", text)
    lines = [re.split(r"\r|\x1b\[2K", line)[-1] for line in text.split("\n")]
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", "\n".join(lines))


def _execute(notebook: object) -> None:
    """Run all cells in an empty folder, which is removed afterwards."""
    from nbclient import NotebookClient

    os.environ.setdefault("PYTHONWARNINGS", "default")
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    with tempfile.TemporaryDirectory(prefix="septa-notebook-") as scratch:
        NotebookClient(notebook, timeout=60 * MINUTES, resources={"metadata": {"path": scratch}}).execute()


def main() -> int:
    """Run the notebooks that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of file names; all by default")
    parser.add_argument("--again", action="store_true", help="also run notebooks whose sources have not changed")
    options = parser.parse_args()
    sources = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
    chosen = [path for path in sources if not options.names or path.name.startswith(tuple(options.names))]
    if not chosen:
        parser.error(f"no notebook begins with {' or '.join(options.names)}")
    run_notebooks(chosen, ROOT / "build" / "notebooks", again=options.again)
    return 0


if __name__ == "__main__":
    sys.exit(main())
