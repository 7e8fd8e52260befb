"""Measure the start-up time of ``septa --help`` and ``septa predict`` of one small image, next to ``import torch``.

Usage: ``python benchmarks/startup.py [MODEL...] [--size 256] [--rounds 7]``.

Each command runs in a process of its own. The commands take turns for several rounds, and medians are printed. The
comparison with ``import torch`` uses the difference within the same round. The first model is an untrained model of the
task ``semantic``; the given models, such as one of the task ``instances``, follow. The first round writes caches and
does not count. Python may always write its bytecode (``PYTHONDONTWRITEBYTECODE`` is unset), because an installed
package has it.
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

HELP = 0.3
"""Limit for ``septa --help``, seconds."""
PREDICT = 1.0
"""Limit for ``septa predict`` minus ``import torch``, seconds."""
BARE = "import torch"


def main() -> None:
    """Measure the commands and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL", help="trained models to measure too")
    parser.add_argument("--size", type=int, default=256, help="height and width of the image, pixels")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each command after the first")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {"untrained, semantic": make_untrained_model(Path(folder))}
        models |= {model.name: model.resolve() for model in arguments.models}
        image = Path(folder) / "image.png"
        draw_image(image, arguments.size)
        septa = [sys.executable, "-m", "septa"]
        commands = {BARE: [sys.executable, "-c", BARE], "septa --help": [*septa, "--help"]}
        for name, model in models.items():
            commands[f"septa predict ({name})"] = [*septa, "predict", str(model), str(image), "-o", f"{folder}/labels"]
        rounds = [measure(commands) for _ in range(arguments.rounds + 1)][1:]
    table = Table("command", "s", f"s more than {BARE}", "limit, s")
    for name in commands:
        seconds = median(one[name] for one in rounds)
        beyond = median(one[name] - one[BARE] for one in rounds)
        limit = {"septa --help": HELP, BARE: None}.get(name, PREDICT)
        more = f"{beyond:.2f}" if limit == PREDICT else ""
        table.add_row(name, f"{seconds:.2f}", more, "" if limit is None else f"{limit:g}")
    Console(width=110).print(table)


def measure(commands: dict[str, list[str]]) -> dict[str, float]:
    """Run each command once; return its seconds."""
    seconds = {}
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for name, command in commands.items():
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=usual)
        seconds[name] = time.perf_counter() - began
    return seconds


def make_untrained_model(folder: Path) -> Path:
    """Save a model of two classes, depth 4, width 16 and random weights; return its path."""
    from septa.images import Normalization
    from septa.labels import LabelMapping
    from septa.model import Model, build_net
    from septa.recipe import NetSettings, Recipe

    recipe = Recipe(net=NetSettings(depth=4, width=16))
    labels = LabelMapping("index", ("background", "foreground"), (0, 1))
    path = folder / "untrained.septa"
    Model(
        net=build_net(recipe, 1, 2), channels=1, labels=labels, normalization=Normalization("image"), recipe=recipe
    ).save(path)
    return path


def draw_image(path: Path, size: int) -> None:
    """Write a PNG image of synthetic cells."""
    import numpy as np

    from septa.images import encode_png, write_bytes
    from septa.synthetic import draw_cells

    image_yx = draw_cells(size, size, 1).image_cyx[0].astype(np.float64)
    low, high = image_yx.min(), image_yx.max()
    write_bytes(path, encode_png(((image_yx - low) / (high - low) * 255).astype(np.uint8)))


if __name__ == "__main__":
    main()
