"""``septa info``: Print what a model file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from septa.cli.options import (
    loading,
)


def info(model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model, NAME.septa.")]) -> None:
    """Print what a model holds: recipe, labels, normalisation, provenance."""
    with loading():
        from septa.model import Model

        loaded = Model.load(model)
    net = loaded.net
    facts = {
        "channels": loaded.channels,
        "labels": loaded.labels.to_json(),
        "normalization": loaded.normalization.to_json(),
        "net": {"halo": net.halo, "receptive_field": net.receptive_field, "exact_tiles": net.exact_tiles},
        "int8": None if loaded.int8 is None else loaded.int8.to_json(),
        "recipe": loaded.recipe.model_dump(mode="json"),
        "provenance": loaded.provenance,
    }
    print(json.dumps(facts, indent=2))
