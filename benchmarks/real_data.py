"""Measure the scores of ``septa train DATA --minutes M`` on real images, with the automatic recipe.

Usage: ``python benchmarks/real_data.py [--data DIR] [--output DIR] [--factor 1.0]``.

The script trains on ISBI 2012 (10 minutes) and on GlaS with the classes background and gland (15 minutes), if they are
in ``../shared/data``. It evaluates the validation images and prints the Dice of each class with its interval, and the
share of the training time spent waiting for data.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from septa import runtime

MINUTES = {"isbi2012": 10.0, "glas": 15.0}


def main() -> None:
    """Train and evaluate on each data set, and print a table."""
    runtime.prepare()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=shared, help="folder of the data sets")
    parser.add_argument("--output", type=Path, help="folder of models and reports; a temporary one by default")
    parser.add_argument("--factor", type=float, default=1.0, help="multiplies the minutes of each training")
    arguments = parser.parse_args()

    import septa

    table = Table("data", "minutes", "class", "Dice", "95 % interval", "IoU", "images", "waiting for data")
    with tempfile.TemporaryDirectory() as temporary:
        output = arguments.output or Path(temporary)
        for name, minutes in MINUTES.items():
            if not (arguments.data / name).is_dir():
                print(f"{arguments.data / name}: skipped, because the folder does not exist")
                continue
            path = output / f"{name}.septa"
            limit = minutes * arguments.factor
            model = septa.train(arguments.data / name, path, overrides=["task=semantic"], minutes=limit, overwrite=True)
            scores = septa.evaluate(model, arguments.data / name)
            waiting = f"{read_waiting_share(path.with_name(f'{name}-run') / 'log.csv'):.2%}"
            for kind in scores.class_names:
                dice, iou = scores.classes[kind]["dice"], scores.classes[kind]["iou"]
                interval = f"{dice['low']:.4f} to {dice['high']:.4f}"
                row = (name, f"{minutes * arguments.factor:g}", kind, f"{dice['mean']:.4f}", interval)
                table.add_row(*row, f"{iou['mean']:.4f}", str(len(scores.images)), waiting)
    Console().print(table)


def read_waiting_share(log: Path) -> float:
    """Return the mean share of the time that the steps waited for samples."""
    with log.open(encoding="utf-8", newline="") as file:
        shares = [float(row["data_wait"]) for row in csv.DictReader(file) if row["data_wait"]]
    return sum(shares) / max(1, len(shares))


if __name__ == "__main__":
    main()
