"""Names of pages: an image file may hold several images, and each of them may be a stack of planes."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from septa.prediction import find_stem

from .decoder import Header

_NAME = re.compile(r"(?P<file>.+?)(?:#image(?P<image>\d{1,6}))?(?:#(?P<page>\d{1,6}))?")


@dataclass(frozen=True, kw_only=True)
class PageName:
    """The name of a page, such as ``a.png``, ``stack.tif#3`` or ``plate.ome.tif#image1#0``; COCO files of septa agree.

    Attributes
    ----------
    file
        Name of the file.
    image
        Number of the image in a file of several; None for the only one.
    page
        Number of the plane in a stack; None for the only one.
    """

    file: str
    image: int | None = None
    page: int | None = None

    @classmethod
    def parse(cls, name: str, files: Container[str]) -> PageName:
        """Read a name; what looks like a number belongs to the file's name if there is such a file.

        Examples
        --------
        >>> PageName.parse("a#1.tif#image2#10", ["a#1.tif"])
        PageName(file='a#1.tif', image=2, page=10)
        """
        found = _NAME.fullmatch(name)
        if name in files or found is None:
            return cls(file=name)
        image, page = (None if found[part] is None else int(found[part]) for part in ("image", "page"))
        return cls(file=found["file"], image=image, page=page)

    def __str__(self) -> str:
        """Return the name."""
        image = "" if self.image is None else f"#image{self.image}"
        return f"{self.file}{image}{'' if self.page is None else f'#{self.page}'}"


@dataclass(frozen=True, kw_only=True)
class ImagePage:
    """A page that was found.

    Attributes
    ----------
    name
        Its full name.
    path
        Its file.
    header
        Header of its image.
    """

    name: PageName
    path: Path
    header: Header

    @property
    def number(self) -> int:
        """Number of the plane."""
        return self.name.page or 0

    @property
    def plane(self) -> tuple[int, int]:
        """Numbers (t, z) of the plane."""
        return self.header.find_plane(self.number)

    @property
    def stem(self) -> str:
        """Stem of the label file, which the pages of an image share."""
        return find_stem(self.path, self.name.image)

    @property
    def page_stem(self) -> str:
        """Stem of files of the page alone, as ``septa predict`` names them."""
        return self.stem if self.header.pages == 1 else f"{self.stem}_{self.number:04d}"

    @property
    def position(self) -> str:
        """Text that says which plane it is, counted from 1; empty for the only one."""
        (frames, _, planes), (t, z) = self.header.shape[:3], self.plane
        parts = [f"frame {t + 1} of {frames}" if frames > 1 else "", f"plane {z + 1} of {planes}" if planes > 1 else ""]
        return ", ".join(part for part in parts if part)
