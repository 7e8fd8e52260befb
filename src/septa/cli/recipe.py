"""``septa recipe``: Print the recipe that a training would use."""

from __future__ import annotations

from pathlib import Path

from septa.cli.options import (
    MAX_PIXELS,
    DataFolder,
    Device,
    Group,
    ImagesGlob,
    LabelsGlob,
    MaxPixels,
    Minutes,
    Preset,
    RecipeFile,
    Seed,
    Settings,
    Task,
    all_overrides,
    given_recipe,
    make_console,
)


def recipe(
    data: DataFolder,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    recipe: RecipeFile = None,
    preset: Preset = None,
    settings: Settings = None,
    minutes: Minutes = None,
    group: Group = None,
    task: Task = None,
    seed: Seed = None,
    device: Device = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Print the recipe that 'septa train' would use, with the reason of each choice."""
    overrides = all_overrides(settings, minutes, group, seed, task)
    given = given_recipe(recipe, preset, overrides)
    from septa.display import progress_bar
    from septa.training import TrainingRequest, plan_recipe

    request = TrainingRequest(
        data=data,
        output=Path("x.septa"),
        images=images,
        labels=labels,
        recipe=given,
        overrides=overrides,
        device=device,
        max_pixels=max_pixels,
    )
    with progress_bar(make_console(stderr=True), "checking the data") as progress:
        _, choice = plan_recipe(request, progress)
    print(choice.recipe.to_yaml(choice.reasons), end="")
