"""``septa presets``: List the recipes that ship with septa."""

from __future__ import annotations

from typing import Annotated

from septa.cli.options import argument, make_console
from septa.cli.values import word

EXAMPLE = "septa presets paper"


def presets(
    name: Annotated[
        str | None,
        argument("NAME", "Preset to print. Without it, all presets are listed.", kind=word("NAME", "paper")),
    ] = None,
) -> None:
    """List the recipes that ship with septa, or print one as YAML."""
    from septa import presets as shipped

    if name is None:
        make_console().print(shipped.make_table())
    else:
        print(shipped.read_text(name), end="")
