"""Write the labels of real nuclei in each format, read them back, and print the objects and the pixels that differ.

Run: python benchmarks/label_round_trip.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from septa.data import find_pairs, read_pair_labels
from septa.images import read_labels, write_image
from septa.objects import ObjectTable, measure_objects, to_coco, to_geojson, to_rois, trace_outlines

NAMES = ("background", "nucleus")
Labels = Any


def to_labelme(labels_yx: Labels, table: ObjectTable) -> str:
    """Write each outer ring as a polygon of labelme, which has no holes."""
    shapes = [
        {"label": "nucleus", "points": polygon[0].tolist(), "group_id": label, "shape_type": "polygon"}
        for label, polygons in trace_outlines(labels_yx).items()
        for polygon in polygons
    ]
    height, width = labels_yx.shape
    return json.dumps({"shapes": shapes, "imagePath": "a.png", "imageHeight": height, "imageWidth": width})


def save_array(path: Path, labels_yx: Labels, table: ObjectTable) -> None:
    np.save(path, labels_yx)


def save_cellpose(path: Path, labels_yx: Labels, table: ObjectTable) -> None:
    np.save(path, np.array({"masks": labels_yx.astype(np.uint16)}, dtype=object), allow_pickle=True)


def text(convert: Callable[[Labels, ObjectTable], str]) -> Callable[[Path, Labels, ObjectTable], None]:
    return lambda path, labels_yx, table: path.write_text(convert(labels_yx, table)) and None


WRITERS: dict[str, tuple[str, Callable[[Path, Labels, ObjectTable], Any]]] = {
    "GeoJSON (septa predict --geojson)": ("a.geojson", text(to_geojson)),
    "COCO (septa predict --coco)": ("all.json", text(lambda labels, table: to_coco([("a.png", labels, table)], NAMES))),
    "ImageJ (septa predict --rois)": ("a_rois.zip", lambda path, *given: path.write_bytes(to_rois(*given))),
    "labelme": ("a.json", text(to_labelme)),
    "cellpose": ("a_seg.npy", save_cellpose),
    "NumPy": ("a.npy", save_array),
}


def main() -> None:
    """Print the table."""
    examples = sorted(Path(str(files("septa"))).glob("pretrained/examples/nuclei/labels/*.png"))
    images = [read_labels(path).array.astype(np.int32) for path in examples]
    # Random values have every kind of hole, part and corner.
    images.append(np.random.default_rng(0).integers(0, 400, (256, 256)).astype(np.int32))
    images = [np.unique(labels_yx, return_inverse=True)[1].reshape(labels_yx.shape) for labels_yx in images]
    print("| format | objects | pixels | pixels that differ |\n|---|---|---|---|")
    for name, (file, write) in WRITERS.items():
        differ = 0
        # labelme has no holes, so random values are not its objects.
        chosen = images[:-1] if name == "labelme" else images
        for labels_yx in chosen:
            with tempfile.TemporaryDirectory() as folder:
                for part in ("images", "labels"):
                    (Path(folder) / part).mkdir()
                write_image(Path(folder) / "images" / "a.png", labels_yx[None].astype(np.uint8))
                write(Path(folder) / "labels" / file, labels_yx, measure_objects(labels_yx))
                differ += int((read_pair_labels(find_pairs(Path(folder)).pairs[0]).array != labels_yx).sum())
        objects = sum(int(labels_yx.max()) for labels_yx in chosen)
        print(f"| {name} | {objects} | {sum(labels_yx.size for labels_yx in chosen)} | {differ} |")


if __name__ == "__main__":
    main()
