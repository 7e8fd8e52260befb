"""``septa describe``: Describe the layers of a net."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from septa import errors
from septa.cli.options import (
    Settings,
    all_overrides,
    given_recipe,
    make_console,
    parse_size,
)


def describe(
    what: Annotated[str, typer.Argument(metavar="RECIPE|MODEL|PRESET", help="A .yaml file, a .septa file or a name.")],
    size: Annotated[str | None, typer.Option("--size", help="HEIGHTxWIDTH of the image in pixels.")] = None,
    settings: Settings = None,
    channels: Annotated[int | None, typer.Option("--channels", min=1, help="Channels of the image.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", min=1, help="Classes, where there is no model.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also draw the net.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table as JSON.")] = None,
) -> None:
    """Layers, sizes, parameters, receptive field, operations and memory of a net."""
    path, overrides = Path(what), all_overrides(settings)
    for name, value in {"set": overrides, "channels": channels, "classes": classes}.items():
        if path.suffix == ".septa" and value:
            raise errors.InputError(f"--{name}", f"has no meaning for a model such as {what}", "leave it out")
    is_file = path.suffix in (".yaml", ".yml") or path.is_file()
    recipe = None
    if path.suffix != ".septa":
        recipe = given_recipe(path if is_file else None, None if is_file else what, overrides)
    from septa.describe import build_meta_net, describe_net, draw_net
    from septa.images import write_text
    from septa.model import Model

    if recipe is None:
        loaded = Model.load(path)
        net, patch = loaded.net, loaded.recipe.sampling.patch
    else:
        recipe = recipe.with_overrides(overrides)
        net, patch = build_meta_net(recipe, channels, classes), recipe.sampling.patch
    height, width = parse_size(size) if size else patch
    told = describe_net(net, height, width)
    make_console(wide=True).print(told.table())
    if svg is not None:
        write_text(svg, draw_net(net, height, width))
    if json_file is not None:
        write_text(json_file, told.to_json())
