"""Seconds of training until a given score: septa's automatic recipe beside a plain loop over the usual padded U-Net.

``python benchmarks/time_to_quality.py [--data DIR] [--sets isbi2012 dsb2018] [--loops septa:120 rmsprop adam ...]``

Data are ISBI 2012 (classes: membrane and cell inside) and the images of DSB 2018 that are grey and dark, that is
fluorescence (classes: background and nucleus), where ``../shared/data`` has them. ``septa:120`` is
``septa train DATA --set task=semantic --set training.steps=120``: the learning rate's schedule ends with the steps, so
each number of steps is a budget; ``--set`` changes its recipe. ``rmsprop`` and ``adam`` are the plain loop of
``_plain_unet.py`` with its usual settings and with Adam, ``@0.5`` with images at half their size, which is usual too.
The plain loop has no schedule, and so no budget. All take the same images, the same split, and nets of the width and
depth of septa's recipe; the score is the mean over validation images of the foreground's Dice at their own size.

Times are processor time of one thread, with that of the thread that prepares samples: other programs on the machine
change it little. Validations do not count, nor does what comes before the first step (septa's check of the data: 2 to 3
seconds). Each training is a process of its own, so that septa's process set-up is septa's alone. A time is that of the
first validation with the score; ratios are to the best plain loop, or to the limit (``<``) where none got there.
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
"""Share of the images that is held out: no more than gives a score, as it is taken often."""
LOOPS = ("septa:60", "septa:120", "septa:240", "rmsprop@0.5", "adam", "adam@0.5")
DARK = 0.25
"""Place of the median between darkest and brightest pixel, below which an image is taken for fluorescence."""


def main() -> None:
    """Train each loop on each data set, print a table for each data set."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--sets", nargs="+", choices=SCORES, default=list(SCORES))
    parser.add_argument("--loops", nargs="+", default=LOOPS, help="septa:STEPS, rmsprop, adam, and those with @SCALE")
    parser.add_argument("--limit", type=float, default=90.0, help="processor seconds of each training")
    parser.add_argument("--scores", type=float, nargs="+", help="in place of those of each data set")
    parser.add_argument("--set", action="append", default=[], help="setting of septa's recipe, as of septa train")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sets:
            folder = arguments.data / name
            if not folder.is_dir():
                print(f"{folder}: not here, left out")
                continue
            if name == "dsb2018":
                folder = dark_ones(folder, Path(temporary) / name)
            overrides = ["task=semantic", f"data.validation_share={HELD_OUT[name]}", *arguments.set]
            curves = {loop: curve(loop, folder, arguments.limit, overrides) for loop in arguments.loops}
            table = compared(name, curves, arguments.scores or SCORES[name], arguments.limit)
            Console(width=140).print(table)


def dark_ones(folder: Path, output: Path) -> Path:
    """A folder of links to the pairs whose image is grey, with half of its pixels in the darkest part of the range."""
    import numpy as np

    from septa.data.folder import find_pairs, read_pair_image

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


def curve(loop: str, folder: Path, limit: float, overrides: Sequence[str]) -> list[Point]:
    """The validations of one training, in a process of its own; tells each on standard error."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, loop, folder, limit, overrides))
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


def _send(sender: Connection, loop: str, folder: Path, limit: float, overrides: Sequence[str]) -> None:
    kind, _, number = loop.replace("@", ":").partition(":")
    points = (
        septa_points(folder, int(number), limit, overrides)
        if kind == "septa"
        else plain_points(folder, kind, float(number or 1), limit, overrides)
    )
    for point in points:
        sender.send(point)


def septa_points(folder: Path, steps: int, limit: float, overrides: Sequence[str]) -> Iterator[Point]:
    """Train as ``septa train`` does. Validations come at multiples of ten steps, right after a row of training."""
    runtime.prepare()
    from _plain_unet import Point, Watch
    from septa.training.loop import LOG_EVERY
    from septa.training.plan import TrainingRequest
    from septa.training.run import train_steps

    every = LOG_EVERY * math.ceil(steps / 15 / LOG_EVERY)
    steps = every * math.ceil(steps / every)
    asked = (*overrides, f"training.steps={steps}", f"training.validations={steps // every}")
    with tempfile.TemporaryDirectory() as temporary:
        events = train_steps(TrainingRequest(data=folder, output=Path(temporary) / "model.septa", overrides=asked))
        next(events)  # the plan
        watch = Watch()
        mark, (seconds, wall) = watch.mark(), watch.read()
        for row in events:
            assert isinstance(row, dict)
            if "score" in row:
                watch.leave_out(mark)
                yield Point(int(row["step"]), seconds, wall, row["score"])
                if row["step"] == steps or seconds > limit:
                    break
            else:
                mark, (seconds, wall) = watch.mark(), watch.read()


def plain_points(folder: Path, optimizer: str, scale: float, limit: float, overrides: Sequence[str]) -> Iterator[Point]:
    """Train by the plain loop, with the split that septa would make, and nets of the size that it would choose."""
    import torch

    from _plain_unet import Loop
    from septa.data.samples import Examples
    from septa.training.plan import TrainingRequest, plan_recipe

    torch.set_num_threads(1)
    check, choice = plan_recipe(TrainingRequest(data=folder, output=Path("model.septa"), overrides=tuple(overrides)))
    assert check.pairing is not None
    assert check.mapping is not None
    pairs, channels = {pair.name: pair for pair in check.pairing.pairs}, choice.recipe.data.channels or 1
    train, validation = (
        Examples([pairs[name] for name in names], check.mapping, channels=channels, memory=2**31)
        for names in (check.train, check.validation)
    )
    net = choice.recipe.net
    yield from Loop(optimizer, scale, net.width, net.depth, check.mapping.classes).points(train, validation, limit)


def compared(name: str, curves: Mapping[str, Sequence[Point]], scores: Sequence[float], limit: float) -> Table:
    """Seconds to each score and their ratios, the best score, and the time of it all."""
    plain = [points for loop, points in curves.items() if not loop.startswith("septa")]
    best = {score: min((reached(points, score) for points in plain), default=math.inf) for score in scores}
    table = Table(name, "steps", "best score", "processor s", "wall s")
    for score in scores:
        table.add_column(f"s to {score:g}", justify="right")
        table.add_column("ratio", justify="right")
    for loop, points in curves.items():
        last = points[-1]
        cells = [loop, str(last.step), f"{max(point.score for point in points):.4f}"]
        cells += [f"{last.seconds:.0f}", f"{last.wall:.0f}"]
        for score in scores:
            seconds = reached(points, score)
            beside = f"{seconds / best[score]:.2f}" if best[score] < math.inf else f"< {seconds / limit:.2f}"
            cells += [f"{seconds:.1f}", beside] if seconds < math.inf else ["-", "-"]
        table.add_row(*cells)
    return table


def reached(points: Sequence[Point], score: float) -> float:
    """Processor seconds until the first validation with this score; infinite where none has it."""
    return next((point.seconds for point in points if point.score >= score), math.inf)


if __name__ == "__main__":
    main()
