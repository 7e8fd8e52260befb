"""Time to score the objects of one image at ten IoU thresholds: septa against stardist and cellpose.

``python benchmarks/matching.py [--size 1024] [--objects 1000] [--repeats 20]`` prints median milliseconds of
processor time, and checks that all count the same. Peers that are not installed are named with the command that
installs them.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from septa.metrics.glands import score_glands
from septa.metrics.objects import IOU_THRESHOLDS, score_objects
from septa.metrics.overlaps import contingency

INSTALL = {
    "stardist": "pip install --no-deps stardist csbdeep tqdm six numba llvmlite",
    "cellpose": "pip install 'cellpose<4'",
}
Labels = np.ndarray[Any, np.dtype[np.int32]]


def main() -> None:
    """Measure and print a table; exit code 1 if a peer counts differently."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    truth, prediction = draw(arguments.size, arguments.objects)
    gappy = [labels.astype(np.int64) * 1_000_003 for labels in (truth, prediction)]

    table = Table("what", "ms", title=f"{arguments.objects} objects on {arguments.size} x {arguments.size}")
    expected = score_objects(truth, prediction).tp
    differ = False
    rows: dict[str, Callable[[], Any]] = {
        "septa contingency": lambda: contingency(truth, prediction),
        "septa score_objects": lambda: score_objects(truth, prediction),
        "septa score_objects, ids up to 1e9": lambda: score_objects(*gappy),
        "septa score_glands": lambda: score_glands(truth, prediction),
    }
    for name, function in rows.items():
        table.add_row(name, f"{milliseconds(function, arguments.repeats):.1f}")
    for name, peer in (("stardist", stardist_counts()), ("cellpose", cellpose_counts())):
        if peer is None:
            table.add_row(name, f"not installed: {INSTALL[name]}")
            continue
        differ |= peer(truth, prediction) != expected
        table.add_row(name, f"{milliseconds(partial(peer, truth, prediction), min(5, arguments.repeats)):.1f}")
    Console().print(table)
    raise SystemExit(int(differ))


def draw(size: int, count: int) -> tuple[Labels, Labels]:
    """Cells that touch, and the same moved by a few pixels with every 17th lost; ids without gaps."""
    rng = np.random.default_rng(0)
    seeds = np.zeros((size, size), np.int32)
    places = rng.choice(size * size, count, replace=False)
    seeds.flat[places] = np.arange(1, count + 1)
    distance, (y, x) = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    truth = np.where(distance < 0.47 * size / count**0.5, seeds[y, x], 0)
    prediction = np.roll(truth, (2, 3), (0, 1))
    prediction[prediction % 17 == 0] = 0
    return truth, np.unique(prediction, return_inverse=True)[1].reshape(size, size).astype(np.int32)


def milliseconds(function: Callable[[], Any], repeats: int) -> float:
    """Median processor time over the repeats, after one run that compiles what there is to compile."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times)


def stardist_counts() -> Callable[[Labels, Labels], tuple[int, ...]] | None:
    """True positives by stardist's matching.py, loaded by itself: its package needs compiled code and tensorflow."""
    package = importlib.util.find_spec("stardist")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("csbdeep") is None:
        return None
    path = Path(next(iter(package.submodule_search_locations)), "matching.py")
    spec = importlib.util.spec_from_file_location("_matching", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda truth, prediction: tuple(
        int(one.tp) for one in module.matching(truth, prediction, thresh=IOU_THRESHOLDS)
    )


def cellpose_counts() -> Callable[[Labels, Labels], tuple[int, ...]] | None:
    """True positives by cellpose."""
    try:
        from cellpose import metrics
    except ImportError:
        return None
    return lambda truth, prediction: tuple(
        int(tp) for tp in metrics.average_precision(truth, prediction, list(IOU_THRESHOLDS))[1]
    )


if __name__ == "__main__":
    main()
