"""The objects of an image too large to be held, block by block: `find_block_objects`, `merge`, `renumber_block`.

A block is cut from a window, its core with a margin around it, in which `grow_objects` proves what holds for the
whole image. The cores cover the image. What goes into the final result is exactly `find_objects` of the whole, but
for the ids.

Why one line of pixels beyond a core suffices to join its pieces to its neighbours': in the whole image an object is a
seed region with all pixels whose parents lead there (or a region without a seed). Seed pixels are connected by steps
to neighbours, and so is every pixel with its parent. Steps that stay in a core join pixels that have the same id
there already, since the id is that of where they lead. A step from core A to core B joins a pixel of A with a pixel q
of B's outermost line. A has labelled q too, with the id of the step's other end, so joining A's and B's ids of q for
all such q joins whatever belongs together; and nothing else, as both ids are of the object of the whole image that q
is of. One of the two blocks suffices for that: here it is the upper or the left one.

As objects are connected, one that touches no line beyond which the image goes on lies in the core as a whole. It is
finished at once: holes filled, dropped if small. The others are *border objects*; they alone wait for the merge, with
the regions of background that may turn out as their holes.
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
    """What the merge must know of a block. Ids are those of the block: objects from 1 up, its open holes from -1 down.

    Attributes
    ----------
    counts
        int64: number of objects, number of open holes, and the least number of pixels of an object.
    border
        int32, increasing: objects that the rest of the image may go on with.
    sizes
        int64: their pixels in the block, filled holes included.
    hole_sizes
        int64: pixels of the open holes, regions of background of which the rest of the image decides.
    owners
        int32 (n, 2): each open hole with each border object of the block that it touches.
    top, bottom, left, right
        int32: the outermost lines, objects above 0, open holes below 0, and 0 for background that is no hole.
    below, beside
        int32: the next lines beyond the bottom and the right, which are the neighbours', in ids of this block and 0
        for what is not of its objects; of length 0 where the image ends.
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
        """Every attribute by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> MergeFacts:
        """What `to_arrays` gave; ValueError where something is missing, others are passed over."""
        try:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except KeyError as error:
            raise ValueError(f"block: {error} is missing") from None


@dataclass(frozen=True)
class BlockLabels:
    """One block's part of the image: ids of the block, exchanged for those of the whole image by `renumber_block`.

    Attributes
    ----------
    labels_yx
        int32 YX, the core: objects 1..n in the order of their first pixels, open holes from -1 down, 0 background.
    facts
        What the merge must know. None if the labels are classes, which need no merge.
    """

    labels_yx: Int32
    facts: MergeFacts | None

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return labels and facts by their names, for a file."""
        return {"labels_yx": self.labels_yx, **({} if self.facts is None else self.facts.to_arrays())}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> BlockLabels:
        """What `to_arrays` gave; ValueError where something is missing."""
        if "labels_yx" not in arrays:
            raise ValueError("block: 'labels_yx' is missing")
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
        Where in the window the block lies, rows and columns, each ``slice(start, stop)``.
    image_ends
        Whether the image ends at the top, bottom, left and right side of the window.

    Returns
    -------
    BlockLabels or None
        None where the window is too small to tell: some pixel of the core, or of the line beyond its bottom or right,
        is uncertain or not in the window. Try again with a wider margin; with the whole image it is never None.

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
    top, bottom, left, right = _bounds(core, foreground_yx.shape)
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
    return _finish_inside(labels_yx, (below, beside), decoding.least_pixels, continues)


def renumber_block(labels_yx: Int32, numbers: Int64, dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
    """The labels of a block in ids of the whole image.

    Parameters
    ----------
    labels_yx
        Of the `Block`.
    numbers
        Of this block, from the merge.
    dtype
        Of the result, wide enough for the number of all objects.

    Returns
    -------
    ndarray
        YX.
    """
    # Ids below 0 count from the end, where the merge has put the open holes.
    return numbers.astype(dtype)[labels_yx]


def _bounds(core: tuple[slice, slice], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right."""
    (top, bottom), (left, right) = ((int(part.start), int(part.stop)) for part in core)
    if not (0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]):
        raise ValueError(f"the core {top}:{bottom}, {left}:{right} must lie in the window of size {shape}")
    return top, bottom, left, right


def _finish_inside(labels_yx: Int32, beyond: tuple[Int32, Int32], least_pixels: int, continues: Sides) -> BlockLabels:
    """Fill holes and drop objects where the core alone decides; number the others and note what the merge needs."""
    highest = max(int(part.max(initial=0)) for part in (labels_yx, *beyond))
    at_border = np.zeros(highest + 1, bool)
    for line, on in zip(get_outer_lines(labels_yx), continues):
        at_border[line] |= on
    at_border[0] = False
    regions_yx, owner, waits = _judge_holes(labels_yx, at_border, continues)
    np.add(labels_yx, owner[regions_yx], out=labels_yx)  # regions are where labels are 0, and 0 elsewhere
    sizes = np.bincount(labels_yx.reshape(-1), minlength=highest + 1)
    kept = at_border | (sizes >= least_pixels)
    kept[0] = False
    numbers, holes = np.where(kept, 0, -1).astype(np.int32), np.where(waits, 0, -1).astype(np.int32)
    count, open_count = _number(labels_yx, regions_yx, numbers, holes)
    numbers, holes = np.maximum(numbers, 0), np.maximum(holes, 0)
    labels_yx = numbers[labels_yx] - holes[regions_yx]
    border = np.sort(numbers[at_border])
    sizes_here = np.bincount(labels_yx[labels_yx > 0], minlength=count + 1)[border]
    hole_sizes = np.zeros(open_count, np.int64)
    hole_sizes[holes[waits] - 1] = np.bincount(regions_yx.reshape(-1), minlength=waits.size)[waits]
    facts = MergeFacts(
        np.array([count, open_count, least_pixels], np.int64),
        border,
        sizes_here.astype(np.int64),
        hole_sizes,
        _contacts(labels_yx) if open_count else np.zeros((0, 2), np.int32),
        *(line.copy() for line in get_outer_lines(labels_yx)),
        *(numbers[line] for line in beyond),
    )
    return BlockLabels(labels_yx, facts)


def _judge_holes(
    labels_yx: Int32, at_border: npt.NDArray[np.bool_], continues: Sides
) -> tuple[Int32, Int32, npt.NDArray[np.bool_]]:
    """Regions of background, the object that fills each (0: none), and which of them wait for the merge.

    A region that touches no line and one object is a hole of that. One that touches a line where the image ends is
    none. Nor is any other one with an owner inside the core: were that its only owner it would be shut in by it, and
    in the core.
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
    """Number labels and regions 1..n in the order of their first pixels, in place of 0; those of -1 are passed over."""
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


def _contacts(labels_yx: Int32) -> Int32:
    """(n, 2): open holes, numbered from 1, and the objects that they touch."""
    found = []
    for one, other in ((labels_yx[:-1], labels_yx[1:]), (labels_yx[:, :-1], labels_yx[:, 1:])):
        for holes_yx, objects_yx in ((one, other), (other, one)):
            touch = (holes_yx < 0) & (objects_yx > 0)
            found.append(np.stack([-holes_yx[touch], objects_yx[touch]], axis=1))
    return np.unique(np.concatenate(found), axis=0)
