"""Every member of the family, trained for equal minutes on the same data: parameters, speed and Dice.

``python benchmarks/family.py ISBI GLAS --minutes 2`` trains each on classes of pixels with the automatic recipe and
width 16, one after the other, and writes a table (Markdown) to standard output. Models go to ``--output``; a member
that is there already is not trained again, so that an interrupted run goes on. The machine should do nothing else
meanwhile.
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


def trained(data: Path, settings: tuple[str, ...], minutes: float, output: Path) -> Model:
    """The model at ``output``, trained first if it is not there."""
    if not output.is_file():
        options = [part for setting in (*COMMON, *settings) for part in ("--set", setting)]
        command = [sys.executable, "-m", "septa", "train", str(data), "-o", str(output), "--overwrite", *options]
        subprocess.run([*command, "--minutes", str(minutes)], check=True, stdout=subprocess.DEVNULL)
    return Model.load(output)


def training_speed(folder: Path) -> float:
    """Training samples per second, median over the rows of the log."""
    with (folder / "log.csv").open() as file:
        rates = [float(row["images_per_s"]) for row in csv.DictReader(file) if row.get("images_per_s")]
    return median(rates)


def inference_speed(model: Model) -> float:
    """Megapixels per second of one image of `SIDE` x `SIDE` pixels, the best of three."""
    image_cyx = np.random.default_rng(0).integers(0, 255, (model.channels, SIDE, SIDE), dtype=np.uint8)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        model.segment(image_cyx, device="cpu")
        times.append(time.perf_counter() - begin)
    return SIDE**2 / 1e6 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="+", help="folders of images and labels")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each training")
    parser.add_argument("--output", type=Path, default=Path("family"), help="folder for the models")
    arguments = parser.parse_args()
    prepare()
    torch.manual_seed(0)
    names = [data.resolve().name for data in arguments.data]
    columns = [f"{name}: {what}" for name in names for what in ("Dice", "samples/s", "MP/s")]
    print("| member | parameters | exact tiles |", " | ".join(columns), "|")
    print("|---|---|---|" + "---|" * len(columns), flush=True)
    for member, settings in MEMBERS.items():
        cells = []
        for name, data in zip(names, arguments.data):
            slug = "".join(letter if letter.isalnum() else "_" for letter in member)
            path = arguments.output / name / f"{slug}.septa"
            model = trained(data, settings, arguments.minutes, path)
            rate = training_speed(path.with_name(f"{path.stem}-run"))
            cells += [f"{model.provenance['scores']['dice']:.4f}", f"{rate:.1f}", f"{inference_speed(model):.2f}"]
        parameters = sum(value.numel() for value in model.net.parameters())
        exact = "yes" if model.net.exact_tiles else "no"
        print(f"| {member} | {parameters:,} | {exact} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
