"""``septa predict`` for images of any size: one image to one store."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from septa import errors
from septa.cli.commands import LARGE
from septa.cli.net_options import NetOptions
from septa.cli.object_options import ObjectFileOptions
from septa.cli.options import option
from septa.cli.streams import print_error
from septa.cli.values import CHANNELS, MEMORY, REGION, choice, path, whole_number, word

if TYPE_CHECKING:
    from rich.console import Console

    from septa.prediction import InputImage
    from septa.streaming import Cluster, StreamFinished, StreamRequest, StreamStarted

_STORES = (".zarr", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """The options of ``septa predict`` that apply only to stores."""

    memory: Annotated[
        int | None,
        option(
            "--memory",
            heading=LARGE,
            kind=MEMORY,
            help="Limit for each process. The default is 4 GiB, or half of the machine's memory if that is less.",
        ),
    ] = None
    level: Annotated[
        int | None,
        option(
            "--level",
            heading=LARGE,
            kind=whole_number(least=0, example=1),
            help="Pyramid level of the image to segment. The default is 0, the full size.",
        ),
    ] = None
    channels: Annotated[
        tuple[int, ...] | None,
        option("--channels", heading=LARGE, kind=CHANNELS, help="Channels to use, in this order."),
    ] = None
    region: Annotated[
        tuple[int, int, int, int] | None,
        option("--region", heading=LARGE, kind=REGION, help="Segment only this part, in pixels of the level."),
    ] = None
    name: Annotated[
        str | None,
        option(
            "--name",
            heading=LARGE,
            kind=word("NAME", "cells"),
            help="Name of the label image in the store. The default is the name of the model file.",
        ),
    ] = None
    zarr: Annotated[
        str | None,
        option(
            "--zarr",
            heading=LARGE,
            kind=choice("0.4", "0.5"),
            help="Version of OME-Zarr to write. The default is 0.5; Fiji and ilastik read only 0.4.",
        ),
    ] = None
    into_image: Annotated[
        bool,
        option("--into-image", heading=LARGE, help="Write the labels into each OME-Zarr image itself, instead of -o."),
    ] = False
    skip_empty: Annotated[
        bool, option("--skip-empty", heading=LARGE, help="Skip blocks that show nothing but background.")
    ] = False
    workers: Annotated[
        int | None,
        option(
            "--workers",
            heading=LARGE,
            kind=whole_number(least=1, example=2),
            help="Spread the blocks over N processes (needs septa[cluster]).",
        ),
    ] = None
    cluster: Annotated[
        str | None,
        option(
            "--cluster",
            heading=LARGE,
            kind=word("ADDRESS", "tcp://host:8786"),
            help="Spread the blocks over a Dask cluster, such as tcp://host:8786 (needs septa[cluster]).",
        ),
    ] = None
    tls_ca: Annotated[
        Path | None,
        option(
            "--tls-ca",
            heading=LARGE,
            kind=path(example="ca.pem"),
            help="Certificate authority of a tls:// cluster (PEM file).",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        option(
            "--tls-cert",
            heading=LARGE,
            kind=path(example="cert.pem"),
            help="Own certificate for a tls:// cluster (PEM file).",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        option(
            "--tls-key",
            heading=LARGE,
            kind=path(example="key.pem"),
            help="Private key of the certificate, if it is in a file of its own.",
        ),
    ] = None


def is_store(output: Path, inputs: list[str], store: StoreOptions) -> bool:
    """Return True if the output is one store, and False if it is a folder or a label file.

    NAME.tif is a store if the image is one or an option of stores is given; without them it is a plain label image.
    """
    from septa.images import is_zarr

    if store.into_image:
        return True
    suffixes = [suffix.lower() for suffix in output.suffixes[-2:]]
    if suffixes[-1:] == [".zarr"]:
        return True
    if output.is_dir() or suffixes[-1:] not in ([".tif"], [".tiff"]):
        return False
    return suffixes[0] == ".ome" or has_options(store) or any(Path(each).is_dir() or is_zarr(each) for each in inputs)


def has_options(store: StoreOptions) -> bool:
    """Return True if any option of stores is given."""
    return any(value is not None and value is not False for value in vars(store).values())


def may_hold_stores(text: str) -> bool:
    """Return True if an argument may name zarr images, as folders, addresses and patterns do."""
    from septa.images import is_zarr

    return has_magic(text) or Path(text).is_dir() or is_zarr(text)


def check_store_options(store: StoreOptions, net: NetOptions) -> None:
    """Raise InputError if options of a cluster or an engine do not fit each other."""
    if net.engine == "auto" and (store.workers is not None or store.cluster is not None):
        problem = "auto may choose a different engine in each process, and then their blocks do not fit together"
        raise errors.InputError("--engine", problem, "Give torch, openvino or onnxruntime")
    if store.workers is not None and store.cluster is not None:
        raise errors.InputError("", "--workers and --cluster cannot be combined", "Give one of them")
    files = {"--tls-ca": store.tls_ca, "--tls-cert": store.tls_cert, "--tls-key": store.tls_key}
    for name, file in files.items():
        if file is not None and store.cluster is None:
            raise errors.InputError("", f"{name} works only with --cluster", f"Leave {name} out")
        if file is not None and not file.is_file():
            raise errors.InputError(f"{name} {file}", "the file does not exist", "Give a file in PEM format")
    if any(files.values()) and (store.tls_ca is None or store.tls_cert is None):
        raise errors.InputError("", "TLS needs both --tls-ca and --tls-cert", "Give both")


def make_requests(
    model: Path,
    images: list[InputImage],
    output: Path,
    store: StoreOptions,
    objects: ObjectFileOptions,
    net: NetOptions,
    probabilities: bool,
    overwrite: bool,
) -> list[StreamRequest]:
    """Return one request for each image: a store as output takes one image, a folder gets a store for each.

    Raises
    ------
    InputError
        Several images are given for one store, or have the same name.
    """
    from septa.images import resolve_location
    from septa.streaming import StreamInput, StreamRequest, default_memory

    is_one = not store.into_image and output.suffix.lower() in _STORES
    if is_one and len(images) > 1:
        remedy = "Give a folder with -o"
        if len({image.path for image in images}) == 1:
            remedy = f"Choose one with --image, from 0 to {len(images) - 1}, or give a folder with -o"
        raise errors.InputError(output, f"one store takes one image, got {len(images)}", remedy)
    outputs = [output if is_one else output / f"{image.stem}.ome.zarr" for image in images]
    if store.into_image:
        outputs = [Path(image.path) for image in images]
    elif double := next((one for one in outputs if outputs.count(one) > 1), None):
        raise errors.InputError(double, "two images would be written to this store", "Segment them into two folders")
    memory = store.memory
    if store.workers is not None and memory is None:
        memory = default_memory(store.workers)
    return [
        StreamRequest(
            model=model,
            input=StreamInput(
                resolve_location(image.path),
                level=store.level or 0,
                channels=store.channels,
                image=image.number,
                region=store.region,
            ),
            output=target,
            memory=memory,
            tile=net.tile,
            diameter=net.diameter,
            device=net.device,
            name=store.name,
            probabilities=probabilities,
            skip_empty=store.skip_empty,
            overwrite=overwrite,
            table=objects.table,
            geojson=_name_outlines(target) if objects.geojson else None,
            measure=objects.measure or ("basic",),
            min_confidence=objects.min_confidence,
            image_name=image.stem,
            engine=net.engine,
            precision=net.precision,
            zarr=store.zarr,
            into_image=store.into_image,
        )
        for image, target in zip(images, outputs, strict=True)
    ]


def _name_outlines(store: Path) -> Path:
    """Return the file for the outlines of the objects in a store, beside it in a folder as for label images."""
    from septa.labels import OUTLINES

    stem = store.name.removesuffix(store.suffix)
    return store.parent / OUTLINES / f"{stem.removesuffix('.ome')}.geojson"


def segment_to_stores(
    console: Console, requests: list[StreamRequest], store: StoreOptions, is_only: bool
) -> list[errors.SeptaError]:
    """Segment each image into its store, and show the progress.

    It continues after an image that cannot be used, unless ``is_only``, and returns the errors.
    """
    from septa.streaming import make_interrupted

    failed: list[errors.SeptaError] = []
    with connect_cluster(store) as cluster:
        if cluster is not None:
            fast = cluster.has_fast_bf16(requests[0].device)
            requests = [replace(request, fast_bf16=fast) for request in requests]
        for request in requests:
            try:
                _segment_to_store(console, request, cluster)
            except KeyboardInterrupt:  # while an event was shown
                raise make_interrupted(request.output) from None
            except errors.InputError as error:
                if is_only or isinstance(error, errors.ModelError):
                    raise
                failed.append(error)
                print_error(error)
    return failed


def connect_cluster(store: StoreOptions) -> AbstractContextManager[Cluster | None]:
    """Return the cluster that the checked options ask for, or None for this process alone.

    On entering, it raises the errors of `local_cluster` and `remote_cluster`.
    """
    from septa.streaming import Tls, local_cluster, remote_cluster

    tls = None
    if store.tls_ca is not None and store.tls_cert is not None:
        tls = Tls(store.tls_ca, store.tls_cert, store.tls_key)
    if store.cluster is not None:
        return remote_cluster(store.cluster, tls)
    return nullcontext() if store.workers is None else local_cluster(store.workers)


def _segment_to_store(console: Console, request: StreamRequest, cluster: Cluster | None) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from septa.display import say
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
                _print_start(console, request, event, cluster)
            elif isinstance(event, StreamFinished):
                summary = "\n".join((*event.notes, _summarise(event)))
            else:
                if event.stage != stage:
                    if shown is not None:
                        bar.remove_task(shown)
                    stage = event.stage
                    shown = bar.add_task(event.stage, total=event.total, speed="")
                assert shown is not None
                speed = bar.tasks[-1].speed
                unit = f"{speed:.1f} megapixels/s" if speed and event.stage == "segmenting" else ""
                bar.update(shown, completed=event.done, total=event.total, speed=unit)
    say(console, summary)


def _print_start(console: Console, request: StreamRequest, event: StreamStarted, cluster: Cluster | None) -> None:
    from septa.display import say

    asked, plan = event.plan.identity, event.plan
    size = " x ".join(f"{side} {axis}" for axis, side in zip("TCZYX", asked.shape) if side > 1 or axis in "YX")
    size_um = plan.calibration.pixel_size_um
    pixel = "unknown" if size_um is None else "{:g} x {:g} um".format(*size_um)
    each = "" if cluster is None else f" in each of {cluster.count_workers()} workers"
    tile = min(request.tile or event.budget.tile, event.budget.tile)
    say(console, f"{request.input.path}: {size}, {asked.dtype.lstrip('<>|=')}, pixel size {pixel}")
    model = event.model
    facts = (f"task {model.recipe.task}", model.labels.describe(), model.describe_members())
    say(console, f"to {request.output}, {', '.join(filter(None, facts))}")
    say(console, f"{event.blocks} blocks of {plan.block} pixels, tiles of at most {tile}")
    say(console, f"at most {event.budget.expected / 1e6:.0f} MB of memory expected{each}")
    for note in event.notes:
        say(console, note)
    if event.done:
        say(console, f"{event.done} of {event.blocks} blocks are done already")


def _summarise(event: StreamFinished) -> str:
    if event.already_complete:
        return f"{event.output}: is complete already, nothing was done"
    parts = [f"{event.output}: {event.megapixels:.1f} megapixels"]
    if event.objects is not None:
        parts.append(f"{event.objects} objects")
    if event.dropped:
        parts.append(f"{event.dropped} dropped for their confidence")
    if event.skipped:
        parts.append(f"{event.skipped:.1%} skipped as empty")
    if event.segmented and event.seconds:
        speed = event.segmented / event.seconds
        parts.append(f"{event.segmented:.1f} segmented in {event.seconds:.1f} s, {speed:.2f} megapixels/s")
        if event.net_seconds is not None:
            parts.append(f"the net took {event.net_seconds / event.seconds:.0%} of the time")
    if event.conflicts:
        parts.append(
            f"{event.conflicts} pixels differ between blocks, because this engine's rounding depends on the tile"
        )
    return ", ".join(parts)
