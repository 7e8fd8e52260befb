"""``septa info``: Print the contents of a model file as JSON."""

from __future__ import annotations

import json
from typing import Any

from septa.cli.options import ModelFile, pause_garbage_collection

EXAMPLE = "septa info cells.septa"


def info(model: ModelFile) -> None:
    """Print the contents of a model file as JSON.

    These are the recipe, the meaning of the labels, the normalisation, the tuned thresholds (``decoding``), the values
    of the training images, facts of the net, and the provenance: digests of the training images, the number of their
    sketches, scores, versions, and the model that the training started from.
    """
    with pause_garbage_collection():
        from septa.model import Model

        loaded = Model.load(model)
    net = loaded.net
    facts = {
        "channels": loaded.channels,
        "labels": loaded.labels.to_json(),
        "normalization": loaded.normalization.to_json(),
        "decoding": loaded.task.decoding.to_json() if loaded.task.has_thresholds else None,
        "training_values": None if loaded.training_values is None else loaded.training_values.to_json(),
        "training_features": None if loaded.training_features is None else loaded.training_features.describe(),
        "confidence_curve": loaded.confidence_curve.to_json(),
        "members": loaded.members,
        "net": {"halo": net.halo, "receptive_field": net.receptive_field, "exact_tiles": net.exact_tiles},
        "int8": None if loaded.int8 is None else loaded.int8.to_json(),
        "bf16": None if loaded.bf16 is None else loaded.bf16.to_json(),
        "recipe": loaded.recipe.model_dump(mode="json"),
        "provenance": _count_sketches(loaded.provenance),
    }
    print(json.dumps(facts, indent=2))


def _count_sketches(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return a provenance with the number of sketches in place of them, and the same of the models before it."""
    parent = {"parent": _count_sketches(provenance["parent"])} if "parent" in provenance else {}
    return {**provenance, "sketches": len(provenance.get("sketches", [])), **parent}
