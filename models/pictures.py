"""Draw the worst, the median and the best held-out image of each folder: image, ground truth and prediction.

::

    python models/pictures.py nuclei.septa OUT scores.json docs/images

The pictures may be published: only images under CC0 or the MIT licence are drawn.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from score import read_pairs
from sources import Array, number_regions

from septa import Model, SeptaWarning
from septa.images import draw_overlay, to_rgb, write_image, write_labels
from septa.metrics import align_ids

FREE = {"CC0", "MIT"}
SIDE = 256
"""Side in pixels of one panel, cut from the middle of the image."""
GAP = 4
"""Pixels between two panels."""


@dataclass(frozen=True)
class Example:
    """A part of a held-out image, ``side`` pixels wide and high, on which a model is shown.

    ``image`` is the image of the folder; the median one if it is empty. All examples of a model have at most 200 kB.
    """

    name: str
    folder: str
    side: int
    image: str = ""


def choose_images(scores: Mapping[str, float]) -> list[str]:
    """Return the names of the worst, the median and the best image."""
    order = sorted(scores, key=lambda name: (scores[name], name))
    return [order[0], order[len(order) // 2], order[-1]]


def draw_folder(model: Model, folder: Path, scores: Mapping[str, float]) -> Array:
    """Draw three rows of panels, uint8 ``CYX``: image, ground truth and prediction with ids that match."""
    chosen = choose_images(scores)
    pairs = {name: (image_cyx, labels_yx) for name, image_cyx, labels_yx in read_pairs(folder) if name in chosen}
    rows = []
    for name in chosen:
        image_cyx, truth_yx = pairs[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SeptaWarning)
            predicted_yx = align_ids(truth_yx, model.segment(image_cyx))
        picture_cyx = to_rgb(image_cyx).transpose(2, 0, 1)
        panels = [
            to_rgb(picture_cyx),
            draw_overlay(picture_cyx, truth_yx, alpha=0.2),
            draw_overlay(picture_cyx, predicted_yx, alpha=0.2),
        ]
        rows.append(join([cut_middle(panel_yxs) for panel_yxs in panels], axis=1))
    return join(rows, axis=0).transpose(2, 0, 1)


def cut_middle(rgb_yxs: Array) -> Array:
    """Return the middle of a picture, SIDE pixels high and wide; white where the picture is smaller."""
    out = np.full((SIDE, SIDE, 3), 255, np.uint8)
    top, left = (max(size - SIDE, 0) // 2 for size in rgb_yxs.shape[:2])
    middle = rgb_yxs[top : top + SIDE, left : left + SIDE]
    out[: middle.shape[0], : middle.shape[1]] = middle
    return out


def join(panels: list[Array], axis: int) -> Array:
    """Join pictures with white gaps between them."""
    shape = list(panels[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=axis)


def read_licences(data: Path) -> dict[str, str]:
    """Return the licence of each image of the manifest."""
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["licence"] for row in csv.DictReader(file)}


def draw(model: Model, name: str, data: Path, scores: Mapping[str, Any], out: Path) -> list[Path]:
    """Write one picture for each held-out folder."""
    licences = read_licences(data)
    written = []
    for folder, one in sorted(scores["folders"].items()):
        if {licences[image] for image in one["per_image"]} - FREE:
            print(f"{folder}: not drawn, its licence does not allow it")
            continue
        written.append(out / f"{name}_{folder}.png")
        write_image(written[-1], draw_folder(model, data / "held" / folder, one["per_image"]))
    return written


def write_example(data: Path, scores: Mapping[str, Any], example: Example, out: Path) -> None:
    """Write an example with its labels, 8 bits: what ``septa demo`` and ``septa app`` show."""
    folder, side = example.folder, example.side
    name = example.image or choose_images(scores["folders"][folder]["per_image"])[1]
    if read_licences(data)[name] != "CC0":
        raise ValueError(f"the licence of {name} is not CC0")
    image_cyx, labels_yx = next(pair for other, *pair in read_pairs(data / "held" / folder) if other == name)
    low, high = np.percentile(image_cyx, (0, 99.9)) if image_cyx.dtype != np.uint8 else (0, 255)
    bytes_cyx = np.rint((image_cyx - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    top, left = (max(size - side, 0) // 2 for size in labels_yx.shape)
    part = np.s_[top : top + side, left : left + side]
    write_image(out / "images" / f"{example.name}.png", np.ascontiguousarray(bytes_cyx[:, *part]))
    write_labels(out / "labels" / f"{example.name}.png", number_regions(labels_yx[part]))


def main() -> None:
    """Read the options and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model file")
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("scores", type=Path, help="file that score.py wrote")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    scores = json.loads(options.scores.read_text(encoding="utf-8"))
    model = Model.load(options.model)
    for path in draw(model, options.model.stem, options.data, scores, options.out):
        print(path)


if __name__ == "__main__":
    main()
