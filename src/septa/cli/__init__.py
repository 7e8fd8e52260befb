"""The command line: one thin subcommand for each workflow. Heavy packages load inside the command that uses them."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from septa import __version__, errors, runtime
from septa.cli import app as app_command
from septa.cli import (
    check,
    demo,
    describe,
    evaluate,
    export,
    info,
    models,
    predict,
    presets,
    quantize,
    recipe,
    reproduce,
    synth,
    train,
)
from septa.cli.commands import Command, CommandGroup
from septa.cli.options import option
from septa.cli.signature import flatten
from septa.cli.streams import accept_any_text, discard_output, print_error, print_warnings

app = typer.Typer(
    name="septa",
    cls=CommandGroup,
    help="Train a U-Net on microscopy images and label images, and segment images of any size with it.",
    epilog="septa demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_MEMORY_REMEDIES = {
    "train": "Give a smaller batch with --set training.batch=1",
    "predict": "Give a smaller --tile",
    "evaluate": "Give a smaller --tile",
}
"""Remedy for each command that runs out of memory and has one."""


def main() -> NoReturn:
    """Run the command line and exit with 0 or with the exit code of the error; see `septa.errors`."""
    arguments = sys.argv[1:] or ["--help"]
    command = next((word for word in arguments if not word.startswith("-")), "")
    where = f"septa {command}".strip()
    debug = "--debug" in arguments
    accept_any_text()
    print_warnings()
    try:
        sys.exit(_run(arguments))
    except BrokenPipeError:
        # The reader, such as head, has closed the pipe.
        discard_output(sys.stdout)
        sys.exit(1)
    except KeyboardInterrupt:
        _fail(errors.SeptaError(where, "the command was interrupted", "Run it again to complete the work"), 130)
    except errors.SeptaError as error:
        if debug:
            traceback.print_exc()
        _fail(error, error.exit_code)
    except Exception as error:
        if debug:
            raise
        _fail_unexpectedly(error, where, _MEMORY_REMEDIES.get(command, "Use a machine with more memory"))


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    group = typer.main.get_command(app)
    try:
        with group.make_context("septa", arguments) as context:
            group.invoke(context)
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    if sys.stdout is not None:  # it is None if it was closed before the start
        sys.stdout.flush()
    return code


def _fail_unexpectedly(error: Exception, where: str, memory_remedy: str) -> NoReturn:
    if errors.is_out_of_memory(error):
        _fail(errors.ResourceError(where, "the process ran out of memory", memory_remedy), 4)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _fail(errors.ResourceError(where, "the disk or the quota is full", "Free some space and run it again"), 4)
    text = " ".join(str(error).split())
    problem = f"an unexpected {type(error).__name__} occurred" + (f" ({text})" if text else "")
    remedy = f"Run 'septa --debug{where.removeprefix('septa')} ...' and report the output"
    _fail(errors.SeptaError(where, problem, remedy), 1)


def _fail(error: errors.SeptaError, code: int) -> NoReturn:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        discard_output(sys.stdout)
    print_error(error)
    sys.exit(code)


def _print_version(given: bool) -> None:
    if given:
        print(f"septa {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare/--no-prepare", help="Tune the process for speed: huge pages and allocator. On by default."
        ),
    ] = True,
    debug: Annotated[bool, option("--debug", help="Print the traceback of an error.")] = False,
) -> None:
    """Take the options of every command, which are given before its name."""
    if context.invoked_subcommand is None:
        raise errors.InputError("septa", "the command is missing", "Run 'septa --help' for all commands")
    if prepare:
        runtime.prepare()


for function, example in (
    (train.train, train.EXAMPLE),
    (predict.predict, predict.EXAMPLE),
    (evaluate.evaluate, evaluate.EXAMPLE),
    (check.check, check.EXAMPLE),
    (recipe.recipe, recipe.EXAMPLE),
    (presets.presets, presets.EXAMPLE),
    (models.models, models.EXAMPLE),
    (describe.describe, describe.EXAMPLE),
    (info.info, info.EXAMPLE),
    (quantize.quantize, quantize.EXAMPLE),
    (export.export, export.EXAMPLE),
    (reproduce.reproduce, reproduce.EXAMPLE),
    (synth.synth, synth.EXAMPLE),
    (app_command.app, app_command.EXAMPLE),
    (demo.demo, demo.EXAMPLE),
):
    app.command(cls=Command, epilog=example)(flatten(function))
