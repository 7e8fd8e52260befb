"""The objects of an image too large for memory, block by block: `find_block_objects`, `merge_blocks`, `renumber_block`.

A block is the core of a window. In the window, `grow_objects` proves which labels hold for the whole image. The cores
cover the image, and the final labels are exactly those of `find_objects` on the whole image, except for the ids.

One line of pixels beyond a core is enough to join its objects to those of its neighbours. In the whole image, an object
is a seed region with all pixels whose parents lead to it, or a region without a seed. Steps to neighbours connect the
pixels of a seed region, and every pixel with its parent. A step inside a core joins pixels that have one id there
already, because the id is that of the seed to which they lead. A step from core A to core B joins a pixel of A with a
pixel q of B's outermost line. A has labelled q too, with the id of the other end of the step. So joining A's and B's
ids of q, for all such q, joins all pixels of one object. It joins nothing else, because both ids are of the object of
the whole image that q belongs to. It is enough if one of two neighbours does this; here it is the upper or the left
one.

Parts that are joined touch. A step at such a contact is certain in a block only if both regions were judged as a whole,
so inside a core both ends have one id, and from core A to core B, A has given both ends one id. Regions that are joined
through others are connected by such steps. A pair that the window proves too large is never joined by its own contact.

Objects are connected. One that touches no line beyond which the image continues therefore lies in the core as a whole.
It is finished at once: its holes are filled, and it is dropped if it is small. All others are *border objects*. Only
these wait for the merge, together with *open holes*: the regions of background that may be holes of border objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel, label_mask
from septa.tasks.decoding import Decoding, Float32, Int32, find_owners, grow_objects
from septa.tasks.watershed import UNCERTAIN, Sides, get_outer_lines

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MergeFacts:
    """Facts of a block that the merge needs. Ids are those of the block: objects from 1 up, open holes from -1 down.

    Attributes
    ----------
    counts
        Number of objects, number of open holes, and smallest size of an object in pixels, int64.
    border
        Ids of the border objects, which may continue in other blocks, int32, ascending.
    sizes
        Number of pixels of each border object in the block, with filled holes, int64.
    hole_sizes
        Number of pixels of each open hole, int64.
    owners
        Pairs of an open hole and a border object that it touches in the block, int32 ``(n, 2)``. Holes are counted
        from 1 here.
    top, bottom, left, right
        Outermost lines, int32: ids of objects, ids of open holes, and 0 for background that is not a hole.
    below, beside
        Next lines beyond the bottom and the right side, int32. They belong to the neighbours, but hold ids of this
        block, and 0 where there is none of its objects. Their length is 0 where the image ends.
    """

    counts: Int64
    border: Int32
    sizes: Int64
    hole_sizes: Int64
    owners: Int32
    top: Int32
    bottom: Int32
    left: Int32
    right: Int32
    below: Int32
    beside: Int32

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return every attribute by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> MergeFacts:
        """Build facts from the arrays of `to_arrays`.

        Other arrays are ignored.

        Raises
        ------
        ValueError
            An array is missing.
        """
        try:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except KeyError as error:
            raise ValueError(f"the array {error} of the block is missing") from None


@dataclass(frozen=True)
class BlockLabels:
    """Labels of one block.

    Attributes
    ----------
    labels_yx
        Labels of the core, int32 ``YX``: classes, or ids of the block, which `renumber_block` replaces by ids of the
        whole image. Objects are 1 to n in the order of their first pixels, open holes are -1 down, background is 0.
    facts
        Facts that the merge needs. None if the labels are classes, which need no merge.
    """

    labels_yx: Int32
    facts: MergeFacts | None

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return labels and facts by their names, for a file."""
        return {"labels_yx": self.labels_yx, **({} if self.facts is None else self.facts.to_arrays())}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> BlockLabels:
        """Build a block of objects from the arrays of `to_arrays`; ValueError if one is missing."""
        if "labels_yx" not in arrays:
            raise ValueError("the array 'labels_yx' of the block is missing")
        return cls(arrays["labels_yx"], MergeFacts.from_arrays(arrays))


def find_block_objects(
    foreground_yx: Float32, inner_yx: Float32, decoding: Decoding, core: tuple[slice, slice], image_ends: Sides
) -> BlockLabels | None:
    """Find the objects of a block from a window around it.

    Parameters
    ----------
    foreground_yx, inner_yx, decoding
        As for `find_objects`, of the window.
    core
        Rows and columns of the window that are the block, each ``slice(start, stop)``.
    image_ends
        True where the image ends at the top, bottom, left and right side of the window.

    Returns
    -------
    BlockLabels or None
        None if the window is too small: a pixel of the core, or of the line beyond its bottom or right side, is
        uncertain or not in the window. Try again with a wider margin; for the whole image it is never None.

    Raises
    ------
    ValueError
        The core is empty or does not lie in the window, or the maps' sizes differ.

    Examples
    --------
    >>> foreground_yx = np.array([[0, 1, 1, 1, 1, 1, 0]], np.float32)
    >>> inner_yx = np.array([[0, 0.2, 0.9, 0.1, 0.9, 0.2, 0]], np.float32)
    >>> core, decoding = (slice(0, 1), slice(0, 3)), Decoding()
    >>> block = find_block_objects(foreground_yx[:, :6], inner_yx[:, :6], decoding, core, (True, True, True, False))
    >>> block.labels_yx, block.facts.beside
    (array([[0, 1, 1]], dtype=int32), array([1], dtype=int32))
    >>> find_block_objects(foreground_yx[:, :4], inner_yx[:, :4], decoding, core, (True, True, True, False)) is None
    True
    """
    top, bottom, left, right = _check_core(core, foreground_yx.shape)
    rows, columns = foreground_yx.shape
    continues = (
        not image_ends[0] or top > 0,
        not image_ends[1] or bottom < rows,
        not image_ends[2] or left > 0,
        not image_ends[3] or right < columns,
    )
    if (continues[1] and bottom == rows) or (continues[3] and right == columns):
        return None
    window_yx = grow_objects(
        foreground_yx, inner_yx, decoding, (not image_ends[0], not image_ends[1], not image_ends[2], not image_ends[3])
    )
    labels_yx = np.array(window_yx[top:bottom, left:right])
    below = window_yx[bottom, left:right] if continues[1] else window_yx[0, :0]
    beside = window_yx[top:bottom, right] if continues[3] else window_yx[0, :0]
    if any((part == UNCERTAIN).any() for part in (labels_yx, below, beside)):
        return None
    return _finish_inside(labels_yx, (below, beside), decoding, continues)


def renumber_block(labels_yx: Int32, ids: Int64, dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
    """Replace the ids of a block by those of the whole image.

    Parameters
    ----------
    labels_yx
        Labels of `BlockLabels`.
    ids
        Ids in the whole image, from `MergedObjects.look_up_ids` for this block.
    dtype
        Type of the result, large enough for the number of all objects.

    Returns
    -------
    ndarray
        Labels ``YX``; filled holes have the id of their object.
    """
    # Negative labels index from the end, where `look_up_ids` puts the open holes.
    return ids.astype(dtype)[labels_yx]


def _check_core(core: tuple[slice, slice], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the top, bottom, left and right end of the core; refuse a core that does not lie in the window."""
    (top, bottom), (left, right) = ((int(part.start), int(part.stop)) for part in core)
    if not (0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]):
        raise ValueError(f"the core {top}:{bottom}, {left}:{right} must lie in the window of size {shape}")
    return top, bottom, left, right


def _finish_inside(labels_yx: Int32, beyond: tuple[Int32, Int32], decoding: Decoding, continues: Sides) -> BlockLabels:
    """Finish the objects that lie in the core as a whole, number all objects, and collect the facts for the merge."""
    highest = max(int(part.max(initial=0)) for part in (labels_yx, *beyond))
    at_border = np.zeros(highest + 1, bool)
    for line, on in zip(get_outer_lines(labels_yx), continues):
        at_border[line] |= on
    at_border[0] = False
    if decoding.fill_holes:
        regions_yx, owner, waits = _judge_holes(labels_yx, at_border, continues)
    else:
        regions_yx, owner, waits = np.zeros_like(labels_yx), np.zeros(1, np.int32), np.zeros(1, bool)
    np.add(labels_yx, owner[regions_yx], out=labels_yx)  # regions are where labels are 0, and 0 elsewhere
    sizes = np.bincount(labels_yx.reshape(-1), minlength=highest + 1)
    kept = at_border | (sizes >= decoding.least_pixels)
    kept[0] = False
    numbers, holes = np.where(kept, 0, -1).astype(np.int32), np.where(waits, 0, -1).astype(np.int32)
    count, open_count = _number(labels_yx, regions_yx, numbers, holes)
    numbers, holes = np.maximum(numbers, 0), np.maximum(holes, 0)
    labels_yx = numbers[labels_yx] - holes[regions_yx]
    border = np.sort(numbers[at_border])
    sizes_here = np.bincount(labels_yx[labels_yx > 0], minlength=count + 1)[border]
    hole_sizes = np.zeros(open_count, np.int64)
    hole_sizes[holes[waits] - 1] = np.bincount(regions_yx.reshape(-1), minlength=waits.size)[waits]
    top, bottom, left, right = (line.copy() for line in get_outer_lines(labels_yx))
    below, beside = beyond
    facts = MergeFacts(
        counts=np.array([count, open_count, decoding.least_pixels], np.int64),
        border=border,
        sizes=sizes_here.astype(np.int64),
        hole_sizes=hole_sizes,
        owners=_find_contacts(labels_yx) if open_count else np.zeros((0, 2), np.int32),
        top=top,
        bottom=bottom,
        left=left,
        right=right,
        below=numbers[below],
        beside=numbers[beside],
    )
    return BlockLabels(labels_yx, facts)


def _judge_holes(
    labels_yx: Int32, at_border: npt.NDArray[np.bool_], continues: Sides
) -> tuple[Int32, Int32, npt.NDArray[np.bool_]]:
    """Find the regions of background, the object that fills each (0: none), and the regions that wait for the merge.

    A region that touches one object and no outermost line is a hole of this object. A region that touches a line where
    the image ends is not a hole. Any other region that touches an object inside the core is not a hole either: if this
    were its only object, the object would enclose it, and the region would lie in the core too.
    """
    regions_yx = label_mask(labels_yx == 0)
    low, high = find_owners(labels_yx, regions_yx)
    _, inside = find_owners(np.where(at_border[labels_yx], 0, labels_yx), regions_yx)
    at_edge, at_line = np.zeros(low.size, bool), np.zeros(low.size, bool)
    for line, on in zip(get_outer_lines(regions_yx), continues):
        (at_line if on else at_edge)[line] = True
    filled = (low == high) & ~at_edge & ~at_line
    waits = ~filled & ~at_edge & (inside == 0)
    filled[0] = waits[0] = False
    return regions_yx, np.where(filled, high, 0).astype(np.int32), waits


@Kernel
def _number(labels_yx: Int32, regions_yx: Int32, numbers: Int32, holes: Int32) -> tuple[int, int]:
    """Write numbers 1 to n in place of 0, in the order of the first pixels of labels and regions; -1 is skipped."""
    count, hole_count = 0, 0
    for y in range(labels_yx.shape[0]):
        for x in range(labels_yx.shape[1]):
            label, region = labels_yx[y, x], regions_yx[y, x]
            if numbers[label] == 0:
                count += 1
                numbers[label] = count
            if holes[region] == 0:
                hole_count += 1
                holes[region] = hole_count
    return count, hole_count


def _find_contacts(labels_yx: Int32) -> Int32:
    """Find the pairs of an open hole, counted from 1, and an object that it touches, ``(n, 2)``."""
    found = []
    for one, other in ((labels_yx[:-1], labels_yx[1:]), (labels_yx[:, :-1], labels_yx[:, 1:])):
        for holes_yx, objects_yx in ((one, other), (other, one)):
            touch = (holes_yx < 0) & (objects_yx > 0)
            found.append(np.stack([-holes_yx[touch], objects_yx[touch]], axis=1))
    return np.unique(np.concatenate(found), axis=0)
