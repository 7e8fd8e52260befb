"""Tiled equals whole, with trained weights: the largest difference of logits for depths 2 to 5 and odd sizes.

Trains a small net of each depth on synthetic cells, then segments one large drawing whole and in tiles:
``python benchmarks/exactness.py [--size 2048] [--width 16] [--steps 60]``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from septa import runtime


def main() -> None:
    """Train, compare, print a table; exit code 1 if a difference is not 0."""
    runtime.prepare()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()

    import septa
    from septa.inference.tiling import largest_difference
    from septa.synthetic.dataset import draw_cells, write_dataset

    console = Console()
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
                for height, width in ((arguments.size, arguments.size), (arguments.size - 47, arguments.size - 301)):
                    image_cyx = draw_cells(height, width, 1).image_cyx
                    whole = model.logits(image_cyx, tile=max(height, width))
                    for tile in (None, 1024, 768):
                        if tile is not None and tile < 2 * model.net.halo + 256:
                            continue
                        plan = model.plan(height, width, tile)
                        if len(plan) == 1:
                            continue
                        difference = largest_difference(whole, model.logits(image_cyx, tile=tile))
                        worst = max(worst, difference)
                        table.add_row(
                            str(depth), up, str(reduction), str(model.net.halo), f"{height} x {width}",
                            "automatic" if tile is None else str(tile), str(len(plan)), f"{difference:g}",
                        )  # fmt: skip
    console.print(table)
    raise SystemExit(int(worst > 0))


if __name__ == "__main__":
    main()
