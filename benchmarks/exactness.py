"""Check that tiles equal the whole image with trained weights, for depths 2 to 5 and odd image sizes.

Usage: ``python benchmarks/exactness.py [--size 2048] [--width 16] [--steps 60]``.

The script trains a small net of each depth on synthetic cells. Then it segments one large synthetic image as a whole
and in tiles, and prints the largest difference of the logits.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from septa import runtime

if TYPE_CHECKING:
    from septa.model import Model


def main() -> None:
    """Train, compare and print a table; exit with code 1 if a difference is not 0."""
    runtime.prepare()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="side of the larger image, pixels; at least 900")
    parser.add_argument("--width", type=int, default=16, help="channels of the net's first level")
    parser.add_argument("--steps", type=int, default=60, help="steps of each training")
    arguments = parser.parse_args()

    import septa
    from septa.synthetic import write_dataset

    table = Table("depth", "up", "reduction", "halo", "image", "tile", "tiles", "largest difference")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "cells"
        write_dataset(data, "cells", 8, (256, 256), 0)
        for depth in (2, 3, 4, 5):
            for up, reduction in (("transpose", 1), ("bilinear", 1), ("transpose", 2)):
                settings = [f"net.depth={depth}", f"net.width={arguments.width}", f"net.up={up}"]
                settings += [f"net.reduction={reduction}"]
                settings += [f"training.steps={arguments.steps}", "training.validations=2"]
                model = septa.train(data, Path(folder) / f"{depth}{up}{reduction}.septa", overrides=settings)
                for size, tile, tiles, difference in compare_tiles(model, arguments.size):
                    worst = max(worst, difference)
                    net = (str(depth), up, str(reduction), str(model.net.halo))
                    table.add_row(*net, size, tile, str(tiles), f"{difference:g}")
    Console().print(table)
    raise SystemExit(int(worst > 0))


def compare_tiles(model: Model, side: int) -> Iterator[tuple[str, str, int, float]]:
    """Compare tiles with the whole image for two image sizes and several tile sizes.

    Yields
    ------
    tuple
        Image size and tile size as text, number of tiles, and largest difference of the logits.
    """
    from septa.inference import largest_difference
    from septa.synthetic import draw_cells

    for height, width in ((side, side), (side - 47, side - 301)):
        image_cyx = draw_cells(height, width, 1).image_cyx
        whole = model.logits(image_cyx, tile=max(height, width))
        for tile in (None, 1024, 768):
            if tile is not None and tile < 2 * model.net.halo + 256:
                continue
            plan = model.plan(height, width, tile)
            if len(plan) == 1:
                continue
            difference = largest_difference(whole, model.logits(image_cyx, tile=tile))
            yield f"{height} x {width}", "automatic" if tile is None else str(tile), len(plan), difference


if __name__ == "__main__":
    main()
