"""The objects of all blocks of an image merged to those of the whole image.

This is the step between `find_block_objects` and `renumber_block`.

Memory holds only what lies on lines between blocks: less than 100 bytes for each border object and each open hole, and
the lines of two rows of blocks. Objects inside a block are only counted here; they get their ids when the block is
renumbered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from septa.tasks.block_objects import MergeFacts
from septa.tasks.joining import find_roots

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class MergedObjects:
    """Translation of the ids of each block to ids of the whole image.

    Attributes
    ----------
    grid_yx
        Number of blocks down and across.
    count
        Number of objects of the whole image. Their ids are 1 to count, ordered by the first block, row by row, in which
        an object has a pixel, and within a block by the ids there.
    conflicts
        Number of pixels next to a border between blocks that one block gives to an object, but the block that they lie
        in does not. It is 0 if the net gives the same values in every tile; an engine that rounds differently by tile
        may cause a few.
    """

    grid_yx: tuple[int, int]
    count: int
    conflicts: int = 0
    _counts: Int64
    """Number of objects of each block, border objects included."""
    _before: Int64
    """Highest id of all blocks before each block."""
    _starts: Int64
    """Place of the first border object of each block in the next three arrays, and the length of these."""
    _local: Int32
    """Id of each border object in its block."""
    _numbers: Int64
    """Id of each border object in the whole image; 0 if it is dropped."""
    _begins: Flags
    """True if the object gets its id in this block."""
    _hole_starts: Int64
    """Place of the first open hole of each block in the next array, and the length of it."""
    _hole_numbers: Int64
    """Id of the object that fills each open hole; 0 if it is not a hole."""

    def find_own_ids(self, row: int, column: int) -> tuple[int, int]:
        """Return the first id of the objects that are counted in a block, and one past the last."""
        block = row * self.grid_yx[1] + column
        after = self._before[block + 1] if block + 1 < self._before.size else self.count
        return int(self._before[block]) + 1, int(after) + 1

    def look_up_ids(self, row: int, column: int) -> Int64:
        """Return the ids in the whole image of a block's objects and open holes.

        Returns
        -------
        ndarray
            int64. Index 0 is the background, index i the object i of the block, and index -i, counted from the end, its
            open hole -i. The value is 0 for objects that are dropped and holes that are not filled.
        """
        block = row * self.grid_yx[1] + column
        nodes = slice(self._starts[block], self._starts[block + 1])
        holes = slice(self._hole_starts[block], self._hole_starts[block + 1])
        counted = np.ones(self._counts[block] + 1, np.int64)
        counted[0] = 0
        counted[self._local[nodes]] = self._begins[nodes]
        table = self._before[block] + np.cumsum(counted)
        table[0] = 0
        table[self._local[nodes]] = self._numbers[nodes]
        return np.concatenate([table, self._hole_numbers[holes][::-1]])


def merge_blocks(grid_yx: tuple[int, int], load: Callable[[int, int], MergeFacts]) -> MergedObjects:
    """Join the parts of objects that lie in several blocks, fill holes across blocks, and drop small objects.

    Parameters
    ----------
    grid_yx
        Number of blocks down and across.
    load
        Function that returns the facts of the block in a row and a column. It is called once for each block, row by
        row.

    Returns
    -------
    MergedObjects
        Ids of all objects. They do not depend on the order in which blocks were computed.

    Raises
    ------
    ValueError
        Neighbouring blocks do not fit together, so they are not of one image.
    """
    union = _BlockUnion()
    above: list[_NodeLines] = []
    for row in range(grid_yx[0]):
        here: list[_NodeLines] = []
        for column in range(grid_yx[1]):
            lines = union.add(load(row, column))
            if row:
                union.join(above[column].bottom, above[column].below, lines.top)
            if column:
                union.join(here[-1].right, here[-1].beside, lines.left)
            here.append(lines)
        above = here
    return union.finish(grid_yx)


@dataclass(frozen=True, kw_only=True)
class _NodeLines:
    """Lines of a block by nodes: border object i of all blocks is i + 1, open hole i of all blocks is -(i + 1)."""

    top: Int64
    bottom: Int64
    left: Int64
    right: Int64
    below: Int64
    beside: Int64


@dataclass
class _BlockUnion:
    """Facts of the blocks added so far.

    Nodes are the border objects, or the open holes, of all blocks, counted from 0. Pairs of nodes are ``(2, n)``.
    """

    counts: list[Int64] = field(default_factory=list)
    local: list[Int32] = field(default_factory=list)
    sizes: list[Int64] = field(default_factory=list)
    hole_sizes: list[Int64] = field(default_factory=list)
    objects: int = 0
    holes: int = 0
    same_object: list[Int64] = field(default_factory=list)
    same_hole: list[Int64] = field(default_factory=list)
    owners: list[Int64] = field(default_factory=list)
    """Pairs of an open hole and an object that it touches."""
    not_holes: list[Int64] = field(default_factory=list)
    """Open holes that touch background which is not a hole."""
    conflicts: int = 0

    def add(self, facts: MergeFacts) -> _NodeLines:
        """Add the facts of one block, and return its lines by nodes."""
        border = np.append(facts.border, 0)
        pairs = facts.owners.astype(np.int64)

        def find_nodes(ids: Int32) -> Int64:
            places = np.searchsorted(facts.border, ids)
            return np.where((ids > 0) & (border[places] == ids), places + self.objects + 1, 0)

        def convert(line: Int32) -> Int64:
            return np.where(line < 0, line.astype(np.int64) - self.holes, find_nodes(line))

        self.owners.append(np.stack([pairs[:, 0] - 1 + self.holes, find_nodes(facts.owners[:, 1]) - 1]))
        lines = _NodeLines(
            top=convert(facts.top),
            bottom=convert(facts.bottom),
            left=convert(facts.left),
            right=convert(facts.right),
            below=convert(facts.below),
            beside=convert(facts.beside),
        )
        self.counts.append(facts.counts)
        self.local.append(facts.border)
        self.sizes.append(facts.sizes)
        self.hole_sizes.append(facts.hole_sizes)
        self.objects += facts.border.size
        self.holes += facts.hole_sizes.size
        return lines

    def join(self, line: Int64, seen: Int64, next_line: Int64) -> None:
        """Join the nodes of two neighbouring blocks.

        Parameters
        ----------
        line
            Outermost line of the upper or left block.
        seen
            Next line beyond it, as this block labels it.
        next_line
            The same line, as the block that it belongs to labels it.
        """
        if not line.size == seen.size == next_line.size:
            raise ValueError("the lines of neighbouring blocks differ in length, so they are not of one image")
        self.conflicts += int(((seen > 0) & (next_line <= 0)).sum())
        together = np.unique(np.stack([line, seen, next_line]), axis=1)
        line, seen, next_line = together
        self.same_object.append(together[1:, (seen > 0) & (next_line > 0)] - 1)
        self.same_hole.append(-together[::2, (line < 0) & (next_line < 0)] - 1)
        for hole, other in ((line, next_line), (next_line, line)):
            owned = (hole < 0) & (other > 0)
            self.owners.append(np.stack([-hole[owned], other[owned]]) - 1)
            self.not_holes.append(-hole[(hole < 0) & (other == 0)] - 1)

    def finish(self, grid_yx: tuple[int, int]) -> MergedObjects:
        """Give every object of all blocks its id."""
        counts = np.stack(self.counts)
        if (counts[:, 2] != counts[0, 2]).any():
            raise ValueError("the blocks were computed with different smallest sizes of objects")
        roots = find_roots(self.objects, self.same_object)
        hole_roots = find_roots(self.holes, self.same_hole)
        owner = self._find_hole_owners(roots, hole_roots)
        sizes, hole_sizes = np.zeros(self.objects, np.int64), np.zeros(self.holes, np.int64)
        np.add.at(sizes, roots, np.concatenate(self.sizes))
        np.add.at(hole_sizes, hole_roots, np.concatenate(self.hole_sizes))
        np.add.at(sizes, owner[owner >= 0], hole_sizes[owner >= 0])
        begins = (roots == np.arange(self.objects)) & (sizes >= counts[0, 2])
        starts = _add_up([part.size for part in self.local])
        local = np.concatenate(self.local)
        begun = np.concatenate([[0], np.cumsum(begins)])
        inside = counts[:, 0] - np.diff(starts)
        before = _add_up(inside + np.diff(begun[starts]))
        # A border object that begins in its block counts all objects inside the block, and all border objects that
        # begin there, up to and including itself.
        block = np.repeat(np.arange(len(self.counts)), np.diff(starts))
        inside_before = local - (np.arange(self.objects) - starts[block] + 1)
        own = before[block] + inside_before + begun[1:] - begun[starts[block]]
        numbers = np.where(begins, own, 0)[roots]
        return MergedObjects(
            grid_yx=grid_yx,
            count=int(before[-1]),
            conflicts=self.conflicts,
            _counts=counts[:, 0],
            _before=before[:-1],
            _starts=starts,
            _local=local,
            _numbers=numbers,
            _begins=begins,
            _hole_starts=_add_up([part.size for part in self.hole_sizes]),
            _hole_numbers=np.append(numbers, 0)[owner[hole_roots]],  # an owner of -1 takes the 0 at the end
        )

    def _find_hole_owners(self, roots: Int64, hole_roots: Int64) -> Int64:
        """Find the root of the one object around each root of holes; -1 if there are several or it is not a hole."""
        holes, objects = np.concatenate(self.owners, axis=1)
        low, high = np.full(self.holes, self.objects, np.int64), np.full(self.holes, -1, np.int64)
        np.minimum.at(low, hole_roots[holes], roots[objects])
        np.maximum.at(high, hole_roots[holes], roots[objects])
        if self.not_holes:
            low[hole_roots[np.concatenate(self.not_holes)]] = -1
        return np.where(low == high, high, -1)


def _add_up(sizes: npt.ArrayLike) -> Int64:
    """Return the start of each of several consecutive parts of these sizes, and the end of the last."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
