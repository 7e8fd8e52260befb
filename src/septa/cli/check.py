"""``septa check``: Check a folder of images and label images for problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from septa.cli.commands import OUTPUT
from septa.cli.options import (
    MAX_PIXELS,
    DataFolder,
    Group,
    ImagesGlob,
    LabelsGlob,
    MaxPixels,
    Overwrite,
    Pairs,
    Seed,
    Settings,
    guard_files,
    make_console,
    make_overrides,
    option,
)
from septa.cli.values import path
from septa.errors import format_count

EXAMPLE = "septa check cells --html cells.html"


def check(
    data: DataFolder,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    html: Annotated[
        Path | None,
        option("--html", heading=OUTPUT, kind=path(example="cells.html"), help="Also write a page with thumbnails."),
    ] = None,
    overwrite: Overwrite = False,
    settings: Settings = None,
    group: Group = None,
    pairs: Pairs = None,
    seed: Seed = None,
) -> None:
    """Check your data for problems and explain the detected settings.

    The exit code is 2 if a training on the data would fail.
    """
    from septa.data import check_dataset, render_check
    from septa.display import say, show_progress
    from septa.images import write_text
    from septa.recipe import Recipe

    console, guard = make_console(), guard_files([html], overwrite)
    base = Recipe().with_overrides(make_overrides(settings, group=group, pairs=pairs, seed=seed))
    with show_progress(console, "checking") as progress:
        found = check_dataset(
            data,
            images=images,
            labels=labels,
            settings=base.data,
            task=base.task,
            seed=base.seed,
            max_pixels=max_pixels,
            progress=progress,
        )
    for note in found.notes:
        say(console, note)
    for problem in found.problems:
        say(console, f"{problem.severity}: {problem}", style="red" if problem.severity == "error" else "yellow")
    if html is not None:
        write_text(html, render_check(found), guard=guard)
        say(console, f"page: {html}")
    bad = sum(problem.severity == "error" for problem in found.problems)
    say(console, f"{format_count(bad, 'error')}, {format_count(len(found.problems) - bad, 'warning')}")
    if found.fatal:
        raise typer.Exit(2)
