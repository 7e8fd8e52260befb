"""The command line: one thin subcommand for each workflow. Heavy packages load inside the command that uses them."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from septa import __version__, errors, runtime
from septa.cli import check, demo, describe, evaluate, info, predict, presets, quantize, recipe, reproduce, synth, train

app = typer.Typer(
    name="septa",
    help="A folder of microscopy images and label images becomes a trained U-Net, which segments images of any size.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line; the exit code is that of the first `septa.errors` kind raised, or 0."""
    debug = "--debug" in sys.argv
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)  # the code of a typer.Exit, else None
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except errors.SeptaError as error:
        if debug:
            traceback.print_exc()
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("septa: interrupted", 130)
    except Exception as error:
        if debug:
            raise
        _unexpected(error)
    sys.exit(code or 0)


def _unexpected(error: Exception) -> NoReturn:
    if isinstance(error, MemoryError):
        _fail("memory: does not suffice. give a smaller --tile or fewer images at once.", 4)
    told = getattr(error, "format_message", None)
    if told is not None:  # a mistake in the arguments, found by the parser
        context = getattr(error, "ctx", None)
        command = "septa" if context is None or context.parent is None else f"septa {context.info_name}"
        _fail(f"{command}: {told().rstrip('.')}. '{command} --help' lists what it takes.", 2)
    what = f"unexpected {type(error).__name__} ({' '.join(str(error).split())})"
    _fail(f"septa: {what}. run again with --debug before the command and report it.", 1)


def _fail(line: str, code: int) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"septa {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    prepare: Annotated[bool, typer.Option(help="Set the process up for speed (huge pages, allocator).")] = True,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""
    if prepare:
        runtime.prepare()


for command in (
    train.train,
    predict.predict,
    evaluate.evaluate,
    check.check,
    recipe.recipe,
    presets.presets,
    describe.describe,
    info.info,
    quantize.quantize,
    reproduce.reproduce,
    synth.synth,
    demo.demo,
):
    app.command()(command)
