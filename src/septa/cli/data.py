"""Commands that check, draw and demonstrate."""

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
    parse_size,
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
    from septa.data.doctor import check as check_data
    from septa.data.doctor import check_html
    from septa.display import progress_bar
    from septa.images.write import write_text
    from septa.page import plural
    from septa.recipe import Recipe

    console = make_console()
    base = Recipe().with_overrides(all_overrides(settings, None, group, seed))
    with progress_bar(console, "checking") as progress:
        checkup = check_data(
            data,
            images=images,
            labels=labels,
            settings=base.data,
            task=base.task,
            seed=base.seed,
            max_pixels=max_pixels,
            progress=progress,
        )
    for note in checkup.notes:
        console.print(note, highlight=False, markup=False)
    for problem in checkup.problems:
        console.print(f"{problem.severity}: {problem}", style="red" if problem.severity == "error" else "yellow",
                      highlight=False, markup=False)  # fmt: skip
    if html is not None:
        write_text(html, check_html(checkup))
        console.print(f"page: {html}", highlight=False, markup=False)
    bad = sum(problem.severity == "error" for problem in checkup.problems)
    console.print(f"{plural(bad, 'error')}, {plural(len(checkup.problems) - bad, 'warning')}", highlight=False)
    if checkup.fatal:
        raise typer.Exit(2)


def synth(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write images/ and labels/ to.")],
    kind: Annotated[str, typer.Option("--kind", help="cells, shapes or oct.")] = "cells",
    count: Annotated[int, typer.Option("--count", help="Number of images.")] = 20,
    size: Annotated[str, typer.Option("--size", help="HEIGHTxWIDTH in pixels.")] = "256x256",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the drawings.")] = 0,
) -> None:
    """Draw a synthetic dataset: fluorescent cells, figures with overlapping masks, or OCT scans with fluid."""
    from septa.data.synthetic import write_dataset

    written = write_dataset(folder, kind, count, parse_size(size), seed)  # type: ignore[arg-type]
    print(f"{len(written)} images with labels in {folder}")


def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write everything to.")] = Path(
        "septa-demo"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of an earlier demo.")] = False,
    minutes: Annotated[float, typer.Option("--minutes", help="Time budget of the training.")] = 2.0,
) -> None:
    """The whole job on synthetic cells: draw, train, segment held-out images, evaluate, report."""
    from septa.demo import run_demo

    run_demo(make_console(), folder, minutes=minutes, overwrite=overwrite)
