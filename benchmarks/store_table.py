"""Measure the objects of slides with a store as output: time and peak memory against the number of objects.

Usage: ``python benchmarks/store_table.py MODEL [--sizes 2560 5120 10240] [--memory 1GB] [--folder store_table]``.

The script draws synthetic slides, the largest with about 100,000 nuclei. It segments each with ``septa predict MODEL
SLIDE -o LABELS`` three times, each in a process of its own: without a table, with ``--table``, and with ``--table
--geojson --measure full``. It checks that the table has one row for each object, and prints a table. Train MODEL on
the images that ``python benchmarks/slide.py training -o DIR`` writes. Memory is read from /proc, so the script runs on
Linux only.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slide import write_slide
from streaming import Run, run_septa

WAYS = ("", "--table FILE", "--table FILE --geojson --measure full")


def main() -> None:
    """Draw and segment the slides, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model of the task instances")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2560, 5120, 10240], help="sides of the slides, pixels")
    parser.add_argument("--memory", default="1GB", help="memory budget of septa predict, such as 1GB")
    parser.add_argument("--folder", type=Path, default=Path("store_table"), help="folder of slides and outputs")
    arguments = parser.parse_args()
    columns = ("side", "output", "objects", "seconds", "peak, MB", "table, MB", "outlines, MB")
    table = Table(*columns, title=f"--memory {arguments.memory}")
    for side in arguments.sizes:
        slide = arguments.folder / f"slide{side}.ome.zarr"
        if not slide.exists():
            write_slide(slide, side, side, 0)
        for way in WAYS:
            run, rows = measure(arguments.model, slide, arguments.memory, way)
            sizes = (f"{file.stat().st_size / 1e6:.1f}" if file.exists() else "" for file in list_files(slide))
            numbers = (str(rows or ""), f"{run.seconds:.0f}", f"{run.peak / 1e6:.0f}")
            table.add_row(str(side), way or "labels only", *numbers, *sizes)
    Console().print(table)


def list_files(slide: Path) -> tuple[Path, Path]:
    """Return the table and the outlines of a slide."""
    folder = slide.parent / "out"
    return folder / "objects.csv", folder / "outlines" / "labels.geojson"


def measure(model: Path, slide: Path, memory: str, way: str) -> tuple[Run, int]:
    """Segment a slide in one way; return the run and the number of rows of its table, 0 without one."""
    table, _ = list_files(slide)
    shutil.rmtree(table.parent, ignore_errors=True)
    output = table.parent / "labels.ome.zarr"
    options = [str(table) if option == "FILE" else option for option in way.split()]
    run = run_septa("predict", str(model), str(slide), "-o", str(output), "--memory", memory, *options)
    if not table.exists():
        return run, 0
    with table.open(encoding="utf-8") as lines:
        rows = sum(1 for _ in lines) - 1
    if f"{rows} objects" not in run.text.replace("\n", " "):
        raise SystemExit(f"error: {table}: {rows} rows differ from the number of objects. See the output:\n{run.text}")
    return run, rows


if __name__ == "__main__":
    main()
