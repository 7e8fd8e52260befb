"""The border weight map against the formula taken at its word: a distance transform of the whole image for each cell.

Draws 50, 200 and 1000 touching round cells on 512 x 512 pixels and prints, on one core and in processor time, the
milliseconds of both ways and their ratio, the largest difference, septa's peak memory and the time of the seams' cut:
``python benchmarks/border_weights.py [--size 512] [--cells 50 200 1000] [--repeats 20]``.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy import ndimage, spatial

from septa.tasks.border_weights import border_weights, cut_seams

W0, SIGMA = 10.0, 5.0


def main() -> None:
    """Measure, print a table; exit code 1 if a weight differs by more than 1e-5."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--cells", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()

    console = Console()
    start = time.perf_counter()
    border_weights(np.eye(3, dtype=np.int32))
    console.print(f"the first call of the process: {time.perf_counter() - start:.2f} s (import of numba, compilation)")
    title = f"{arguments.size} x {arguments.size} pixels, w0 = {W0:g}, sigma = {SIGMA:g}"
    columns = ("cells", "formula, ms", "septa, ms", "ratio", "difference", "septa, MB", "seams, ms")
    table = Table(*columns, title=title)
    worst = 0.0
    for count in arguments.cells:
        labels_yx = cut_seams(pressed_discs(count, arguments.size))
        slow, expected_yx = best_of(1 if count > 200 else 3, by_the_formula, labels_yx)
        fast, found_yx = best_of(arguments.repeats, border_weights, labels_yx)
        cut, _ = best_of(arguments.repeats, cut_seams, labels_yx)
        difference = float(np.abs(found_yx - expected_yx).max())
        worst = max(worst, difference)
        row = (f"{1e3 * slow:.0f}", f"{1e3 * fast:.1f}", f"{slow / fast:.0f}", f"{difference:.1g}")
        table.add_row(str(count), *row, f"{peak_memory(labels_yx) / 1e6:.1f}", f"{1e3 * cut:.2f}")
    console.print(table)
    raise SystemExit(int(worst > 1e-5))


def pressed_discs(count: int, size: int) -> npt.NDArray[np.int32]:
    """Discs around random points that share out the image where they would overlap; they cover about half of it."""
    points = np.random.default_rng(0).uniform(0, size, (count, 2))
    pixels = np.indices((size, size)).reshape(2, -1).T
    distance, nearest = spatial.cKDTree(points).query(pixels)
    labels = np.where(distance < 0.55 * size / np.sqrt(count), nearest + 1, 0)
    return labels.reshape(size, size).astype(np.int32)


def by_the_formula(labels_yx: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Equation 2's second term: all distances of all cells, sorted, the two smallest taken."""
    ids = [value for value in np.unique(labels_yx) if value > 0]
    distances_nyx = np.stack([ndimage.distance_transform_edt(labels_yx != value) for value in ids])
    distances_nyx.sort(axis=0)
    total_yx = distances_nyx[0] + distances_nyx[1]
    return np.asarray(W0 * np.exp(-(total_yx**2) / (2 * SIGMA**2)))


def best_of(
    repeats: int, work: Callable[[npt.NDArray[np.int32]], Any], labels_yx: npt.NDArray[np.int32]
) -> tuple[float, Any]:
    """Least processor time of this thread, seconds, which other load hardly touches, and the result."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        result = work(labels_yx)
        times.append(time.thread_time() - start)
    return min(times), result


def peak_memory(labels_yx: npt.NDArray[np.int32]) -> int:
    """Bytes that the map takes at most, its result included, the labels given not."""
    tracemalloc.start()
    border_weights(labels_yx, w0=W0, sigma=SIGMA)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
