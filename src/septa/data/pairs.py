"""Images paired with their labels, and the error for files that cannot be paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from septa.errors import InputError, shorten_list
from septa.images import MAX_PIXELS
from septa.notices import Notices
from septa.recipe import DataSettings

_MEANING = ("encoding", "values", "ignore_label", "threshold")
"""Settings that together give values of labels their meaning."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image and its labels.

    Attributes
    ----------
    name
        Unique key: the stem of the image file's name, for pages of a stack ``stem#page``.
    image
        Image file.
    labels
        Label file, or one mask file for each object; None if there are no labels.
    group
        Key of the pair's group. Pairs of one group are never split between training and validation.
    page
        Page in the image file, from 0.
    labels_page
        Page in the label file, from 0; None if it is the same as in the image file.
    pages
        Number of pages of the image file.
    max_pixels
        Largest size that is decoded; see `septa.images.read.read_info`.
    classes
        File with the classes of the objects, if they have any.
    threshold
        Value of the labels from which on a pixel is foreground; None if they hold classes or ids.
    window
        (top, left, bottom, right) in pixels of the part of the image that the pair consists of; bottom and right are
        not included. None for the whole image.
    field
        Mask of the field of view, outside of which pixels count in no loss and no score; None if there is none.
    """

    name: str
    image: Path
    labels: Path | tuple[Path, ...] | None
    group: str
    page: int = 0
    labels_page: int | None = None
    pages: int = 1
    max_pixels: int = MAX_PIXELS
    classes: Path | None = None
    threshold: float | None = None
    window: tuple[int, int, int, int] | None = None
    field: Path | None = None

    @property
    def label_files(self) -> tuple[Path, ...]:
        """All label files; empty if there are no labels."""
        if self.labels is None:
            return ()
        return self.labels if isinstance(self.labels, tuple) else (self.labels,)

    @property
    def page_of_labels(self) -> int:
        """Page in the label file, from 0."""
        return self.page if self.labels_page is None else self.labels_page

    @property
    def image_location(self) -> str:
        """Text that names the image in messages: its path, and its page if the file has several."""
        return self._at_page(self.image, self.page)

    @property
    def labels_location(self) -> str:
        """Text that names the labels in messages: their path and page, or the folder of the mask files.

        Without labels it names the image.
        """
        if isinstance(self.labels, tuple):
            return str(self.labels[0].parent)
        return self.image_location if self.labels is None else self._at_page(self.labels, self.page_of_labels)

    def _at_page(self, path: Path, page: int) -> str:
        return f"{path} page {page}" if self.pages > 1 else str(path)


@dataclass(frozen=True)
class Pairing:
    """All pairs of a folder.

    Attributes
    ----------
    root
        Folder that was searched.
    layout
        Name of the layout that was recognised, printable.
    pairs
        Pairs in the order of their files.
    notes
        Printable lines about the layout, ignored files and groups.
    notices
        Assumptions, and warnings about files that are not used.
    settings
        Settings of the section ``data`` that the layout states, such as the names of the classes.
    """

    root: Path
    layout: str
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    _: KW_ONLY
    notices: Notices = field(default_factory=Notices, compare=False)
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def adopt(self, given: DataSettings) -> DataSettings:
        """Return settings with those that the layout states, where the user leaves the defaults.

        The layout does not decide on the meaning of values if the user sets a part of it.
        """
        default = DataSettings()
        changed = {name for name in DataSettings.model_fields if getattr(given, name) != getattr(default, name)}
        left_out = changed | (set(_MEANING) if changed & set(_MEANING) else set())
        return given.model_copy(update={k: value for k, value in self.settings.items() if k not in left_out})


class PairingError(InputError):
    """Images and labels that cannot be paired.

    The message names the first files, each with its reason.

    Parameters
    ----------
    where
        Folder that was searched.
    problem
        Clause without a closing full stop; the message lists the first files after it.
    remedy
        Imperative sentence without a closing full stop.
    reasons
        Why each file concerned cannot be paired: a clause for each path.
    pairing
        Pairing of the remaining files; None if there are none.

    Examples
    --------
    >>> reasons = {Path("cells/images/a.png"): "the image has no labels"}
    >>> error = PairingError("cells", "1 file cannot be paired", "Move it away", reasons)
    >>> print(error)
    cells: 1 file cannot be paired: images/a.png (the image has no labels). Move it away.
    """

    def __init__(
        self,
        where: str | Path,
        problem: str,
        remedy: str,
        reasons: Mapping[Path, str],
        pairing: Pairing | None = None,
    ) -> None:
        self.reasons = dict(reasons)
        self.pairing = pairing
        files = shorten_list(f"{_shorten(path, Path(where))} ({reason})" for path, reason in reasons.items())
        super().__init__(where, f"{problem}: {files}", remedy)


def _shorten(path: Path, folder: Path) -> str:
    inside = path != folder and path.is_relative_to(folder)
    return path.relative_to(folder).as_posix() if inside else str(path)
