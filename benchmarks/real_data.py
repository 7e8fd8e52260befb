"""Scores on real images after a fixed number of minutes: what ``septa train DATA --minutes M`` reaches by itself.

Trains on ISBI 2012 (10 minutes) and GlaS as gland or not (15 minutes), where ``../shared/data`` has them, evaluates the
validation images and prints Dice of each class with its interval, and the share of time spent waiting for data:
``python benchmarks/real_data.py [--data DIR] [--output DIR] [--factor 1.0]``.
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
    """Train, evaluate, print a table."""
    runtime.prepare()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--output", type=Path, help="folder for models and reports; a temporary one by default")
    parser.add_argument("--factor", type=float, default=1.0, help="times the minutes")
    arguments = parser.parse_args()

    import septa

    table = Table("data", "minutes", "class", "Dice", "95 % interval", "IoU", "images", "waiting for data")
    with tempfile.TemporaryDirectory() as temporary:
        output = arguments.output or Path(temporary)
        for name, minutes in MINUTES.items():
            if not (arguments.data / name).is_dir():
                print(f"{arguments.data / name}: not here, left out")
                continue
            path = output / f"{name}.septa"
            limit = minutes * arguments.factor
            model = septa.train(arguments.data / name, path, overrides=["task=semantic"], minutes=limit, overwrite=True)
            scores = septa.evaluate(model, arguments.data / name)
            waiting = f"{waiting_share(path.with_name(f'{name}-run') / 'log.csv'):.2%}"
            for kind in scores.class_names:
                dice, iou = scores.classes[kind]["dice"], scores.classes[kind]["iou"]
                interval = f"{dice['low']:.4f} to {dice['high']:.4f}"
                row = (name, f"{minutes * arguments.factor:g}", kind, f"{dice['mean']:.4f}", interval)
                table.add_row(*row, f"{iou['mean']:.4f}", str(len(scores.images)), waiting)
    Console().print(table)


def waiting_share(log: Path) -> float:
    """Mean share of the time that the steps waited for samples."""
    with log.open(encoding="utf-8", newline="") as file:
        shares = [float(row["data_wait"]) for row in csv.DictReader(file) if row["data_wait"]]
    return sum(shares) / max(1, len(shares))


if __name__ == "__main__":
    main()
