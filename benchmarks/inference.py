"""Inference on a CPU: septa's engines beside PyTorch, MONAI and segmentation_models_pytorch, one image at a time.

``python benchmarks/inference.py [--widths 16 32 64] [--size 512] [--rounds 3] [--peers monai=PYTHON]`` runs padded
U-Nets (depth 4, batch norm, random weights) over an image of noise. Every row runs in a process of its own, all with
the same number of threads; rows take turns for some rounds, and of each the best round's median counts:

- PyTorch: the net in eager mode as its author would run it, contiguous (the base, 1.0) and in channels_last.
- septa: its engines, in float32 and, quantised on noise, in 8-bit integers. Their processes are set up as septa's
  command line does (`septa.runtime.prepare`), and so is the row of PyTorch that says so; all others are left alone.
- MONAI: BasicUNet of the same widths with batch norm, which enlarges its last level with twice the channels.
- segmentation_models_pytorch: Unet with a resnet18 and a decoder of the same widths.

The peers' nets differ a little: compare their GFLOP/s too, two for each multiply-add of a convolution. The peak is the
fastest float32 matrix product of the same number of threads, measured in every round; integers may exceed it. Memory
is the most that a process held beyond what it held before the engine was made (Linux). Differences are of logits from
the base's, as a share of the largest. A peer elsewhere than in this interpreter needs torch and numpy beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from _machine import forget_peak, held, matrix_peak

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

Array = np.ndarray[Any, Any]
Run = Callable[[Array], Array]
"""From an image ``CYX`` to logits ``KYX``."""

BASE, PEAK, INT8 = "PyTorch, contiguous", "peak", "septa, openvino int8"
DEPTH, CLASSES, SAMPLES, SAMPLE_SIDE = 4, 2, 16, 256
TORCH_ALONE, FLOATS, INTEGERS = "septa, torch", 2.0, 6.0
TARGETS = {TORCH_ALONE: 1.8, "the fastest in float32": FLOATS, INT8: INTEGERS}
"""How many times as fast as the base septa wants to be."""
INSTALL = {
    "monai": "pip install -c constraints.txt monai",
    "segmentation_models_pytorch": "pip install segmentation-models-pytorch",
}


@dataclass(frozen=True)
class Row:
    """How a row is run: from a width and a folder what executes its net, and that net; whether the net is septa's."""

    make: Callable[[int, Path], tuple[Run, nn.Module]]
    peer: str | None = None
    prepared: bool = False


# The rows, each in a process of its own ------------------------------------------------------------------------------


def unet(width: int) -> Any:
    """septa's net with random weights, always the same, and statistics that matter."""
    import torch

    from septa.nets import UNet

    torch.manual_seed(0)
    net = UNet(1, CLASSES, depth=DEPTH, width=width).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return net


def eager(net: nn.Module, last: bool = False) -> tuple[Run, nn.Module]:
    """A net as plain PyTorch runs it."""
    import torch

    layout = torch.channels_last if last else torch.contiguous_format
    net = net.eval().to(memory_format=layout)  # type: ignore[call-overload]

    def run(image_cyx: Array) -> Array:
        with torch.inference_mode():
            logits: Array = net(torch.from_numpy(image_cyx)[None].contiguous(memory_format=layout))[0].numpy()
        return logits

    return run, net


def septa(engine: str, width: int, folder: Path) -> tuple[Run, nn.Module]:
    """One of septa's engines in float32; graphs are kept from round to round, as they are from command to command."""
    from septa.inference.engines import make_engine

    net = unet(width)
    return make_engine(net, "cpu", engine, key=f"benchmark {width}"), net


def integers(width: int, folder: Path) -> tuple[Run, nn.Module]:
    """What `quantize` made."""
    from septa.inference.int8 import Int8

    net = unet(width)
    graph, weights = ((folder / f"{width}.{part}").read_bytes() for part in ("xml", "bin"))
    return Int8(graph=graph, weights=weights, floats=(), layers=0).engine(net), net


def quantize(width: int, folder: Path) -> None:
    """Quantise the net as ``septa quantize`` does: all but the first layer, here on noise."""
    from septa.quantization.quantizer import Quantizer

    net = unet(width)
    samples = [noise(SAMPLE_SIDE, seed) for seed in range(1, SAMPLES + 1)]
    quantizer = Quantizer(net, samples)
    made = quantizer.make(quantizer.layers[:1])
    (folder / f"{width}.xml").write_bytes(made.graph)
    (folder / f"{width}.bin").write_bytes(made.weights)


def monai(width: int, folder: Path) -> tuple[Run, nn.Module]:
    """The U-Net that MONAI calls basic."""
    nets: Any = importlib.import_module("monai.networks.nets")
    features = (*(width << level for level in range(DEPTH + 1)), width)
    return eager(nets.BasicUNet(2, 1, CLASSES, features, act=("relu", {"inplace": True}), norm="batch"))


def models_pytorch(width: int, folder: Path) -> tuple[Run, nn.Module]:
    """The Unet of segmentation_models_pytorch, whose encoders have widths of their own."""
    models: Any = importlib.import_module("segmentation_models_pytorch")
    channels = tuple(width << level for level in range(DEPTH, -1, -1))
    net = models.Unet("resnet18", encoder_weights=None, decoder_channels=channels, in_channels=1, classes=CLASSES)
    return eager(net)


ROWS = {
    BASE: Row(lambda width, folder: eager(unet(width))),
    "PyTorch, channels_last": Row(lambda width, folder: eager(unet(width), last=True)),
    "PyTorch, channels_last, prepared": Row(lambda width, folder: eager(unet(width), last=True), prepared=True),
    TORCH_ALONE: Row(partial(septa, "torch"), prepared=True),
    "septa, openvino": Row(partial(septa, "openvino"), "openvino", prepared=True),
    "septa, onnxruntime": Row(partial(septa, "onnxruntime"), "onnxruntime", prepared=True),
    INT8: Row(integers, "openvino", prepared=True),
    "MONAI BasicUNet": Row(monai, "monai"),
    "segmentation_models_pytorch, resnet18": Row(models_pytorch, "segmentation_models_pytorch"),
}


def noise(size: int, seed: int) -> Array:
    """A normalised image ``CYX``."""
    return np.random.default_rng(seed).normal(size=(1, size, size)).astype(np.float32)


def work(name: str, width: int, size: int, seconds: float, folder: Path) -> dict[str, Any]:
    """In a process of its own: what a row takes; its logits are left in the folder."""
    row = ROWS.get(name)
    if row is None or row.prepared:
        from septa import runtime

        runtime.prepare()
    if row is None:
        return dict(zip(("gflops", "whose"), matrix_peak(), strict=True))
    try:
        if row.peer is not None:
            importlib.import_module(row.peer)
        import torch  # before memory is looked at

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        image_cyx, before = noise(size, 0), forget_peak()
        run, net = row.make(width, folder)
    except ImportError as error:
        return {"missing": str(error)}
    logits_kyx = run(image_cyx)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        began = time.perf_counter()
        run(image_cyx)
        times.append(time.perf_counter() - began)
    peak = held(peak=True) - before
    np.save(folder / "logits.npy", logits_kyx, allow_pickle=False)
    return {"ms": 1e3 * float(np.median(times)), "peak": peak, "gflop": gflop(net, size)}


def gflop(net: nn.Module, size: int) -> float:
    """Two operations for each multiply-add of the convolutions, in 1e9."""
    import torch

    total = 0

    def add(module: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        transposed = isinstance(module, torch.nn.ConvTranspose2d)
        total += 2 * (inputs[0] if transposed else out)[0, 0].numel() * module.weight.numel()

    hooks = [
        module.register_forward_hook(add)
        for module in net.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ]
    with torch.inference_mode():
        net(torch.zeros(1, 1, size, size))
    for hook in hooks:
        hook.remove()
    return total / 1e9


# The comparison ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure what is installed, print a table for each width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--size", type=int, default=512, help="side of the image, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of passes for each row and round; at least three")
    parser.add_argument("--threads", type=int, help="as many as there are cores when not given")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON", help="interpreters that have them")
    parser.add_argument("--child", nargs=3, metavar=("ROW", "WIDTH", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, width, folder = arguments.child
        if name == "quantize":
            quantize(int(width), Path(folder))
        else:
            told = work(name, int(width), arguments.size, arguments.seconds, Path(folder))
            (Path(folder) / "told.json").write_text(json.dumps(told))
        return
    if unknown := [given for given in arguments.peers if given.partition("=")[0] not in INSTALL]:
        parser.error(f"--peers {unknown[0]}: write {' or '.join(f'{name}=PYTHON' for name in INSTALL)}")
    from rich.console import Console

    from septa.runtime import count_cores

    threads = str(arguments.threads or count_cores())
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        # Children inherit them: all libraries obey, and septa keeps graphs in the folder.
        os.environ |= {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "XDG_CACHE_HOME": folder}
        for width in arguments.widths:
            child(arguments, "quantize", width, Path(folder))
            console.print(compare(arguments, width, Path(folder)))


def compare(arguments: argparse.Namespace, width: int, folder: Path) -> Table:
    """The best of all rounds for each row of one width."""
    best: dict[str, dict[str, Any]] = {}
    peak, whose = 0.0, ""
    missing: dict[str, str] = {}
    for _ in range(arguments.rounds):
        product = child(arguments, PEAK, width, folder)
        peak, whose = max((peak, whose), (product["gflops"], product["whose"]))
        for name in ROWS:
            if name in missing:
                continue
            told = child(arguments, name, width, folder)
            if "missing" in told:
                missing[name] = told["missing"]
                continue
            before = best.get(name, told)
            best[name] = {**told, "ms": min(told["ms"], before["ms"]), "peak": min(told["peak"], before["peak"])}
            logits_kyx = np.load(folder / "logits.npy", allow_pickle=False)
            if name == BASE:
                np.save(folder / "base.npy", logits_kyx, allow_pickle=False)
            if ROWS[name].peer in INSTALL:
                continue
            base_kyx = np.load(folder / "base.npy", allow_pickle=False)
            best[name]["difference"] = float(np.abs(logits_kyx - base_kyx).max() / np.abs(base_kyx).max())
    return drawn(arguments, width, best, missing, (peak, whose))


def child(arguments: argparse.Namespace, name: str, width: int, folder: Path) -> dict[str, Any]:
    """What a row told from a process of its own."""
    pythons = dict(given.split("=", 1) for given in arguments.peers)
    peer = ROWS[name].peer if name in ROWS else None
    command = [pythons.get(peer or "", sys.executable), str(Path(__file__).resolve())]
    command += ["--size", str(arguments.size), "--seconds", str(arguments.seconds)]
    told = folder / "told.json"
    told.write_text("{}")
    done = subprocess.run([*command, "--child", name, str(width), str(folder)], check=False, capture_output=True)
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"missing": last, "gflops": 0.0, "whose": ""}
    result: dict[str, Any] = json.loads(told.read_text())
    return result


def drawn(
    arguments: argparse.Namespace,
    width: int,
    best: dict[str, dict[str, Any]],
    missing: dict[str, str],
    peak: tuple[float, str],
) -> Table:
    """The table of one width, with septa's aims below it."""
    from rich.table import Table

    title = f"width {width}, {arguments.size} x {arguments.size} pixels, {os.environ['OMP_NUM_THREADS']} threads"
    title += f"; matrix product in float32: {peak[0]:.0f} GFLOP/s ({peak[1]})"
    columns = ("", "ms", "times as fast", "GFLOP", "GFLOP/s", "of the peak", "MB", "difference")
    table = Table(*columns, title=title)
    ratios = {name: best[BASE]["ms"] / row["ms"] for name, row in best.items()}
    for name, row in best.items():
        speed = 1e3 * row["gflop"] / row["ms"]
        cells = [f"{row['ms']:.1f}", f"{ratios[name]:.2f}", f"{row['gflop']:.1f}", f"{speed:.0f}"]
        cells += [f"{speed / peak[0]:.0%}", f"{row['peak'] / 1e6:.0f}"]
        table.add_row(name, *cells, f"{row['difference']:.1e}" if row.get("difference") else "")
    lines = [f"{name}: left out ({why}); {INSTALL.get(ROWS[name].peer or '', '')}" for name, why in missing.items()]
    ours = [name for name in ratios if name.startswith("septa") and name != INT8]
    reached = {TORCH_ALONE: ratios.get(TORCH_ALONE, 0.0), INT8: ratios.get(INT8, 0.0)}
    reached["the fastest in float32"] = max((ratios[name] for name in ours), default=0.0)
    lines += [
        f"{name}: {reached[name]:.2f} times as fast, {'' if reached[name] >= aim else 'less than '}the aim is {aim:g}"
        for name, aim in TARGETS.items()
    ]
    table.caption, table.caption_justify = "\n".join(lines), "left"
    return table


if __name__ == "__main__":
    main()
