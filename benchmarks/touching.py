"""Pictures of touching objects: the truth beside what one or several models make of it.

``python benchmarks/touching.py DATA MODEL [MODEL...] -o touching.png`` segments the images of DATA that the first model
was not trained on, and cuts from each the window in which most true objects touch. The upper rows are those where the
first model kept most of them apart, the lower ones those where it failed most. Columns: image, truth, a column for each
model. The scores of each window are printed.
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

from septa.data.fingerprint import digest_array
from septa.data.folder import find_pairs, read_pair_image, read_pair_labels
from septa.images.overlay import to_rgb
from septa.images.write import encode_png, write_bytes
from septa.metrics.objects import ObjectScores, score_objects
from septa.model import Model, PredictionOptions

WINDOW, ZOOM, GAP = 128, 3, 6
YELLOW, GREEN = (255, 220, 0), (60, 230, 60)
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Scene:
    """One window: the picture, the true objects, those of each model, and how many true ones touch another."""

    name: str
    rgb_yxs: NDArray[np.uint8]
    truth_yx: Labels
    found_yx: tuple[Labels, ...]
    touching: int

    @property
    def scores(self) -> list[ObjectScores]:
        """Of each model in the window."""
        return [score_objects(self.truth_yx, found_yx) for found_yx in self.found_yx]


def main() -> None:
    """Write the picture and print what it shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("touching.png"))
    parser.add_argument("--rows", type=int, default=4, help="of successes, and as many of failures")
    arguments = parser.parse_args()
    scenes = find_scenes(arguments.data, [Model.load(path) for path in arguments.models])
    scenes = sorted(scenes, key=lambda scene: (-scene.scores[0].f1[0], -scene.touching))
    shown = scenes[: arguments.rows] + scenes[-arguments.rows :]
    write_bytes(arguments.output, encode_png(np.concatenate([row(scene) for scene in shown])))
    table = Table("image", "touching", *(f"{path.stem}: F1, merged, split" for path in arguments.models))
    for scene in shown:
        told = [f"{score.f1[0]:.2f}, {score.merges}, {score.splits}" for score in scene.scores]
        table.add_row(scene.name[:12], str(scene.touching), *told)
    Console().print(table)


def find_scenes(data: Path, models: list[Model], most: int = 40) -> list[Scene]:
    """The window with most touching objects of each image, of the images with most of them."""
    trained = {digest for _, digest in models[0].provenance.get("train", [])}
    windows: list[tuple[int, Any, tuple[int, int], NDArray[Any], Labels]] = []
    for pair in find_pairs(data).pairs:
        image_cyx = read_pair_image(pair)
        if digest_array(image_cyx) not in trained:
            truth_yx = models[0].labels.encode_objects(read_pair_labels(pair), pair.name).ids_yx
            count, place = busiest(truth_yx)
            windows.append((count, pair, place, image_cyx, truth_yx))
    windows.sort(key=lambda entry: -entry[0])
    return [scene(models, *entry) for entry in windows[:most] if entry[0] >= 4]


def scene(
    models: list[Model], touching: int, pair: Any, place: tuple[int, int], image_cyx: NDArray[Any], truth_yx: Labels
) -> Scene:
    """The window of one image; each model sees the whole image."""
    part = tuple(slice(start, start + WINDOW) for start in place)
    inputs = [model.as_model_input(image_cyx, pair.image) for model in models]
    found = tuple(
        model.compute_labels(input_cyx, PredictionOptions())[part]
        for model, input_cyx in zip(models, inputs, strict=True)
    )
    # Dim nuclei beside bright ones are to be seen too.
    rgb_yxs = (255 * (to_rgb(image_cyx)[part] / 255.0) ** 0.6).astype(np.uint8)
    return Scene(pair.name, rgb_yxs, truth_yx[part], found, touching)


def busiest(truth_yx: Labels) -> tuple[int, tuple[int, int]]:
    """How many objects touch another one in the window where most do, and where that is."""
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


def row(scene: Scene) -> NDArray[np.uint8]:
    """Image, truth and models side by side."""
    picture = enlarged(scene.rgb_yxs)
    parts = [picture, outlined(picture, scene.truth_yx, YELLOW)]
    parts += [outlined(picture, found_yx, GREEN) for found_yx in scene.found_yx]
    side = WINDOW * ZOOM
    framed = [
        np.pad(part, [(0, side - part.shape[0] + GAP), (0, side - part.shape[1] + GAP), (0, 0)]) for part in parts
    ]
    return np.concatenate(framed, axis=1)


def enlarged(array: NDArray[Any]) -> NDArray[Any]:
    """Each pixel as a square of pixels."""
    return np.repeat(np.repeat(array, ZOOM, axis=0), ZOOM, axis=1)


def outlined(picture: NDArray[np.uint8], labels_yx: Labels, color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The inner outline of every object on a copy of the picture."""
    large_yx = enlarged(labels_yx).astype(np.float32)
    edge_yx = (cv2.dilate(large_yx, np.ones((3, 3))) != cv2.erode(large_yx, np.ones((3, 3)))) & (large_yx > 0)
    drawn = picture.copy()
    drawn[edge_yx] = color
    return drawn


if __name__ == "__main__":
    main()
