"""The public names of septa, and what their import loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import septa

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = [
    *("Dataset", "Model", "Prediction", "ProgressEvent", "Recipe", "SeptaError", "SeptaWarning", "UNet", "__version__"),
    *("border_weights", "evaluate", "load", "losses", "metrics", "plot", "progress", "quantize", "read_image"),
    *("tile_predict", "train"),
]
INSTALLED = {".py", ".pyi", ".yaml", ".typed", ".septa", ".md", ".png"}
HEAVY = {"torch", "numpy", "cv2", "pydantic", "scipy", "skimage", "PIL", "tifffile"}


def modules_after(program: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a program; its own output is dropped."""
    report = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{report}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_public_names_are_pinned() -> None:
    assert sorted(septa.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(septa))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist(name: str) -> None:
    value = getattr(septa, name)
    kind = str if name == "__version__" else ModuleType if name in ("losses", "metrics", "plot") else Callable
    assert isinstance(value, kind)


def test_public_names_can_be_star_imported() -> None:
    names: dict[str, object] = {}
    exec("from septa import *", names)
    assert set(PUBLIC) <= set(names)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = septa.no_such_name


def test_import_is_light() -> None:
    loaded = modules_after("import septa")
    assert "septa" in loaded
    assert not loaded & HEAVY


def test_version_needs_nothing_heavy() -> None:
    assert not modules_after("import septa; assert septa.__version__") & HEAVY


def test_modules_after_sees_heavy_imports() -> None:
    assert "numpy" in modules_after("import numpy")


def test_help_does_not_import_torch() -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['septa', '--help']\n"
        "try:\n"
        "    runpy.run_module('septa', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "assert 'septa.cli' in sys.modules"
    )
    assert "torch" not in modules_after(program)


def test_help_is_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "septa", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    assert "train" in done.stdout


def test_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert septa.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_the_package_under_test_is_this_checkout() -> None:
    """A stale installation would be tested instead; ``pip install -c constraints.txt '.[dev]'`` renews it."""
    source, imported = ROOT / "src" / "septa", Path(septa.__file__).parent
    if not source.is_dir():
        pytest.skip("there is no source here: an installed package is tested outside the checkout")
    paths = sorted(path.relative_to(source) for path in source.rglob("*") if path.suffix in INSTALLED)
    stale = [
        str(path)
        for path in paths
        if not (imported / path).is_file() or (imported / path).read_bytes() != (source / path).read_bytes()
    ]
    assert paths
    assert not stale
