"""Measure the time to score the objects of one image at ten IoU thresholds: septa against stardist and cellpose.

Usage: ``python benchmarks/matching.py [--size 1024] [--objects 1000] [--repeats 20]``.

The script prints the median milliseconds of processor time and checks that all libraries find the same counts. For each
library that is not installed, it prints the command that installs it.
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

from septa.metrics import contingency, score_glands, score_objects
from septa.metrics.objects import IOU_THRESHOLDS

INSTALL = {
    "stardist": "pip install --no-deps stardist csbdeep tqdm six numba llvmlite",
    "cellpose": "pip install 'cellpose<4'",
}
Labels = np.ndarray[Any, np.dtype[np.int32]]


def main() -> None:
    """Measure and print a table; exit with code 1 if the counts of a library differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="height and width of the image, pixels")
    parser.add_argument("--objects", type=int, default=1000, help="number of objects in the ground truth")
    parser.add_argument("--repeats", type=int, default=20, help="runs of each function")
    arguments = parser.parse_args()
    truth, prediction = draw_objects(arguments.size, arguments.objects)
    gappy = [labels.astype(np.int64) * 1_000_003 for labels in (truth, prediction)]

    table = Table("function", "ms", title=f"{arguments.objects} objects on {arguments.size} x {arguments.size}")
    expected = score_objects(truth, prediction).tp
    differ = False
    rows: dict[str, Callable[[], Any]] = {
        "septa contingency": lambda: contingency(truth, prediction),
        "septa score_objects": lambda: score_objects(truth, prediction),
        "septa score_objects, ids up to 1e9": lambda: score_objects(*gappy),
        "septa score_glands": lambda: score_glands(truth, prediction),
    }
    for name, function in rows.items():
        table.add_row(name, f"{time_function(function, arguments.repeats):.1f}")
    for name, peer in (("stardist", load_stardist()), ("cellpose", load_cellpose())):
        if peer is None:
            table.add_row(name, f"not installed. Run {INSTALL[name]}")
            continue
        differ |= peer(truth, prediction) != expected
        table.add_row(name, f"{time_function(partial(peer, truth, prediction), min(5, arguments.repeats)):.1f}")
    Console().print(table)
    raise SystemExit(int(differ))


def draw_objects(size: int, count: int) -> tuple[Labels, Labels]:
    """Draw touching cells as ground truth, and a prediction of them; ids have no gaps.

    The prediction is the ground truth moved by a few pixels, without every 17th object.
    """
    rng = np.random.default_rng(0)
    seeds = np.zeros((size, size), np.int32)
    places = rng.choice(size * size, count, replace=False)
    seeds.flat[places] = np.arange(1, count + 1)
    distance, (y, x) = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    truth = np.where(distance < 0.47 * size / count**0.5, seeds[y, x], 0)
    prediction = np.roll(truth, (2, 3), (0, 1))
    prediction[prediction % 17 == 0] = 0
    return truth, np.unique(prediction, return_inverse=True)[1].reshape(size, size).astype(np.int32)


def time_function(function: Callable[[], Any], repeats: int) -> float:
    """Return the median milliseconds of processor time over the repeats, after a warm-up run that compiles."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times)


def load_stardist() -> Callable[[Labels, Labels], tuple[int, ...]] | None:
    """Load the function that counts true positives in stardist; None if stardist is not installed.

    Only the file matching.py is loaded, because the package needs compiled code and tensorflow.
    """
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


def load_cellpose() -> Callable[[Labels, Labels], tuple[int, ...]] | None:
    """Load the function that counts true positives in cellpose; None if cellpose is not installed."""
    try:
        from cellpose import metrics
    except ImportError:
        return None
    return lambda truth, prediction: tuple(
        int(tp) for tp in metrics.average_precision(truth, prediction, list(IOU_THRESHOLDS))[1]
    )


if __name__ == "__main__":
    main()
