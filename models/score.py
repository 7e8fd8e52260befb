"""Score a model on the held-out folders of `prepare.py`, by modality, and on converted and resized versions of them.

::

    python models/score.py nuclei.septa OUT --json scores.json

Scores are pooled over all objects of a folder. AP@0.5 is TP / (TP + FP + FN) at an IoU of 0.5; mean AP is its mean over
the thresholds 0.5, 0.55, ... 0.95.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sources import Array, Labels

from septa import Model, SeptaWarning
from septa.images import read_image, resize_image, resize_labels
from septa.metrics import pool, score_objects

Pair = tuple[Array, Labels]


def _as_8_bit(image_cyx: Array, labels_yx: Labels) -> Pair:
    """Map the range of the image to 0..255, as ImageJ converts it."""
    return _stretch(image_cyx, 255).astype(np.uint8), labels_yx


def _as_16_bit(image_cyx: Array, labels_yx: Labels) -> Pair:
    """Map 8 bits to the whole range of 16; an image of 16 bits is stretched to its range."""
    if image_cyx.dtype == np.uint8:
        return image_cyx.astype(np.uint16) * np.uint16(257), labels_yx
    return _stretch(image_cyx, 65_535).astype(np.uint16), labels_yx


def _as_float(image_cyx: Array, labels_yx: Labels) -> Pair:
    """Divide by the largest value of the type, as many libraries do."""
    return (image_cyx / np.iinfo(image_cyx.dtype).max).astype(np.float32), labels_yx


def _stretch(image_cyx: Array, top: int) -> Array:
    low, high = float(image_cyx.min()), float(image_cyx.max())
    return np.asarray(np.rint((image_cyx - low) * (top / max(high - low, 1))))


def _resize(image_cyx: Array, labels_yx: Labels, factor: float) -> Pair:
    size = round(labels_yx.shape[0] * factor), round(labels_yx.shape[1] * factor)
    return resize_image(image_cyx, size), resize_labels(labels_yx, size)


VERSIONS: dict[str, Callable[[Array, Labels], Pair]] = {
    "as it is": lambda image_cyx, labels_yx: (image_cyx, labels_yx),
    "8 bit": _as_8_bit,
    "16 bit": _as_16_bit,
    "float": _as_float,
    "x 2": lambda image_cyx, labels_yx: _resize(image_cyx, labels_yx, 2),
    "x 0.5": lambda image_cyx, labels_yx: _resize(image_cyx, labels_yx, 0.5),
}
"""Versions of an image whose scores should be alike."""

SIZES = (0, 32, 64, 256, 512, 2048, 1 << 62)
"""Limits in pixels of the areas of objects for which recall is given."""


def read_pairs(folder: Path, limit: int | None = None) -> Iterator[tuple[str, Array, Labels]]:
    """Read the images of a folder with their labels, or an even choice of ``limit`` of them."""
    paths = sorted((folder / "images").iterdir())
    if limit is not None and limit < len(paths):
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, limit).round().astype(int)]
    for path in paths:
        labels_yx = read_image(folder / "labels" / f"{path.stem}.png")[0].astype(np.int32)
        yield path.stem, read_image(path), labels_yx


def score_folder(model: Model, folder: Path, versions: Sequence[str], limit: int | None = None) -> dict[str, Any]:
    """Score all images of a folder in each version."""
    scores: dict[str, list[Any]] = {version: [] for version in versions}
    images: dict[str, float] = {}
    found = np.zeros((2, len(SIZES) - 1), np.int64)
    flagged = 0
    engine = model.engine()
    for name, image_cyx, labels_yx in read_pairs(folder, limit):
        for version in versions:
            version_cyx, truth_yx = VERSIONS[version](image_cyx, labels_yx)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", SeptaWarning)
                predicted_yx = model.segment(version_cyx, engine=engine)
            scored = score_objects(truth_yx, predicted_yx)
            scores[version].append(scored)
            if version == versions[0]:
                flagged += any(str(item.message).startswith("warning: ") for item in caught)
                images[name] = scored.accuracy[0]
                found += count_found(truth_yx, predicted_yx)
    pooled = {version: pool(several) for version, several in scores.items()}
    first = pooled[versions[0]]
    return {
        "images": first["images"],
        "objects": first["pooled"]["truth_count"],
        "ap50": first["pooled"]["accuracy"][0],
        "mean_ap": first["pooled"]["mean_accuracy"],
        "precision": first["pooled"]["precision"][0],
        "recall": first["pooled"]["recall"][0],
        "ap50_of_images": first["mean"]["accuracy"][0],
        "flagged": flagged,
        "versions": {version: one["pooled"]["accuracy"][0] for version, one in pooled.items()},
        "sizes": [[low, int(hits), int(number)] for low, hits, number in zip(SIZES, *found)],
        "per_image": images,
    }


def count_found(truth_yx: Labels, predicted_yx: Labels) -> Array:
    """Count the true objects of each size of `SIZES` that are found at an IoU of 0.5, and all of them: 2 x sizes."""
    from septa.metrics import contingency, match

    table = contingency(truth_yx, predicted_yx)
    areas = np.asarray(table.truth_areas)
    hit = np.isin(table.truth_ids, match(table, 0.5).pairs[:, 0])
    edges = np.asarray(SIZES, np.float64)
    return np.stack([np.histogram(areas[hit], edges)[0], np.histogram(areas, edges)[0]])


def read_held(data: Path) -> dict[str, dict[str, str]]:
    """Return the source and the modality of each held-out folder that the manifest names."""
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["role"].startswith("held/")]
    return {row["role"].removeprefix("held/"): {key: row[key] for key in ("source", "modality")} for row in rows}


def score(model: Model, data: Path, *, versions: Sequence[str], limit: int | None = None) -> dict[str, Any]:
    """Score a model on every held-out folder; the result is plain JSON."""
    folders: dict[str, dict[str, Any]] = {}
    for name, facts in sorted(read_held(data).items()):
        folders[name] = {**facts, **score_folder(model, data / "held" / name, versions, limit)}
        print_folder(name, folders[name])
    return {"weights": model.weights_sha256, "folders": folders}


def print_folder(name: str, one: dict[str, Any]) -> None:
    """Print the scores of one folder."""
    print(
        f"{name}: {one['images']} images, {one['objects']} objects: AP@0.5 {one['ap50']:.3f}, mean AP "
        f"{one['mean_ap']:.3f}, precision {one['precision']:.3f}, recall {one['recall']:.3f}, "
        f"{one['flagged']} images flagged"
    )
    if len(one["versions"]) > 1:
        print("  AP@0.5 " + ", ".join(f"{version}: {value:.3f}" for version, value in one["versions"].items()))
    known = [f"from {low} px: {hits / number:.2f} of {number}" for low, hits, number in one["sizes"] if number]
    print("  recall " + ", ".join(known), flush=True)


def main() -> None:
    """Read the options, score the model and write the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model file, or name of a shipped model")
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("--json", type=Path, help="file to write all scores to")
    parser.add_argument("--plain", action="store_true", help="score the images as they are only")
    parser.add_argument("--limit", type=int, help="score this many images of each folder, for a quick look")
    options = parser.parse_args()
    versions = list(VERSIONS)[:1] if options.plain else list(VERSIONS)
    scores = score(Model.load(options.model), options.data, versions=versions, limit=options.limit)
    if options.json is not None:
        options.json.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
