"""Regions of interest of ImageJ: single files, and the ZIP files of its ROI Manager."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, LargeZipFile, ZipFile
from zlib import error as ZlibError

from septa.errors import InputError
from septa.labels.outlines.outline import ImageOutlines, Outline, make_ellipse, make_rectangle, make_ring

if TYPE_CHECKING:
    from roifile import ImagejRoi

MAGIC = b"Iout"
"""First bytes of a region of interest."""
_MOST_BYTES = 1 << 26
_MOST_TOTAL = 1 << 30
_MOST_REGIONS = 5_000_000
"""Largest size of a region and of all, and largest number of regions."""
_LENGTHS = {0: 3, 1: 3, 2: 5, 3: 7, 4: 1}
"""Numbers of each segment of a path: move, line, quadratic and cubic curve, end."""
_CURVE_STEPS = 16
_DAMAGED = "Save it again with ImageJ's ROI Manager"
_FAULTS = (ValueError, TypeError, LookupError, OverflowError, RuntimeError, struct.error)

Regions = list[tuple[str, bytes]]
"""Name and content of each region."""


def load_regions(path: Path) -> Regions:
    """Return the regions of a file of one region or of a ZIP file.

    Raises
    ------
    InputError
        The file is damaged or too large.
    """
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) == MAGIC:
            return [(path.name, path.read_bytes())]
    found: Regions = []
    total = 0
    try:
        with ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".roi")]
            if len(entries) > _MOST_REGIONS:
                raise InputError(path, f"the file holds {len(entries)} regions, at most {_MOST_REGIONS}", "Split it")
            for entry in entries:
                with archive.open(entry) as stream:
                    region = stream.read(_MOST_BYTES + 1)
                total += len(region)
                if len(region) > _MOST_BYTES or total > _MOST_TOTAL:
                    raise InputError(path, f"the regions are larger than {_MOST_TOTAL >> 20} MB", "Split the file")
                found.append((entry.filename, region))
    except (BadZipFile, LargeZipFile, ZlibError, EOFError, NotImplementedError, RuntimeError, OSError):
        raise InputError(path, "the ZIP file of regions is damaged", _DAMAGED) from None
    return found


def read_regions(regions: Regions, where: str) -> ImageOutlines:
    """Read polygons, freehand and traced regions, rectangles, ovals and composite regions; others are counted.

    ``group 1``, ``group 2`` ... are the classes of regions with a group.
    """
    from roifile import ImagejRoi

    # roifile reports oddities on stderr unless its logger has a handler.
    logging.getLogger("roifile").addHandler(logging.NullHandler())
    drawn = ImageOutlines()
    for name, data in regions:
        entry = f"the region {name:.80}"
        try:
            roi = ImagejRoi.frombytes(data)
            rings, kind = _read_rings(roi)
        except _FAULTS:
            raise InputError(where, f"{entry} is damaged", _DAMAGED) from None
        places = (roi.t_position, roi.z_position)
        if any(places) or roi.position:
            drawn.planes.add(tuple(map(str, places if any(places) else (roi.position,))))
        if rings is None:
            drawn.skipped[kind] += 1
            continue
        polygon = tuple(make_ring(ring, where, entry) for ring in rings)
        drawn.outlines.append(Outline((polygon,), name=f"group {roi.group}" if roi.group > 0 else ""))
    return drawn


def _read_rings(roi: ImagejRoi) -> tuple[list[Any] | None, str]:
    """Return the rings of a region; None for one that encloses no area, with the name of its kind."""
    from roifile import ROI_SUBTYPE, ROI_TYPE

    kind: Any = roi.roitype
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.ARROW, ROI_SUBTYPE.IMAGE):
        return None, "texts, arrows and pictures"
    if kind == ROI_TYPE.RECT and roi.multi_coordinates is not None:
        return [*_split_path(roi.multi_coordinates.tolist())], ""
    if kind in (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED):
        return [roi.coordinates()], ""
    if kind in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        left, top, right, bottom = map(float, (roi.left, roi.top, roi.right, roi.bottom))
        if roi.subpixelrect:
            left, top, right, bottom = roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
        if kind == ROI_TYPE.OVAL:
            radii = (right - left) / 2, (bottom - top) / 2
            return [make_ellipse((left + right) / 2, (top + bottom) / 2, *radii)], ""
        if roi.rounded_rect_arc_size > 0:
            return None, "rounded rectangles"
        return [make_rectangle(left, top, right, bottom)], ""
    return None, "points" if kind == ROI_TYPE.POINT else "lines"


def _split_path(numbers: list[float]) -> Iterator[list[list[float]]]:
    """Yield the rings of a Java path; curves become lines."""
    ring: list[list[float]] = []
    place = 0
    while place < len(numbers):
        segment = numbers[place : place + _LENGTHS[int(numbers[place])]]
        kind, points = int(segment[0]), [segment[k : k + 2] for k in range(1, len(segment), 2)]
        if len(segment) != _LENGTHS[kind] or (kind in (1, 2, 3) and not ring):
            raise ValueError("the path ends early")
        place += len(segment)
        if kind == 0:
            if ring:
                yield ring
            ring = points
        elif kind == 1:
            ring += points
        elif kind != 4:
            ring += _bend([ring[-1], *points])
    if ring:
        yield ring


def _bend(points: list[list[float]]) -> list[list[float]]:
    """Return points on a Bezier curve, without its first."""
    found = []
    for step in range(1, _CURVE_STEPS + 1):
        share = step / _CURVE_STEPS
        level = points
        while len(level) > 1:
            level = [[a + share * (b - a) for a, b in zip(p, q)] for p, q in pairwise(level)]
        found.append(level[0])
    return found
