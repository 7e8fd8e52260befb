"""Find the images of a TIFF file: which series of directories are images, further pages of one, or smaller copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from septa.errors import InputError, shorten_list
from septa.images._ome import OmeImage, keep_own_images, parse_ome

_PLAIN_KINDS = ("generic", "uniform", "shaped")
_SLIDE_KINDS = ("svs", "scn", "qpi", "ndpi", "bif", "avs", "philips")
_SAVE_AS_ONE = "Save the image as one OME-TIFF file, for example with bfconvert"
_REDUCED = 1
_SLIDE_PICTURES = ("thumbnail", "label", "macro", "overview", "probability", "map")
"""Names of the pictures that a slide scanner adds to an image of a slide."""


@dataclass(frozen=True, kw_only=True)
class TiffImage:
    """One image of a TIFF file.

    Attributes
    ----------
    levels
        Series of each level of the pyramid, the full size first. Several series of one level are alike, and each holds
        further pages.
    ome
        Description in the OME metadata, if there is one.
    notes
        Clauses about what is assumed, such as ``its smaller images are levels of a pyramid``.
    """

    levels: tuple[tuple[Any, ...], ...]
    ome: OmeImage | None = None
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Any:
        """First series of the full size."""
        return self.levels[0][0]

    @property
    def size(self) -> str:
        """Height and width, printable."""
        return f"{int(self.first.keyframe.imagelength)} x {int(self.first.keyframe.imagewidth)}"


def find_tiff_images(path: Path, file: Any) -> tuple[TiffImage, ...]:
    """Return the images of an open TIFF file, in the order of the file.

    - Each image of an OME-TIFF is one, and so is each of other formats of microscopes.
    - Series that tifffile wrote one after the other, and that are alike, are the pages of one image.
    - The levels of a pyramid, and the label and overview of a slide, are not images of their own.

    Raises
    ------
    InputError
        If the file holds no image, or if planes of an image are missing or in another file.
    """
    every = list(file.series)
    if not every:
        raise InputError(path, "the TIFF file holds no image", "Export it again")
    described = list_own_images(path, file)
    if described and every[0].kind == "ome":
        return _match_ome_images(path, every, described)
    if any(series.is_multifile for series in every):
        others = {page.parent.filename for series in every for page in series if page is not None}
        raise _make_parts_error(path, sorted(others - {path.name}))
    levels = _find_levels(every)
    groups: list[list[Any]] = []
    for series in levels:
        alike = next((group for group in groups if _are_pages_of_one(group[0], series)), None)
        if alike is None:
            groups.append([series])
        else:
            alike.append(series)
    # Other kinds of series are read where tifffile cannot use the OME metadata.
    ome = described[0] if len(described) == len(groups) == 1 else None
    misfit = described and every[0].kind in _PLAIN_KINDS
    notes = ("its OME metadata does not fit its pages, which are read without it",) if misfit else ()
    return tuple(_make_image(group, levels[group[0]] if len(group) == 1 else [], ome, notes) for group in groups)


def find_own_metadata(path: Path, file: Any) -> str | None:
    """Return OME metadata without the images of other files; None if the file describes no others.

    Errors are those of `list_own_images`. tifffile reads no image at all if the metadata names another file.
    """
    own = list_own_images(path, file)
    xml = file.pages.first.description
    metadata = parse_ome(xml, path.name) if own else None
    if metadata is None or len(own) == len(metadata.images):
        return None
    return keep_own_images(xml, metadata)


def list_own_images(path: Path, file: Any) -> tuple[OmeImage, ...]:
    """Return the images of an OME-TIFF file whose planes are in the file; () for other files.

    Raises
    ------
    InputError
        If other files hold some of the planes, or the metadata.
    """
    metadata = parse_ome(file.pages.first.description, path.name) if file.is_ome else None
    if metadata is None:
        return ()
    if metadata.master:
        problem = f"the file holds a part of the image that {metadata.master} describes"
        raise InputError(path, problem, _SAVE_AS_ONE)
    own = tuple(image for image in metadata.images if image.own)
    split = [image for image in own if image.others] or (metadata.images if not own else ())
    if split:
        raise _make_parts_error(path, split[0].others)
    return own


def _make_parts_error(path: Path, others: Sequence[str]) -> InputError:
    problem = f"planes of the image are in other files ({shorten_list(others, 3)})"
    return InputError(path, problem, _SAVE_AS_ONE)


def are_alike(images: Sequence[TiffImage]) -> bool:
    """Return True for one image, and for several with the same arrangement, which can be read as pages of one.

    Pages of a plain TIFF file that are not alike in every respect are sorted by tifffile, which loses their order.
    """
    first = images[0].first
    is_plain = first.kind in _PLAIN_KINDS
    return len(images) == 1 or not (is_plain or any(_list_traits(one.first) != _list_traits(first) for one in images))


def describe_sizes(images: Sequence[TiffImage]) -> str:
    """Return the number and the sizes of images, printable."""
    return f"{len(images)} images ({shorten_list((image.size for image in images), 4)} pixels)"


def _match_ome_images(path: Path, every: Sequence[Any], described: Sequence[OmeImage]) -> tuple[TiffImage, ...]:
    if len(every) != len(described):
        problem = f"its OME metadata describes {len(described)} images, of which septa reads {len(every)}"
        raise InputError(path, problem, "Export each image to its own file")
    pairs = zip(every, described, strict=True)
    return tuple(_make_image([series], series.levels[1:], ome, ()) for series, ome in pairs)


def _make_image(group: list[Any], levels: Sequence[Any], ome: OmeImage | None, notes: tuple[str, ...]) -> TiffImage:
    unmarked = group[0].kind in _PLAIN_KINDS and not all(_is_reduced(level) for level in levels)
    if unmarked:
        notes = (*notes, "its smaller images are read as a pyramid of the largest")
    return TiffImage(levels=(tuple(group), *((level,) for level in levels)), ome=ome, notes=notes)


def _find_levels(every: Sequence[Any]) -> dict[Any, list[Any]]:
    """Return each series that is an image, in the order of the file, with the smaller levels of its pyramid.

    Scanners write pages of decreasing size without marking them as a pyramid. Small images without tiles are no
    pyramid unless they are marked as reduced.
    """
    candidates = []
    for series in every:
        strays = [one for one in series.levels[1:] if series.kind in _PLAIN_KINDS and not _may_be_copy(series, one)]
        candidates += [series, *strays] if strays else [series]
    found: dict[Any, list[Any]] = {}
    copies: list[Any] = []
    for base in sorted(candidates, key=_count_pixels, reverse=True):
        if base in copies:
            continue
        found[base] = [one for one in base.levels[1:] if one not in candidates]
        if not found[base]:
            found[base] = [one for one in candidates if one not in copies and _is_copy(base, one)]
            found[base].sort(key=_count_pixels, reverse=True)
        copies += found[base]
    images = [one for one in candidates if one in found and (one is every[0] or not _is_by_product(one))]
    return {one: found[one] for one in images or candidates[:1]}


def _is_by_product(series: Any) -> bool:
    is_picture = series.kind in _SLIDE_KINDS and series.name.lower() in _SLIDE_PICTURES
    return bool(is_picture or _is_reduced(series))


def _is_reduced(series: Any) -> bool:
    return bool(int(series.keyframe.subfiletype or 0) & _REDUCED)


def _count_pixels(series: Any) -> int:
    page = series.keyframe
    return int(page.imagelength) * int(page.imagewidth)


def _may_be_copy(base: Any, series: Any) -> bool:
    return _is_reduced(series) or bool(base.keyframe.is_tiled and series.keyframe.is_tiled)


def _is_copy(base: Any, series: Any) -> bool:
    """Return True if a series looks like a smaller copy of the tiled image ``base``: same samples and proportions."""
    one, other = base.keyframe, series.keyframe
    if series is base or not one.is_tiled or not _may_be_copy(base, series):
        return False
    same = (one.dtype, one.samplesperpixel, one.planarconfig) == (
        other.dtype,
        other.samplesperpixel,
        other.planarconfig,
    )
    height, width, low, narrow = one.imagelength, one.imagewidth, other.imagelength, other.imagewidth
    if not same or len(base) != len(series) or not 0 < 2 * low <= height + 1 or narrow < 1:
        return False
    # Either side may have been rounded up or down.
    return bool(width * (low - 1) / height - 1 <= narrow <= width * (low + 1) / height + 1)


def _are_pages_of_one(first: Any, series: Any) -> bool:
    """Return True for series of tifffile with the same arrangement, which its users write page by page."""
    return bool(first.kind == "shaped" and _list_traits(series) == _list_traits(first))


def _list_traits(series: Any) -> tuple[Any, ...]:
    """Return what is equal in series that are alike."""
    page = series.keyframe
    stored = (page.shape, page.dtype, page.axes, page.photometric, tuple(page.extrasamples), page.subfiletype)
    return (series.kind, series.get_axes(squeeze=False), series.get_shape(squeeze=False), *stored)
