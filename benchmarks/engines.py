"""Exactness of the engines: tiles beside the whole image, and each engine beside torch.

``python benchmarks/engines.py MODEL [--image 1200 1100]`` segments a synthetic image whole and in tiles of several
sizes by every engine that is installed, in 8-bit integers too where the model is quantised, and prints the largest
differences of logits. torch has to be exact: exit code 1 if it is not. For speed see ``benchmarks/inference.py``.
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
    """Compare, print a table."""
    runtime.prepare()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--image", type=int, nargs=2, default=[1200, 1100], metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()

    from septa.model import Model

    console, (height, width) = Console(width=140), arguments.image
    table, exact = exactness(Model.load(arguments.model), height, width, console)
    console.print(table)
    raise SystemExit(int(not exact))


def exactness(model: Model, height: int, width: int, console: Console) -> tuple[Table, bool]:
    """Largest differences of tiled logits from the whole image's by the same engine; whether torch's are all 0."""
    import numpy as np

    from septa.inference.tiling import largest_difference, smallest_tile_for
    from septa.synthetic.dataset import draw_cells

    image_cyx = np.repeat(draw_cells(height, width, 1).image_cyx, model.channels, 0)
    least = smallest_tile_for(model.net)
    tiles = sorted({max(least, tile) for tile in (288, 320, 384, 448, 512, 640)})
    columns = [f"tile {tile}" for tile in tiles]
    table = Table("engine", "whole, beside torch", *columns, title=f"{height} x {width} pixels, halo {model.net.halo}")
    expected, exact = None, True
    for name, engine in engines(model, console):
        whole = model.logits(image_cyx, tile=max(height, width) + least, engine=engine)
        expected = whole if expected is None else expected
        tiled = [model.logits(image_cyx, tile=tile, engine=engine) for tile in tiles]
        differences = [largest_difference(whole, one) for one in tiled]
        exact &= name != "torch" or not any(differences)
        cells = [f"{difference:g}" for difference in differences]
        table.add_row(name, f"{largest_difference(expected, whole):.1e}", *cells)
    return table, exact


def engines(model: Model, console: Console) -> Iterator[tuple[str, Engine]]:
    """Those that are installed, torch first."""
    from septa.errors import InputError
    from septa.inference.engines import ENGINES, make_engine

    for name in ENGINES[1:]:
        try:
            yield name, make_engine(model.net, "cpu", name)
        except InputError as error:
            console.print(f"left out: {error}", highlight=False, markup=False)
    if model.int8 is not None:
        yield "openvino int8", model.int8.engine(model.net)


if __name__ == "__main__":
    main()
