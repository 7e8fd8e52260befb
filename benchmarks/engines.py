"""Measure the exactness of the engines: tiles against the whole image, and each engine against torch.

Usage: ``python benchmarks/engines.py MODEL [--image 1200 1100]``.

Every installed engine segments a synthetic image as a whole and in tiles of several sizes. A quantised model is also
run in 8-bit integers. The script prints the largest differences of the logits. The engine torch must be exact; the exit
code is 1 if it is not. See ``benchmarks/inference.py`` for speed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from septa import runtime

if TYPE_CHECKING:
    from septa.inference import Engine
    from septa.model import Model


def main() -> None:
    """Compare the engines and print a table."""
    runtime.prepare()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a trained model")
    parser.add_argument(
        "--image",
        type=int,
        nargs=2,
        default=[1200, 1100],
        metavar=("HEIGHT", "WIDTH"),
        help="size of the synthetic image, pixels",
    )
    arguments = parser.parse_args()

    from septa.model import Model

    console = Console(width=140)
    height, width = arguments.image
    table, exact = compare_engines(Model.load(arguments.model), height, width, console)
    console.print(table)
    raise SystemExit(int(not exact))


def compare_engines(model: Model, height: int, width: int, console: Console) -> tuple[Table, bool]:
    """Compare tiles with the whole image in each engine.

    Returns
    -------
    table : Table
        Largest difference of the logits of the whole image to those of torch, and of the tiled logits to those of the
        whole image in the same engine.
    exact : bool
        True if all tiles of the engine torch differ by exactly 0.
    """
    import numpy as np

    from septa.inference import largest_difference, smallest_tile_for
    from septa.synthetic import draw_cells

    image_cyx = np.repeat(draw_cells(height, width, 1).image_cyx, model.channels, 0)
    least = smallest_tile_for(model.net)
    tiles = sorted({max(least, tile) for tile in (288, 320, 384, 448, 512, 640)})
    columns = [f"tile {tile}" for tile in tiles]
    table = Table(
        "engine", "whole image against torch", *columns, title=f"{height} x {width} pixels, halo {model.net.halo}"
    )
    expected = None
    exact = True
    for name, engine in make_engines(model, console):
        whole = model.logits(image_cyx, tile=max(height, width) + least, engine=engine)
        expected = whole if expected is None else expected
        tiled = [model.logits(image_cyx, tile=tile, engine=engine) for tile in tiles]
        differences = [largest_difference(whole, one) for one in tiled]
        exact &= name != "torch" or not any(differences)
        cells = [f"{difference:g}" for difference in differences]
        table.add_row(name, f"{largest_difference(expected, whole):.1e}", *cells)
    return table, exact


def make_engines(model: Model, console: Console) -> Iterator[tuple[str, Engine]]:
    """Yield the name and the engine of each installed engine, torch first."""
    from septa.errors import InputError
    from septa.inference.engines import ENGINES, make_engine

    for name in ENGINES[1:]:
        try:
            yield name, make_engine(model.net, "cpu", name)
        except InputError as error:
            console.print(f"{name}: skipped ({error})", highlight=False, markup=False)
    if model.int8 is not None:
        yield "openvino int8", model.int8.engine(model.net)


if __name__ == "__main__":
    main()
