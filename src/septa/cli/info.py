"""``septa info``: Print the contents of a model file as JSON."""

from __future__ import annotations

import json

from septa.cli.options import ModelFile, pause_garbage_collection

EXAMPLE = "septa info cells.septa"


def info(model: ModelFile) -> None:
    """Print the contents of a model file as JSON.

    These are the recipe, the meaning of the labels, the normalisation, the values of the training images, facts of the
    net, and the provenance: digests of the training images, the number of their sketches, scores and versions.
    """
    with pause_garbage_collection():
        from septa.model import Model

        loaded = Model.load(model)
    net = loaded.net
    facts = {
        "channels": loaded.channels,
        "labels": loaded.labels.to_json(),
        "normalization": loaded.normalization.to_json(),
        "training_values": None if loaded.training_values is None else loaded.training_values.to_json(),
        "members": loaded.members,
        "net": {"halo": net.halo, "receptive_field": net.receptive_field, "exact_tiles": net.exact_tiles},
        "int8": None if loaded.int8 is None else loaded.int8.to_json(),
        "recipe": loaded.recipe.model_dump(mode="json"),
        "provenance": {**loaded.provenance, "sketches": len(loaded.provenance.get("sketches", []))},
    }
    print(json.dumps(facts, indent=2))
