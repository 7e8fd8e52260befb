"""``septa presets``: List the recipes that septa ships."""

from __future__ import annotations

from typing import Annotated

import typer

from septa.cli.options import (
    make_console,
)


def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The preset to print.")] = None,
) -> None:
    """List the recipes that septa ships, or print one as YAML."""
    from septa import presets as shipped

    if name is None:
        make_console().print(shipped.make_table())
    else:
        print(shipped.read_text(name), end="")
