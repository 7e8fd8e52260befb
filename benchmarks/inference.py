"""Compare inference on a CPU: septa's engines, PyTorch, MONAI and segmentation_models_pytorch, one image at a time.

Usage: ``python benchmarks/inference.py [--widths 16 32 64] [--size 512] [--rounds 3] [--peers monai=PYTHON]``.

Padded U-Nets (depth 4, batch norm, random weights) run over an image of noise. Every row runs in a process of its own,
with the same number of threads. The rows take turns for several rounds. The median of a row's best round counts.

- PyTorch: the net in eager mode, in the contiguous layout (the base, 1.0) and in channels_last.
- septa: the engines in float32, and in 8-bit integers after calibration on noise. Their processes are set up as septa's
  command line does it (`septa.runtime.prepare`). The row of PyTorch marked "prepared" is set up in the same way; no
  other row is.
- MONAI: BasicUNet of the same widths with batch norm. Its last level is upsampled with twice the channels.
- segmentation_models_pytorch: Unet with a resnet18 encoder and a decoder of the same widths.

The nets of the other libraries differ slightly, so compare the GFLOP/s too. They count two operations for each
multiply-add of a convolution. The peak is the fastest float32 matrix product with the same number of threads, measured
in every round; integers may exceed it. The memory is the peak of the process minus its memory before the engine was
made (Linux only). The difference is that of the logits to the base, as a share of the largest logit. A library in
another interpreter (``--peers``) needs torch and numpy there.
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

from _machine import measure_matrix_peak, read_memory, reset_peak_memory

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

Array = np.ndarray[Any, Any]
Run = Callable[[Array], Array]
"""A function from an image ``CYX`` to logits ``KYX``."""

BASE = "PyTorch, contiguous"
TORCH = "septa, torch"
INT8 = "septa, openvino int8"
FASTEST = "the fastest septa engine in float32"
PEAK = "peak"
DEPTH = 4
CLASSES = 2
SAMPLES = 16
"""Number of calibration images of the quantization."""
SAMPLE_SIDE = 256
"""Height and width of a calibration image, pixels."""
TARGETS = {TORCH: 1.8, FASTEST: 2.0, INT8: 6.0}
"""Speed-ups over the base that septa aims for."""
INSTALL = {
    "monai": "pip install -c constraints.txt monai",
    "segmentation_models_pytorch": "pip install segmentation-models-pytorch",
}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    make
        Function of a width and a folder that returns the timed function and its net.
    peer
        Name of the package that the row needs.
    prepared
        True if the process is set up as septa's command line does it.
    """

    make: Callable[[int, Path], tuple[Run, nn.Module]]
    peer: str | None = None
    prepared: bool = False


# Rows, each measured in a process of its own ------------------------------------------------------------------------


def make_unet(width: int) -> Any:
    """Make septa's net with reproducible random weights and batch norms that are not the identity."""
    import torch

    from septa.nets import UNet

    torch.manual_seed(0)
    net = UNet(1, CLASSES, depth=DEPTH, width=width).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return net


def run_eagerly(net: nn.Module, last: bool = False) -> tuple[Run, nn.Module]:
    """Make a function that runs a net in eager PyTorch, with ``last`` in channels_last."""
    import torch

    layout = torch.channels_last if last else torch.contiguous_format
    net = net.eval().to(memory_format=layout)  # type: ignore[call-overload]

    def run(image_cyx: Array) -> Array:
        with torch.inference_mode():
            logits: Array = net(torch.from_numpy(image_cyx)[None].contiguous(memory_format=layout))[0].numpy()
        return logits

    return run, net


def make_septa(engine: str, width: int, folder: Path) -> tuple[Run, nn.Module]:
    """Make one of septa's engines in float32; graphs are cached from round to round, as between two commands."""
    from septa.inference import make_engine

    net = make_unet(width)
    return make_engine(net, "cpu", engine, key=f"benchmark {width}"), net


def load_int8(width: int, folder: Path) -> tuple[Run, nn.Module]:
    """Load the engine that `quantize` wrote."""
    from septa.inference import Int8

    net = make_unet(width)
    graph, weights = ((folder / f"{width}.{part}").read_bytes() for part in ("xml", "bin"))
    return Int8(graph=graph, weights=weights, floats=(), layers=0).engine(net), net


def quantize(width: int, folder: Path) -> None:
    """Quantise the net as ``septa quantize`` does: all layers but the first, here calibrated on noise."""
    from septa.quantization.quantizer import Quantizer

    net = make_unet(width)
    samples = [make_noise(SAMPLE_SIDE, seed) for seed in range(1, SAMPLES + 1)]
    quantizer = Quantizer(net, samples)
    made = quantizer.make(quantizer.layers[:1])
    (folder / f"{width}.xml").write_bytes(made.graph)
    (folder / f"{width}.bin").write_bytes(made.weights)


def make_monai(width: int, folder: Path) -> tuple[Run, nn.Module]:
    """Make MONAI's BasicUNet."""
    nets: Any = importlib.import_module("monai.networks.nets")
    features = (*(width << level for level in range(DEPTH + 1)), width)
    return run_eagerly(nets.BasicUNet(2, 1, CLASSES, features, act=("relu", {"inplace": True}), norm="batch"))


def make_models_pytorch(width: int, folder: Path) -> tuple[Run, nn.Module]:
    """Make the Unet of segmentation_models_pytorch; only its decoder follows ``width``."""
    models: Any = importlib.import_module("segmentation_models_pytorch")
    channels = tuple(width << level for level in range(DEPTH, -1, -1))
    net = models.Unet("resnet18", encoder_weights=None, decoder_channels=channels, in_channels=1, classes=CLASSES)
    return run_eagerly(net)


ROWS = {
    BASE: Row(lambda width, folder: run_eagerly(make_unet(width))),
    "PyTorch, channels_last": Row(lambda width, folder: run_eagerly(make_unet(width), last=True)),
    "PyTorch, channels_last, prepared": Row(
        lambda width, folder: run_eagerly(make_unet(width), last=True), prepared=True
    ),
    TORCH: Row(partial(make_septa, "torch"), prepared=True),
    "septa, openvino": Row(partial(make_septa, "openvino"), "openvino", prepared=True),
    "septa, onnxruntime": Row(partial(make_septa, "onnxruntime"), "onnxruntime", prepared=True),
    INT8: Row(load_int8, "openvino", prepared=True),
    "MONAI BasicUNet": Row(make_monai, "monai"),
    "segmentation_models_pytorch, resnet18": Row(make_models_pytorch, "segmentation_models_pytorch"),
}


def make_noise(size: int, seed: int) -> Array:
    """Return a normalised image of noise, ``CYX``, float32."""
    return np.random.default_rng(seed).normal(size=(1, size, size)).astype(np.float32)


def measure(name: str, width: int, size: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Measure a row in this process and write its logits to the folder.

    Returns
    -------
    dict
        ``ms``, ``peak`` (bytes) and ``gflop`` of one image; or ``missing`` with the reason; or, for `PEAK`, ``gflops``
        and ``library``.
    """
    row = ROWS.get(name)
    if row is None or row.prepared:
        from septa import runtime

        runtime.prepare()
    if row is None:
        return dict(zip(("gflops", "library"), measure_matrix_peak(), strict=True))
    try:
        if row.peer is not None:
            importlib.import_module(row.peer)
        # torch is loaded before the memory is read for the first time.
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        image_cyx = make_noise(size, 0)
        before = reset_peak_memory()
        run, net = row.make(width, folder)
    except ImportError as error:
        return {"missing": str(error)}
    logits_kyx = run(image_cyx)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        began = time.perf_counter()
        run(image_cyx)
        times.append(time.perf_counter() - began)
    peak = read_memory(peak=True) - before
    np.save(folder / "logits.npy", logits_kyx, allow_pickle=False)
    return {"ms": 1e3 * float(np.median(times)), "peak": peak, "gflop": count_gflop(net, size)}


def count_gflop(net: nn.Module, size: int) -> float:
    """Count 1e9 operations of the convolutions for one image, two for each multiply-add."""
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


# Comparison ---------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure the installed libraries and print a table for each width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64], help="channels of the first level")
    parser.add_argument("--size", type=int, default=512, help="height and width of the image, pixels")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each row; the best counts")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a measurement, at least three passes")
    parser.add_argument("--threads", type=int, help="number of threads; by default the number of cores")
    parser.add_argument(
        "--peers", nargs="*", default=[], metavar="NAME=PYTHON", help="interpreters that have the other libraries"
    )
    parser.add_argument("--child", nargs=3, metavar=("ROW", "WIDTH", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, width, folder = arguments.child
        if name == "quantize":
            quantize(int(width), Path(folder))
        else:
            result = measure(name, int(width), arguments.size, arguments.seconds, Path(folder))
            (Path(folder) / "result.json").write_text(json.dumps(result))
        return
    if unknown := [given for given in arguments.peers if given.partition("=")[0] not in INSTALL]:
        choices = " or ".join(f"{name}=PYTHON" for name in INSTALL)
        parser.error(f"--peers does not know {unknown[0]}. Write {choices}.")
    from rich.console import Console

    from septa.runtime import count_cores

    threads = str(arguments.threads or count_cores())
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        # Child processes inherit these settings: the number of threads, and the folder in which septa caches graphs.
        os.environ |= {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "XDG_CACHE_HOME": folder}
        for width in arguments.widths:
            run_child(arguments, "quantize", width, Path(folder))
            console.print(compare(arguments, width, Path(folder)))


def compare(arguments: argparse.Namespace, width: int, folder: Path) -> Table:
    """Measure all rows of one width and make the table of their best rounds."""
    best: dict[str, dict[str, Any]] = {}
    peak = (0.0, "")
    missing: dict[str, str] = {}
    for _ in range(arguments.rounds):
        product = run_child(arguments, PEAK, width, folder)
        peak = max(peak, (product["gflops"], product["library"]))
        for name in ROWS:
            if name in missing:
                continue
            result = run_child(arguments, name, width, folder)
            if "missing" in result:
                missing[name] = result["missing"]
                continue
            earlier = best.get(name, result)
            best[name] = result | {key: min(result[key], earlier[key]) for key in ("ms", "peak")}
            logits_kyx = np.load(folder / "logits.npy", allow_pickle=False)
            if name == BASE:
                np.save(folder / "base.npy", logits_kyx, allow_pickle=False)
            if ROWS[name].peer in INSTALL:
                continue
            base_kyx = np.load(folder / "base.npy", allow_pickle=False)
            best[name]["difference"] = float(np.abs(logits_kyx - base_kyx).max() / np.abs(base_kyx).max())
    return make_table(arguments, width, best, missing, peak)


def run_child(arguments: argparse.Namespace, name: str, width: int, folder: Path) -> dict[str, Any]:
    """Measure a row in a process of its own; return its result."""
    pythons = dict(given.split("=", 1) for given in arguments.peers)
    peer = ROWS[name].peer if name in ROWS else None
    command = [pythons.get(peer or "", sys.executable), str(Path(__file__).resolve())]
    command += ["--size", str(arguments.size), "--seconds", str(arguments.seconds)]
    result_file = folder / "result.json"
    result_file.write_text("{}")
    done = subprocess.run([*command, "--child", name, str(width), str(folder)], check=False, capture_output=True)
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"missing": last, "gflops": 0.0, "library": ""}
    result: dict[str, Any] = json.loads(result_file.read_text())
    return result


def make_table(
    arguments: argparse.Namespace,
    width: int,
    best: dict[str, dict[str, Any]],
    missing: dict[str, str],
    peak: tuple[float, str],
) -> Table:
    """Make the table of one width, with the targets in its caption."""
    from rich.table import Table

    title = f"width {width}, {arguments.size} x {arguments.size} pixels, {os.environ['OMP_NUM_THREADS']} threads"
    title += f"; matrix product in float32: {peak[0]:.0f} GFLOP/s ({peak[1]})"
    columns = ("", "ms", "speed-up", "GFLOP", "GFLOP/s", "share of peak", "MB", "difference")
    table = Table(*columns, title=title)
    ratios = {name: best[BASE]["ms"] / row["ms"] for name, row in best.items()}
    for name, row in best.items():
        speed = 1e3 * row["gflop"] / row["ms"]
        cells = [f"{row['ms']:.1f}", f"{ratios[name]:.2f}", f"{row['gflop']:.1f}", f"{speed:.0f}"]
        cells += [f"{speed / peak[0]:.0%}", f"{row['peak'] / 1e6:.0f}"]
        table.add_row(name, *cells, f"{row['difference']:.1e}" if row.get("difference") else "")
    lines = []
    for name, reason in missing.items():
        install = INSTALL.get(ROWS[name].peer or "")
        lines.append(f"{name}: skipped ({reason})" + (f". Run {install}" if install else ""))
    ours = [name for name in ratios if name.startswith("septa") and name != INT8]
    reached = {TORCH: ratios.get(TORCH, 0.0), INT8: ratios.get(INT8, 0.0)}
    reached[FASTEST] = max((ratios[name] for name in ours), default=0.0)
    lines += [
        f"{name}: speed-up {reached[name]:.2f}, target {target:g} {'reached' if reached[name] >= target else 'missed'}"
        for name, target in TARGETS.items()
    ]
    table.caption = "\n".join(lines)
    table.caption_justify = "left"
    return table


if __name__ == "__main__":
    main()
