"""``septa check``: Check a folder of images and label images for problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from septa.cli.options import (
    MAX_PIXELS,
    DataFolder,
    Group,
    ImagesGlob,
    LabelsGlob,
    MaxPixels,
    Seed,
    Settings,
    all_overrides,
    make_console,
)


def check(
    data: DataFolder,
    images: ImagesGlob = None,
    labels: LabelsGlob = None,
    settings: Settings = None,
    group: Group = None,
    seed: Seed = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write a page with thumbnails.")] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """List everything that would break or spoil a training; exit code 2 if it would fail."""
    from septa.data import check_dataset, render_check
    from septa.display import progress_bar
    from septa.images import write_text
    from septa.recipe import Recipe
    from septa.report import plural

    console = make_console()
    base = Recipe().with_overrides(all_overrides(settings, None, group, seed))
    with progress_bar(console, "checking") as progress:
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
        console.print(note, highlight=False, markup=False)
    for problem in found.problems:
        console.print(f"{problem.severity}: {problem}", style="red" if problem.severity == "error" else "yellow",
                      highlight=False, markup=False)  # fmt: skip
    if html is not None:
        write_text(html, render_check(found))
        console.print(f"page: {html}", highlight=False, markup=False)
    bad = sum(problem.severity == "error" for problem in found.problems)
    console.print(f"{plural(bad, 'error')}, {plural(len(found.problems) - bad, 'warning')}", highlight=False)
    if found.fatal:
        raise typer.Exit(2)
