"""Measure how well a model recognises images that are unlike its training images.

Usage: ``python benchmarks/unlike.py MODEL TRAIN HELD FOREIGN [FOREIGN...] [--counts 5 10 20] [--most 40]``.

TRAIN is a folder of images on which MODEL was trained, HELD a folder of other images of the same source, and each
FOREIGN a folder of images of another modality; each folder may hold ``images/``. The script measures the features of
all images, combines those of the training images by several methods, and prints for each method the share of held-out
images that it reports (false alarms), and for each foreign folder the AUROC of the distance and the share of reported
images. With ``--counts``, the features of so many training images are combined, as the mean over random choices.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from septa.images import IMAGE_SUFFIXES, read_image
from septa.inference import combine_features
from septa.model import Model
from septa.nets import list_members

CROP = 512
"""Largest side of an image that is measured, pixels."""
CHOICES = 8
"""Number of random choices of training images for each count."""
Float64 = NDArray[np.float64]
Measure = Callable[[Sequence["Features"]], Float64]


@dataclass(frozen=True)
class Features:
    """What is measured of an image: mean and deviation of each level, those that septa uses, and of a sample."""

    levels: tuple[Float64, ...]
    own: Float64
    sample: Float64
    confidence: float


def main() -> None:
    """Measure, and print a table."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "held"):
        parser.add_argument(name, type=Path)
    parser.add_argument("foreign", type=Path, nargs="+")
    parser.add_argument("--counts", type=int, nargs="*", default=[], help="numbers of training images")
    parser.add_argument("--most", type=int, default=40, help="largest number of images of a foreign folder")
    arguments = parser.parse_args()
    model = Model.load(arguments.model)
    train = measure_folder(model, arguments.train, 128)
    held = measure_folder(model, arguments.held, 100)
    foreign = {name_folder(path): measure_folder(model, path, arguments.most) for path in arguments.foreign}
    shown = ", ".join(f"{name} {len(features)}" for name, features in foreign.items())
    print(f"{arguments.model.stem}: {len(train)} training images, {len(held)} held out; {shown}")
    table = Table("method", "images", "false alarms", *(f"{name}: AUROC, reported" for name in foreign))
    last = len(train[0].levels) - 1
    measures: dict[str, Measure] = {
        "septa": lambda features: np.array([one.own for one in features]),
        "septa, tested on a sample": lambda features: np.array([one.sample for one in features]),
        **{f"level {level}": pick_levels(level) for level in range(last)},
        "bottleneck": pick_levels(last),
        "all levels": pick_levels(*range(last + 1)),
    }
    for count in (*arguments.counts, len(train)):
        for name, measure in measures.items():
            table.add_row(
                name, str(count), *score_method(measure, train, held, foreign, count, name.endswith("sample"))
            )
    values = [np.array([-one.confidence for one in group]) for group in (held, *foreign.values())]
    table.add_row("confidence of pixels", "", "", *(f"{find_auroc(values[0], own):.3f}" for own in values[1:]))
    Console(width=40 + 26 * len(foreign)).print(table)


def name_folder(path: Path) -> str:
    """Return the name of a folder, or of its parent if it is called ``images``."""
    return path.parent.name if path.name == "images" else path.name


def measure_folder(model: Model, folder: Path, most: int) -> list[Features]:
    """Measure the images of a folder, evenly chosen if there are many."""
    folder = folder / "images" if (folder / "images").is_dir() else folder
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), most)).round().astype(int))
    return [measure_image(model, read_image(paths[index])) for index in chosen]


def measure_image(model: Model, image_cyx: NDArray[Any]) -> Features:
    """Measure one image, with its channels averaged or repeated if the model needs that."""
    image_cyx = image_cyx[:, :CROP, :CROP]
    if len(image_cyx) != model.channels:
        grey_cyx = image_cyx.mean(axis=0, keepdims=True).astype(image_cyx.dtype)
        image_cyx = np.repeat(grey_cyx, model.channels, axis=0)
    factor = model.check_values(image_cyx).factor
    input_cyx = model.normalization.rescale(factor).resolve(image_cyx).apply(image_cyx)
    net = list_members(model.net)[0]
    pad = [(0, -side % net.multiple) for side in input_cyx.shape[1:]]
    padded = torch.from_numpy(np.pad(input_cyx, ((0, 0), *pad), "edge"))[None]
    with torch.inference_mode():
        levels = net.encoder(padded.contiguous(memory_format=torch.channels_last))
        logits_kyx = net(padded)[0].numpy()
    flat = [level[0].flatten(1).double() for level in levels]
    return Features(
        levels=tuple(torch.cat([one.mean(1), one.std(1, correction=0)]).numpy() for one in flat),
        own=model.measure_features(image_cyx, factor, side=256).summarize(),
        sample=model.measure_features(image_cyx, factor).summarize(),
        confidence=float(model.task.probabilities(logits_kyx).max(axis=0).mean()),
    )


def pick_levels(*levels: int) -> Measure:
    """Return a function that stacks the features of some levels."""
    return lambda features: np.array([np.concatenate([one.levels[level] for level in levels]) for one in features])


def score_method(
    measure: Measure,
    train: Sequence[Features],
    held: Sequence[Features],
    foreign: dict[str, list[Features]],
    count: int,
    sampled: bool,
) -> list[str]:
    """Return the cells of a row: false alarms, and AUROC and share of reported images of each foreign folder."""
    rng = np.random.default_rng(0)
    known = np.array([one.own for one in train]) if sampled else measure(train)
    rows = []
    for _ in range(CHOICES if count < len(train) else 1):
        features = combine_features(list(known[rng.permutation(len(train))[:count]]))
        if features is None:
            raise SystemExit(f"{count} images are too few")
        usual, *others = (
            np.array([features.find_distance(one) for one in measure(group)]) for group in (held, *foreign.values())
        )
        row = [float((usual > features.limit).mean())]
        for distances in others:
            row += [find_auroc(usual, distances), float((distances > features.limit).mean())]
        rows.append(row)
    alarms, *pairs = np.mean(rows, axis=0)
    return [
        f"{alarms:.1%}",
        *(f"{auroc:.3f}, {share:.0%}" for auroc, share in zip(pairs[::2], pairs[1::2], strict=True)),
    ]


def find_auroc(low: Float64, high: Float64) -> float:
    """Return the chance that a value of ``high`` is above one of ``low``; ties count half."""
    return float(np.mean(np.sign(high[:, None] - low[None, :]) / 2 + 0.5))


if __name__ == "__main__":
    main()
