"""Tiles of one large image, septa against MONAI and nnU-Net: seconds, peak memory, difference to the whole image.

``python benchmarks/tiling.py MODEL [--size 4096] [--peers monai=PYTHON nnunetv2=PYTHON]`` runs one trained net (an
untrained one hardly looks beyond a few pixels, so that every tiling seems exact) over a synthetic slide, or over
``--image``, by several ways of tiling, each in a process of its own with the same number of threads:

- whole: one pass, which takes the memory that it needs, of plain PyTorch, and of septa with its batch norms folded.
  The others are compared with it.
- septa: `Model.logits` in memory with each engine and, given ``--int8``, in 8-bit integers, and
  ``septa predict SLIDE -o STORE --memory 1GB --probabilities``. What the store holds, probabilities in float16, is
  compared with the whole image's, rounded the same; its time is that of the command, with start, files and labels.
- MONAI: `sliding_window_inference`, overlap 0.25, mode gaussian, with 1 and with 4 windows at once, of which the faster
  counts; in the layout that tensors have by default, and in channels_last, which septa uses.
- nnU-Net: `nnUNetPredictor`, step 0.5, gaussian, without mirroring. It sums logits in float16.

All else is eager PyTorch in float32 with default settings; the septa command and the septa row set up their process as
septa's command line does (`septa.runtime.prepare`), and so does the row of MONAI that says so. Seconds are from raw
image to logits, both in memory; a row is compared with the whole pass in its own layout, and a flip is a pixel whose
most probable class is another. Peers are found by import, by default in this interpreter; one elsewhere needs septa as
well (``PYTHONPATH=src`` will do). Memory is read from /proc, so on Linux alone. Exit code 1 if septa is not exact.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from septa import runtime

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor, nn

    from septa.model import Model

Array = np.ndarray[Any, Any]
Way = Callable[["Model", Array, int], Array]
"""From a model, a raw image ``CYX`` and the side of a window to logits ``KYX``."""

PLAIN, LAST, OWN = "contiguous", "channels_last", "septa"
INSTALL = {
    "monai": "pip install -c constraints.txt monai",
    "nnunetv2": "pip install -c constraints.txt nnunetv2",
    "openvino": "pip install -c constraints.txt '.[openvino]'",
    "onnxruntime": "pip install -c constraints.txt '.[onnx]'",
}


def whole(layout: str) -> Way:
    """One pass over the image."""
    return lambda model, image_cyx, patch: as_array(laid(model.net, layout)(normalized(model, image_cyx, layout)))


def untiled(model: Model, image_cyx: Array, patch: int) -> Array:
    """One pass of septa over the image."""
    return model.logits(image_cyx, device="cpu", tile=2 * max(image_cyx.shape))


def septa(engine: str | None = None) -> Way:
    """Exact tiles, whose size septa chooses."""
    return lambda model, image_cyx, patch: model.logits(image_cyx, device="cpu", engine=engine)


def monai(layout: str, batch: int) -> Way:
    """Windows that overlap by a quarter, averaged."""
    inferers: Any = importlib.import_module("monai.inferers")

    def way(model: Model, image_cyx: Array, patch: int) -> Array:
        image_bcyx = normalized(model, image_cyx, layout)
        net = laid(model.net, layout)
        blend = partial(inferers.sliding_window_inference, overlap=0.25, mode="gaussian")
        return as_array(blend(image_bcyx, patch, batch, net))

    return way


def nnunetv2() -> Way:
    """Windows that overlap by half, averaged."""
    import torch

    inference: Any = importlib.import_module("nnunetv2.inference.predict_from_raw_data")

    def way(model: Model, image_cyx: Array, patch: int) -> Array:
        predictor = inference.nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        # All that it asks of a plan, a configuration and a data set.
        heads = SimpleNamespace(num_segmentation_heads=model.net.out_channels)
        plans = SimpleNamespace(get_label_manager=lambda dataset: heads)
        configuration = SimpleNamespace(patch_size=(patch, patch))
        predictor.manual_initialization(model.net, plans, configuration, [model.net.state_dict()], {}, "", None)
        image_czyx = normalized(model, image_cyx, PLAIN)[0][:, None]
        logits: Array = predictor.predict_logits_from_preprocessed_data(image_czyx)[:, 0].numpy()
        return logits

    return way


@dataclass(frozen=True)
class Row:
    """A row of the table: its ways, of which the fastest counts, and the layout of the whole pass to compare with.

    ``prepared``: whether its process is set up as septa's. ``exact``: whether it promises a difference of 0 to the
    whole pass. ``integers``: whether it takes the quantised model.
    """

    ways: dict[str, Callable[[], Way]]
    layout: str = PLAIN
    peer: str | None = None
    prepared: bool = False
    exact: bool = False
    integers: bool = False


def monai_row(layout: str, prepared: bool = False) -> Row:
    """MONAI with one and with four windows at once."""
    return Row({f"batch {n}": partial(monai, layout, n) for n in (1, 4)}, layout, "monai", prepared)


ROWS = {
    f"whole, {LAST}": Row({"": partial(whole, LAST)}, LAST),
    f"whole, {PLAIN}": Row({"": partial(whole, PLAIN)}),
    f"whole, {OWN}": Row({"": lambda: untiled}, OWN, prepared=True),
    "septa, in memory": Row({"": septa}, OWN, prepared=True, exact=True),
    "septa, openvino": Row({"": partial(septa, "openvino")}, OWN, "openvino", prepared=True),
    "septa, onnxruntime": Row({"": partial(septa, "onnxruntime")}, OWN, "onnxruntime", prepared=True),
    "septa, int8": Row({"": septa}, OWN, "openvino", prepared=True, integers=True),
    "MONAI": monai_row(PLAIN),
    "MONAI, channels_last": monai_row(LAST),
    "MONAI, channels_last, prepared": monai_row(LAST, prepared=True),
    "nnU-Net": Row({"": nnunetv2}, peer="nnunetv2"),
}


def normalized(model: Model, image_cyx: Array, layout: str) -> Tensor:
    """What the net sees, ``BCYX`` with B = 1."""
    import torch

    values_cyx = model.normalization.resolve(image_cyx).apply(image_cyx)
    image_bcyx = torch.from_numpy(values_cyx)[None]
    return image_bcyx.contiguous(memory_format=torch.channels_last) if layout == LAST else image_bcyx


def laid(net: nn.Module, layout: str) -> nn.Module:
    """The net in a memory layout."""
    import torch

    return net.to(memory_format=torch.channels_last) if layout == LAST else net  # type: ignore[call-overload]


def as_array(logits_bkyx: Tensor) -> Array:
    """Logits ``KYX`` in numpy's layout."""
    array: Array = logits_bkyx[0].contiguous().numpy()
    return array


@dataclass(frozen=True)
class Run:
    """What a process took: seconds, seconds of processor time of all its threads, and peak resident memory in bytes."""

    seconds: float
    busy: float
    peak: int
    name: str = ""


def main() -> None:
    """Measure what is installed, print a table; exit code 1 if septa differs from the whole image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--int8", type=Path, help="what septa quantize made of MODEL, for a row of its own")
    parser.add_argument("--size", type=int, default=4096, help="side of the slide, pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the slide")
    parser.add_argument("--image", type=Path, help="instead of a slide: any image of one plane that septa reads")
    parser.add_argument("--patch", type=int, default=512, help="side of the peers' windows, pixels")
    parser.add_argument("--memory", default="1GB", help="the budget of septa predict")
    parser.add_argument("--threads", type=int, default=runtime.count_cores())
    parser.add_argument("--repeats", type=int, default=1, help="of each, of which the fastest counts")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON", help="interpreters that have them")
    parser.add_argument("--folder", type=Path, help="for temporary files, about 1 GB; the system's when not given")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, name, way = arguments.child
        model = arguments.int8 if ROWS[name].integers else arguments.model
        work(model, Path(folder), name, way, arguments.patch)
        return
    if unknown := [given for given in arguments.peers if given.partition("=")[0] not in INSTALL]:
        parser.error(f"--peers {unknown[0]}: write {' or '.join(f'{name}=PYTHON' for name in INSTALL)}")
    # Children inherit it: torch, numba and the other libraries all obey.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        raise SystemExit(int(not compare(arguments, Path(folder))))


def compare(arguments: argparse.Namespace, folder: Path) -> bool:
    """Run every row, print the table; whether septa was exact."""
    from rich.console import Console
    from rich.table import Table

    from septa.model import Model

    console, model = Console(), Model.load(arguments.model)
    image = lay_out(arguments, model, folder)
    size = " x ".join(map(str, np.load(folder / "image.npy", mmap_mode="r").shape[1:]))
    columns = ("", "s", "ratio", "CPU s", "ratio", "MB", "difference", "flips")
    net = f"depth {model.net.depth}, width {model.net.width}, halo {model.net.halo}"
    table = Table(*columns, title=f"{size} pixels, {net}, {arguments.threads} threads, windows of {arguments.patch}")
    exact, runs = True, {}
    for name, row in ROWS.items():
        if row.integers and arguments.int8 is None:
            console.print(f"{name}: left out (no --int8 MODEL)", highlight=False)
            continue
        run = fastest(arguments, folder, name, console)
        if run is None:
            continue
        runs[name] = run, *differences(model, folder, row.layout)
        if name.startswith("whole"):
            (folder / "logits.npy").replace(folder / f"{row.layout}.npy")
    streamed = stream(arguments, folder, image)
    runs["septa, streamed"] = streamed, *stored_differences(model, folder, console)
    base = runs["septa, in memory"][0]
    for name, (run, difference, flips) in runs.items():
        if name not in ROWS or ROWS[name].exact:
            exact &= difference == 0
        cells = [f"{run.seconds:.1f}", f"{run.seconds / base.seconds:.2f}", f"{run.busy:.1f}"]
        cells += [f"{run.busy / base.busy:.2f}", f"{run.peak / 1e6:.0f}", f"{difference:.3g}", str(flips)]
        table.add_row(run.name, *cells)
    console.print(table)
    return exact


def lay_out(arguments: argparse.Namespace, model: Model, folder: Path) -> Path:
    """Write the image as raw values ``CYX`` with the model's channels; returns where septa reads it."""
    from septa.images.sources.open import open_source
    from slide import write_slide

    image: Path = arguments.image or folder / "slide.ome.zarr"
    if arguments.image is None:
        write_slide(image, arguments.size, arguments.size, arguments.seed)
    with open_source(image) as source:
        if source.shape[0] * source.shape[2] > 1:
            raise SystemExit(f"{image}: has several planes. give an image of one.")
        height, width = source.shape[3:]
        np.save(
            folder / "image.npy", model.as_model_input(source.read((0, height), (0, width)), image), allow_pickle=False
        )
    return image


def fastest(arguments: argparse.Namespace, folder: Path, name: str, console: Console) -> Run | None:
    """The fastest run of a row, its logits in the folder; None where its peer is missing or fails."""
    row, best = ROWS[name], None
    pythons = dict(given.split("=", 1) for given in arguments.peers)
    for way in row.ways:
        for _ in range(arguments.repeats):
            command = [pythons.get(row.peer or "", sys.executable), str(Path(__file__).resolve())]
            command += [
                str(arguments.model),
                *(["--int8", str(arguments.int8)] if arguments.int8 else []),
                "--patch",
                str(arguments.patch),
                "--child",
                str(folder),
                name,
                way,
            ]
            status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
            if status and row.peer is None:
                raise SystemExit(f"{name}: failed (exit code {status})")
            told = {"missing": f"exit code {status}"} if status else json.loads((folder / "run.json").read_text())
            if "missing" in told:
                hint = f"{INSTALL[row.peer or '']}, or give --peers {row.peer}=PYTHON"
                console.print(f"{name}: left out ({told['missing']}); {hint}", highlight=False, markup=False)
                return None
            run = Run(**told, name=f"{name}, {way}" if way else name)
            console.print(f"{run.name}: {run.seconds:.1f} s", highlight=False, markup=False)
            best = run if best is None or run.seconds < best.seconds else best
    return best


def work(path: Path, folder: Path, name: str, way: str, patch: int) -> None:
    """In a process of its own: load, run one way, write what it took and its logits."""
    row = ROWS[name]
    if row.prepared:
        runtime.prepare()
    import torch

    from septa.model import Model

    told: dict[str, Any]
    try:
        run = row.ways[way]()
    except ImportError as error:
        told = {"missing": str(error)}
    else:
        model, image_cyx = Model.load(path), np.load(folder / "image.npy", allow_pickle=False)
        begin, busy = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            logits_kyx = run(model, image_cyx, patch)
        told = {"seconds": time.perf_counter() - begin, "busy": time.process_time() - busy}
        from streaming import high_water

        told["peak"] = high_water(os.getpid())
        np.save(folder / "logits.npy", logits_kyx, allow_pickle=False)
    (folder / "run.json").write_text(json.dumps(told))


def stream(arguments: argparse.Namespace, folder: Path, image: Path) -> Run:
    """The fastest run of ``septa predict``, which leaves its store in the folder."""
    import shutil

    from streaming import measured

    runs, output = [], folder / "labels.ome.zarr"
    for _ in range(arguments.repeats):
        shutil.rmtree(output, ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [str(arguments.model), str(image), "-o", str(output), "--memory", arguments.memory]
        run = measured("predict", *command, "--probabilities", "--device", "cpu")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        runs.append(Run(run.seconds, busy, run.peak, f"septa, streamed, --memory {arguments.memory}"))
    return min(runs, key=lambda run: run.seconds)


def differences(model: Model, folder: Path, layout: str) -> tuple[float, int]:
    """Largest difference of the logits to the whole pass in a layout, and the number of flips."""
    from septa.inference.tiling import largest_difference

    path = folder / f"{layout}.npy"
    if not path.exists():  # this is a whole pass; after the first it tells what the layout or folding alone changes
        path = folder / f"{LAST}.npy"
    if not path.exists():
        return 0.0, 0
    whole_kyx, logits_kyx = (np.load(file, allow_pickle=False) for file in (path, folder / "logits.npy"))
    sigmoid = model.recipe.net.output == "sigmoid"
    return largest_difference(whole_kyx, logits_kyx.astype(np.float32)), flips(whole_kyx, logits_kyx, sigmoid)


def flips(whole_kyx: Array, other_kyx: Array, sigmoid: bool) -> int:
    """Pixels of another class; with ``sigmoid`` pixels where any class changes sides."""
    if sigmoid:
        return int(np.count_nonzero(((whole_kyx > 0) != (other_kyx > 0)).any(axis=0)))
    return int(np.count_nonzero(whole_kyx.argmax(axis=0) != other_kyx.argmax(axis=0)))


def stored_differences(model: Model, folder: Path, console: Console) -> tuple[float, int]:
    """As `differences`, of the probabilities in the store; also tells whether its labels are the whole image's."""
    import zarr

    from septa.inference.tiling import largest_difference
    from streaming import open_labels

    store: Any = zarr.open_group(folder / "labels.ome.zarr", mode="r")
    whole_kyx = np.load(folder / f"{OWN}.npy", allow_pickle=False)
    labels_yx = model.task.decode(whole_kyx)
    if model.recipe.task != "instances":
        labels_yx = model.as_written(labels_yx)
    stored = np.asarray(open_labels(folder / "labels.ome.zarr")[...]).reshape(labels_yx.shape)
    ours, theirs, pairs = (len(np.unique(labels)) for labels in (stored, labels_yx, paired(stored, labels_yx)))
    verdict = "the same pixel for pixel" if ours == theirs == pairs else "NOT the same"
    console.print(f"labels: {ours} values in the store, {theirs} of the whole image, {verdict}", highlight=False)
    probabilities = model.task.probabilities(whole_kyx).astype(np.float16)
    found = np.asarray(store["0"][...]).reshape(probabilities.shape)
    sigmoid = model.recipe.net.output == "sigmoid"
    half = np.float32(0.5 if sigmoid else 0)
    a, b = (values.astype(np.float32) for values in (probabilities, found))
    return largest_difference(a, b), flips(a - half, b - half, sigmoid)


def paired(a: Array, b: Array) -> Array:
    """One number for each pair of labels, so that ids may differ where regions do not."""
    return a.astype(np.int64) * (int(b.max()) + 1) + b


if __name__ == "__main__":
    main()
