"""Open results of septa in napari: stores of labels, label files with their table, and models. Needs no Qt."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import Selection, Source, is_zarr, open_source, read_info, read_labels, store
from septa.model import Model

Array = NDArray[Any]
Layer = tuple[Any, dict[str, Any], str]
LABEL_FILES = (".png", ".tif", ".tiff")
_NO_LAYER: list[Any] = [(None,)]
"""The answer of a reader that has read a file without pixels."""
_TABLE_BYTES = 2**28
"""Size of the largest table that is read."""

chosen_models: list[str] = []
"""Model files that were opened, the latest last; the widget lists them."""


def find_reader(path: str | PathLike[str] | list[str]) -> Callable[[Any], list[Layer]] | None:
    """Return the function that opens a path, or None if septa does not open it.

    septa opens model files (``.septa``), which the widget then offers, and the OME-Zarr stores that it has written.
    """
    if isinstance(path, list):
        return None
    file = Path(path)
    if file.suffix == ".septa" and file.is_file():
        return open_model
    if file.suffix == ".zarr" and file.is_dir() and store.read_store_attributes(file):
        return open_store
    return None


def open_model(path: str | PathLike[str]) -> list[Any]:
    """Check a model file and offer it in the widget; it has no layers.

    Raises
    ------
    InputError
        The file is not a model.
    """
    Model.load(path)
    name = str(Path(path).resolve())
    if name in chosen_models:
        chosen_models.remove(name)
    chosen_models.append(name)
    return _NO_LAYER


def open_results(path: str | PathLike[str]) -> list[Layer]:
    """Open labels: a store, or a label file; see `open_store` and `open_label_file`.

    Raises
    ------
    InputError
        The path is neither.
    """
    file = Path(path)
    if is_zarr(file):
        return open_store(file)
    if file.suffix.lower() in LABEL_FILES:
        return open_label_file(file)
    raise InputError(file, "this is not a label image", "Choose a store, or a PNG or TIFF file of labels")


def open_store(path: str | PathLike[str]) -> list[Layer]:
    """Open the label images of a store, level by level; pixels are read when they are shown.

    Raises
    ------
    InputError
        The store is not complete, or cannot be read.
    """
    folder = Path(path)
    if not store.is_store_complete(folder):
        problem = "the store is not complete"
        raise InputError(folder, problem, "Run the command that writes it again, which resumes it")
    names = sorted(each.name for each in (folder / "labels").iterdir() if each.is_dir())
    layers = []
    for name in names:
        levels = list(_open_levels(folder / "labels" / name))
        options = {"name": name, "multiscale": True, **_describe_place(levels[0].source)}
        layers.append((levels, options, "labels"))
    return layers


def open_label_file(path: str | PathLike[str]) -> list[Layer]:
    """Open a label file with the measurements of its objects, if a table in its folder has them.

    Raises
    ------
    InputError
        The file cannot be read, or holds no labels.
    """
    file = Path(path)
    info = read_info(file)
    pages = [read_labels(file, page).array for page in range(info.pages)]
    labels = pages[0] if len(pages) == 1 else np.stack(pages).reshape(*info.page_shape, *pages[0].shape)
    options: dict[str, Any] = {"name": file.stem}
    known = info.calibration
    if known.pixel_size_um is not None:
        steps = {"T": known.time_step_s, "Z": known.z_step_um}
        leading = [steps.get(axis) or 1.0 for axis in info.page_axes] if len(pages) > 1 else []
        options["scale"] = (*leading, *known.pixel_size_um)
    features = find_features(file)
    if features is not None and len(pages) == 1:
        options["features"] = features
    return [(labels, options, "labels")]


def find_features(file: Path) -> dict[str, Array] | None:
    """Return the rows of a table beside a label file that belong to it; ``index`` holds the numbers of the objects."""
    for table in sorted(file.parent.glob("*.csv")):
        if table.stat().st_size > _TABLE_BYTES:
            continue
        with table.open(encoding="utf-8", errors="replace", newline="") as stream:
            rows = csv.DictReader(stream)
            if not {"image", "label"} <= set(rows.fieldnames or ()):
                continue
            own = [row for row in rows if row["image"] == file.stem]
        if own:
            columns = {name: _convert([row[name] for row in own]) for name in own[0] if name != "image"}
            return {"index": columns.pop("label"), **columns}
    return None


def _convert(texts: list[str]) -> Array:
    """Turn the cells of a column into numbers or booleans, if all are; empty cells are NaN."""
    if set(texts) <= {"true", "false"}:
        return np.array([text == "true" for text in texts])
    for kind in (int, float):
        try:
            return np.array([kind(text or "nan") for text in texts])
        except ValueError:
            continue
    return np.array(texts)


class SourceArray:
    """A level of an image as an array whose pixels are read when they are asked for.

    Parameters
    ----------
    source
        Level of the image.

    Attributes
    ----------
    shape, dtype, ndim, size
        As of an array with the axes that the image has.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        sizes = dict(zip("TCZYX", source.shape))
        self._axes = "".join(axis for axis in "TZ" if axis in source.axes) + "YX"
        self.shape = tuple(sizes[axis] for axis in self._axes)
        self.dtype = source.dtype
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)

    def __getitem__(self, key: Any) -> Array:
        """Return a part, given numbers and slices along the first axes."""
        key = key if isinstance(key, tuple) else (key,)
        places = dict(zip(self._axes, [*key, *[slice(None)] * (self.ndim - len(key))]))
        spans = {axis: range(size)[places[axis]] for axis, size in zip(self._axes, self.shape)}
        rows, columns = (_as_range(spans[axis]) for axis in "YX")
        planes = []
        for t in _as_range(spans.get("T", 0)):
            for z in _as_range(spans.get("Z", 0)):
                window_yx = self.source.read(_span(rows), _span(columns), t=t, z=z)[0]
                planes.append(window_yx[:: abs(rows.step), :: abs(columns.step)])
        sizes = [len(_as_range(spans[axis])) for axis in self._axes[:-2]]
        found = np.stack(planes).reshape(*sizes, *planes[0].shape)
        if rows.step < 0 or columns.step < 0:
            found = found[..., :: 1 if rows.step > 0 else -1, :: 1 if columns.step > 0 else -1]
        return found[tuple(0 if isinstance(spans[axis], int) else slice(None) for axis in self._axes)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read everything."""
        return np.asarray(self[()], dtype)


def _as_range(part: Any) -> range:
    return part if isinstance(part, range) else range(part, part + 1)


def _span(part: range) -> tuple[int, int]:
    """Return the first row or column of a range, and one past the last."""
    return (min(part), max(part) + 1) if len(part) else (0, 0)


def _open_levels(path: Path) -> Iterator[SourceArray]:
    first = open_source(str(path), Selection(level=0))
    yield SourceArray(first)
    for level in range(1, len(first.levels)):
        yield SourceArray(open_source(str(path), Selection(level=level)))


def _describe_place(source: Source) -> dict[str, Any]:
    """Return the scale of a layer, along all its axes, if it is known."""
    known = source.calibration
    if known.pixel_size_um is None:
        return {}
    leading = [{"T": known.time_step_s, "Z": known.z_step_um}[axis] or 1.0 for axis in "TZ" if axis in source.axes]
    return {"scale": (*leading, *known.pixel_size_um)}
