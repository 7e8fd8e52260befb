"""Start-up: seconds until ``septa --help`` and ``septa predict`` of one small image are done, beside ``import torch``.

``python benchmarks/startup.py [MODEL...] [--size 256] [--rounds 7]`` runs each command in a process of its own, round
after round in turn, and prints medians; what is compared with ``import torch`` is the difference in the same round. An
untrained model of classes comes first; those that are given, such as one of objects, follow. The first round, which
writes caches, does not count. Python's own are always written (``PYTHONDONTWRITEBYTECODE`` is unset), as an installed
package has them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

HELP, PREDICT = 0.3, 1.0
"""Seconds that ``septa --help`` should take at most, and ``septa predict`` beyond ``import torch``."""
BARE = "import torch"


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL")
    parser.add_argument("--size", type=int, default=256, help="side of the image, pixels")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {"untrained, classes": untrained(Path(folder))}
        models |= {model.name: model.resolve() for model in arguments.models}
        image = Path(folder) / "image.png"
        draw(image, arguments.size)
        septa = [sys.executable, "-m", "septa"]
        commands = {BARE: [sys.executable, "-c", BARE], "septa --help": [*septa, "--help"]}
        for name, model in models.items():
            commands[f"septa predict ({name})"] = [*septa, "predict", str(model), str(image), "-o", f"{folder}/labels"]
        rounds = [measure(commands) for _ in range(arguments.rounds + 1)][1:]
    table = Table("command", "s", f"beyond {BARE}, s", "at most, s")
    for name in commands:
        seconds = median(one[name] for one in rounds)
        beyond = median(one[name] - one[BARE] for one in rounds)
        limit = {"septa --help": HELP, BARE: None}.get(name, PREDICT)
        over = f"{beyond:.2f}" if limit == PREDICT else ""
        table.add_row(name, f"{seconds:.2f}", over, "" if limit is None else f"{limit:g}")
    Console(width=110).print(table)


def measure(commands: dict[str, list[str]]) -> dict[str, float]:
    """Seconds of each command, once."""
    seconds = {}
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for name, command in commands.items():
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=usual)
        seconds[name] = time.perf_counter() - began
    return seconds


def untrained(folder: Path) -> Path:
    """A model of two classes with a net of random weights, depth 4 and width 16."""
    from septa.images.normalize import Normalization
    from septa.labels.mapping import LabelMapping
    from septa.model import Model, build_net
    from septa.recipe import NetSettings, Recipe

    recipe = Recipe(net=NetSettings(depth=4, width=16))
    labels = LabelMapping("index", ("background", "foreground"), (0, 1))
    path = folder / "untrained.septa"
    Model(build_net(recipe, 1, 2), 1, labels, Normalization("image"), recipe).save(path)
    return path


def draw(path: Path, size: int) -> None:
    """A picture of synthetic cells."""
    import numpy as np

    from septa.images.write import encode_png, write_bytes
    from septa.synthetic.dataset import draw_cells

    image_yx = draw_cells(size, size, 1).image_cyx[0].astype(np.float64)
    low, high = image_yx.min(), image_yx.max()
    write_bytes(path, encode_png(((image_yx - low) / (high - low) * 255).astype(np.uint8)))


if __name__ == "__main__":
    main()
