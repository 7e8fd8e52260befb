"""The objects of all blocks of an image as those of the whole.

This is the step between `find_block_objects` and `renumber_block`.

Only what lies on lines between blocks is held, less than 100 bytes for each border object and each open hole, and the
lines of two rows of blocks. Objects inside a block are counted, and numbered when the block is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from septa.tasks.block_objects import MergeFacts

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MergedObjects:
    """How the ids of each block translate to ids of the whole image.

    Attributes
    ----------
    grid_yx
        Number of blocks down and across.
    count
        Number of objects of the whole image. Their ids are 1..count, by the first block, row by row, in which an object
        has a pixel, and within a block in the order of its ids there.
    """

    grid_yx: tuple[int, int]
    count: int
    _counts: Int64  # objects of each block, border objects included
    _before: Int64  # the highest id of all blocks before each block
    _starts: Int64  # where the border objects of each block begin in the following three, and where the last end
    _local: Int32
    _numbers: Int64
    _begins: Flags  # whether the object is numbered as one of this block
    _hole_starts: Int64
    _hole_numbers: Int64
    conflicts: int = 0
    """Pixels between blocks that one of them gives to an object and the other, whose pixel it is, to none. None
    where the net gives the same values in every tile; an engine that rounds differently by tile may leave a few."""

    def look_up_ids(self, row: int, column: int) -> Int64:
        """The ids in the whole image of a block's objects and open holes; 0 for what is dropped or not filled.

        Returns
        -------
        ndarray
            int64: at 0 the background, at i object i of the block, and at -i, from the end, its open hole -i.
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
    """Join the pieces of objects that lie in several blocks, fill holes across blocks, drop small objects, number all.

    Parameters
    ----------
    grid_yx
        Number of blocks down and across.
    load
        Gives the facts of the block in a row and a column; called once for each, row by row.

    Returns
    -------
    MergedObjects
        The same whatever the order in which the blocks were cut.

    Raises
    ------
    ValueError
        Neighbouring blocks do not fit together, so they are not of one image.
    """
    gathered = _BlockUnion()
    above: list[_NodeLines] = []
    for row in range(grid_yx[0]):
        here: list[_NodeLines] = []
        for column in range(grid_yx[1]):
            lines = gathered.add(load(row, column))
            if row:
                gathered.join(above[column].bottom, above[column].below, lines.top)
            if column:
                gathered.join(here[-1].right, here[-1].beside, lines.left)
            here.append(lines)
        above = here
    return gathered.finish(grid_yx)


@dataclass(frozen=True)
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
    """Facts of the blocks so far. Pairs are (2, n), of nodes counted from 0."""

    counts: list[Int64] = field(default_factory=list)
    local: list[Int32] = field(default_factory=list)
    sizes: list[Int64] = field(default_factory=list)
    hole_sizes: list[Int64] = field(default_factory=list)
    objects: int = 0
    holes: int = 0
    same_object: list[Int64] = field(default_factory=list)
    same_hole: list[Int64] = field(default_factory=list)
    owners: list[Int64] = field(default_factory=list)  # of hole and object
    no_holes: list[Int64] = field(default_factory=list)
    conflicts: int = 0

    def add(self, facts: MergeFacts) -> _NodeLines:
        border, pairs = np.append(facts.border, 0), facts.owners.astype(np.int64)

        def nodes(ids: Int32) -> Int64:
            places = np.searchsorted(facts.border, ids)
            return np.where((ids > 0) & (border[places] == ids), places + self.objects + 1, 0)

        self.owners.append(np.stack([pairs[:, 0] - 1 + self.holes, nodes(facts.owners[:, 1]) - 1]))
        lines = _NodeLines(
            *(
                np.where(line < 0, line.astype(np.int64) - self.holes, nodes(line))
                for line in (facts.top, facts.bottom, facts.left, facts.right, facts.below, facts.beside)
            )
        )
        self.counts.append(facts.counts)
        self.local.append(facts.border)
        self.sizes.append(facts.sizes)
        self.hole_sizes.append(facts.hole_sizes)
        self.objects += facts.border.size
        self.holes += facts.hole_sizes.size
        return lines

    def join(self, line: Int64, seen: Int64, next_line: Int64) -> None:
        """A block's outermost line, what it knows of the next line, and what the next block says of that itself."""
        if not line.size == seen.size == next_line.size:
            raise ValueError("neighbouring blocks have lines of different lengths: they are not cut from one image")
        self.conflicts += int(((seen > 0) & (next_line <= 0)).sum())
        together = np.unique(np.stack([line, seen, next_line]), axis=1)
        line, seen, next_line = together
        self.same_object.append(together[1:, (seen > 0) & (next_line > 0)] - 1)
        self.same_hole.append(-together[::2, (line < 0) & (next_line < 0)] - 1)
        for hole, other in ((line, next_line), (next_line, line)):
            owned = (hole < 0) & (other > 0)
            self.owners.append(np.stack([-hole[owned], other[owned]]) - 1)
            self.no_holes.append(-hole[(hole < 0) & (other == 0)] - 1)

    def finish(self, grid_yx: tuple[int, int]) -> MergedObjects:
        counts = np.stack(self.counts)
        if (counts[:, 2] != counts[0, 2]).any():
            raise ValueError("blocks were cut with different thresholds for the size of objects")
        roots = _find_roots(self.objects, self.same_object)
        hole_roots = _find_roots(self.holes, self.same_hole)
        owner = self._owners(roots, hole_roots)  # of each hole root, else -1
        sizes, hole_sizes = np.zeros(self.objects, np.int64), np.zeros(self.holes, np.int64)
        np.add.at(sizes, roots, np.concatenate(self.sizes))
        np.add.at(hole_sizes, hole_roots, np.concatenate(self.hole_sizes))
        np.add.at(sizes, owner[owner >= 0], hole_sizes[owner >= 0])
        begins = (roots == np.arange(self.objects)) & (sizes >= counts[0, 2])
        starts = _sum_up([part.size for part in self.local])
        hole_starts = _sum_up([part.size for part in self.hole_sizes])
        local = np.concatenate(self.local)
        begun = np.concatenate([[0], np.cumsum(begins)])
        inside = counts[:, 0] - np.diff(starts)
        before = _sum_up(inside + np.diff(begun[starts]))
        # The objects of a block up to and with a border object: those inside it, and border objects that begin there.
        block = np.repeat(np.arange(len(self.counts)), np.diff(starts))
        inside_before = local - (np.arange(self.objects) - starts[block] + 1)
        own = before[block] + inside_before + begun[1:] - begun[starts[block]]
        numbers = np.where(begins, own, 0)[roots]
        hole_numbers = np.append(numbers, 0)[owner[hole_roots]]  # -1 is the appended 0
        return MergedObjects(
            grid_yx,
            int(before[-1]),
            counts[:, 0],
            before[:-1],
            starts,
            local,
            numbers,
            begins,
            hole_starts,
            hole_numbers,
            conflicts=self.conflicts,
        )

    def _owners(self, roots: Int64, hole_roots: Int64) -> Int64:
        """The root of the one object around each hole root; -1 where there are several, none, or the image's edge."""
        holes, objects = np.concatenate(self.owners, axis=1)
        low, high = np.full(self.holes, self.objects, np.int64), np.full(self.holes, -1, np.int64)
        np.minimum.at(low, hole_roots[holes], roots[objects])
        np.maximum.at(high, hole_roots[holes], roots[objects])
        if self.no_holes:
            low[hole_roots[np.concatenate(self.no_holes)]] = -1
        return np.where(low == high, high, -1)


def _find_roots(count: int, pairs: list[Int64]) -> Int64:
    """The first of all nodes that pairs join, for each node."""
    joined = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)
    if not count:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(joined.shape[1], np.bool_), (joined[0], joined[1])), shape=(count, count))
    parts, part = connected_components(graph, directed=False)
    first = np.full(parts, count, np.int64)
    np.minimum.at(first, part, np.arange(count))
    return np.asarray(first[part], np.int64)


def _sum_up(sizes: npt.ArrayLike) -> Int64:
    """Where consecutive parts of these sizes begin, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
