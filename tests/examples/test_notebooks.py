"""The notebooks of ``examples/``: two run as scripts, all of them as notebooks with ``-m slow``."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import pytest

from septa.pretrained import shipped

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
NAMES = [path.name for path in SOURCES]


def test_there_are_nine() -> None:
    assert [name[:2] for name in NAMES] == [f"{number:02}" for number in range(1, 10)]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_a_notebook_explains_itself(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# %% \[markdown\]\n# # \S", text)
    assert text.count("# %%") >= 8
    imported = set(re.findall(r"^(?:from|import) septa\.(\w+)", text, re.MULTILINE))
    assert all((ROOT / "src" / "septa" / room).is_dir() for room in imported)


def test_the_first_segmentation_finds_the_nuclei(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "FOLDER", Path(shipped.__file__).parent)  # other tests ship nothing
    names = runpy.run_path(str(SOURCES[0]))
    found = dict(re.findall(r"(\w+)\.png: \d+ objects, \d+ found, F1 ([\d.]+)", capsys.readouterr().out))
    assert float(found["bbbc039"]) > 0.9
    assert len(found) == len(names["paths"])
    assert (tmp_path / "labels.png").is_file()


def test_the_net_from_scratch_equals_septas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(SOURCES[2]))
    assert names["difference"] < 1e-5
    assert names["largest"] == 0
    printed = capsys.readouterr().out
    assert "1,942,306 parameters" in printed
    assert "septa: (1, 2, 101, 77)" in printed


def test_progress_bars_leave_nothing_in_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from notebooks import show_as_terminal

    bar = "\x1b[?25l\n\r\x1b[2Kchecking \x1b[35m 1/2\x1b[0m\r\x1b[2Kchecking 2/2\r\n\x1b[?25h\r\x1b[1A\x1b[2K"
    assert show_as_terminal(f"{bar}pairs: 16\n\x1b[1m0 errors\x1b[0m\n").strip() == "pairs: 16\n0 errors"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jupytext")
    pytest.importorskip("nbclient")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    from notebooks import run_notebooks

    (written,) = run_notebooks([path], tmp_path)
    assert written.is_file()
