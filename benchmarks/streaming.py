"""Segment slides of any size in a fixed memory budget: peak memory, speed, and accuracy of the objects.

Usage: ``python benchmarks/streaming.py MODEL [--sizes 8192 16384 32768] [--memory 1GB] [--folder streaming]``.

The script draws synthetic slides, segments each with ``septa predict MODEL SLIDE -o LABELS --memory 1GB`` in a process
of its own, and prints a table. It also prints the error of the object count on small images of the same kind, which are
not divided into blocks. F1 (IoU 0.5) is measured in windows at corners of blocks and in windows inside blocks. Train
MODEL on the images that ``python benchmarks/slide.py training -o DIR`` writes. Existing slides are not drawn again;
labels are always computed again. Memory is read from /proc, so the script runs on Linux only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from septa.metrics import pool, score_objects
from slide import count_nuclei, draw_labels, write_slide, write_training_set

WINDOW = 512
"""Height and width of a window in which objects are matched, pixels."""
SMALL_IMAGES = 8
SMALL_SIDE = 1024
SMALL_SEED = 1_000_000
INTERVAL = 0.02
"""Seconds between two readings of a process's memory."""


@dataclass(frozen=True)
class Run:
    """A finished process: its seconds, its peak resident memory in bytes, and its output."""

    seconds: float
    peak: int
    text: str


def main() -> None:
    """Draw and segment the slides, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model of the task instances")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[8192, 16384, 32768], help="sides of the slides, pixels"
    )
    parser.add_argument("--memory", default="1GB", help="memory budget of septa predict, such as 1GB")
    parser.add_argument("--block", type=int, default=2048, help="side of septa's blocks, pixels")
    parser.add_argument("--seed", type=int, default=0, help="number from which the slides are drawn")
    parser.add_argument("--folder", type=Path, default=Path("streaming"), help="folder of slides and labels")
    arguments = parser.parse_args()
    console = Console()
    small_error, small_f1 = evaluate_small_images(arguments.model)
    small = f"{SMALL_IMAGES} images of {SMALL_SIDE} x {SMALL_SIDE}"
    console.print(f"{small}: error of the count {small_error:+.2%}, F1 {small_f1:.4f}", highlight=False)
    columns = (
        "side",
        "MP",
        "seconds",
        "MP/s",
        "peak, MB",
        "predicted objects",
        "true objects",
        "error",
        "F1 at corners",
        "F1 inside",
    )
    table = Table(*columns, title=f"--memory {arguments.memory}")
    for side in arguments.sizes:
        slide, output = (arguments.folder / f"{kind}-{side}.ome.zarr" for kind in ("slide", "labels"))
        if not slide.exists():
            slide.parent.mkdir(parents=True, exist_ok=True)
            write_slide(slide, side, side, arguments.seed)
        # Without its output, septa predict cannot resume an earlier run.
        shutil.rmtree(output, ignore_errors=True)
        run = run_septa("predict", str(arguments.model), str(slide), "-o", str(output), "--memory", arguments.memory)
        labels = open_labels(output)
        found = count_objects(labels)
        true = count_nuclei(side, side, arguments.seed)
        f1 = [score_windows(labels, places, arguments.seed) for places in sample_windows(side, arguments.block)]
        row = [f"{side**2 / 1e6:.0f}", f"{run.seconds:.0f}", f"{side**2 / 1e6 / run.seconds:.2f}"]
        row += [f"{run.peak / 1e6:.0f}", str(found), str(true), f"{found / true - 1:+.2%}"]
        table.add_row(str(side), *row, *("-" if value is None else f"{value:.4f}" for value in f1))
    console.print(table)


def run_septa(*arguments: str) -> Run:
    """Run ``septa`` in a process of its own; exit with its exit code if it fails.

    The peak is the kernel's high-water mark of that process alone, read until it ends. ``getrusage`` is not used, as it
    includes the memory that this process held when it started the other one.
    """
    begin = time.perf_counter()
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, "-m", "septa", *arguments], stdout=output)
        while process.poll() is None:
            peak = max(peak, read_peak_memory(process.pid))
            time.sleep(INTERVAL)
        seconds = time.perf_counter() - begin
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(process.returncode)
    return Run(seconds, peak, text)


def read_peak_memory(process: int) -> int:
    """Return the peak resident memory of a running process in bytes; 0 if it has ended or the system has no /proc."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def evaluate_small_images(model: Path) -> tuple[float, float]:
    """Return the relative error of the object count and the F1 at IoU 0.5 on small, unseen images."""
    with tempfile.TemporaryDirectory() as folder:
        data, scores = Path(folder) / "data", Path(folder) / "scores.json"
        write_training_set(data, SMALL_IMAGES, SMALL_SIDE, SMALL_SEED)
        run_septa("evaluate", str(model), str(data), "--all", "--json", str(scores))
        objects = [image.get("objects") for image in json.loads(scores.read_text())["images"]]
    if None in objects:
        problem = "this model was not trained for the task instances"
        remedy = "Train one on the images that benchmarks/slide.py training writes"
        raise SystemExit(f"error: {model}: {problem}. {remedy}.")
    true, found = (sum(one[f"{side}_count"] for one in objects) for side in ("truth", "prediction"))
    return found / true - 1, 2 * sum(one["tp"][0] for one in objects) / (true + found)


def open_labels(output: Path) -> Any:
    """Open the full-size labels in a store of ``septa predict``: a zarr array whose last axes are ``YX``."""
    import zarr

    labels: Any = zarr.open_group(output, mode="r")["labels"]
    return labels[labels.attrs["ome"]["labels"][0]]["0"]


def read_window(labels: Any, y0: int, y1: int, x0: int, x1: int) -> np.ndarray[Any, Any]:
    """Read a window of the labels, axes ``YX``."""
    window = np.asarray(labels[..., y0:y1, x0:x1])
    return window.reshape(window.shape[-2:])


def count_objects(labels: Any) -> int:
    """Count the ids of the labels, shard by shard."""
    height, width = labels.shape[-2:]
    step_y, step_x = (labels.shards or labels.chunks)[-2:]
    seen = np.zeros(1, bool)
    for y in range(0, height, step_y):
        for x in range(0, width, step_x):
            ids = np.unique(read_window(labels, y, min(y + step_y, height), x, min(x + step_x, width)))
            if ids[-1] >= len(seen):
                seen = np.pad(seen, (0, int(ids[-1]) + 1 - len(seen)))
            seen[ids] = True
    return int(np.count_nonzero(seen[1:]))


def sample_windows(side: int, block: int, most: int = 16) -> Iterator[Sequence[tuple[int, int]]]:
    """Yield the first rows and columns of windows around corners of blocks, then of windows in the middle of blocks."""
    random = np.random.default_rng(0)
    for first in (block, block // 2):
        lines = np.arange(first, side - WINDOW // 2, block) - WINDOW // 2
        places = [(int(y), int(x)) for y in lines for x in lines if min(y, x) >= 0]
        yield [places[index] for index in random.permutation(len(places))[:most]]


def score_windows(labels: Any, places: Sequence[tuple[int, int]], seed: int) -> float | None:
    """Return the pooled F1 at IoU 0.5 of the objects in windows; None without windows."""
    scores = []
    for y, x in places:
        window = y, y + WINDOW, x, x + WINDOW
        scores.append(score_objects(draw_labels(*window, seed), read_window(labels, *window).astype(np.int64)))
    return float(pool(scores)["pooled"]["f1"][0]) if scores else None


if __name__ == "__main__":
    main()
