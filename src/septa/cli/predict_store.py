"""``septa predict`` for images of any size: one image to one store."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from septa import errors

if TYPE_CHECKING:
    from rich.console import Console

    from septa.streaming import Cluster, StreamRequest, StreamStarted

_UNITS = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_STORES = (".zarr", ".tif", ".tiff")
_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def is_streamed(inputs: list[str], output: Path) -> bool:
    """Whether one image goes to one store, rather than files to files of a folder."""
    return output.suffix.lower() in _STORES or any(is_zarr(Path(path)) for path in inputs)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return path.is_dir() and any((path / name).is_file() for name in _ZARR)


def parse_memory(text: str | None) -> int | None:
    """``4GB``, ``512MiB`` or bytes as a number of bytes.

    Examples
    --------
    >>> parse_memory("1.5GB"), parse_memory("2GiB"), parse_memory(None)
    (1500000000, 2147483648, None)
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise errors.InputError(f"--memory {text}", "is no amount of memory", "write for example 4GB or 512MiB")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_region(text: str | None) -> tuple[int, int, int, int] | None:
    """``TOP,LEFT,BOTTOM,RIGHT`` as numbers."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise errors.InputError(f"--region {text}", "is not TOP,LEFT,BOTTOM,RIGHT", "write for example 0,0,2048,4096")
    top, left, bottom, right = (int(part) for part in parts)
    return top, left, bottom, right


def parse_channels(text: str | None) -> tuple[int, ...] | None:
    """``0,2`` as numbers."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise errors.InputError(f"--channels {text}", "is no list of channels", "write for example 0 or 2,0,1")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True)
class StoreOptions:
    """The options of ``septa predict`` that only stores have, as they were given."""

    memory: str | None = None
    level: int | None = None
    channels: str | None = None
    region: str | None = None
    name: str | None = None
    skip_empty: bool = False
    overwrite: bool = False
    workers: int | None = None
    cluster: str | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


def requests(
    model: Path,
    inputs: list[str],
    output: Path,
    given: StoreOptions,
    tile: int | None,
    device: str,
    engine: str | None,
    probabilities: bool,
) -> list[StreamRequest]:
    """What to do for each input; a store takes one, a folder gets a store for each.

    Raises
    ------
    InputError
        Several inputs for one store, two stores of one name, or an option that says nothing.
    """
    from septa.streaming import StreamInput, StreamRequest, default_memory

    alone = output.suffix.lower() in _STORES
    if alone and len(inputs) > 1:
        raise errors.InputError(output, f"is one store, and {len(inputs)} images are given", "give -o a folder")
    targets = {Path(path): output if alone else output / f"{_stem(Path(path))}.ome.zarr" for path in inputs}
    if len(set(targets.values())) < len(inputs):
        raise errors.InputError(output, "would get two stores of one name", "segment these images apart")
    if engine == "auto" and (given.workers is not None or given.cluster is not None):
        problem = "may choose otherwise in each process, and their blocks would not fit"
        raise errors.InputError("--engine auto", problem, "give torch, openvino or onnxruntime")
    memory, channels, region = parse_memory(given.memory), parse_channels(given.channels), parse_region(given.region)
    if given.workers is not None and memory is None:
        memory = default_memory(given.workers)
    return [
        StreamRequest(
            model=model,
            input=StreamInput(str(path.resolve()), level=given.level or 0, channels=channels, image=0, region=region),
            output=target,
            memory=memory,
            tile=tile,
            device=device,
            name=given.name,
            probabilities=probabilities,
            skip_empty=given.skip_empty,
            overwrite=given.overwrite,
            engine=engine,
        )
        for path, target in targets.items()
    ]


def _stem(path: Path) -> str:
    return path.name.split(".", maxsplit=1)[0]


def predict_streamed(console: Console, requests: list[StreamRequest], given: StoreOptions) -> None:
    """Segment each image into its store, showing what is done."""
    with connected(given) as cluster:
        for request in requests:
            _one(console, request, cluster)


def connected(given: StoreOptions) -> AbstractContextManager[Cluster | None]:
    """The cluster that was asked for, or None for this process.

    Raises
    ------
    InputError
        The options exclude each other; on entering, also what `local_cluster` and `remote_cluster` raise.
    """
    from septa.streaming import Tls, local_cluster, remote_cluster

    if given.workers is not None and given.cluster is not None:
        raise errors.InputError("", "--workers and --cluster cannot be combined", "Give one of them")
    files = {"--tls-ca": given.tls_ca, "--tls-cert": given.tls_cert, "--tls-key": given.tls_key}
    for option, file in files.items():
        if file is not None and given.cluster is None:
            raise errors.InputError("", f"{option} works only with --cluster", f"Leave {option} out")
        if file is not None and not file.is_file():
            raise errors.InputError(f"{option} {file}", "the file does not exist", "Give a file in PEM format")
    tls = Tls(given.tls_ca, given.tls_cert, given.tls_key) if given.tls_ca and given.tls_cert else None
    if tls is None and any(files.values()):
        raise errors.InputError("", "TLS needs both --tls-ca and --tls-cert", "Give both")
    if given.cluster is not None:
        return remote_cluster(given.cluster, tls)
    return nullcontext() if given.workers is None else local_cluster(given.workers)


def _one(console: Console, request: StreamRequest, cluster: Cluster | None) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from septa.streaming import StreamFinished, StreamStarted, stream

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown, stage = None, ""
        for event in stream(request, None if cluster is None else cluster.make_executor):
            if isinstance(event, StreamStarted):
                _tell(console, request, event, cluster)
            elif isinstance(event, StreamFinished):
                summary = _summary(event)
            else:
                if event.stage != stage:
                    if shown is not None:
                        bar.remove_task(shown)
                    stage, shown = event.stage, bar.add_task(event.stage, total=event.total, speed="")
                assert shown is not None
                speed = bar.tasks[-1].speed
                unit = f"{speed:.1f} megapixels/s" if speed and event.stage == "segmenting" else ""
                bar.update(shown, completed=event.done, total=event.total, speed=unit)
    console.print(summary, highlight=False, markup=False)


def _tell(console: Console, request: StreamRequest, event: StreamStarted, cluster: Cluster | None) -> None:
    asked, plan = event.plan.identity, event.plan
    size = " x ".join(f"{side} {axis}" for axis, side in zip("TCZYX", asked.shape) if side > 1 or axis in "YX")
    pixel = "unknown" if plan.pixel_size_um is None else "{:g} x {:g} um".format(*plan.pixel_size_um)
    each = "" if cluster is None else f" in each of {cluster.count_workers()} workers"
    tile = min(request.tile or event.budget.tile, event.budget.tile)
    lines = [
        f"{request.input.path}: {size}, {asked.dtype.lstrip('<>|=')}, pixel size {pixel}",
        f"to {request.output}, task {event.model.recipe.task}, {event.model.labels.describe()}",
        f"{event.blocks} blocks of {plan.block} pixels, tiles of at most {tile}",
        f"at most {event.budget.expected / 1e6:.0f} MB of memory expected{each}",
        *event.notes,
    ]
    if event.done:
        lines.append(f"{event.done} of {event.blocks} blocks are done already")
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _summary(event: object) -> str:
    from septa.streaming import StreamFinished

    assert isinstance(event, StreamFinished)
    if event.again:
        return f"{event.output}: is complete already, nothing was done"
    parts = [f"{event.output}: {event.megapixels:.1f} megapixels"]
    if event.objects is not None:
        parts.append(f"{event.objects} objects")
    if event.skipped:
        parts.append(f"{event.skipped:.1%} skipped as empty")
    if event.segmented and event.seconds:
        speed = event.segmented / event.seconds
        parts.append(f"{event.segmented:.1f} segmented in {event.seconds:.1f} s, {speed:.2f} megapixels/s")
        if event.net_seconds is not None:
            parts.append(f"the net took {event.net_seconds / event.seconds:.0%} of it")
    if event.conflicts:
        parts.append(f"{event.conflicts} pixels between blocks differ, as this engine rounds differently by tile")
    return ", ".join(parts)
