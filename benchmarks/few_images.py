"""Measure quality against the number of annotated images and minutes, with and without a model to start from.

Usage: ``python benchmarks/few_images.py [--data DIR] [--start nuclei] [--images 1 3 5 10 20] [--minutes 0.5 2 5]
[--seeds 3] [--test 40] [--device cpu]``.

The folder holds ``images/`` and ``labels/`` with equal names and labels of objects; the default is DSB 2018 in
``../shared/data``. A fixed part of the images is the test; the others are drawn anew for each seed. Each training is
``septa train FOLDER --minutes M --from START``, once with the start and once from scratch, and the line ``untrained``
is the start alone. The test images must be unknown to the start: images that it was trained on are left out.

The script prints a Markdown table: AP is tp / (tp + fp + fn) of objects at IoU 0.5, pooled over all test images, and
the mean AP is its mean over IoU 0.5 to 0.95. Each value is the mean over seeds, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np

from _machine import collect_facts
from septa import runtime

METRICS = ("accuracy_50", "mean_accuracy")
TITLES = ("AP", "mean AP")


def main() -> None:
    """Train on each number of images, and print a table."""
    runtime.prepare()
    shared = Path(__file__).resolve().parents[2] / "shared" / "data" / "dsb2018"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=shared, help="folder of images and labels")
    parser.add_argument("--start", default="nuclei", help="model file, or name of a shipped model")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 3, 5, 10, 20], help="numbers of annotated images")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.5, 2.0, 5.0], help="minutes of each training")
    parser.add_argument("--seeds", type=int, default=3, help="number of draws of the annotated images")
    parser.add_argument("--test", type=int, default=40, help="number of test images")
    parser.add_argument("--device", default="auto", help="device of the trainings")
    arguments = parser.parse_args()
    test, others = divide(arguments.data, arguments.test)
    facts = collect_facts()
    print(f"{facts['processor']}, {facts['cores']} cores; {len(test)} test images of {arguments.data.name}\n")
    print("| images | minutes | start | " + " | ".join(TITLES) + " |\n|---|---|---|" + "---|" * len(TITLES))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_pairs(arguments.data, test, folder / "test")
        print_row("0", "0", "untrained", [score(arguments.start, folder / "test", arguments.device)])
        for count in arguments.images:
            for minutes in arguments.minutes:
                for start in (arguments.start, "scratch"):
                    values = [
                        run(arguments, others, folder, count, minutes, start, seed) for seed in range(arguments.seeds)
                    ]
                    print_row(str(count), f"{minutes:g}", Path(start).name, values)


def divide(data: Path, count: int) -> tuple[list[str], list[str]]:
    """Return the names of the test images and of the others, by a hash of each name."""
    names = sorted(
        (path.name for path in (data / "images").iterdir()), key=lambda name: hashlib.sha256(name.encode()).digest()
    )
    return names[:count], names[count:]


def copy_pairs(data: Path, names: list[str], target: Path) -> None:
    """Copy images and their labels to a folder."""
    for kind in ("images", "labels"):
        (target / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(data / kind / name, target / kind / name)


def run(
    arguments: argparse.Namespace,
    others: list[str],
    folder: Path,
    count: int,
    minutes: float,
    start: str,
    seed: int,
) -> list[float]:
    """Train on ``count`` images that the seed draws, and return the scores on the test images."""
    import septa

    names = [others[index] for index in np.random.default_rng(seed).permutation(len(others))[:count]]
    with tempfile.TemporaryDirectory(dir=folder) as own:
        copy_pairs(arguments.data, names, Path(own) / "data")
        overrides = [f"seed={seed}", "data.encoding=instances"]  # one image may leave open what its labels are
        path = Path(own) / "model.septa"
        septa.train(
            Path(own) / "data", path, overrides=overrides, minutes=minutes, start=start, device=arguments.device
        )
        return score(str(path), folder / "test", arguments.device)


def score(model: str, test: Path, device: str) -> list[float]:
    """Return the scores of a model on the test images."""
    import septa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", septa.SeptaWarning)  # the images differ in many ways
        objects = septa.evaluate(model, test, device=device).objects
    return [objects[metric]["pooled"] for metric in METRICS]


def print_row(images: str, minutes: str, start: str, values: list[list[float]]) -> None:
    """Print a row of the table."""
    cells = [
        f"{np.mean(column):.3f}" + (f" ({min(column):.3f} to {max(column):.3f})" if len(column) > 1 else "")
        for column in zip(*values, strict=True)
    ]
    print(f"| {' | '.join([images, minutes, start, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
