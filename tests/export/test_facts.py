"""The steps of a prediction that an export leaves out are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from septa.export.facts import collect_export_facts
from septa.model import Model

FILES = Path(__file__).parents[1] / "files" / "v0.1"


def test_what_follows_from_the_size_of_objects_is_not_included() -> None:
    model = Model.load(FILES / "instances.septa")
    settings = ["data.largest=28", "instances.smallest=10", "instances.least_share=0.1", "instances.join_share=2"]
    model = replace(model, recipe=model.recipe.with_overrides(settings))
    left = [line for line in collect_export_facts(model, "m").lines() if line.startswith("not included: ")]
    assert left == [
        "not included: septa reduces images whose objects are 28 pixels wide or wider",
        "not included: septa enlarges images whose objects are less than 10 pixels wide",
        "not included: septa drops objects of less than 0.1 of the typical area in their image",
        "not included: septa joins parts that have less than 2 typical areas together and no deep rim between them",
    ]
