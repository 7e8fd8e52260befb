"""``septa describe``: Describe the layers, size and cost of a net."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from septa.cli.commands import INPUT, OUTPUT
from septa.cli.options import (
    Overwrite,
    Settings,
    argument,
    guard_files,
    load_recipe,
    make_console,
    make_overrides,
    option,
    refuse_options,
)
from septa.cli.values import SIZE, path, whole_number, word

EXAMPLE = "septa describe paper --size 572x572 --svg unet.svg"


Subject = Annotated[
    str,
    argument(
        "RECIPE|MODEL|PRESET",
        "Recipe file (.yaml), model file (.septa), or name of a preset or a shipped model.",
        kind=word("NAME", "a file, or the name of a preset or a shipped model"),
    ),
]
Size = Annotated[
    tuple[int, int] | None,
    option(
        "--size",
        heading=INPUT,
        kind=SIZE,
        help="Height and width of the image in pixels. The default is the recipe's patch size.",
    ),
]
ChannelCount = Annotated[
    int | None,
    option(
        "--channels",
        heading=INPUT,
        kind=whole_number(least=1, example=3),
        help="Number of channels of the image, if no model file is given.",
    ),
]
ClassCount = Annotated[
    int | None,
    option(
        "--classes",
        heading=INPUT,
        kind=whole_number(least=1, example=2),
        help="Number of classes, if no model file is given.",
    ),
]
SvgFile = Annotated[
    Path | None,
    option("--svg", heading=OUTPUT, kind=path(example="unet.svg"), help="Also write a drawing of the net (SVG)."),
]
JsonFile = Annotated[
    Path | None,
    option("--json", heading=OUTPUT, kind=path(example="net.json"), help="Also write the table as JSON."),
]


def describe(
    subject: Subject,
    size: Size = None,
    channels: ChannelCount = None,
    classes: ClassCount = None,
    settings: Settings = None,
    svg: SvgFile = None,
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Describe the layers, size and cost of a net.

    The table lists the shape, parameters, receptive field, operations and memory of each layer.
    """
    from septa.pretrained import find_shipped

    file, overrides = Path(subject), make_overrides(settings)
    is_model = file.suffix == ".septa" or (not file.is_file() and find_shipped(subject) is not None)
    if is_model:
        refuse_options({"set": overrides, "channels": channels, "classes": classes}, f"a model such as {subject}")
    is_file = file.suffix in (".yaml", ".yml") or file.is_file()
    recipe = None
    if not is_model:
        recipe = load_recipe(file if is_file else None, None if is_file else subject, overrides)
    from septa.describe import build_meta_net, describe_net, draw_net
    from septa.display import say
    from septa.images import write_text
    from septa.model import Model
    from septa.nets import list_members

    if recipe is None:
        loaded = Model.load(file)
        net, patch = list_members(loaded.net)[0], loaded.recipe.sampling.patch
        if loaded.members > 1:
            say(make_console(), f"{subject}: {loaded.describe_members()}; this is one of them")
    else:
        recipe = recipe.with_overrides(overrides)
        net, patch = build_meta_net(recipe, channels, classes), recipe.sampling.patch
    guard = guard_files([svg, json_file], overwrite, [file])
    height, width = size or patch
    description = describe_net(net, height, width)
    make_console(wide=True).print(description.table())
    if svg is not None:
        write_text(svg, draw_net(net, height, width), guard=guard)
    if json_file is not None:
        write_text(json_file, description.to_json(), guard=guard)
