"""The house stands on its floors: what each file of the package may import, and how long it may be.

A file imports only from lower floors or, on its own floor, from its own folder, and no circle of imports exists. Every
import counts, also one inside a function, under ``TYPE_CHECKING`` or by a literal ``import_module("...")``.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[1] / "src" / "septa"

FLOORS = {
    name: floor
    for floor, names in {
        1: "errors kernels notices prefetch progress_bar",
        2: "images nets recipe runtime tensor_file",
        3: "labels losses metrics synthetic presets pretrained",
        4: "tasks inference objects report",
        5: "model data",
        6: "training prediction evaluation streaming describe",
        7: "demo display reproduce quantization export app plot napari",
        8: "cli",
        9: "__init__ __main__",  # the front door: public names, and python -m septa
    }.items()
    for name in names.split()
}
"""Floor of each file and folder directly below ``src/septa/``."""

DECODERS = {
    *("PIL", "tifffile", "imagecodecs", "imageio", "skimage.io", "matplotlib.image", "torchvision.io"),
    *("cv2.imread", "cv2.imreadmulti", "cv2.imdecode", "cv2.imdecodemulti", "cv2.imwrite", "cv2.imencode"),
    *("matplotlib.pyplot.imread", "matplotlib.pyplot.imsave"),
}
"""What only ``images/`` may use: it alone turns bytes into arrays and back."""

UNPICKLERS = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"),
    *("torch.load", "torch.jit.load", "torch.package", "torch.hub", "torch.serialization", "numpy.lib.format"),
    *("pandas.read_pickle", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
}
"""What can execute code hidden in a file, and so is used nowhere."""

FILE_LINES = 400
LONG_FILES: dict[str, str] = {
    "model/model.py": "one class, whose contracts are a third of it",
}
"""Path below ``src/septa/`` of a file that may be longer: the reason."""

FUNCTION_LINES = 60
LONG_FUNCTIONS: dict[str, str] = {}
"""``path:function`` or ``path:Class.method`` that may be longer, its docstring not counted: the reason."""


@dataclass
class Uses:
    """What one file uses, each with the line: imported modules, dotted names, and the aliases that resolve them."""

    package: tuple[str, ...]
    modules: set[str]
    imports: list[tuple[int, str]] = field(default_factory=list)
    names: list[tuple[int, str]] = field(default_factory=list)
    unpickling_calls: list[int] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)

    def add_import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imports.append((node.lineno, alias.name))
            self.names.append((node.lineno, alias.name))
            first = alias.name.partition(".")[0]
            self.aliases[alias.asname or first] = alias.name if alias.asname else first

    def add_import_from(self, node: ast.ImportFrom) -> None:
        above = self.package[: len(self.package) - node.level + 1] if node.level else ()
        source = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            full = f"{source}.{alias.name}"
            if full != "septa.__version__":  # a constant, there as soon as any module of septa is
                self.imports.append((node.lineno, full if full in self.modules else source))
            self.names.append((node.lineno, full))
            self.aliases[alias.asname or alias.name] = full

    def add_call(self, node: ast.Call) -> None:
        name = self.resolve(node.func) or ""
        first = node.args[0] if node.args else None
        if name in {"importlib.import_module", "__import__"} and isinstance(first, ast.Constant):
            self.imports.append((node.lineno, str(first.value)))
            self.names.append((node.lineno, str(first.value)))
        for keyword in node.keywords:
            refused = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg == "allow_pickle" and not refused:
                self.unpickling_calls.append(node.lineno)

    def resolve(self, node: ast.expr) -> str | None:
        """Return the dotted name of ``a.b.c`` with aliases replaced; None for other expressions."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            value = self.resolve(node.value)
            return f"{value}.{node.attr}" if value else None
        return None


def module_name(path: str) -> str:
    """``images/read.py`` -> ``septa.images.read``; a folder's ``__init__.py`` is the folder."""
    return f"septa.{path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


def collect_uses(path: str, tree: ast.Module, modules: set[str]) -> Uses:
    """Collect what a file uses; ``modules`` are the names of all modules of the house."""
    uses = Uses(tuple(f"septa/{path}".split("/")[:-1]), modules)
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            uses.add_import(node)
        elif isinstance(node, ast.ImportFrom):
            uses.add_import_from(node)
    for node in nodes:
        if isinstance(node, ast.Call):
            uses.add_call(node)
        elif isinstance(node, ast.Attribute) and (name := uses.resolve(node)):
            uses.names.append((node.lineno, name))
    return uses


def room(module: str) -> str:
    """File or folder directly below ``src/septa/`` that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def is_part(name: str, of: set[str]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in of)


def violations(files: Mapping[str, str]) -> list[str]:
    """Check sources, given as path below ``src/septa/``: text. One line for each broken rule."""
    trees = {path: ast.parse(text, path) for path, text in sorted(files.items())}
    modules = {module_name(path) for path in trees}
    folders = {path.split("/")[0] for path in files if "/" in path}
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for path, tree in trees.items():
        uses = collect_uses(path, tree, modules)
        inside = [(line, name) for line, name in uses.imports if is_part(name, {"septa"})]
        graph[module_name(path)] = {name for _, name in inside}
        found += [*floor_violations(path, inside, modules, folders), *use_violations(path, uses)]
        found += [*length_violations(path, files[path], tree)]
    found += [
        f"{folder}/: has no __init__.py"
        for folder in sorted({str(Path(path).parent) for path in files if "/" in path})
        if f"{folder}/__init__.py" not in files
    ]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"circle of imports: {' <- '.join(error.args[1])}")
    return list(dict.fromkeys(found))


def floor_violations(path: str, imports: list[tuple[int, str]], modules: set[str], folders: set[str]) -> Iterator[str]:
    here = room(module_name(path))
    floor = FLOORS.get(here)
    if floor is None:
        yield f"{path}: {here} has no floor; give it one in FLOORS and in the design"
        return
    for line, name in imports:
        there = room(name)
        target = FLOORS.get(there)
        if name not in modules:
            yield f"{path}:{line}: {name} does not exist"
        elif target is None or here == there or target < floor:
            continue  # a target without floor is reported for itself
        elif target > floor:
            yield f"{path}:{line}: {here} (floor {floor}) imports {name} (floor {target})"
        elif {here, there} & folders:
            yield f"{path}:{line}: {here} imports {name}, another folder of its own floor {floor}"


def door_violations(files: Mapping[str, str]) -> Iterator[str]:
    """Yield each import that enters another room past its ``__init__``; names of its own room may come from files."""
    trees = {path: ast.parse(text, path) for path, text in sorted(files.items())}
    modules = {module_name(path) for path in trees}
    doors = {module_name(path) for path in trees if path.endswith("__init__.py") or "/" not in path}
    for path, tree in trees.items():
        here = room(module_name(path))
        for line, name in collect_uses(path, tree, modules).imports:
            if is_part(name, {"septa"}) and room(name) not in (here, "cli") and name not in doors:
                yield f"{path}:{line}: imports {name}, a file of another room; import from septa.{room(name)}"


def use_violations(path: str, uses: Uses) -> Iterator[str]:
    for line, name in uses.names:
        if is_part(name, DECODERS) and not path.startswith("images/"):
            yield f"{path}:{line}: uses {name}, which only images/ may"
        if is_part(name, UNPICKLERS):
            yield f"{path}:{line}: uses {name}, which can execute what a file holds"
    for line in uses.unpickling_calls:
        yield f"{path}:{line}: allows pickle"


def task_violations(files: Mapping[str, str]) -> Iterator[str]:
    """Yield each place outside ``tasks/`` that asks which task it has, in place of a property of the `Task` interface.

    These are ``isinstance`` and ``issubclass`` with a class of a task, ``type(...) is``, a class pattern of ``match``,
    and a comparison of ``recipe.task`` with the name of a task.
    """
    trees = {path: ast.parse(text, path) for path, text in sorted(files.items())}
    modules = {module_name(path) for path in trees}
    for path, tree in trees.items():
        if path.startswith("tasks/"):
            continue
        uses = collect_uses(path, tree, modules)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and uses.resolve(node.func) in {"isinstance", "issubclass"}:
                asked = [name for argument in node.args[1:] for name in task_classes(argument, uses)]
            elif isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                asked = [name for side in sides for name in task_classes(side, uses)]
                recipes = any((uses.resolve(side) or "").endswith("recipe.task") for side in sides)
                named = [name for side in sides for name in constants(side) if name in {"semantic", "instances"}]
                asked += named if recipes else []
            elif isinstance(node, ast.MatchClass):
                asked = list(task_classes(node.cls, uses))
            else:
                continue
            if asked:
                yield f"{path}:{node.lineno}: asks whether a task is {asked[0]}; ask a property of the task"


def task_classes(node: ast.expr, uses: Uses) -> Iterator[str]:
    """Yield the classes of tasks that an expression names, alone or in a tuple or union."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name | ast.Attribute):
            name = uses.resolve(part) or ""
            if is_part(name, {"septa.tasks"}) and name.rpartition(".")[2] in {"Semantic", "Instances"}:
                yield name.rpartition(".")[2]


def constants(node: ast.expr) -> Iterator[object]:
    """Yield the constants in an expression, alone or in a tuple, list or set."""
    yield from (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))


def length_violations(path: str, text: str, tree: ast.Module) -> Iterator[str]:
    lines = len(text.splitlines())
    if (lines > FILE_LINES) != (path in LONG_FILES):
        yield f"{path}: {lines} lines, the limit is {FILE_LINES}; split it, or set LONG_FILES right"
    for name, lines in functions(tree):
        if (lines > FUNCTION_LINES) != (f"{path}:{name}" in LONG_FUNCTIONS):
            yield f"{path}:{name}: {lines} lines, the limit is {FUNCTION_LINES}; split it, or set LONG_FUNCTIONS right"


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every function with its number of lines, less its docstring."""
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{prefix}{child.name}."
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            assert child.end_lineno is not None
            lines = child.end_lineno - child.lineno + 1
            if ast.get_docstring(child, clean=False) is not None:
                docstring = child.body[0]
                assert docstring.end_lineno is not None
                lines -= docstring.end_lineno - docstring.lineno + 1
            yield f"{prefix}{child.name}", lines
        yield from functions(child, inner)


def test_the_house() -> None:
    files = {path.relative_to(HOUSE).as_posix(): path.read_text(encoding="utf-8") for path in HOUSE.rglob("*.py")}
    assert "errors.py" in files
    found = violations(files)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_rooms_are_entered_by_their_door() -> None:
    files = {path.relative_to(HOUSE).as_posix(): path.read_text(encoding="utf-8") for path in HOUSE.rglob("*.py")}
    found = list(door_violations(files))
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_only_tasks_ask_which_task_it_is() -> None:
    files = {path.relative_to(HOUSE).as_posix(): path.read_text(encoding="utf-8") for path in HOUSE.rglob("*.py")}
    found = list(task_violations(files))
    if found:
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize("stub", sorted(HOUSE.rglob("__init__.pyi")), ids=lambda stub: stub.parent.name)
def test_every_name_of_a_room_resolves(stub: Path) -> None:
    if stub.parent.name == "napari":
        pytest.importorskip("magicgui", reason="napari is not installed (pip install 'septa[napari]')")
    room_module = importlib.import_module(".".join(stub.parent.relative_to(HOUSE.parent).parts))
    names = [alias.name for node in ast.parse(stub.read_text()).body for alias in node.names]  # type: ignore[attr-defined]
    assert sorted(names) == sorted(room_module.__all__)
    assert all(getattr(room_module, name) is not None for name in names)


def test_every_room_hands_on_its_public_names() -> None:
    rooms = {path.parent for path in HOUSE.rglob("*/__init__.py")} - {HOUSE / "cli"}
    assert {stub.parent for stub in HOUSE.rglob("__init__.pyi")} == rooms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from septa.images.read import read_image", ["evaluation.py:1: imports septa.images.read, a file"]),
        ("def f():\n    import septa.images.read", ["evaluation.py:2: imports septa.images.read, a file"]),
        ("from septa.images import read_image\nfrom septa.errors import InputError\nfrom septa import images", []),
    ],
)
def test_an_import_past_the_door_is_found(text: str, expected: list[str]) -> None:
    sound = {"images/__init__.py": "from septa.images.read import a", "images/read.py": "", "errors.py": ""}
    found = list(door_violations({**sound, "evaluation.py": text}))
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from septa.tasks import Instances\nisinstance(task, Instances)", ":2: asks whether a task is Instances;"),
        (
            "from septa.tasks import Semantic as S\nx = not isinstance(m.task, S)",
            ":2: asks whether a task is Semantic;",
        ),
        (
            "from septa import tasks\nisinstance(m.task, (int, tasks.Instances))",
            ":2: asks whether a task is Instances;",
        ),
        ("import septa.tasks\nisinstance(t, septa.tasks.Semantic | int)", ":2: asks whether a task is Semantic;"),
        ("from septa.tasks.instances import Instances\nissubclass(t, Instances)", ":2: asks whether a task is Inst"),
        ("from septa.tasks import Instances\ntype(task) is Instances", ":2: asks whether a task is Instances;"),
        ("from septa.tasks import Instances as I\nmatch task:\n    case I():\n        pass", ":3: asks whether a task"),
        ('x = recipe.task == "instances"', ":1: asks whether a task is instances;"),
        ('def f(job):\n    return job.recipe.task != "semantic"', ":2: asks whether a task is semantic;"),
        ('x = model.recipe.task in ("auto", "instances")', ":1: asks whether a task is instances;"),
        ("from septa.tasks import Instances, Task\nisinstance(x, int)\nInstances().decode(y)", ""),
        ('if recipe.task == "auto":\n    given = given.task == "instances"', ""),
    ],
)
def test_a_question_for_the_task_is_found(text: str, expected: str) -> None:
    sound = {"tasks/__init__.py": "", "tasks/instances.py": "", "recipe.py": ""}
    found = list(task_violations({**sound, "evaluation.py": text}))
    assert len(found) == bool(expected)
    assert all(line.startswith("evaluation.py:") and expected in line for line in found)
    assert not list(task_violations({**sound, "tasks/instances.py": text}))


def test_at_most_twelve_modules_stand_at_the_top() -> None:
    assert len([path for path in HOUSE.glob("*.py") if not path.name.startswith("__")]) <= 12


def test_contributing_shows_the_floors() -> None:
    text = (HOUSE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = {
        name: int(floor)
        for floor, names in re.findall(r"^\| (\d) \| (`[^|]+`) \|", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert shown == FLOORS


def dataclasses_of(trees: Iterable[ast.Module]) -> set[str]:
    """Collect the names of all dataclasses."""
    return {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(item) for item in node.decorator_list)
    }


def positional_violations(files: Mapping[str, str]) -> Iterator[str]:
    """Yield each call that builds a dataclass with more than four positional arguments."""
    trees = {path: ast.parse(text, path) for path, text in sorted(files.items())}
    names = dataclasses_of(trees.values())
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names and len(node.args) > 4:
                yield f"{path}:{node.lineno}: {ast.unparse(node.func)} has {len(node.args)} positional arguments"


def test_dataclasses_are_built_by_keyword() -> None:
    files = {path.relative_to(HOUSE).as_posix(): path.read_text(encoding="utf-8") for path in HOUSE.rglob("*.py")}
    assert list(positional_violations(files)) == []
    text = "@dataclass(frozen=True)\nclass A:\n    pass\nA(1, 2, 3, 4)\nx.A(1, 2, 3, 4, 5)\n"
    assert list(positional_violations({"a.py": text})) == ["a.py:5: x.A has 5 positional arguments"]


VERBS_IN_ED = frozenset({"embed", "feed", "need", "proceed", "read", "seed", "shed", "speed", "watershed"})
"""Names that end like a participle and are not one."""

PARTICIPLES = frozenset(
    {"begun", "built", "drawn", "found", "given", "grown", "known", "made", "shown", "taken", "told"}
)
"""Participles that do not end in -ed."""


def participle_functions(path: str, tree: ast.Module) -> Iterator[str]:
    """Yield each function or method whose name is a participle; properties and predicates are adjectives."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first, *_ = words = node.name.strip("_").split("_")
        adjective = any("property" in ast.unparse(item) for item in node.decorator_list) or first in ("is", "has")
        participle = first in PARTICIPLES or (first.endswith("ed") and first not in VERBS_IN_ED)
        if not adjective and (participle or (len(words) == 1 and words[-1] in PARTICIPLES)):
            yield f"{path}:{node.lineno}: {node.name}"


def test_functions_are_verbs() -> None:
    found = [
        fault
        for path in sorted(HOUSE.rglob("*.py"))
        for fault in participle_functions(path.relative_to(HOUSE).as_posix(), ast.parse(path.read_text()))
    ]
    if found:
        pytest.fail("\n".join(found), pytrace=False)
    text = (
        "def ranked(): ...\ndef is_ranked(): ...\ndef rank(): ...\n@property\ndef fused(self): ...\ndef read_a(): ..."
    )
    assert list(participle_functions("a.py", ast.parse(text))) == ["a.py:1: ranked"]


def test_nothing_is_packed_to_fit() -> None:
    """A formatter that is switched off hides squeezed lines."""
    paths = [*HOUSE.rglob("*.py"), *HOUSE.parents[1].glob("tests/**/*.py"), *HOUSE.parents[1].glob("benchmarks/*.py")]
    off = re.compile(r"#\s*fmt:\s*(skip|off)")
    assert [str(path) for path in paths if off.search(path.read_text(encoding="utf-8"))] == []


PUBLIC_TWICE: dict[str, str] = {}
"""A public class or function defined in two files: the reason. Commands are functions of the library under one name."""


def test_one_name_is_one_thing() -> None:
    """A class or function that others may import has a name of its own; a command may be called like its workflow."""
    places: dict[str, list[str]] = {}
    for path in sorted(HOUSE.rglob("*.py")):
        relative = path.relative_to(HOUSE).as_posix()
        if relative.startswith(("cli/", "__")):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(relative)
    twice = {name: where for name, where in places.items() if len(where) > 1 and name not in PUBLIC_TWICE}
    assert twice == {}


def test_every_floor_has_what_it_names() -> None:
    there = {path.stem for path in HOUSE.iterdir() if path.is_dir() or path.suffix == ".py"} - {"__pycache__"}
    assert set(FLOORS) == there


def test_allowances_are_needed() -> None:
    """An entry for a file or function that is gone is itself a fault."""
    assert all((HOUSE / path).is_file() for path in LONG_FILES)
    for entry in LONG_FUNCTIONS:
        path, name = entry.split(":")
        assert name in dict(functions(ast.parse((HOUSE / path).read_text(encoding="utf-8"))))


SYNTHETIC = {
    "__init__.py": "from septa.recipe import Recipe\nfrom septa.training.loop import train\n",
    "__main__.py": "from septa.cli import main\n",
    "cli.py": "import septa.training.loop\nfrom septa import __version__\n",
    "recipe.py": "from septa.errors import InputError\n",
    "errors.py": "import os\n",
    "images/__init__.py": "",
    "images/read.py": "import PIL.Image\nimport cv2\nfrom ._info import a\nfrom ..errors import b\ncv2.imread('x')\n",
    "images/_info.py": "from septa import errors\n",
    "nets/__init__.py": "",
    "nets/unet.py": "",
    "metrics/__init__.py": "from septa.metrics.pixels import dice\n",
    "metrics/pixels.py": "import numpy as np\nnp.load('x', allow_pickle=False)\n",
    "training/__init__.py": "",
    "training/loop.py": "import cv2\nfrom septa import metrics\nfrom septa.images import read\ncv2.remap(1)\n",
    "evaluation.py": "import yaml\nyaml.safe_load('')\n",
    "describe.py": "from septa.evaluation import x\n",
}


def test_a_sound_house_passes() -> None:
    assert violations(SYNTHETIC) == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("images/read.py", "import septa.training.loop", "images (floor 2) imports septa.training.loop (floor 6)"),
        ("images/read.py", "from septa.cli import main", "images (floor 2) imports septa.cli (floor 8)"),
        ("images/read.py", "from septa import cli", "images (floor 2) imports septa.cli (floor 8)"),
        ("images/read.py", "from septa import train", "images (floor 2) imports septa (floor 9)"),
        ("images/read.py", "import septa", "images (floor 2) imports septa (floor 9)"),
        ("images/read.py", "from .. import cli", "images (floor 2) imports septa.cli (floor 8)"),
        ("images/read.py", "from ..training.loop import x", "images (floor 2) imports septa.training.loop (floor 6)"),
        ("images/__init__.py", "from ..cli import x", "images (floor 2) imports septa.cli (floor 8)"),
        ("errors.py", "from .images.read import x", "errors (floor 1) imports septa.images.read (floor 2)"),
        ("cli.py", "import septa.__main__", "cli (floor 8) imports septa.__main__ (floor 9)"),
        ("errors.py", "def f():\n    import septa.cli", ":2: errors (floor 1) imports septa.cli"),
        (
            "errors.py",
            "class A:\n    def f(self):\n        from septa import cli",
            ":3: errors (floor 1) imports septa.cli",
        ),
        ("errors.py", "from typing import TYPE_CHECKING as T\nif T:\n    import septa.cli", "imports septa.cli"),
        ("errors.py", "try:\n    import septa.cli as c\nexcept ImportError:\n    pass", "imports septa.cli"),
        ("errors.py", "import importlib as i\ni.import_module('septa.cli')", ":2: errors (floor 1) imports septa.cli"),
        ("errors.py", "from importlib import import_module\nimport_module('septa.cli')", "imports septa.cli"),
        ("errors.py", "__import__('septa.cli')", "imports septa.cli"),
        ("nets/unet.py", "import septa.images.read", "another folder of its own floor 2"),
        ("nets/unet.py", "from septa import images", "another folder of its own floor 2"),
        ("training/loop.py", "from septa.evaluation import x", "another folder of its own floor 6"),
        ("evaluation.py", "from septa.training.loop import x", "another folder of its own floor 6"),
        ("evaluation.py", "from septa.training import loop", "another folder of its own floor 6"),
        ("evaluation.py", "import septa.describe", "circle of imports"),
        ("errors.py", "def f():\n    from septa.recipe import Recipe", "circle of imports"),
        ("images/_info.py", "from septa.images.read import x", "circle of imports"),
        ("metrics/pixels.py", "from septa.metrics import dice", "circle of imports"),
        ("errors.py", "import septa.nothing", "septa.nothing does not exist"),
        ("attic.py", "", "attic has no floor"),
        ("attic/box.py", "", "attic has no floor"),
        ("attic/box.py", "", "attic/: has no __init__.py"),
        ("training/loop.py", "from PIL import Image", "uses PIL.Image, which only images/ may"),
        ("training/loop.py", "def f():\n    import tifffile", ":2: uses tifffile, which only images/ may"),
        ("training/loop.py", "import imagecodecs as c", "uses imagecodecs, which only images/ may"),
        ("training/loop.py", "import importlib\nimportlib.import_module('PIL.Image')", "uses PIL.Image"),
        ("training/loop.py", "from skimage import io", "uses skimage.io, which only images/ may"),
        ("training/loop.py", "import cv2\ncv2.imread('x')", ":2: uses cv2.imread, which only images/ may"),
        ("training/loop.py", "import cv2 as c\nf = c.imdecode", ":2: uses cv2.imdecode"),
        ("training/loop.py", "from cv2 import imdecode as d", "uses cv2.imdecode"),
        ("images/read.py", "import pickle", "uses pickle, which can execute"),
        ("images/read.py", "def f():\n    from pickle import loads", ":2: uses pickle.loads, which can execute"),
        ("images/read.py", "import torch\ntorch.load('x', weights_only=True)", ":2: uses torch.load"),
        ("images/read.py", "import torch as t\nt.load('x')", ":2: uses torch.load"),
        ("images/read.py", "from torch import load", "uses torch.load"),
        ("images/read.py", "import torch.nn\ntorch.load('x')", "uses torch.load"),
        ("images/read.py", "import numpy as np\nnp.load('x', allow_pickle=True)", ":2: allows pickle"),
        ("images/read.py", "import yaml\nyaml.load('x', yaml.Loader)", "uses yaml.load"),
        ("errors.py", "x = 1\n" * 401, "errors.py: 401 lines"),
        ("errors.py", "def f():\n" + "    x = 1\n" * 60, "errors.py:f: 61 lines"),
        ("errors.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 60, "errors.py:A.f: 61 lines"),
        ("errors.py", "def f():\n    def g():\n" + "        x = 1\n" * 60, "errors.py:f.g: 61 lines"),
    ],
)
def test_a_violation_is_found(path: str, text: str, expected: str) -> None:
    found = violations({**SYNTHETIC, path: text})
    assert any(expected in line and line.startswith((path.partition("/")[0], "circle")) for line in found), found


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n" * 400,
        "def f():\n" + "    x = 1\n" * 59,
        'def f():\n    """One.\n' + "    more\n" * 40 + '    """\n' + "    x = 1\n" * 59,
    ],
)
def test_lengths_at_the_limit_pass(text: str) -> None:
    assert violations({**SYNTHETIC, "errors.py": text}) == []


def test_an_unneeded_allowance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LONG_FILES, "errors.py", "none")
    monkeypatch.setitem(LONG_FUNCTIONS, "cli.py:main", "none")
    assert violations(SYNTHETIC) == ["errors.py: 1 lines, the limit is 400; split it, or set LONG_FILES right"]
    found = violations({**SYNTHETIC, "cli.py": "def main():\n    pass\n"})
    assert any(line.startswith("cli.py:main: 2 lines") for line in found)
