"""Engines compared: speed beside plain PyTorch, logits beside its, and whether tiles equal the whole image.

``python benchmarks/engines.py [MODEL.septa] [--size 512] [--widths 16 32] [--image 1200 1100]``. Speeds are ratios of
processor time: passes of all engines alternate in one process, and the medians of each are compared. Without a model
fresh nets are timed; with one, its logits of a synthetic image are compared tile by tile with those of the whole.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from septa import runtime


def main() -> None:
    """Compare, print tables."""
    runtime.prepare()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--image", type=int, nargs=2, default=[1200, 1100])
    parser.add_argument("--passes", type=int, default=7)
    arguments = parser.parse_args()
    console = Console(width=140)
    if arguments.model is None:
        for width in arguments.widths:
            console.print(speeds(arguments.size, width, arguments.passes))
    else:
        console.print(exactness(arguments.model, *arguments.image))


def speeds(size: int, width: int, passes: int) -> Table:
    """Processor time of one image for each engine."""
    import numpy as np
    import torch

    from septa.inference.engines import ENGINES, make_engine, torch_engine
    from septa.nets import UNet

    torch.manual_seed(0)
    net = UNet(1, 2, width=width).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    image_cyx = np.random.default_rng(0).normal(size=(1, size, size)).astype(np.float32)
    plain = UNet(1, 2, width=width).eval()
    plain.load_state_dict(net.state_dict())

    def eager(image_cyx: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return plain(torch.from_numpy(image_cyx)[None])[0].numpy()

    engines = {"plain PyTorch": eager, "channels last": torch_engine(net, fold=False)}
    engines |= {name: make_engine(net, "cpu", name) for name in ENGINES[1:]}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    logits = {}
    for number in range(passes + 1):
        for name, engine in engines.items():
            began = time.process_time()
            logits[name] = engine(image_cyx)
            if number:
                seconds[name].append(time.process_time() - began)
    expected = logits["plain PyTorch"]
    usual = np.median(seconds["plain PyTorch"])
    table = Table(f"width {width}, {size} x {size}", "processor s", "times as fast", "difference, of largest logit")
    for name in engines:
        median = np.median(seconds[name])
        difference = np.abs(logits[name] - expected).max() / np.abs(expected).max()
        table.add_row(name, f"{median:.3f}", f"{usual / median:.2f}", f"{difference:.1e}")
    return table


def exactness(path: Path, height: int, width: int) -> Table:
    """Largest difference of tiled logits from the whole image's, by the same engine."""
    import numpy as np

    from septa.data.synthetic import draw_cells
    from septa.inference.engines import ENGINES
    from septa.inference.tiling import largest_difference, least_for
    from septa.model import Model

    model = Model.load(path)
    image_cyx = np.repeat(draw_cells(height, width, 1).image_cyx, model.channels, 0)
    least = least_for(model.net)
    tiles = sorted({max(least, tile) for tile in (288, 320, 384, 448, 512, 640)})
    table = Table("engine", "beside torch", *(f"tile {tile}" for tile in tiles))
    expected = None
    for name in ENGINES[1:]:
        engine = model.engine("cpu", name)
        whole = model.logits(image_cyx, tile=max(height, width) + least, engine=engine)
        expected = whole if expected is None else expected
        tiled = [model.logits(image_cyx, tile=tile, engine=engine) for tile in tiles]
        differences = [f"{largest_difference(whole, one):g}" for one in tiled]
        table.add_row(name, f"{largest_difference(expected, whole):.1e}", *differences)
    return table


if __name__ == "__main__":
    main()
