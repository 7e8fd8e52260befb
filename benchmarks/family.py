"""Train every network of the family for equal minutes on the same data; compare parameters, speed and Dice.

Usage: ``python benchmarks/family.py ISBI GLAS --minutes 2``.

The networks are trained one after the other on the task ``semantic``, with the automatic recipe and width 16. The
script writes a Markdown table to standard output and the models to ``--output``. An existing model is not trained
again, so an interrupted run can be resumed. The machine should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from septa.model import Model
from septa.runtime import prepare

MEMBERS = {
    "U-Net": (),
    "U-Net, bilinear": ("net.up=bilinear",),
    "U-Net, valid (the paper's)": ("net.padding=valid",),
    "U-Net, deep supervision": ("net.deep_supervision=true",),
    "ResUNet": ("net.block=residual",),
    "U-Net + squeeze-and-excitation": ("net.squeeze=true",),
    "Attention U-Net": ("net.attention=true",),
    "U-Net++": ("net.nested=true",),
    "U-Net++, deep supervision": ("net.nested=true", "net.deep_supervision=true"),
    "ResUNet++": ("net.block=residual", "net.squeeze=true", "net.attention=true", "net.aspp=true"),
    "ResNet-18 encoder, random weights": ("net.encoder=resnet18",),
    "ResNet-34 encoder, random weights": ("net.encoder=resnet34",),
}
COMMON = ("net.width=16", "task=semantic")
SIDE = 1024
"""Height and width of the image for the speed of inference, pixels."""


def load_or_train(data: Path, settings: tuple[str, ...], minutes: float, output: Path) -> Model:
    """Load the model at ``output``; train it first if the file does not exist."""
    if not output.is_file():
        options = [part for setting in (*COMMON, *settings) for part in ("--set", setting)]
        command = [sys.executable, "-m", "septa", "train", str(data), "-o", str(output), "--overwrite", *options]
        subprocess.run([*command, "--minutes", str(minutes)], check=True, stdout=subprocess.DEVNULL)
    return Model.load(output)


def read_training_speed(folder: Path) -> float:
    """Return the training samples per second, as the median over the rows of the log."""
    with (folder / "log.csv").open() as file:
        rates = [float(row["images_per_s"]) for row in csv.DictReader(file) if row.get("images_per_s")]
    return median(rates)


def measure_inference_speed(model: Model) -> float:
    """Return the megapixels per second for one image of `SIDE` x `SIDE` pixels, the best of three runs."""
    image_cyx = np.random.default_rng(0).integers(0, 255, (model.channels, SIDE, SIDE), dtype=np.uint8)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        model.segment(image_cyx, device="cpu")
        times.append(time.perf_counter() - begin)
    return SIDE**2 / 1e6 / min(times)


def main() -> None:
    """Train the networks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="folders of images and labels")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of each training")
    parser.add_argument("--output", type=Path, default=Path("family"), help="folder of the models")
    arguments = parser.parse_args()
    prepare()
    torch.manual_seed(0)
    names = [data.resolve().name for data in arguments.data]
    columns = [f"{name}: {figure}" for name in names for figure in ("Dice", "samples/s", "MP/s")]
    print("| network | parameters | exact tiles |", " | ".join(columns), "|")
    print("|---|---|---|" + "---|" * len(columns), flush=True)
    for member, settings in MEMBERS.items():
        cells = []
        for name, data in zip(names, arguments.data):
            slug = "".join(letter if letter.isalnum() else "_" for letter in member)
            path = arguments.output / name / f"{slug}.septa"
            model = load_or_train(data, settings, arguments.minutes, path)
            rate = read_training_speed(path.with_name(f"{path.stem}-run"))
            speed = measure_inference_speed(model)
            cells += [f"{model.provenance['scores']['dice']:.4f}", f"{rate:.1f}", f"{speed:.2f}"]
        parameters = sum(value.numel() for value in model.net.parameters())
        exact = "yes" if model.net.exact_tiles else "no"
        print(f"| {member} | {parameters:,} | {exact} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
