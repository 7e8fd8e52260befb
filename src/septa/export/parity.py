"""The comparison of an export with septa's own engine, on real images, before the export is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from septa.errors import InputError, SeptaError
from septa.images import Normalization, cut_mirrored, read_image, resize_image
from septa.inference import SingleImageEngine, largest_difference, plan_tiles_for, predict_tiles, smallest_tile_for
from septa.model import Model, PredictionOptions
from septa.notices import Notices
from septa.prediction import find_images
from septa.pretrained import find_example_images
from septa.synthetic import draw_cells

LIMIT = 1e-4
"""Largest difference of an output from septa's with which an export is written."""
_MOST_IMAGES = 4
_LARGEST_SIDE = 512
"""Side of the central part of a larger image that is compared, pixels."""

Float32 = NDArray[np.float32]
Run = Callable[[Float32], Float32]
"""Function from one image ``(C, Y, X)`` to the outputs ``(K, Y, X)`` of an exported net."""


@dataclass(frozen=True, kw_only=True)
class ParityImages:
    """Images on which an export is compared.

    Attributes
    ----------
    origin
        Description of where they come from.
    images
        Name and raw values ``(C, Y, X)`` of each.
    """

    origin: str
    images: tuple[tuple[str, NDArray[Any]], ...]


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """Comparison on one image.

    Attributes
    ----------
    name
        Name of the image.
    size
        Height and width, pixels.
    largest, mean
        Differences of the outputs from septa's: of probabilities, or of logits as a share of the largest logit.
    labels
        Number of pixels whose labels differ.
    tiled
        Largest difference between the export's own tiles and its whole image. An image that fits into one tile is
        continued below by its mirror image.
    """

    name: str
    size: tuple[int, int]
    largest: float
    mean: float
    labels: int
    tiled: float


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Comparison of an export with septa.

    Attributes
    ----------
    origin
        Description of where the images come from.
    rows
        One for each image, and for each kind of weights.
    exact_tiles
        True if tiles must equal the whole image.
    """

    origin: str
    rows: tuple[ParityRow, ...]
    exact_tiles: bool = True

    @property
    def largest(self) -> float:
        """Largest difference that counts: of outputs, and of tiles if they must be exact."""
        tiled = [row.tiled for row in self.rows] if self.exact_tiles else []
        return max([*(row.largest for row in self.rows), *tiled])

    def table(self) -> Table:
        """Build a table with a row for each image."""
        table = Table("Image", "pixels", "largest difference", "mean difference", "labels that differ", "tiles - whole")
        for row in self.rows:
            size = "{} x {}".format(*row.size)
            table.add_row(row.name, size, f"{row.largest:.1e}", f"{row.mean:.1e}", str(row.labels), f"{row.tiled:.1e}")
        return table


def find_parity_images(model: Model, data: Path | None, notices: Notices) -> ParityImages:
    """Find at most four images that fit a model.

    Parameters
    ----------
    model
        Model whose number of channels they must have.
    data
        Image, or folder of images or of a dataset. If None, the images that septa ships are used if they fit the model,
        else drawn ones.
    notices
        Receives the images that are left out.

    Raises
    ------
    InputError
        ``data`` holds no image that fits the model.
    """
    if data is not None:
        folder = data / "images" if (data / "images").is_dir() else data
        files = [path for path in find_images([str(folder)], notices) if isinstance(path, Path)]
        found = _read_images(model, files, notices)
        if not found:
            remedy = "Give images like those that the model was trained on"
            raise InputError(data, "none of the images fits the model", remedy)
        return ParityImages(origin=f"images of {data}", images=found)
    found = _read_images(model, find_example_images(), None)
    if found:
        return ParityImages(origin="images that ship with septa", images=found)
    return ParityImages(origin="drawn cells", images=_draw_images(model))


def _read_images(model: Model, paths: Sequence[Path], notices: Notices | None) -> tuple[tuple[str, NDArray[Any]], ...]:
    found: list[tuple[str, NDArray[Any]]] = []
    for path in paths:
        if len(found) == _MOST_IMAGES:
            break
        try:
            image_cyx = model.as_model_input(read_image(path, channels=model.channels), path)
        except SeptaError as error:
            if notices is not None:
                notices.add(path, f"the image is not compared, because {error.problem}", warning=True)
            continue
        # Values of another range would all be clipped, and nothing would be compared.
        if notices is None and any(notice.warning for notice in model.check_values(image_cyx).notices):
            continue
        found.append((path.name, _cut_centre(image_cyx)))
    return tuple(found)


def _draw_images(model: Model) -> tuple[tuple[str, NDArray[Any]], ...]:
    """Draw cells in the range of values that the model was trained on."""
    found = []
    for number in range(2):
        plane_yx = draw_cells(256, 320, 0, number).image_cyx[0].astype(np.float32)
        low, high = np.percentile(plane_yx, (1, 99.8))
        unit_yx = (2 * (plane_yx - low) / (high - low)).astype(np.float32)
        constants = zip(model.normalization.offset, model.normalization.scale)
        planes = [np.float32(scale) * unit_yx + np.float32(offset) for offset, scale in constants]
        found.append((f"drawn {number + 1}", np.stack(planes or [plane_yx] * model.channels)))
    return tuple(found)


def _cut_centre(image_cyx: NDArray[Any]) -> NDArray[Any]:
    top, left = (max(0, (side - _LARGEST_SIDE) // 2) for side in image_cyx.shape[1:])
    return np.ascontiguousarray(image_cyx[:, top : top + _LARGEST_SIDE, left : left + _LARGEST_SIDE])


def compare_exports(
    model: Model,
    runs: Mapping[str, Run],
    images: ParityImages,
    *,
    logits: bool,
    prepare: Callable[[NDArray[Any]], Float32] | None = None,
) -> Parity:
    """Compare the outputs of an export with those of septa's torch engine in float32.

    Parameters
    ----------
    model
        The model that was exported.
    runs
        Function of each kind of weights, by its name.
    images
        Images.
    logits
        True if the outputs are logits.
    prepare
        Function from the raw values of an image ``(C, Y, X)`` to the input of the net, as another program computes it;
        by default as septa normalises.
    """
    rows = []
    for name, image_cyx in images.images:
        if model.recipe.data.resize:
            image_cyx = resize_image(image_cyx, model.recipe.data.resize)
        expected_kyx = _compute_expected(model, image_cyx)
        prepared_cyx = (prepare or partial(prepare_image, model.normalization))(image_cyx)
        for kind, run in runs.items():
            title = f"{name}, {kind}" if len(runs) > 1 else name
            rows.append(_compare_image(model, run, title, prepared_cyx, expected_kyx, logits=logits))
    return Parity(origin=images.origin, rows=tuple(rows), exact_tiles=model.net.exact_tiles)


def prepare_image(normalization: Normalization, image_cyx: NDArray[Any]) -> Float32:
    """Return an image as the exported net takes it: raw values, or scaled by its own percentiles, in float32."""
    if normalization.kind == "dataset":
        return image_cyx.astype(np.float32)
    resolved = normalization.resolve(image_cyx)
    return Normalization("dataset", resolved.offset, resolved.scale).apply(image_cyx)


def compute_planes(model: Model, image_cyx: NDArray[Any], *, logits: bool = False) -> Float32:
    """Compute the outputs ``(K, Y, X)`` of an image by septa's torch engine, as an export puts them out."""
    logits_kyx = _compute_expected(model, image_cyx)
    return logits_kyx if logits else model.task.activations(logits_kyx)[-model.task.outputs :]


def _compute_expected(model: Model, image_cyx: NDArray[Any]) -> Float32:
    options = PredictionOptions(device="cpu", tta=1, engine="torch", precision="float32")
    return model.compute_logits(image_cyx, options)


def _compare_image(
    model: Model, run: Run, name: str, prepared_cyx: Float32, logits_kyx: Float32, *, logits: bool
) -> ParityRow:
    task = model.task
    height, width = prepared_cyx.shape[1:]
    whole_kyx = _run_tiled(model, run, prepared_cyx, None)
    expected_kyx = logits_kyx if logits else task.activations(logits_kyx)[-task.outputs :]
    unit = max(1.0, float(np.abs(expected_kyx).max())) if logits else 1.0
    own_kyx = whole_kyx if logits else _undo_activation(model, whole_kyx)
    labels = task.decode(own_kyx) != task.decode(logits_kyx)
    tiled = _compare_tiles(model, run, prepared_cyx)
    return ParityRow(
        name=name,
        size=(height, width),
        largest=largest_difference(whole_kyx, expected_kyx) / unit,
        mean=float(np.abs(whole_kyx - expected_kyx).mean()) / unit,
        labels=int(labels.sum()),
        tiled=tiled / unit,
    )


def _compare_tiles(model: Model, run: Run, prepared_cyx: Float32) -> float:
    """Return the largest difference of an export's outputs between tiles and the whole image."""
    net, (height, width) = model.net, prepared_cyx.shape[1:]
    tile = max(smallest_tile_for(net), 3 * max(height, width) // 4)
    if len(plan_tiles_for(net, height, width, tile)) == 1:
        prepared_cyx = cut_mirrored(prepared_cyx, (0, 0), (tile + net.multiple, width))
    return largest_difference(_run_tiled(model, run, prepared_cyx, tile), _run_tiled(model, run, prepared_cyx, None))


def _undo_activation(model: Model, planes_kyx: Float32) -> Float32:
    """Return logits of which the activation gives these planes; a single output lacks the plane of class 0."""
    task = model.task
    added = len(task.activations(np.zeros((task.outputs, 1, 1), np.float32))) - task.outputs
    return task.as_logits(np.concatenate([1 - planes_kyx[:added], planes_kyx]))


def _run_tiled(model: Model, run: Run, prepared_cyx: Float32, tile: int | None) -> Float32:
    """Run an export in tiles of septa's plan; in one tile if ``tile`` is None."""
    net, size = model.net, prepared_cyx.shape[1:]
    channels = len(prepared_cyx)
    whole = 2 * net.halo + max(net.input_size(side) for side in size) + net.multiple
    out_kyx = np.empty((model.task.outputs, *size), np.float32)

    def keep(core: tuple[slice, slice], planes_kyx: Float32) -> None:
        out_kyx[(slice(None), *core)] = planes_kyx

    same = Normalization("dataset", (0.0,) * channels, (1.0,) * channels)
    tiles = plan_tiles_for(net, size[0], size[1], tile or whole)
    predict_tiles(SingleImageEngine(run), partial(cut_mirrored, prepared_cyx), same, tiles, keep)
    return out_kyx
