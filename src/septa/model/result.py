"""The result of a prediction: labels, confidences and the table of objects of one image."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import format_count
from septa.images import draw_overlay, write_labels
from septa.objects import ObjectTable
from septa.report import render_fragment, render_picture

from .protocol import TrainedModel

_ROWS = 5
"""Rows of the table that a notebook shows."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction:
    """Everything that a model finds in one image.

    Attributes
    ----------
    image
        The image as the model takes it, raw values ``(C, Y, X)``.
    labels
        Labels ``(Y, X)``, int32: class indices, or bit fields (bit k for class k) where classes overlap, or object ids
        1..n.
    confidence
        Probability that each pixel's label is right, ``(Y, X)``, float32 in [0, 1], as the net estimates it: of the
        class of the pixel, of being an object or background, or of the least certain class where classes overlap.
    probabilities
        Probability of each class of pixels, ``(K, Y, X)``, float32 in [0, 1].
    table
        One row for each object, with its position, size, intensities and calibrated ``confidence``; see
        `septa.objects.measure_objects`. None if the labels are classes of pixels. ``table.columns`` is a mapping that
        ``pandas.DataFrame`` takes.
    class_names
        Name of each class, background first.
    notes
        Lines about what septa assumed or suspects; they are also issued as `septa.SeptaWarning`.
    """

    image: NDArray[Any]
    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    table: ObjectTable | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    _model: TrainedModel

    def draw(self) -> NDArray[np.uint8]:
        """Return the image with the labels over it, uint8 ``(Y, X, 3)``."""
        return draw_overlay(self.image, self.labels)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the labels as `septa predict` does: object ids, or the raw values of the training labels.

        Parameters
        ----------
        path
            ``.png`` or ``.tif`` file; an existing one is replaced.

        Raises
        ------
        InputError, ResourceError
            The file cannot be written.
        """
        write_labels(Path(path), self._model.as_written(self.labels))

    def __repr__(self) -> str:
        """Return one line, such as ``Prediction(12 objects, 1 x 256 x 256)``."""
        return f"Prediction({self._describe()}, {' x '.join(map(str, self.image.shape))})"

    def _describe(self) -> str:
        if self.table is not None:
            return format_count(len(self.table), "object")
        return ", ".join(self.class_names)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the picture, the number of objects or the classes, and the first rows."""
        rows = None if self.table is None else self.table.select(np.arange(min(_ROWS, len(self.table))))
        return render_fragment(
            "prediction.html",
            title=self._describe(),
            picture=render_picture(self.draw(), "image with its labels"),
            notes=self.notes,
            columns=[] if rows is None else list(rows.columns)[:8],
            rows=[] if rows is None else list(zip(*list(rows.columns.values())[:8])),
            more=0 if self.table is None else len(self.table) - (0 if rows is None else len(rows)),
        )


def find_confidence(
    model: TrainedModel, labels_yx: NDArray[np.int32], probabilities_kyx: NDArray[Any]
) -> NDArray[np.float32]:
    """Compute the probability of each pixel's label, float32 ``YX``; see `Prediction`."""
    task = model.task
    if task.finds_objects:
        background_yx = 1 - probabilities_kyx[1:].max(axis=0)
        found = np.where(labels_yx > 0, 1 - background_yx, background_yx)
    elif task.multilabel:
        bits = np.arange(len(probabilities_kyx), dtype=np.int32)[:, None, None]
        present = (labels_yx[None] >> bits) & 1 == 1
        found = np.where(present, probabilities_kyx, 1 - probabilities_kyx).min(axis=0)
    else:
        found = np.take_along_axis(probabilities_kyx, labels_yx[None], axis=0)[0]
    return np.asarray(found, np.float32)
