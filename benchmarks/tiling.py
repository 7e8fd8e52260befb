"""Compare tiling in septa, MONAI and nnU-Net on one large image: seconds, peak memory, difference to the whole image.

Usage: ``python benchmarks/tiling.py MODEL [--size 4096] [--peers monai=PYTHON nnunetv2=PYTHON]``.

The script runs one trained net over a synthetic slide, or over ``--image``, with several methods of tiling. An
untrained net depends on few pixels around each output pixel, so every tiling of it would seem exact. Each method runs
in a process of its own with the same number of threads:

- whole: one pass over the whole image, with unlimited memory, in plain PyTorch and in septa with folded batch norms.
  The other rows are compared with it.
- septa: `Model.logits` in memory with each engine and, given ``--int8``, in 8-bit integers. Also ``septa predict SLIDE
  -o STORE --memory 1GB --probabilities``: the float16 probabilities in the store are compared with those of the whole
  image, rounded in the same way. The time is that of the command with start-up, files and labels.
- MONAI: `sliding_window_inference`, overlap 0.25, mode gaussian, with 1 and with 4 windows per batch; the faster
  counts. It runs in the default layout of tensors and in channels_last, which septa uses.
- nnU-Net: `nnUNetPredictor`, step 0.5, gaussian, without mirroring. It sums logits in float16.

Everything else is eager PyTorch in float32 with default settings. The rows of septa and the row of MONAI marked
"prepared" set up their process as septa's command line does it (`septa.runtime.prepare`). The seconds cover the work
from the raw image to the logits, both in memory. Each row is compared with the whole pass in its own layout. A flip is
a pixel whose most probable class differs.

The other libraries are imported by this interpreter, unless ``--peers`` names another one. That one needs septa too;
``PYTHONPATH=src`` is enough. Memory is read from /proc, so the script runs on Linux only. The exit code is 1 if septa
is not exact.
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
Method = Callable[["Model", Array, int], Array]
"""A function from a model, a raw image ``CYX`` and the side of a window to logits ``KYX``."""

PLAIN = "contiguous"
LAST = "channels_last"
OWN = "septa"
INSTALL = {
    "monai": "pip install -c constraints.txt monai",
    "nnunetv2": "pip install -c constraints.txt nnunetv2",
    "openvino": "pip install -c constraints.txt '.[openvino]'",
    "onnxruntime": "pip install -c constraints.txt '.[onnx]'",
}


def make_whole(layout: str) -> Method:
    """Make a method that runs plain PyTorch once over the whole image."""

    def run(model: Model, image_cyx: Array, patch: int) -> Array:
        net = change_layout(model.net, layout)
        return as_array(net(normalize(model, image_cyx, layout)))

    return run


def run_whole(model: Model, image_cyx: Array, patch: int) -> Array:
    """Run septa once over the whole image."""
    return model.logits(image_cyx, device="cpu", tile=2 * max(image_cyx.shape))


def make_septa(engine: str | None = None) -> Method:
    """Make the method of septa: exact tiles of a size that septa chooses."""
    return lambda model, image_cyx, patch: model.logits(image_cyx, device="cpu", engine=engine)


def make_monai(layout: str, batch: int) -> Method:
    """Make the method of MONAI: windows that overlap by a quarter, averaged."""
    inferers: Any = importlib.import_module("monai.inferers")

    def run(model: Model, image_cyx: Array, patch: int) -> Array:
        image_bcyx = normalize(model, image_cyx, layout)
        net = change_layout(model.net, layout)
        blend = partial(inferers.sliding_window_inference, overlap=0.25, mode="gaussian")
        return as_array(blend(image_bcyx, patch, batch, net))

    return run


def make_nnunetv2() -> Method:
    """Make the method of nnU-Net: windows that overlap by half, averaged."""
    import torch

    inference: Any = importlib.import_module("nnunetv2.inference.predict_from_raw_data")

    def run(model: Model, image_cyx: Array, patch: int) -> Array:
        predictor = inference.nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        # The predictor reads no other attributes of its plan, configuration and data set.
        heads = SimpleNamespace(num_segmentation_heads=model.net.out_channels)
        plans = SimpleNamespace(get_label_manager=lambda dataset: heads)
        configuration = SimpleNamespace(patch_size=(patch, patch))
        predictor.manual_initialization(model.net, plans, configuration, [model.net.state_dict()], {}, "", None)
        image_czyx = normalize(model, image_cyx, PLAIN)[0][:, None]
        logits: Array = predictor.predict_logits_from_preprocessed_data(image_czyx)[:, 0].numpy()
        return logits

    return run


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    methods
        Functions that make the methods of the row by name; the fastest method counts.
    layout
        Layout of the whole pass to compare with.
    peer
        Name of the package that the row needs.
    prepared
        True if the process is set up as septa's command line does it.
    exact
        True if the row promises a difference of 0 to the whole pass.
    integers
        True if the row uses the quantised model.
    """

    methods: dict[str, Callable[[], Method]]
    layout: str = PLAIN
    peer: str | None = None
    prepared: bool = False
    exact: bool = False
    integers: bool = False


def make_monai_row(layout: str, prepared: bool = False) -> Row:
    """Make a row of MONAI with one and with four windows per batch."""
    methods = {f"batch {n}": partial(make_monai, layout, n) for n in (1, 4)}
    return Row(methods=methods, layout=layout, peer="monai", prepared=prepared)


def make_septa_row(engine: str) -> Row:
    """Make a row of septa with an optional engine."""
    return Row(methods={"": partial(make_septa, engine)}, layout=OWN, peer=engine, prepared=True)


ROWS = {
    f"whole, {LAST}": Row(methods={"": partial(make_whole, LAST)}, layout=LAST),
    f"whole, {PLAIN}": Row(methods={"": partial(make_whole, PLAIN)}),
    f"whole, {OWN}": Row(methods={"": lambda: run_whole}, layout=OWN, prepared=True),
    "septa, in memory": Row(methods={"": make_septa}, layout=OWN, prepared=True, exact=True),
    "septa, openvino": make_septa_row("openvino"),
    "septa, onnxruntime": make_septa_row("onnxruntime"),
    "septa, int8": Row(methods={"": make_septa}, layout=OWN, peer="openvino", prepared=True, integers=True),
    "MONAI": make_monai_row(PLAIN),
    "MONAI, channels_last": make_monai_row(LAST),
    "MONAI, channels_last, prepared": make_monai_row(LAST, prepared=True),
    "nnU-Net": Row(methods={"": make_nnunetv2}, peer="nnunetv2"),
}


def normalize(model: Model, image_cyx: Array, layout: str) -> Tensor:
    """Return the normalised input of the net, ``BCYX`` with B = 1."""
    import torch

    values_cyx = model.normalization.resolve(image_cyx).apply(image_cyx)
    image_bcyx = torch.from_numpy(values_cyx)[None]
    return image_bcyx.contiguous(memory_format=torch.channels_last) if layout == LAST else image_bcyx


def change_layout(net: nn.Module, layout: str) -> nn.Module:
    """Return the net in a memory layout."""
    import torch

    return net.to(memory_format=torch.channels_last) if layout == LAST else net  # type: ignore[call-overload]


def as_array(logits_bkyx: Tensor) -> Array:
    """Convert logits to a NumPy array ``KYX`` in C order."""
    array: Array = logits_bkyx[0].contiguous().numpy()
    return array


@dataclass(frozen=True)
class Run:
    """A finished process: wall seconds, processor seconds of all threads, peak resident memory in bytes, and name."""

    seconds: float
    busy: float
    peak: int
    name: str = ""


def main() -> None:
    """Measure the installed libraries and print a table; exit with code 1 if septa differs from the whole image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a trained model")
    parser.add_argument("--int8", type=Path, help="model that septa quantize made from MODEL; adds a row")
    parser.add_argument("--size", type=int, default=4096, help="height and width of the slide, pixels")
    parser.add_argument("--seed", type=int, default=0, help="number from which the slide is drawn")
    parser.add_argument("--image", type=Path, help="image of one plane to use instead of a slide")
    parser.add_argument("--patch", type=int, default=512, help="side of the windows of MONAI and nnU-Net, pixels")
    parser.add_argument("--memory", default="1GB", help="memory budget of septa predict, such as 1GB")
    parser.add_argument("--threads", type=int, default=runtime.count_cores(), help="number of threads of each process")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each method; the fastest counts")
    parser.add_argument(
        "--peers", nargs="*", default=[], metavar="NAME=PYTHON", help="interpreters that have the other libraries"
    )
    parser.add_argument("--folder", type=Path, help="folder of temporary files, about 1 GB; by default the system's")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, name, method = arguments.child
        model = arguments.int8 if ROWS[name].integers else arguments.model
        measure(model, Path(folder), name, method, arguments.patch)
        return
    if unknown := [given for given in arguments.peers if given.partition("=")[0] not in INSTALL]:
        choices = " or ".join(f"{name}=PYTHON" for name in INSTALL)
        parser.error(f"--peers does not know {unknown[0]}. Write {choices}.")
    # Child processes inherit the number of threads; torch, numba and the other libraries follow it.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        raise SystemExit(int(not compare(arguments, Path(folder))))


def compare(arguments: argparse.Namespace, folder: Path) -> bool:
    """Run every row and print the table; return True if septa was exact."""
    from rich.console import Console
    from rich.table import Table

    from septa.model import Model

    console = Console()
    model = Model.load(arguments.model)
    image = write_image(arguments, model, folder)
    size = " x ".join(map(str, np.load(folder / "image.npy", mmap_mode="r").shape[1:]))
    columns = ("", "s", "ratio", "CPU s", "ratio", "MB", "difference", "flips")
    net = f"depth {model.net.depth}, width {model.net.width}, halo {model.net.halo}"
    table = Table(*columns, title=f"{size} pixels, {net}, {arguments.threads} threads, windows of {arguments.patch}")
    exact = True
    runs = {}
    for name, row in ROWS.items():
        if row.integers and arguments.int8 is None:
            console.print(f"{name}: skipped (needs --int8 MODEL)", highlight=False)
            continue
        run = run_fastest(arguments, folder, name, console)
        if run is None:
            continue
        runs[name] = run, *measure_differences(model, folder, row.layout)
        if name.startswith("whole"):
            (folder / "logits.npy").replace(folder / f"{row.layout}.npy")
    streamed = run_streaming(arguments, folder, image)
    runs["septa, streamed"] = streamed, *measure_stored_differences(model, folder, console)
    base = runs["septa, in memory"][0]
    for name, (run, difference, flips) in runs.items():
        if name not in ROWS or ROWS[name].exact:
            exact &= difference == 0
        cells = [f"{run.seconds:.1f}", f"{run.seconds / base.seconds:.2f}", f"{run.busy:.1f}"]
        cells += [f"{run.busy / base.busy:.2f}", f"{run.peak / 1e6:.0f}", f"{difference:.3g}", str(flips)]
        table.add_row(run.name, *cells)
    console.print(table)
    return exact


def write_image(arguments: argparse.Namespace, model: Model, folder: Path) -> Path:
    """Write the raw values of the image, ``CYX``, with the channels of the model; return the path that septa reads."""
    from septa.images import open_source
    from slide import write_slide

    image: Path = arguments.image or folder / "slide.ome.zarr"
    if arguments.image is None:
        write_slide(image, arguments.size, arguments.size, arguments.seed)
    with open_source(image) as source:
        if source.shape[0] * source.shape[2] > 1:
            raise SystemExit(f"error: {image}: the image has several planes. Give an image of one plane.")
        height, width = source.shape[3:]
        image_cyx = model.as_model_input(source.read((0, height), (0, width)), image)
        np.save(folder / "image.npy", image_cyx, allow_pickle=False)
    return image


def run_fastest(arguments: argparse.Namespace, folder: Path, name: str, console: Console) -> Run | None:
    """Return the fastest run of a row, with its logits in the folder; None if its library is missing or fails."""
    row = ROWS[name]
    best = None
    int8 = ["--int8", str(arguments.int8)] if arguments.int8 else []
    pythons = dict(given.split("=", 1) for given in arguments.peers)
    for method in row.methods:
        for _ in range(arguments.repeats):
            command = [pythons.get(row.peer or "", sys.executable), str(Path(__file__).resolve())]
            command += [str(arguments.model), *int8, "--patch", str(arguments.patch)]
            command += ["--child", str(folder), name, method]
            status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
            if status and row.peer is None:
                raise SystemExit(f"{name}: the process failed with exit code {status}")
            result = {"missing": f"exit code {status}"} if status else json.loads((folder / "run.json").read_text())
            if "missing" in result:
                hint = f"Run {INSTALL[row.peer or '']}, or give --peers {row.peer}=PYTHON"
                console.print(f"{name}: skipped ({result['missing']}). {hint}", highlight=False, markup=False)
                return None
            run = Run(**result, name=f"{name}, {method}" if method else name)
            console.print(f"{run.name}: {run.seconds:.1f} s", highlight=False, markup=False)
            best = run if best is None or run.seconds < best.seconds else best
    return best


def measure(path: Path, folder: Path, name: str, method: str, patch: int) -> None:
    """Load a model and run one method in this process; write its time, its memory and its logits to the folder."""
    row = ROWS[name]
    if row.prepared:
        runtime.prepare()
    import torch

    from septa.model import Model

    result: dict[str, Any]
    try:
        run = row.methods[method]()
    except ImportError as error:
        result = {"missing": str(error)}
    else:
        model = Model.load(path)
        image_cyx = np.load(folder / "image.npy", allow_pickle=False)
        begin, busy = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            logits_kyx = run(model, image_cyx, patch)
        result = {"seconds": time.perf_counter() - begin, "busy": time.process_time() - busy}
        from streaming import read_peak_memory

        result["peak"] = read_peak_memory(os.getpid())
        np.save(folder / "logits.npy", logits_kyx, allow_pickle=False)
    (folder / "run.json").write_text(json.dumps(result))


def run_streaming(arguments: argparse.Namespace, folder: Path, image: Path) -> Run:
    """Return the fastest run of ``septa predict``; its store stays in the folder."""
    import shutil

    from streaming import run_septa

    runs = []
    output = folder / "labels.ome.zarr"
    for _ in range(arguments.repeats):
        shutil.rmtree(output, ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [str(arguments.model), str(image), "-o", str(output), "--memory", arguments.memory]
        run = run_septa("predict", *command, "--probabilities", "--device", "cpu")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        name = f"septa, streamed, --memory {arguments.memory}"
        runs.append(Run(seconds=run.seconds, busy=busy, peak=run.peak, name=name))
    return min(runs, key=lambda run: run.seconds)


def measure_differences(model: Model, folder: Path, layout: str) -> tuple[float, int]:
    """Return the largest difference of the logits to the whole pass in a layout, and the number of flips."""
    from septa.inference import largest_difference

    path = folder / f"{layout}.npy"
    if not path.exists():
        # This row is a whole pass. Against the first one, it shows the effect of the layout or of folding alone.
        path = folder / f"{LAST}.npy"
    if not path.exists():
        return 0.0, 0
    whole_kyx, logits_kyx = (np.load(file, allow_pickle=False) for file in (path, folder / "logits.npy"))
    sigmoid = model.recipe.net.output == "sigmoid"
    return largest_difference(whole_kyx, logits_kyx.astype(np.float32)), count_flips(whole_kyx, logits_kyx, sigmoid)


def count_flips(whole_kyx: Array, other_kyx: Array, sigmoid: bool) -> int:
    """Count the pixels of another class; with ``sigmoid``, the pixels where any class crosses the threshold."""
    if sigmoid:
        return int(np.count_nonzero(((whole_kyx > 0) != (other_kyx > 0)).any(axis=0)))
    return int(np.count_nonzero(whole_kyx.argmax(axis=0) != other_kyx.argmax(axis=0)))


def measure_stored_differences(model: Model, folder: Path, console: Console) -> tuple[float, int]:
    """Return the differences of `measure_differences` for the probabilities in the store.

    The function also prints whether the labels in the store equal those of the whole image.
    """
    import zarr

    from septa.inference import largest_difference
    from streaming import open_labels

    store: Any = zarr.open_group(folder / "labels.ome.zarr", mode="r")
    whole_kyx = np.load(folder / f"{OWN}.npy", allow_pickle=False)
    labels_yx = model.task.decode(whole_kyx)
    if model.recipe.task != "instances":
        labels_yx = model.as_written(labels_yx)
    stored = np.asarray(open_labels(folder / "labels.ome.zarr")[...]).reshape(labels_yx.shape)
    ours, theirs, pairs = (len(np.unique(labels)) for labels in (stored, labels_yx, pair_labels(stored, labels_yx)))
    verdict = "the same pixel for pixel" if ours == theirs == pairs else "NOT the same"
    console.print(f"labels: {ours} values in the store, {theirs} in the whole image, {verdict}", highlight=False)
    probabilities = model.task.probabilities(whole_kyx).astype(np.float16)
    found = np.asarray(store["0"][...]).reshape(probabilities.shape)
    sigmoid = model.recipe.net.output == "sigmoid"
    half = np.float32(0.5 if sigmoid else 0)
    a, b = (values.astype(np.float32) for values in (probabilities, found))
    return largest_difference(a, b), count_flips(a - half, b - half, sigmoid)


def pair_labels(a: Array, b: Array) -> Array:
    """Return one number for each pair of labels, so that equal regions may have different ids."""
    return a.astype(np.int64) * (int(b.max()) + 1) + b


if __name__ == "__main__":
    main()
