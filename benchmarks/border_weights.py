"""Compare septa's border weight map with a direct implementation of the paper's equation 2.

Usage: ``python benchmarks/border_weights.py [--size 512] [--cells 50 200 1000] [--repeats 20]``.

The direct implementation computes a distance transform of the whole image for each cell. The script draws 50, 200 and
1000 touching round cells on 512 x 512 pixels. It prints the milliseconds of both implementations and their ratio, the
largest difference, septa's peak memory, and the time to cut the seams. All times are processor time on one core.
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

from septa.losses import border_weights, cut_seams

W0 = 10.0
SIGMA = 5.0


def main() -> None:
    """Measure and print a table; exit with code 1 if a weight differs by more than 1e-5."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width of the image, pixels")
    parser.add_argument("--cells", type=int, nargs="+", default=[50, 200, 1000], help="numbers of cells to draw")
    parser.add_argument("--repeats", type=int, default=20, help="runs of septa's functions; the fastest counts")
    arguments = parser.parse_args()

    console = Console()
    start = time.perf_counter()
    border_weights(np.eye(3, dtype=np.int32))
    console.print(f"first call in the process: {time.perf_counter() - start:.2f} s (imports numba and compiles)")
    title = f"{arguments.size} x {arguments.size} pixels, w0 = {W0:g}, sigma = {SIGMA:g}"
    columns = ("cells", "direct, ms", "septa, ms", "ratio", "difference", "septa, MB", "seams, ms")
    table = Table(*columns, title=title)
    worst = 0.0
    for count in arguments.cells:
        labels_yx = cut_seams(draw_touching_discs(count, arguments.size))
        slow, expected_yx = time_best(1 if count > 200 else 3, compute_directly, labels_yx)
        fast, found_yx = time_best(arguments.repeats, border_weights, labels_yx)
        cut, _ = time_best(arguments.repeats, cut_seams, labels_yx)
        difference = float(np.abs(found_yx - expected_yx).max())
        worst = max(worst, difference)
        row = (f"{1e3 * slow:.0f}", f"{1e3 * fast:.1f}", f"{slow / fast:.0f}", f"{difference:.1g}")
        table.add_row(str(count), *row, f"{measure_peak_memory(labels_yx) / 1e6:.1f}", f"{1e3 * cut:.2f}")
    console.print(table)
    raise SystemExit(int(worst > 1e-5))


def draw_touching_discs(count: int, size: int) -> npt.NDArray[np.int32]:
    """Draw discs around random points; each pixel of an overlap goes to the nearest point.

    The discs cover about half of the image.
    """
    points = np.random.default_rng(0).uniform(0, size, (count, 2))
    pixels = np.indices((size, size)).reshape(2, -1).T
    distance, nearest = spatial.cKDTree(points).query(pixels)
    labels = np.where(distance < 0.55 * size / np.sqrt(count), nearest + 1, 0)
    return labels.reshape(size, size).astype(np.int32)


def compute_directly(labels_yx: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Compute the second term of equation 2 from the two smallest of the distances to all cells."""
    ids = [value for value in np.unique(labels_yx) if value > 0]
    distances_nyx = np.stack([ndimage.distance_transform_edt(labels_yx != value) for value in ids])
    distances_nyx.sort(axis=0)
    total_yx = distances_nyx[0] + distances_nyx[1]
    return np.asarray(W0 * np.exp(-(total_yx**2) / (2 * SIGMA**2)))


def time_best(
    repeats: int, work: Callable[[npt.NDArray[np.int32]], Any], labels_yx: npt.NDArray[np.int32]
) -> tuple[float, Any]:
    """Return the least processor time of this thread, in seconds, and the result of the work.

    Processor time is used because other programs on the machine hardly change it.
    """
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        result = work(labels_yx)
        times.append(time.thread_time() - start)
    return min(times), result


def measure_peak_memory(labels_yx: npt.NDArray[np.int32]) -> int:
    """Return the peak memory of the weight map in bytes; it includes the result, but not the labels."""
    tracemalloc.start()
    border_weights(labels_yx, w0=W0, sigma=SIGMA)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
