"""Labels of an image from outlines that another program drew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from septa.errors import InputError, shorten_list
from septa.images import MAX_PIXELS, RawLabels
from septa.labels.outlines.formats import read_image_outlines
from septa.labels.outlines.outline import ImageOutlines
from septa.labels.outlines.raster import rasterize
from septa.notices import Notices


def read_outlines(
    path: Path,
    find_size: Callable[[], tuple[int, int]] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    notices: Notices | None = None,
) -> RawLabels:
    """Read a file of outlines as labels.

    Parameters
    ----------
    path
        GeoJSON, labelme or ImageJ file, or the path of an image inside a COCO file, as `expand_outlines` returns it.
    find_size
        Function that returns height and width of the image; called if the file does not state them. None if the image
        is not known.
    max_pixels
        Largest height times width allowed.
    notices
        Receives what is assumed about overlaps, and what is not used.

    Returns
    -------
    RawLabels
        int32 object numbers from 1 in the order of the file, -1 in ignored regions, with the class name of each object.
        See `septa.labels.outlines.raster` for the pixels that an outline encloses.

    Raises
    ------
    InputError
        The file is damaged or too large, belongs to several planes, or states no size although the image is not known.
    """
    drawn = read_image_outlines(path)
    size_yx = drawn.size_yx or (find_size() if find_size is not None else None)
    if size_yx is None:
        problem = "the file does not state the size of its image"
        raise InputError(path, problem, "Put the image next to it, or save the labels as PNG or TIFF")
    if size_yx[0] * size_yx[1] > max_pixels:
        problem = f"{size_yx[0]} x {size_yx[1]} pixels are more than the limit of {max_pixels} pixels"
        remedy = f"If you trust the file, raise the limit with --max-pixels {size_yx[0] * size_yx[1]}"
        raise InputError(path, problem, remedy)
    if len(drawn.planes) > 1:
        problem = f"the outlines belong to {len(drawn.planes)} planes of a stack"
        raise InputError(path, problem, "Save each plane, and its outlines, in a file of its own")
    raster = rasterize(drawn.outlines, size_yx, str(path))
    if notices is not None:
        _note(notices, path, drawn, raster.overlaps, raster.outside, raster.empty)
    names = tuple(drawn.outlines[k].name for k in raster.objects)
    return RawLabels(raster.labels_yx, "index", None, objects=names)


def read_outline_size(path: Path) -> tuple[int, int] | None:
    """Read height and width of the image that a file of outlines states; None if it states none.

    Errors are those of `read_outlines` about the file.
    """
    return read_image_outlines(path).size_yx


def _note(notices: Notices, path: Path, drawn: ImageOutlines, overlaps: int, outside: int, empty: int) -> None:
    """Report what the pixels do not show."""
    if overlaps:
        text = "outlines overlap in {} pixels, which belong to the smaller outline"
        notices.add(path, text, amount=overlaps)
    if outside:
        text = "outlines lie outside the image and are not used ({} of them)"
        remedy = "Check that outlines and image belong together, and that coordinates are in pixels"
        notices.add(path, text, remedy, warning=True, amount=outside)
    if empty:
        notices.add(
            path, "outlines enclose no pixel of their own and are not used ({} of them)", warning=True, amount=empty
        )
    if drawn.skipped:
        kinds = shorten_list(name for name, _ in drawn.skipped.most_common())
        notices.add(path, f"{kinds} enclose no area and are not used")
