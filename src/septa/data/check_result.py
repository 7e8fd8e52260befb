"""Result of a dataset check: the problems found, the facts collected, and what was inferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from septa.data.fingerprint import Fingerprint, ImageFacts
from septa.data.pairs import Pair, Pairing
from septa.errors import SeptaError, format_count
from septa.labels import LabelMapping
from septa.notices import Notices, name_files

Split = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of the pairs for training and of those for validation."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset.

    Attributes
    ----------
    severity
        ``error`` if a training would fail, else ``warning``.
    where
        Path of the file or folder concerned, or the setting.
    description
        Clause that describes the problem, without a closing full stop.
    remedy
        Imperative sentence, without a closing full stop; may be empty.
    files
        All files concerned if there are several, of which ``where`` names the first.
    """

    severity: Literal["error", "warning"]
    where: str
    description: str
    remedy: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the line that an error with this text would print."""
        return str(SeptaError(self.where, self.description, self.remedy))

    @classmethod
    def from_error(cls, error: SeptaError) -> Problem:
        """Return the problem that an error reports."""
        return cls("error", error.where, error.problem, error.remedy)

    @classmethod
    def from_notices(cls, notices: Notices) -> list[Problem]:
        """Return a problem for each kind of warning among some notices."""
        return [
            cls("warning", name_files(files), notice.text, notice.remedy, files=files)
            for notice, files in notices
            if notice.warning
        ]


def compare_sizes(pair: Pair, labels_size: tuple[int, ...], image_size: tuple[int, ...]) -> Problem:
    """Report labels whose height and width are not those of the image."""
    description = (
        f"the labels have {format_size(labels_size)} pixels (height x width) "
        f"and the image {pair.image} has {format_size(image_size)}"
    )
    remedy = "Export the labels again at the size of the image; if you resize them, do not interpolate"
    if labels_size == image_size[::-1]:
        remedy = "Rotate the labels by 90 degrees, as the image was"
    return Problem("error", pair.labels_location, description, remedy)


def format_size(size: Sequence[int]) -> str:
    """Return ``height x width``."""
    return " x ".join(map(str, size))


@dataclass(frozen=True, kw_only=True)
class DatasetCheck:
    """Result of a dataset check.

    Attributes
    ----------
    data
        Folder that was checked.
    pairing, mapping, fingerprint
        Pairs, meaning of the labels and facts of the whole dataset; None if problems prevent them.
    facts
        Facts of every image that could be read, in the order of the pairs. They lack class pixels if the labels
        could not be used.
    problems
        Errors first.
    train, validation
        Names of the pairs on each side of the split; empty if no image can be held out. With folds, those of one fold.
    folds
        Split of each fold of a cross-validation, in which each pair is held out once; empty without folds.
    notes
        Printable lines about the layout, groups, labels, images and split that were found.
    held_out
        Printable clause that says which part of each image is held out; empty if whole images are.
    """

    data: Path
    pairing: Pairing | None = None
    mapping: LabelMapping | None = None
    fingerprint: Fingerprint | None = None
    facts: tuple[ImageFacts, ...] = ()
    problems: tuple[Problem, ...] = ()
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    held_out: str = ""
    folds: tuple[Split, ...] = ()

    def select_fold(self, fold: int) -> DatasetCheck:
        """Return the check with the split of a fold, counted from 1."""
        train, validation = self.folds[fold - 1]
        return replace(self, train=train, validation=validation)

    @property
    def fatal(self) -> bool:
        """True if a training on this dataset would fail."""
        return any(problem.severity == "error" for problem in self.problems)


def explain_task(mapping: LabelMapping, facts: Sequence[ImageFacts]) -> str:
    """Explain why labels suit their task: by the number of objects per image, else by the meaning of the values.

    Parameters
    ----------
    mapping
        Meaning of the label values.
    facts
        Facts of the labelled images.

    Returns
    -------
    str
        Printable text such as ``6 to 10 objects per image``.
    """
    counts = [item.objects for item in facts if item.objects is not None]
    if mapping.task == "semantic" or not counts:
        return mapping.describe()
    low, high = min(counts), max(counts)
    return f"{format_count(high, 'object') if low == high else f'{low} to {high} objects'} per image"
