"""``septa recipe``: Print the recipe that a training would use."""

from __future__ import annotations

from pathlib import Path

from septa.cli.options import PlanOptions, make_console

EXAMPLE = "septa recipe cells --minutes 10 > mine.yaml"


def recipe(options: PlanOptions) -> None:
    """Print the recipe that 'septa train' would use, with reasons."""
    request = options.make_request(Path("unused.septa"))
    from septa.display import show_progress
    from septa.training import plan_recipe

    with show_progress(make_console(stderr=True), "checking the data") as progress:
        _, choice = plan_recipe(request, progress)
    print(choice.recipe.to_yaml(choice.reasons), end="")
