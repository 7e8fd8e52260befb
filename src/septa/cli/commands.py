"""The classes of septa's commands: their help pages, and septa's own words for mistakes in arguments.

typer groups options under headings only with rich, whose import takes longer than the whole help page may take. These
classes write the same groups with the plain formatter. They use what typer 0.15 to 0.29 have in common.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from septa.errors import InputError

ARGUMENTS = "Arguments"
INPUT = "Input"
OUTPUT = "Output"
OBJECTS = "Objects"
RECIPE = "Recipe"
RUN = "Run"
SPEED = "Speed"
LARGE = "Large images (output NAME.ome.zarr or NAME.ome.tif)"
OTHER = "Other"
HEADINGS = (ARGUMENTS, INPUT, OUTPUT, OBJECTS, RECIPE, RUN, SPEED, LARGE, OTHER)
"""Headings of help pages, in their order."""

_NAMES_WIDTH = 24
"""Widest column of option names; a longer name takes a line of its own."""

_UsageError: Any = typer.BadParameter.__mro__[1]
"""Base class of typer's errors about arguments, which typer does not export and defines in several places."""


class Command(TyperCommand):
    """A command of septa."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; raise InputError for a mistake in them."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            raise _explain(error, self, ctx, given) from None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name in the usage line."""
        return ["[OPTIONS]", *(_format_argument(each) for each in self.params if _is_argument(each))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options under their headings."""
        _write_parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example."""
        _write_example(self, formatter)


class CommandGroup(TyperGroup):
    """The program itself, whose first argument is the name of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command's name; raise InputError for a mistake in them."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            raise _explain(error, self, ctx, given) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; raise InputError if it does not exist."""
        name = args[0]
        if name not in self.commands:
            near = difflib.get_close_matches(name, self.commands, n=1)
            guess = f"Use 'septa {near[0]}', or run" if near else "Run"
            raise InputError("septa", f"the command {name} does not exist", f"{guess} 'septa --help' for all commands")
        return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the program's name in the usage line."""
        return ["[OPTIONS]", "COMMAND", "..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, then the options."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _read_summary(self.commands[name])) for name in self.list_commands(ctx)])
        _write_parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example."""
        _write_example(self, formatter)


def _explain(error: Any, command: Any, context: Any, given: list[str]) -> InputError:
    """Say in septa's words what is wrong with the arguments of a command."""
    where = "septa" if context.parent is None else f"septa {context.info_name}"
    option, parameter = getattr(error, "option_name", None), getattr(error, "param", None)
    if option is not None:
        return _explain_option(option, where, command, context)
    if parameter is not None and _is_argument(parameter):
        problem = f"the argument {parameter.metavar} is missing"
        return InputError(where, problem, f"Run '{where} --help' for its arguments")
    if parameter is not None:
        return InputError(where, f"the option {parameter.opts[-1]} is missing", f"Run '{where} --help' for its options")
    _, surplus, _ = command.make_parser(context).parse_args(list(given))
    problem = f"the argument {surplus[0]} is not expected"
    if len(surplus) > 1:
        problem = f"the arguments {' '.join(surplus)} are not expected"
    return InputError(where, problem, f"Run '{where} --help' for its arguments")


def _explain_option(name: str, where: str, command: Any, context: Any) -> InputError:
    """Say that an option does not exist, lacks its value, or has one that it does not take."""
    known = {spelling: each for each in command.get_params(context) for spelling in (*each.opts, *each.secondary_opts)}
    if name in known and known[name].is_flag:
        return InputError(name, "the option takes no value", f"Give {name} alone")
    if name in known:
        return InputError(name, "the value is missing", f"Give {name} {known[name].metavar}")
    problem = f"the option {name} does not exist"
    above = [] if context.parent is None else context.parent.command.get_params(context.parent)
    if any(name in (*each.opts, *each.secondary_opts) for each in above):
        remedy = f"Give it before the name: septa {name} {context.info_name}"
        return InputError(where, f"{problem} after the name of the command", remedy)
    near = difflib.get_close_matches(name, [each for each in known if each.startswith("--")], n=1)
    guess = f"Use {near[0]}, or run" if near else "Run"
    return InputError(where, problem, f"{guess} '{where} --help' for its options")


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _format_argument(parameter: Any) -> str:
    return str(parameter.metavar) if parameter.required else f"[{parameter.metavar}]"


def _read_summary(command: Any) -> str:
    return inspect.cleandoc(command.help or "").partition("\n")[0]


def _write_parameters(command: Any, context: Any, formatter: Any) -> None:
    groups: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
    for each in command.get_params(context):
        heading = ARGUMENTS if _is_argument(each) else getattr(each, "rich_help_panel", None) or OTHER
        groups[heading].append((_format_names(each), _format_help(each)))
    filled = {heading: rows for heading, rows in groups.items() if rows}
    width = min(_NAMES_WIDTH, max(len(names) for rows in filled.values() for names, _ in rows))
    alone = not set(filled) - {ARGUMENTS, OTHER}
    for heading, rows in filled.items():
        with formatter.section("Options" if heading == OTHER and alone else heading):
            formatter.write_dl([(names.ljust(width), text) for names, text in rows], col_max=width)


def _format_names(parameter: Any) -> str:
    if _is_argument(parameter):
        return str(parameter.metavar)
    # typer gives the names of the help option in a random order.
    names = " / ".join(", ".join(sorted(each, key=len)) for each in (parameter.opts, parameter.secondary_opts) if each)
    return names if parameter.is_flag else f"{names} {parameter.metavar}"


def _format_help(parameter: Any) -> str:
    text = parameter.help or ""
    if getattr(parameter, "is_flag", False) or parameter.default is None or not parameter.show_default:
        return f"{text} [required]" if parameter.required and not _is_argument(parameter) else text
    default = parameter.default
    shown = "x".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} [default: {shown}]"


def _write_example(command: Any, formatter: Any) -> None:
    with formatter.section("Example"):
        formatter.write(f"{'':>{formatter.current_indent}}{command.epilog}\n")
