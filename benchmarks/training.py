"""Compare the speed of training in septa and in a plain PyTorch loop: images/s and the factors that limit them.

Usage: ``python benchmarks/training.py [--widths 16 32] [--batches 1 4] [--size 512] [--seconds 15] [--rounds 2]``.

All rows train the padded U-Net of depth 4 with batch norm on two classes, with cross entropy and Adam, on patches of
synthetic cells. Each row runs in a process of its own. The rows take turns for several rounds. The median step of a
row's best round counts.

- ``plain``: eager PyTorch with its defaults: float32, contiguous arrays, no allocator settings, and a `DataLoader`
  with one worker process that only crops and flips.
- ``septa``: the loop of ``septa train`` (`train_steps`) with its defaults: process set-up, channels last, warping and
  jittering of every patch, gradient clipping, and a moving average of the weights. This row uses float32.
- ``automatic``: the same in the precision that the automatic recipe chooses on this machine.
- ``unprepared``: the same as ``automatic`` without the process set-up, as with ``septa --no-prepare``.

The GFLOP/s count two operations for each multiply-add of a convolution. The peak is the fastest matrix product in the
same precision, measured in every round. The column "convolutions" is their share of the time of all operators.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from _machine import measure_matrix_peak, time_fastest
from septa import runtime

ROWS = ("plain", "septa", "automatic", "unprepared")
IMAGES = 8
SIDE = 768
"""Height and width of an image, pixels."""


def main() -> None:
    """Measure the rows and print a table for each width and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32], help="channels of the first level")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="patches per batch")
    parser.add_argument("--size", type=int, default=512, help="height and width of a patch, pixels")
    parser.add_argument("--seconds", type=float, default=15, help="length of a measurement after a warm-up step")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each row; the best counts")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="loops to measure")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(json.dumps(measure(json.loads(arguments.row))))
        return
    automatic = run_child({"loop": "precision"})["amp"]
    for width in arguments.widths:
        for batch in arguments.batches:
            with tempfile.TemporaryDirectory() as folder:
                common = {"data": folder, "size": arguments.size, "seconds": arguments.seconds}
                common |= {"width": width, "batch": batch}
                rows = {name: common | {"loop": name, "amp": "off"} for name in arguments.rows}
                for name in {"automatic", "unprepared"} & rows.keys():
                    rows[name]["amp"] = automatic
                Console(width=140).print(make_table(rows, arguments.rounds))


def make_table(rows: dict[str, dict[str, Any]], rounds: int) -> Table:
    """Measure the loops and make a table with one line for each."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    peaks: dict[str, float] = {}
    for _ in range(rounds):
        for amp in {row["amp"] for row in rows.values()}:
            peaks[amp] = max(peaks.get(amp, 0.0), run_child({"loop": "peak", "amp": amp})["gflops"])
        for name, row in rows.items():
            found[name].append(run_child(row))
    best = {name: min(each, key=lambda one: float(one["seconds"])) for name, each in found.items()}
    base = next(iter(best.values()))["seconds"]
    width, batch, size = (next(iter(rows.values()))[key] for key in ("width", "batch", "size"))
    table = Table(f"width {width}, batch {batch}, {size} x {size}")
    for header in (
        "s per step",
        "images/s",
        "speed-up",
        "GFLOP/s",
        "share of peak",
        "convolutions",
        "waiting for data",
    ):
        table.add_column(header, justify="right")
    for name, one in best.items():
        seconds, amp = one["seconds"], rows[name]["amp"]
        gflops = batch * one["gflop"] / seconds
        table.add_row(
            f"{name}, {'float32' if amp == 'off' else amp}",
            f"{seconds:.3f}",
            f"{batch / seconds:.2f}",
            f"{base / seconds:.2f}",
            f"{gflops:.0f}",
            f"{gflops / peaks[amp]:.0%} of {peaks[amp]:.0f}",
            f"{one['convolutions']:.0%}",
            f"{one['waiting']:.0%}",
        )
    return table


def run_child(row: dict[str, Any]) -> dict[str, Any]:
    """Measure a row in a new process, so that nothing is loaded before."""
    command = [sys.executable, __file__, "--row", json.dumps(row)]
    quiet = os.environ | {"KINETO_LOG_LEVEL": "99"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(row: dict[str, Any]) -> dict[str, Any]:
    """Measure a row in this process."""
    if row["loop"] not in ("plain", "unprepared"):
        runtime.prepare()
    if row["loop"] == "peak":
        return {"gflops": measure_peak(row["amp"])}
    if row["loop"] == "precision":
        from septa.training.automatic import resolve_amp

        return {"amp": resolve_amp("auto", str(runtime.pick_device()))[0]}
    write_cells(Path(row["data"]))
    steps = plain_steps(row) if row["loop"] == "plain" else septa_steps(row)
    return time_steps(steps, row)


def time_steps(steps: Iterator[float], row: dict[str, Any]) -> dict[str, Any]:
    """Measure the median seconds of a step, and the share of convolutions in one more step.

    Each item of ``steps`` is the share of the step that it waited for data.
    """
    import numpy as np
    from torch.profiler import profile

    next(steps)
    seconds: list[float] = []
    waited = []
    began = time.perf_counter()
    while len(seconds) < 2 or time.perf_counter() - began < row["seconds"]:
        before = time.perf_counter()
        waited.append(next(steps))
        seconds.append(time.perf_counter() - before)
    with profile() as recorder:
        next(steps)
    spent = {event.key: event.self_cpu_time_total + event.self_device_time_total for event in recorder.key_averages()}
    convolutions = sum(value for key, value in spent.items() if "convolution" in key)
    found = {"seconds": float(np.median(seconds)), "gflop": count_gflop(row["width"], row["size"])}
    return found | {"convolutions": convolutions / sum(spent.values()), "waiting": float(np.mean(waited))}


def septa_steps(row: dict[str, Any]) -> Iterator[float]:
    """Run the steps of ``septa train``; yield the share of each step that it waited for data."""
    from septa.training import TrainingRequest, loop, train_steps

    loop.LOG_EVERY = 1
    settings = (
        "task=semantic",
        f"net.width={row['width']}",
        "net.depth=4",
        "net.reduction=1",
        f"sampling.patch=[{row['size']}, {row['size']}]",
        "loss.dice=0",
        "loss.cross_entropy=1",
        f"training.batch={row['batch']}",
        f"training.amp='{row['amp']}'",
        "training.optimizer=adam",
        "training.validations=1",
        "training.steps=100000",
    )
    data = Path(row["data"])
    for event in train_steps(TrainingRequest(data=data, output=data / "x.septa", overrides=settings, overwrite=True)):
        if isinstance(event, dict):
            yield event["data_wait"]


def plain_steps(row: dict[str, Any]) -> Iterator[float]:
    """Run the steps of a plain loop; yield the share of each step that it waited for data."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from septa.nets import UNet

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = UNet(1, 2, depth=4, width=row["width"]).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    loader = DataLoader(Crops(Path(row["data"]), row["size"]), batch_size=row["batch"], shuffle=True, num_workers=1)
    batches = iter(loader)
    while True:
        began = time.perf_counter()
        images, labels = next(batches)
        waited = time.perf_counter() - began
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(net(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        yield waited / (time.perf_counter() - began)


class Crops:
    """Data set of random patches, flipped at random; it keeps the decoded images in memory."""

    def __init__(self, data: Path, size: int) -> None:
        from septa.images import read_image

        self.size = size
        names = sorted(path.name for path in (data / "images").iterdir())
        self.images = [read_image(data / "images" / name) for name in names]
        self.labels = [read_image(data / "labels" / name)[0] for name in names]

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import numpy as np

        image_cyx, labels_yx = self.images[index % len(self.images)], self.labels[index % len(self.images)]
        rng = np.random.default_rng(index)
        y, x = (rng.integers(side - self.size + 1) for side in labels_yx.shape)
        place = (..., slice(y, y + self.size), slice(x, x + self.size))
        patch_cyx, target_yx = image_cyx[place] / np.float32(255), (labels_yx[place] > 0).astype(np.int64)
        if rng.random() < 0.5:
            patch_cyx, target_yx = patch_cyx[..., ::-1], target_yx[..., ::-1]
        return np.array(patch_cyx, np.float32), np.array(target_yx)


def write_cells(data: Path) -> None:
    """Write the images of all rows, if they do not exist."""
    from septa.synthetic import write_dataset

    if not (data / "images").exists():
        write_dataset(data, "cells", IMAGES, (SIDE, SIDE), 0)


def count_gflop(width: int, size: int) -> float:
    """Count 1e9 operations of one image in a step.

    The backward pass counts twice the forward pass, without the gradient of the image itself.
    """
    from septa.describe.layers import trace_layers
    from septa.nets import UNet

    layers = trace_layers(UNet(1, 2, depth=4, width=width), size, size).layers
    return (3 * sum(layer.flops for layer in layers) - layers[0].flops) / 1e9


def measure_peak(amp: str) -> float:
    """Return the GFLOP/s of the fastest product of two matrices in a precision."""
    import torch

    device = runtime.pick_device()
    if amp == "off" and device.type == "cpu":
        return measure_matrix_peak()[0]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[amp]
    a, b = (torch.randn(2048, 2048, device=device).to(dtype) for _ in range(2))
    return 2 * 2048**3 / time_fastest(lambda: float((a @ b)[0, 0]), 0.5) / 1e9


if __name__ == "__main__":
    main()
