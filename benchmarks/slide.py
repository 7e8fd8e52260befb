"""Draw a synthetic microscopy slide of any size with a known number of nuclei, block by block on one core.

``python benchmarks/slide.py draw --size 32768 -o slide.ome.zarr`` draws fluorescent nuclei, 12 to 30 pixels wide, into
an OME-Zarr 0.5 store. Many nuclei touch. The store has one level of uint8 values, one channel, 0.5 micrometres per
pixel, and chunks of 512 in shards of 2048. The command prints the exact number of nuclei, the time and the peak
memory. A smaller slide is the corner of a larger one.

``python benchmarks/slide.py training --images 40 --size 256 -o DIR`` writes small images of the same kind with their
labels. None of them is part of a slide.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from _slide import count_nuclei, draw, draw_labels, find_centres
from septa.errors import InputError, SeptaError
from septa.images import write_image, write_labels

__all__ = ["count_nuclei", "draw", "draw_labels", "find_centres", "write_slide", "write_training_set"]

PIXEL_SIZE_UM = 0.5
CHUNK = 512
SHARD = 2048


def write_slide(
    path: str | Path, height: int, width: int, seed: int, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Draw a slide into a new OME-Zarr store; the memory does not depend on the size.

    Parameters
    ----------
    path
        Folder to make. It appears once the slide is complete.
    height, width
        Size, pixels.
    seed
        Non-negative number; ``draw(y0, y1, x0, x1, seed)`` returns any window of the slide.
    progress
        Function that is called after each block, with the number of blocks done and the number of all blocks.

    Raises
    ------
    InputError
        ``path`` exists, or a side is below 1, or the seed is negative.
    """
    path = Path(path)
    if path.exists():
        raise InputError(path, "this folder already exists", "Remove it or choose another name")
    if min(height, width) < 1 or seed < 0:
        problem = f"each side must be at least 1 pixel and the seed at least 0, got {height} x {width} and seed {seed}"
        raise InputError(path, problem, "Choose other numbers")
    blocks = [(y, x) for y in range(0, height, SHARD) for x in range(0, width, SHARD)]
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        array_cyx = _new_array(temporary, height, width, seed)
        for number, (y0, x0) in enumerate(blocks):
            y1, x1 = min(y0 + SHARD, height), min(x0 + SHARD, width)
            array_cyx[0, y0:y1, x0:x1] = draw(y0, y1, x0, x1, seed)
            if progress is not None:
                progress(number + 1, len(blocks))
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _new_array(path: Path, height: int, width: int, seed: int) -> Any:
    import zarr
    from zarr.codecs import ZstdCodec

    zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1})
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = {"type": "scale", "scale": [1.0, PIXEL_SIZE_UM, PIXEL_SIZE_UM]}
    levels = [{"path": "0", "coordinateTransformations": [scale]}]
    ome = {"version": "0.5", "multiscales": [{"name": "slide", "axes": axes, "datasets": levels}]}
    group = zarr.create_group(path, zarr_format=3, attributes={"ome": ome, "synthetic": {"seed": seed}})
    return group.create_array(
        "0",
        shape=(1, height, width),
        dtype="uint8",
        chunks=(1, CHUNK, CHUNK),
        shards=(1, SHARD, SHARD),
        compressors=ZstdCodec(level=1),
        dimension_names=["c", "y", "x"],
    )


def write_training_set(folder: str | Path, count: int, size: int, seed: int) -> None:
    """Write 8-bit TIFF images to ``folder/images`` and their instance ids to ``folder/labels``.

    The ids of an image are contiguous from 1. Each image is drawn from a plane of its own. No slide that `write_slide`
    draws with a small seed uses these planes.

    Raises
    ------
    InputError
        The folder holds images or labels, or ``count`` or ``size`` is below 1, or the seed is negative.
    """
    folder = Path(folder)
    if count < 1 or size < 1 or seed < 0:
        problem = f"images and pixels must be at least 1 and the seed at least 0, got {count}, {size} and {seed}"
        raise InputError(folder, problem, "Choose other numbers")
    for name in ("images", "labels"):
        if (folder / name).exists():
            raise InputError(folder / name, "this folder already exists", "Choose another folder")
    pixel_size_um = (PIXEL_SIZE_UM, PIXEL_SIZE_UM)
    for index in range(count):
        plane = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        window = 0, size, 0, size
        ids, numbers = np.unique(draw_labels(*window, plane), return_inverse=True)
        labels_yx = numbers.reshape(size, size) + int(ids[0] > 0)
        name = f"nuclei_{index:04d}.tif"
        write_labels(folder / "labels" / name, labels_yx, pixel_size_um=pixel_size_um)
        write_image(folder / "images" / name, draw(*window, plane)[None], pixel_size_um=pixel_size_um)


def main() -> None:
    """Draw a slide or a training set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    slide = commands.add_parser("draw", help="draw a slide")
    slide.add_argument("--size", type=int, nargs="+", default=[8192], help="side, or height and width, in pixels")
    training = commands.add_parser("training", help="write small images with labels")
    training.add_argument("--images", type=int, default=40, help="number of images")
    training.add_argument("--size", type=int, default=256, help="height and width of an image, pixels")
    for command in (slide, training):
        command.add_argument("--seed", type=int, default=0, help="number from which all nuclei are drawn")
        command.add_argument("-o", "--output", type=Path, required=True, help="folder or store to write")
    arguments = parser.parse_args()
    try:
        if arguments.command == "training":
            write_training_set(arguments.output, arguments.images, arguments.size, arguments.seed)
        else:
            _draw_slide(arguments.output, arguments.size[0], arguments.size[-1], arguments.seed)
    except SeptaError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _draw_slide(output: Path, height: int, width: int, seed: int) -> None:
    import resource

    begin, busy = time.perf_counter(), time.process_time()
    write_slide(output, height, width, seed)
    elapsed, busy = time.perf_counter() - begin, time.process_time() - busy
    megapixels = height * width / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(
        f"{output}: {height} x {width} pixels, {count_nuclei(height, width, seed)} nuclei, {elapsed:.1f} s "
        f"({busy:.1f} s of processor time), {megapixels / elapsed:.1f} megapixels/s, peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
