"""``septa recipe``: Print the recipe that a training would use."""

from __future__ import annotations

from pathlib import Path

from septa.cli.options import PlanOptions, make_console

EXAMPLE = "septa recipe cells --minutes 10 > mine.yaml"


def recipe(options: PlanOptions) -> None:
    """Print the recipe that 'septa train' would use, with reasons."""
    request = options.make_request(Path("unused.septa"))
    from septa.display import print_warnings, say, show_progress
    from septa.training import plan_recipe

    console = make_console(stderr=True)
    with show_progress(console, "checking the data") as progress:
        check, choice = plan_recipe(request, progress)
    print_warnings(console, check)
    for warning in choice.warnings:
        say(console, f"warning: {warning}", style="yellow")
    print(choice.recipe.to_yaml(choice.reasons), end="")
