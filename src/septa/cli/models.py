"""``septa models``: List the models that ship with septa."""

from __future__ import annotations

from typing import Annotated

from septa.cli.options import argument, make_console
from septa.cli.values import word

EXAMPLE = "septa models nuclei"


def models(
    name: Annotated[
        str | None,
        argument("NAME", "Model whose card to print. Without it, all models are listed.", kind=word("NAME", "nuclei")),
    ] = None,
) -> None:
    """List the models that ship with septa, or print the card of one.

    The card of a model states its training data with their licences, its scores on held-out images, and its failures.
    Every command that takes a model file takes the name of a shipped model, too.
    """
    from septa import pretrained

    if name is not None:
        print(pretrained.get_shipped(name).card.read_text(encoding="utf-8"), end="")
    elif pretrained.list_shipped():
        make_console(wide=True).print(pretrained.make_models_table())
    else:
        print("no models ship with this version of septa; 'septa train' makes one from your images")
