"""Every message of the command line: a table of command lines, each with its exit code and its line on stderr.

The table has a row for each error that code in ``cli/`` raises and for each kind of mistake in arguments. Errors of
other rooms are tested with these rooms.
"""

from __future__ import annotations

import ast
import errno
import inspect
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

from septa import cli, errors
from septa.images import write_labels

CLI = Path(inspect.getfile(cli)).parent


@dataclass(frozen=True)
class Row:
    """A command line, and the error that it ends with.

    Attributes
    ----------
    arguments
        Words after ``septa``, as in a shell; the current folder is that of the fixture ``folder``.
    line
        Line on stderr, without ``error: ``.
    code
        Exit code.
    raises
        Exception that drawing a synthetic dataset raises.
    before
        Starts of the lines on stderr before ``line``.
    """

    arguments: str
    line: str
    code: int = 2
    raises: BaseException | None = None
    before: tuple[str, ...] = ()


USAGE = [
    Row("--no-prepare", "septa: the command is missing. Run 'septa --help' for all commands."),
    Row(
        "trian x", "septa: the command trian does not exist. Use 'septa train', or run 'septa --help' for all commands."
    ),
    Row("segment x", "septa: the command segment does not exist. Run 'septa --help' for all commands."),
    Row("--colour train x", "septa: the option --colour does not exist. Run 'septa --help' for its options."),
    Row(
        "train x --colour red",
        "septa train: the option --colour does not exist. Run 'septa train --help' for its options.",
    ),
    Row(
        "train x --minuts 3",
        "septa train: the option --minuts does not exist. Use --minutes, or run 'septa train --help' for its options.",
    ),
    Row("train x -z", "septa train: the option -z does not exist. Run 'septa train --help' for its options."),
    Row(
        "info m.septa --version",
        "septa info: the option --version does not exist after the name of the command. Give it before the name: septa "
        "--version info.",
    ),
    Row("train", "septa train: the argument DATA is missing. Run 'septa train --help' for its arguments."),
    Row(
        "predict m.septa",
        "septa predict: the argument IMAGES... is missing. Run 'septa predict --help' for its arguments.",
    ),
    Row(
        "predict m.septa x.png",
        "septa predict: the option --output is missing. Run 'septa predict --help' for its options.",
    ),
    Row("info a b", "septa info: the argument b is not expected. Run 'septa info --help' for its arguments."),
    Row("info a b c", "septa info: the arguments b c are not expected. Run 'septa info --help' for its arguments."),
    Row("export m.septa", "septa export: the option --output is missing. Run 'septa export --help' for its options."),
    Row("train x --output", "--output: the value is missing. Give --output PATH."),
    Row("train x -o", "-o: the value is missing. Give -o PATH."),
    Row("train x --resume=yes", "--resume: the option takes no value. Give --resume alone."),
    Row("--no-prepare=no demo", "--no-prepare: the option takes no value. Give --no-prepare alone."),
    # A line break and a terminal sequence.
    Row(
        "train x '--a\nb\x1b[2J'",
        r"septa train: the option --a\nb\x1b[2J does not exist. Run 'septa train --help' for its options.",
    ),
]
"""Mistakes that the parser of arguments finds."""

VALUES = [
    Row(
        "predict m x -o y --tile 0",
        "--tile: the value must be a whole number of at least 1, got 0. Give for example --tile 512.",
    ),
    Row(
        "predict m x -o y --tile 1.5",
        "--tile: the value must be a whole number of at least 1, got 1.5. Give for example --tile 512.",
    ),
    Row(
        "predict m x -o y --tta 9",
        "--tta: the value must be a whole number from 1 to 8, got 9. Give for example --tta 4.",
    ),
    Row(
        "train x --folds 1",
        "--folds: the value must be a whole number from 2 to 100, got 1. Give for example --folds 5.",
    ),
    Row(
        "predict m x -o y --prune 0",
        "--prune: the value must be a whole number of at least 1, got 0. Give for example --prune 2.",
    ),
    Row(
        "predict m x -o y --min-confidence 1.5",
        "--min-confidence: the value must be a number from 0 to 1, got 1.5. Give for example --min-confidence 0.5.",
    ),
    Row(
        "predict m x -o y --measure full,volume",
        "--measure: the value must be basic, full, or some of perimeter, circularity, solidity, axes, orientation, "
        "feret, std, median, integrated, background and neighbours, separated by commas, got full,volume. "
        "Give for example --measure full.",
    ),
    Row(
        "predict m x -o y --format jpg",
        "--format: the value must be png or tif, got jpg. Give for example --format png.",
    ),
    Row(
        "predict m x -o y.zarr --memory lots",
        "--memory: the value must be an amount such as 4GB or 512MiB, got lots. Give for example --memory 4GB.",
    ),
    Row(
        "predict m x -o y.zarr --region 0,0,5",
        "--region: the value must be TOP,LEFT,BOTTOM,RIGHT in pixels, got 0,0,5. Give for example --region "
        "0,0,2048,4096.",
    ),
    Row(
        "predict m x -o y.zarr --channels red",
        "--channels: the value must be channel numbers, got red. Give for example --channels 2,0.",
    ),
    Row(
        "predict m x -o y.zarr --level -1",
        "--level: the value must be a whole number of at least 0, got -1. Give for example --level 1.",
    ),
    Row(
        "predict m x -o y.zarr --workers 0",
        "--workers: the value must be a whole number of at least 1, got 0. Give for example --workers 2.",
    ),
    Row(
        "train x --minutes soon",
        "--minutes: the value must be a number above 0, got soon. Give for example --minutes 10.",
    ),
    Row("demo x --minutes 0", "--minutes: the value must be a number above 0, got 0. Give for example --minutes 10."),
    Row(
        "demo x --minutes nan", "--minutes: the value must be a number above 0, got nan. Give for example --minutes 10."
    ),
    Row(
        "recipe x --task dogs",
        "--task: the value must be semantic, instances or auto, got dogs. Give for example --task semantic.",
    ),
    Row(
        "evaluate found true --task auto",
        "--task: the value must be semantic or instances, got auto. Give for example --task semantic.",
    ),
    Row(
        "check x --group (",
        "--group: the value must be a regular expression, got (. Give for example --group '^[A-Z]+'.",
    ),
    Row(
        "check x --seed -1",
        "--seed: the value must be a whole number from 0 to 4294967295, got -1. Give for example --seed 7.",
    ),
    Row(
        "check x --max-pixels 0",
        "--max-pixels: the value must be a whole number of at least 1, got 0. Give for example --max-pixels "
        "2000000000.",
    ),
    Row(
        "synth x --size big",
        "--size: the value must be HEIGHTxWIDTH in pixels, got big. Give for example --size 256x256.",
    ),
    Row(
        "synth x --size 0x64",
        "--size: the value must be HEIGHTxWIDTH in pixels, got 0x64. Give for example --size 256x256.",
    ),
    Row(
        "synth x --kind dogs",
        "--kind: the value must be cells, shapes or oct, got dogs. Give for example --kind cells.",
    ),
    Row(
        "synth x --count 0",
        "--count: the value must be a whole number of at least 1, got 0. Give for example --count 20.",
    ),
    Row(
        "quantize m --data x -o y --most-drop -1",
        "--most-drop: the value must be a number of at least 0, got -1. Give for example --most-drop 0.01.",
    ),
    Row("train '' -o y", "DATA: the value is empty. Give a path."),
    Row("train x -o ''", "--output: the value is empty. Give for example --output cells.septa."),
    Row("predict m.septa '' -o y", "IMAGES...: the value is empty. Give an image file."),
    Row("presets ''", "NAME: the value is empty. Give paper."),
    Row(
        "synth x --size '3\x1b[2Jx4'",
        r"--size: the value must be HEIGHTxWIDTH in pixels, got 3\x1b[2Jx4. Give for example --size 256x256.",
    ),
]
"""Values that an option or an argument does not take."""

COMBINATIONS = [
    Row("train x --preset paper --recipe r.yaml", "--preset and --recipe cannot be combined. Give one of them."),
    Row("recipe x --preset paper --recipe r.yaml", "--preset and --recipe cannot be combined. Give one of them."),
    Row(
        "describe m.septa --channels 2",
        "--channels: this option does not apply to a model such as m.septa. Leave it out.",
    ),
    Row(
        "describe m.septa --set width=2", "--set: this option does not apply to a model such as m.septa. Leave it out."
    ),
    Row(
        "evaluate found true --tta 2", "--tta: this option does not apply to label images such as found. Leave it out."
    ),
    Row("evaluate found true --all", "--all: this option does not apply to label images such as found. Leave it out."),
    Row(
        "evaluate m.septa true --task instances",
        "--task: this option does not apply to a model such as m.septa. Leave it out.",
    ),
    Row(
        "predict m x -o y --workers 2",
        "--workers: this option does not apply to a folder of label images such as y. Leave it out.",
    ),
    Row(
        "predict m x -o y --skip-empty",
        "--skip-empty: this option does not apply to a folder of label images such as y. Leave it out.",
    ),
    Row(
        "predict m x -o y.ome.zarr --overlay",
        "--overlay: this option does not apply to a store such as y.ome.zarr. Leave it out.",
    ),
    Row(
        "predict m x -o y.ome.zarr --link",
        "--link: this option does not apply to a store such as y.ome.zarr. Leave it out.",
    ),
    Row(
        "predict m x -o y.ome.zarr --rois",
        "--rois: this option does not apply to a store such as y.ome.zarr. Leave it out.",
    ),
    Row(
        "predict m image.zarr a.png -o y --table t.csv",
        "--table: a table takes the objects of one image if the output is a store, got 2 images. Segment each image in "
        "a command of its own.",
    ),
    Row(
        "predict m x -o y.ome.zarr --tta 2",
        "--tta: this option does not apply to a store such as y.ome.zarr. Leave it out.",
    ),
    Row(
        "predict m x -o y.png --skip-empty",
        "--skip-empty: this option does not apply to a label image such as y.png. Leave it out.",
    ),
    Row(
        "predict m x -o y.jpg",
        "y.jpg: septa does not write labels to .jpg files. Give a name that ends in .png or .tif, or the name of a "
        "folder.",
    ),
    Row(
        "predict m.septa a.png -o y.png --format tif",
        "--format tif: the output y.png is a file of another type. Leave the option out.",
    ),
    Row(
        "predict m.septa a.png b.png -o y.png",
        "y.png: one file takes the labels of one image, got 2 images. Give a folder with -o.",
    ),
    Row(
        "check x --overwrite",
        "--overwrite: this option does not apply to a command without an output file. Leave it out.",
    ),
    Row("quantize m.septa --data x -o a.png", "a.png: the file exists. Give another -o or --overwrite."),
    Row(
        "quantize m.septa -o y.septa",
        "--data: integers need the images that the model was trained on. Give the data folder, or --to float16.",
    ),
    Row("predict m a.png b.png -o y.ome.zarr", "y.ome.zarr: one store takes one image, got 2. Give a folder with -o."),
    Row(
        "predict m image.zarr image.png -o y --memory 4GB",
        "y/image.ome.zarr: two images would be written to this store. Segment them into two folders.",
    ),
    Row(
        "predict m image.zarr -o y.png",
        "y.png: the zarr image image.zarr is segmented to a store, not to a label file. Give a name that ends in "
        ".ome.zarr, or a folder.",
    ),
    Row(
        "predict m x -o y --into-image",
        "--into-image: the labels go either into the images or to an output of their own. Leave it or -o out.",
    ),
    Row(
        "predict m x -o y.ome.tif --zarr 0.4",
        "--zarr 0.4: the output y.ome.tif is not a zarr store. Leave the option out.",
    ),
    Row(
        "predict m x -o y.ome.zarr --workers 2 --engine auto",
        "--engine: auto may choose a different engine in each process, and then their blocks do not fit together. Give "
        "torch, openvino or onnxruntime.",
    ),
    Row(
        "predict m x -o y.ome.zarr --workers 2 --cluster tcp://a:1",
        "--workers and --cluster cannot be combined. Give one of them.",
    ),
    Row(
        "predict m x -o y.ome.zarr --tls-ca a.png",
        "--tls-ca works only with --cluster. Leave --tls-ca out.",
    ),
    Row(
        "predict m x -o y.ome.zarr --cluster tls://a:1 --tls-ca no.pem",
        "--tls-ca no.pem: the file does not exist. Give a file in PEM format.",
    ),
    Row(
        "predict m x -o y.ome.zarr --cluster tls://a:1 --tls-ca a.png",
        "TLS needs both --tls-ca and --tls-cert. Give both.",
    ),
    Row(
        "quantize m.septa --data x -o ./m.septa",
        "m.septa: the output is the model itself. Give another name with -o.",
    ),
]
"""Options and arguments that do not fit together."""

FAILURES = [
    Row(
        "predict m.septa a.png broken.png b.png -o y",
        "y: 1 of 3 images failed, the others are done. See the errors above.",
        code=3,
        before=("error: broken.png: the file is empty. ",),
    ),
    Row(
        "evaluate scored marked",
        "scored: some files are not scored, the others are: 1 without prediction (b.png). Give each prediction the "
        "name of its label file in marked.",
        code=3,
    ),
    Row(
        "quantize m.septa --data x -o y.septa",
        "y.septa: the model is not written, because its score drops by 0.0123, more than 0.005. Give --most-drop 0.013 "
        "to write it anyway.",
    ),
    Row(
        "synth x",
        "septa synth: the command was interrupted. Run it again to complete the work.",
        code=130,
        raises=KeyboardInterrupt(),
    ),
    Row(
        "synth x",
        "septa synth: the process ran out of memory. Use a machine with more memory.",
        code=4,
        raises=MemoryError(),
    ),
    Row(
        "synth x",
        "septa synth: the disk or the quota is full. Free some space and run it again.",
        code=4,
        raises=OSError(errno.ENOSPC, "No space left on device"),
    ),
    Row(
        "--no-prepare synth x",
        "septa synth: an unexpected ZeroDivisionError occurred (two lines). Run 'septa --debug synth ...' and report "
        "the output.",
        code=1,
        raises=ZeroDivisionError("two\nlines"),
    ),
    Row(
        "synth x",
        "septa synth: an unexpected KeyError occurred. Run 'septa --debug synth ...' and report the output.",
        code=1,
        raises=KeyError(),
    ),
]
"""Failures at work."""

ROWS = [*USAGE, *VALUES, *COMBINATIONS, *FAILURES]


@pytest.fixture
def folder(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fill the current folder: a model, images of which one is broken, label images, and a zarr array."""
    folder = tmp_path / "work"
    for name in ("found", "true"):
        (folder / name).mkdir(parents=True)
    shutil.copy(untrained / "plain.septa", folder / "m.septa")
    for name in ("a", "b"):
        shutil.copy(untrained / "x.png", folder / f"{name}.png")
    for path in ("scored/a.png", "marked/a.png", "marked/b.png"):
        write_labels(folder / path, np.eye(4, dtype=np.uint8))
    (folder / "broken.png").touch()
    zarr.create_array(folder / "image.zarr", shape=(4, 4), dtype="uint8")
    shutil.copy(folder / "a.png", folder / "image.png")
    monkeypatch.chdir(folder)
    return folder


def run(row: Row, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Run a command in this process; return its exit code and its lines on stderr."""

    def fail(*_: Any, **__: Any) -> None:
        assert row.raises is not None
        raise row.raises

    def quantize(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(reduced=SimpleNamespace(images=()), table=str, drop=0.0123)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["septa", *shlex.split(row.arguments)])
        patch.setattr("septa.runtime.prepare", lambda: True)
        patch.setattr("septa.quantization.quantize", quantize)
        if row.raises is not None:
            patch.setattr("septa.synthetic.write_dataset", fail)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0), capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.arguments} {row.raises!r}"[:60])
def test_the_message_is_exact(
    row: Row, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    code, (*first, last) = run(row, monkeypatch, capsys)
    assert (code, last) == (row.code, f"error: {row.line}")
    assert len(first) == len(row.before)
    assert all(line.startswith(start) for line, start in zip(first, row.before))
    if not row.before:
        assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.arguments} {row.raises!r}"[:60])
def test_the_message_has_two_sentences(row: Row) -> None:
    """The problem is a clause that begins with a lower-case letter, the remedy begins with a verb in the imperative."""
    sentences = re.split(r"\.(?: (?=[A-Z])|$)", row.line)
    assert len(sentences) == 3
    problem, remedy, rest = sentences
    assert rest == ""
    assert re.match(r"(Give|Use|Run|Leave|See|Segment|Free) ", remedy)
    assert row.line.isprintable()
    clause = problem.rpartition(": ")[2]
    assert clause[0].islower() or clause[0].isdigit() or clause.startswith(("--", "TLS "))
    assert len(clause.split()) >= 3


def test_every_error_of_the_command_line_has_a_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each place in ``cli/`` that makes an error is reached by a row of the table."""
    reached: set[tuple[str, int]] = set()
    create = errors.SeptaError.__init__

    def record(self: errors.SeptaError, *arguments: Any) -> None:
        caller = sys._getframe(1)
        reached.add((Path(caller.f_code.co_filename).name, caller.f_lineno))
        create(self, *arguments)

    monkeypatch.setattr(errors.SeptaError, "__init__", record)
    for row in ROWS:
        run(row, monkeypatch, capsys)
    names = {"SeptaError", "InputError", "PartialFailure", "ResourceError"}
    made = {
        (file.name, node.lineno)
        for file in CLI.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names
    }
    assert len(made) > 20
    assert made - reached == set()
