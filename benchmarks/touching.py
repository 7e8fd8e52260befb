"""Draw touching objects: the ground truth next to the predictions of one or several models.

Usage: ``python benchmarks/touching.py DATA MODEL [MODEL...] -o touching.png``.

The script segments the images of DATA that the first model was not trained on. From each image it cuts the window in
which most ground-truth objects touch. The upper rows show the windows in which the first model separated the objects
best, the lower rows those in which it failed most. The columns show the image, the ground truth, and each model. The
scores of each window are printed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from septa.data import digest_array, find_pairs, read_pair_image, read_pair_labels
from septa.images import encode_png, to_rgb, write_bytes
from septa.metrics import ObjectScores, score_objects
from septa.model import Model, PredictionOptions

WINDOW = 128
"""Side of a window, pixels."""
ZOOM = 3
GAP = 6
"""Width of the black line between two pictures, pixels."""
YELLOW = (255, 220, 0)
GREEN = (60, 230, 60)
Labels = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One window: its picture, its ground truth, the labels of each model, and the number of touching objects."""

    name: str
    rgb_yxs: NDArray[np.uint8]
    truth_yx: Labels
    found_yx: tuple[Labels, ...]
    touching: int

    @property
    def scores(self) -> list[ObjectScores]:
        """Scores of each model in the window."""
        return [score_objects(self.truth_yx, found_yx) for found_yx in self.found_yx]


def main() -> None:
    """Write the picture and print the scores of its windows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of images and labels")
    parser.add_argument("models", type=Path, nargs="+", help="models of the task instances")
    parser.add_argument("-o", "--output", type=Path, default=Path("touching.png"), help="PNG file to write")
    parser.add_argument("--rows", type=int, default=4, help="number of successes, and number of failures")
    arguments = parser.parse_args()
    scenes = find_scenes(arguments.data, [Model.load(path) for path in arguments.models])
    if not scenes:
        problem = "no image that the first model has not seen has four touching objects in a window"
        raise SystemExit(f"error: {arguments.data}: {problem}. Give other data or another model.")
    scenes = sorted(scenes, key=lambda scene: (-scene.scores[0].f1[0], -scene.touching))
    shown = scenes[: arguments.rows] + scenes[-arguments.rows :]
    write_bytes(arguments.output, encode_png(np.concatenate([draw_row(scene) for scene in shown])))
    table = Table("image", "touching objects", *(f"{path.stem}: F1, merged, split" for path in arguments.models))
    for scene in shown:
        cells = [f"{score.f1[0]:.2f}, {score.merges}, {score.splits}" for score in scene.scores]
        table.add_row(scene.name[:12], str(scene.touching), *cells)
    Console().print(table)


def find_scenes(data: Path, models: list[Model], most: int = 40) -> list[Scene]:
    """Cut the window with most touching objects from each unseen image; keep the ``most`` richest windows."""
    trained = {digest for _, digest in models[0].provenance.get("train", [])}
    windows: list[tuple[int, Any, tuple[int, int], NDArray[Any], Labels]] = []
    for pair in find_pairs(data).pairs:
        image_cyx = read_pair_image(pair)
        if digest_array(image_cyx) not in trained:
            truth_yx = models[0].labels.encode_objects(read_pair_labels(pair), pair.name).ids_yx
            count, place = find_busiest_window(truth_yx)
            windows.append((count, pair, place, image_cyx, truth_yx))
    windows.sort(key=lambda entry: -entry[0])
    return [make_scene(models, *entry) for entry in windows[:most] if entry[0] >= 4]


def make_scene(
    models: list[Model], touching: int, pair: Any, place: tuple[int, int], image_cyx: NDArray[Any], truth_yx: Labels
) -> Scene:
    """Cut a window from one image and from the labels of each model; each model segments the whole image."""
    part = tuple(slice(start, start + WINDOW) for start in place)
    inputs = [model.as_model_input(image_cyx, pair.image) for model in models]
    found = tuple(
        model.compute_labels(input_cyx, PredictionOptions())[part]
        for model, input_cyx in zip(models, inputs, strict=True)
    )
    # The exponent makes dim nuclei visible next to bright ones.
    rgb_yxs = (255 * (to_rgb(image_cyx)[part] / 255.0) ** 0.6).astype(np.uint8)
    return Scene(
        name=pair.name,
        rgb_yxs=rgb_yxs,
        truth_yx=truth_yx[part],
        found_yx=found,
        touching=touching,
    )


def find_busiest_window(truth_yx: Labels) -> tuple[int, tuple[int, int]]:
    """Return the number of touching objects in the window with most of them, and its first row and column."""
    best = (-1, (0, 0))
    for top in range(0, max(1, truth_yx.shape[0] - WINDOW + 1), WINDOW // 2):
        for left in range(0, max(1, truth_yx.shape[1] - WINDOW + 1), WINDOW // 2):
            part_yx = truth_yx[top : top + WINDOW, left : left + WINDOW]
            ids: set[int] = set()
            for one, other in ((part_yx[1:], part_yx[:-1]), (part_yx[:, 1:], part_yx[:, :-1])):
                touch = (one != other) & (one > 0) & (other > 0)
                ids |= set(one[touch].tolist()) | set(other[touch].tolist())
            best = max(best, (len(ids), (top, left)))
    return best


def draw_row(scene: Scene) -> NDArray[np.uint8]:
    """Draw the image, the ground truth and the models side by side."""
    picture = enlarge(scene.rgb_yxs)
    parts = [picture, draw_outlines(picture, scene.truth_yx, YELLOW)]
    parts += [draw_outlines(picture, found_yx, GREEN) for found_yx in scene.found_yx]
    side = WINDOW * ZOOM
    framed = [
        np.pad(part, [(0, side - part.shape[0] + GAP), (0, side - part.shape[1] + GAP), (0, 0)]) for part in parts
    ]
    return np.concatenate(framed, axis=1)


def enlarge(array: NDArray[Any]) -> NDArray[Any]:
    """Repeat each pixel as a square of ``ZOOM`` x ``ZOOM`` pixels."""
    return np.repeat(np.repeat(array, ZOOM, axis=0), ZOOM, axis=1)


def draw_outlines(picture: NDArray[np.uint8], labels_yx: Labels, color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Draw the inner outline of every object on a copy of the picture."""
    large_yx = enlarge(labels_yx).astype(np.float32)
    edge_yx = (cv2.dilate(large_yx, np.ones((3, 3))) != cv2.erode(large_yx, np.ones((3, 3)))) & (large_yx > 0)
    drawn = picture.copy()
    drawn[edge_yx] = color
    return drawn


if __name__ == "__main__":
    main()
