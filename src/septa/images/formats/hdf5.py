"""Read datasets of HDF5 files with the package h5py.

Nothing outside the file is opened: links to other files, and data that lie there, are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError, shorten_list
from septa.images._arrays import find_array_axes
from septa.images._info import Array
from septa.images._ome import read_positive
from septa.images._units import keep_plausible_size
from septa.images.calibration import Calibration
from septa.images.formats.container import Scene, keep_pages, load_reader

_MOST_DATASETS = 1000
_AXES = "TZCYX"


class Hdf5Container:
    """An open dataset. See `septa.images.formats.container.Container`.

    Parameters
    ----------
    path
        HDF5 file.
    dataset
        Dataset such as ``/raw``; empty for the only one of the file.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        package = load_reader(path, "an HDF5", "h5py")
        self._file = package.File(path, "r", locking=False)
        try:
            names = _list_datasets(package, self._file)
            self._data = self._choose(package, path, dataset, names)
            _check(path, self._data)
            self._axes, notes = _find_axes(Path(f"{path}:{self._data.name}"), self._data)
            self.scenes = [self._describe(notes)]
        except BaseException:
            self._file.close()
            raise

    def _choose(self, package: Any, path: Path, dataset: str, names: Sequence[str]) -> Any:
        """Return the dataset of a name, or the only one."""
        name = "/" + dataset.strip("/")
        if not dataset and len(names) == 1:
            name = names[0]
        if name in names:
            found = self._file[name]
            assert isinstance(found, package.Dataset)
            return found
        if not names:
            raise InputError(path, "the HDF5 file holds no image", "Save one dataset of at least two axes")
        listed = shorten_list(names)
        problem = f"the HDF5 file has no image {name}, but {listed}" if dataset else f"the HDF5 file holds {listed}"
        raise InputError(path, problem, f"Name one of them, such as {path}:{names[0]}")

    def _describe(self, notes: tuple[str, ...]) -> Scene:
        size = dict(zip(self._axes, self._data.shape))
        page_axes, page_shape = keep_pages({axis: size.get(axis, 1) for axis in self._axes if axis not in "CSYX"})
        chunk = math.prod(self._data.chunks) if self._data.chunks else 0
        return Scene(
            name=self._data.name,
            height=size["Y"],
            width=size["X"],
            channels=size.get("C", size.get("S", 1)),
            dtype=self._data.dtype.newbyteorder("="),
            page_axes=page_axes,
            page_shape=page_shape,
            color=size.get("S") == 3,
            decoded_samples=chunk,
            calibration=_read_calibration(self._data),
            notes=notes,
        )

    def read(self, scene: int, page: int) -> Array:
        """Return a page of the dataset."""
        facts = self.scenes[0]
        place = facts.locate(page)
        index = tuple(place.get(axis, slice(None) if axis in "CSYX" else 0) for axis in self._axes)
        values = np.asarray(self._data[index])
        left = [axis for axis in self._axes if axis in "CSYX"]
        planes = values.transpose([left.index(axis) for axis in "CSYX" if axis in left])
        return planes.reshape(facts.channels, facts.height, facts.width).astype(facts.dtype, copy=False)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _list_datasets(package: Any, file: Any) -> list[str]:
    """Return the names of the datasets of numbers with at least two axes; links to other files are not followed."""
    found: list[str] = []

    def visit(name: str, link: Any) -> bool | None:
        if isinstance(link, package.HardLink):
            item = file[name]
            if isinstance(item, package.Dataset) and item.ndim >= 2 and item.dtype.kind in "biuf":
                found.append(f"/{name}")
        return True if len(found) >= _MOST_DATASETS else None

    file.visititems_links(visit)
    return found


def _check(path: Path, data: Any) -> None:
    """Refuse data that lie in other files."""
    if data.is_virtual or data.external:
        problem = f"the data of {data.name} lie in other files, which septa does not open"
        raise InputError(path, problem, "Copy the dataset into one file, for example with h5repack")


def _find_axes(where: Path, data: Any) -> tuple[str, tuple[str, ...]]:
    """Return the axes of a dataset, and what is assumed about them.

    They are named by ``axistags`` (ilastik), by the labels of dimensions, or found by their number.
    """
    letters = ""
    try:
        tags = json.loads(data.attrs["axistags"]) if "axistags" in data.attrs else {}
        letters = "".join(str(one["key"]) for one in tags.get("axes", [])).upper()
    except (ValueError, KeyError, TypeError, AttributeError):
        letters = ""
    letters = letters or "".join(one.label[:1] for one in data.dims).upper()
    if len(letters) == data.ndim and len(set(letters)) == data.ndim and {"Y", "X"} <= set(letters) <= set(_AXES):
        return letters, ()
    axes = find_array_axes(where, tuple(data.shape), data.dtype)
    note = f"the axes of the dataset are taken as {axes.replace('I', 'pages, ')}"
    return axes, (note,) if data.ndim > 2 else ()


def _read_calibration(data: Any) -> Calibration:
    """Return the sizes that Fiji, ilastik and others write as ``element_size_um``, in the order Z, Y, X."""
    try:
        values = [read_positive(float(one)) for one in np.ravel(data.attrs["element_size_um"])]
    except (KeyError, ValueError, TypeError, OSError):
        return Calibration()
    if not 2 <= len(values) <= 3 or None in values:
        return Calibration()
    *step, y, x = (value or 0.0 for value in values)
    return Calibration(pixel_size_um=keep_plausible_size(y, x), z_step_um=step[0] if step else None)
