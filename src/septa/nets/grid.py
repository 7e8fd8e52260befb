"""The grid of nodes that the nets of the family share, and which of its places a net fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from septa.nets.blocks import Encoder, PixelSpan, PlainEncoder, union_spans

Node = tuple[int, int]
"""Level, column."""


def coarser_node(node: Node) -> Node:
    """The coarser node that a node enlarges."""
    return node[0] + 1, node[1] - 1


@dataclass(frozen=True)
class NodeGrid:
    """Nodes (i, j) at level i and column j.

    Column 0 is the contracting path. A node of another column reads those of lower columns at its level, and its
    `coarser_node`.
    Without ``nested`` there are only the columns 0 and depth - i, else all with i + j <= depth.

    Examples
    --------
    >>> NodeGrid(2, nested=False).order, NodeGrid(2, nested=True).order
    ([(1, 1), (0, 2)], [(0, 1), (1, 1), (0, 2)])

    Attributes
    ----------
    order
        Nodes of columns above 0 in an order in which they can be computed: diagonals, each from the bottom up.
    last_reads
        For each node, those that no later one reads.
    """

    depth: int
    nested: bool
    order: list[Node] = field(init=False, repr=False, compare=False)
    last_reads: dict[Node, list[Node]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # No cached properties: the locks of these divide what torch.compile makes of a net.
        diagonals = range(1, self.depth + 1) if self.nested else [self.depth]
        order = [(diagonal - column, column) for diagonal in diagonals for column in range(1, diagonal + 1)]
        object.__setattr__(self, "order", order)
        readers = {source: node for node in order for source in [*self.skip_nodes(node), coarser_node(node)]}
        last = {node: [source for source, reader in readers.items() if reader == node] for node in order}
        object.__setattr__(self, "last_reads", last)

    def skip_nodes(self, node: Node) -> list[Node]:
        """The nodes of its level that a node reads."""
        level, column = node
        return [(level, before) for before in range(column) if before == 0 or (level, before) in self.order]

    def layer_key(self, node: Node) -> str:
        """Name of a node's layers; one number suffices where a level has one node beside its encoder."""
        return f"{node[0]}_{node[1]}" if self.nested else str(node[0])

    def head_nodes(self, deep: bool) -> list[Node]:
        """Nodes with a head, finest first."""
        if not deep:
            return [(0, self.depth)]
        if self.nested:
            return [(0, column) for column in range(self.depth, 0, -1)]
        return [(level, self.depth - level) for level in range(self.depth)]

    def find_smallest(self, encoder: Encoder, trim: int) -> tuple[int, dict[Node, int]]:
        """The smallest image that leaves a pixel to every node.

        Parameters
        ----------
        encoder
            The contracting path.
        trim
            Pixels a side that are cut from an enlarged node.

        Returns
        -------
        int
            Side of the image, pixels.
        dict
            Side of each node's output, in its own pixels.
        """
        for bottom in count(1):
            image, levels, shrink = bottom << self.depth, [bottom << self.depth - at for at in range(self.depth + 1)], 0
            if isinstance(encoder, PlainEncoder):
                image, levels, shrink = encoder.sides(bottom)
            sides = {(level, 0): side for level, side in enumerate(levels)}
            for node in self.order:
                sides[node] = 2 * (sides[coarser_node(node)] - trim) - shrink
            if min(sides.values()) >= 1:
                break
        return image, sides

    def trace_spans(
        self,
        spans: Mapping[Node, PixelSpan],
        sides: Mapping[Node, int],
        needs: Callable[[Node, PixelSpan], tuple[PixelSpan, PixelSpan]],
    ) -> dict[Node, PixelSpan]:
        """From the spans of some nodes back through the grid; every way counts, skip connections and deeper levels.

        Parameters
        ----------
        spans
            What is wanted of some nodes.
        sides
            From `find_smallest`; their differences tell how much of a skip connection is cut.
        needs
            As `septa.nets.join.Join.needs`, of the node given.
        """
        found = dict(spans)
        for node in reversed(self.order):
            if node in found:
                doubled, coarse = needs(node, found[node])
                reads = {coarser_node(node): coarse}
                for skip in self.skip_nodes(node):
                    inside = sides[skip] // 2 - sides[coarser_node(node)]
                    reads[skip] = doubled[0] + inside, doubled[1] + inside
                found |= {source: union_spans(found.get(source), read) or read for source, read in reads.items()}
        return found
