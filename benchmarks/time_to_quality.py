"""Measure the seconds of training until a given score: septa's automatic recipe against a plain loop on a padded U-Net.

Usage: ``python benchmarks/time_to_quality.py [--data DIR] [--sets isbi2012 dsb2018] [--loops septa:120 rmsprop ...]``.

The data are ISBI 2012 (classes: membrane and cell interior) and the fluorescence images of DSB 2018, which are grey and
dark (classes: background and nucleus), if ``../shared/data`` contains them. The loops are

- ``septa:120``: ``septa train DATA --set task=semantic --set training.steps=120``. The schedule of the learning rate
  ends with the steps, so each number of steps is a budget. ``--set`` changes the recipe.
- ``rmsprop``: the plain loop of ``_plain_unet.py`` with its usual settings. It has no schedule, and so no budget.
- ``adam``: the same with Adam. With ``@0.5``, either plain loop scales images to half their size, which is also usual.

All loops use the same images, the same split, and nets of the width and depth of septa's recipe. The score is the Dice
of the foreground at the original image size, as the mean over validation images.

The times are processor time of the training thread plus that of the thread that prepares samples, because other
programs on the machine hardly change it. Validations do not count. Work before the first step does not count either;
septa's check of the data takes 2 to 3 seconds. Each training runs in a process of its own, so that septa's process
set-up does not affect the plain loops. A time is that of the first validation with the score. Ratios are relative to
the best plain loop. If no plain loop reached the score, they are relative to the limit and marked ``<``.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from septa import runtime

if TYPE_CHECKING:
    from _plain_unet import Point

SCORES = {"isbi2012": (0.91, 0.92, 0.93), "dsb2018": (0.80, 0.84, 0.88)}
HELD_OUT = {"isbi2012": 0.2, "dsb2018": 0.08}
"""Share of the images for validation. It is small because validations are frequent."""
LOOPS = ("septa:60", "septa:120", "septa:240", "rmsprop@0.5", "adam", "adam@0.5")
DARK = 0.25
"""Largest relative position of the median between the darkest and the brightest pixel of a fluorescence image."""


def main() -> None:
    """Train each loop on each data set and print a table for each data set."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=shared, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", choices=SCORES, default=list(SCORES), help="data sets to train on")
    parser.add_argument(
        "--loops", nargs="+", default=LOOPS, help="septa:STEPS, rmsprop, adam, rmsprop@SCALE, adam@SCALE"
    )
    parser.add_argument("--limit", type=float, default=90.0, help="processor seconds of each training")
    parser.add_argument("--scores", type=float, nargs="+", help="scores to reach, instead of those of each data set")
    parser.add_argument("--set", action="append", default=[], help="setting of septa's recipe, as in septa train")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sets:
            folder = arguments.data / name
            if not folder.is_dir():
                print(f"{folder}: skipped, because the folder does not exist")
                continue
            if name == "dsb2018":
                folder = link_dark_images(folder, Path(temporary) / name)
            overrides = ["task=semantic", f"data.validation_share={HELD_OUT[name]}", *arguments.set]
            curves = {loop: train_loop(loop, folder, arguments.limit, overrides) for loop in arguments.loops}
            table = make_table(name, curves, arguments.scores or SCORES[name], arguments.limit)
            Console(width=140).print(table)


def link_dark_images(folder: Path, output: Path) -> Path:
    """Make a folder of links to the pairs with a grey image whose median lies below `DARK` of its range."""
    import numpy as np

    from septa.data import find_pairs, read_pair_image

    for part in ("images", "labels"):
        (output / part).mkdir(parents=True)
    for pair in find_pairs(folder).pairs:
        image_cyx = read_pair_image(pair)
        low, middle, high = np.percentile(image_cyx, (0.5, 50, 99.5))
        if len(image_cyx) == 1 and middle - low < DARK * (high - low):
            assert isinstance(pair.labels, Path)
            for part, path in (("images", pair.image), ("labels", pair.labels)):
                (output / part / path.name).symlink_to(path.resolve())
    return output


def train_loop(loop: str, folder: Path, limit: float, overrides: Sequence[str]) -> list[Point]:
    """Train in a process of its own; return the validations, and print each to standard error."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_points, args=(sender, loop, folder, limit, overrides))
    process.start()
    sender.close()
    points: list[Point] = []
    try:
        while True:
            points.append(receiver.recv())
            step, seconds, wall, score = points[-1].step, points[-1].seconds, points[-1].wall, points[-1].score
            print(f"{folder.name} {loop}: {step} steps, {seconds:.1f} s, wall {wall:.1f}, {score:.4f}", file=sys.stderr)
    except EOFError:
        process.join()
    if process.exitcode:
        sys.exit(f"{loop}: failed")
    return points


def _send_points(sender: Connection, loop: str, folder: Path, limit: float, overrides: Sequence[str]) -> None:
    kind, _, number = loop.replace("@", ":").partition(":")
    points = (
        train_septa(folder, int(number), limit, overrides)
        if kind == "septa"
        else train_plain(folder, kind, float(number or 1), limit, overrides)
    )
    for point in points:
        sender.send(point)


def train_septa(folder: Path, steps: int, limit: float, overrides: Sequence[str]) -> Iterator[Point]:
    """Train as ``septa train`` does; validations come at multiples of ten steps, right after a log row of training."""
    runtime.prepare()
    from _plain_unet import Point, Watch
    from septa.training import TrainingRequest, train_steps
    from septa.training.loop import LOG_EVERY

    every = LOG_EVERY * math.ceil(steps / 15 / LOG_EVERY)
    steps = every * math.ceil(steps / every)
    settings = (*overrides, f"training.steps={steps}", f"training.validations={steps // every}")
    with tempfile.TemporaryDirectory() as temporary:
        events = train_steps(TrainingRequest(data=folder, output=Path(temporary) / "model.septa", overrides=settings))
        # The first event is the plan.
        next(events)
        watch = Watch()
        mark = watch.mark()
        seconds, wall = watch.read()
        for row in events:
            assert isinstance(row, dict)
            if "score" in row:
                watch.exclude_since(mark)
                yield Point(int(row["step"]), seconds, wall, row["score"])
                if row["step"] == steps or seconds > limit:
                    break
            else:
                mark = watch.mark()
                seconds, wall = watch.read()


def train_plain(folder: Path, optimizer: str, scale: float, limit: float, overrides: Sequence[str]) -> Iterator[Point]:
    """Train with the plain loop, on septa's split and with nets of the size that septa chooses."""
    import torch

    from _plain_unet import PlainLoop
    from septa.data import Examples
    from septa.training import TrainingRequest, plan_recipe

    torch.set_num_threads(1)
    check, choice = plan_recipe(TrainingRequest(data=folder, output=Path("model.septa"), overrides=tuple(overrides)))
    assert check.pairing is not None
    assert check.mapping is not None
    pairs = {pair.name: pair for pair in check.pairing.pairs}
    channels = choice.recipe.data.channels or 1
    train, validation = (
        Examples([pairs[name] for name in names], check.mapping, channels=channels, memory=2**31)
        for names in (check.train, check.validation)
    )
    net = choice.recipe.net
    loop = PlainLoop(optimizer=optimizer, scale=scale, width=net.width, depth=net.depth, classes=check.mapping.classes)
    yield from loop.train(train, validation, limit)


def make_table(name: str, curves: Mapping[str, Sequence[Point]], scores: Sequence[float], limit: float) -> Table:
    """Make the table of one data set: seconds to each score and their ratios, the best score, and the total time."""
    plain = [points for loop, points in curves.items() if not loop.startswith("septa")]
    best = {score: min((find_time(points, score) for points in plain), default=math.inf) for score in scores}
    table = Table(name, "steps", "best score", "processor s", "wall s")
    for score in scores:
        table.add_column(f"s to {score:g}", justify="right")
        table.add_column("ratio", justify="right")
    for loop, points in curves.items():
        last = points[-1]
        cells = [loop, str(last.step), f"{max(point.score for point in points):.4f}"]
        cells += [f"{last.seconds:.0f}", f"{last.wall:.0f}"]
        for score in scores:
            seconds = find_time(points, score)
            ratio = f"{seconds / best[score]:.2f}" if best[score] < math.inf else f"< {seconds / limit:.2f}"
            cells += [f"{seconds:.1f}", ratio] if seconds < math.inf else ["-", "-"]
        table.add_row(*cells)
    return table


def find_time(points: Sequence[Point], score: float) -> float:
    """Return the processor seconds until the first validation with this score; infinity if none has it."""
    return next((point.seconds for point in points if point.score >= score), math.inf)


if __name__ == "__main__":
    main()
