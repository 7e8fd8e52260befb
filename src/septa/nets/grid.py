"""The grid of nodes that the nets of the family share: its order of computation, its sizes and its receptive fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from septa.nets.blocks import PixelSpan, union_spans
from septa.nets.encoders import Encoder, PlainEncoder

Node = tuple[int, int]
"""Level and column of a node."""


def coarser_node(node: Node) -> Node:
    """Return the node of the next coarser level that a node upsamples."""
    return node[0] + 1, node[1] - 1


@dataclass(frozen=True)
class NodeGrid:
    """Nodes (i, j) at level i and in column j.

    Column 0 is the contracting path. A node of another column reads its skip connections, which are the nodes of its
    level in smaller columns, and its `coarser_node`. Without ``nested`` the grid has the nodes (i, 0) and
    (i, depth - i) only. With ``nested`` it has all nodes with i + j <= depth.

    Attributes
    ----------
    depth
        Number of poolings.
    nested
        True for the grid of U-Net++.
    order
        Nodes of the columns above 0 in an order in which they can be computed: by diagonals, each from the bottom up.
    last_reads
        For each node of ``order``, the nodes that it is the last to read.

    Examples
    --------
    >>> NodeGrid(2, nested=False).order, NodeGrid(2, nested=True).order
    ([(1, 1), (0, 2)], [(0, 1), (1, 1), (0, 2)])
    """

    depth: int
    nested: bool
    order: list[Node] = field(init=False, repr=False, compare=False)
    last_reads: dict[Node, list[Node]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the order of the nodes."""
        # These are not cached properties, because the locks of those break the graph that torch.compile makes of a net.
        diagonals = range(1, self.depth + 1) if self.nested else [self.depth]
        order = [(diagonal - column, column) for diagonal in diagonals for column in range(1, diagonal + 1)]
        object.__setattr__(self, "order", order)
        readers = {source: node for node in order for source in [*self.skip_nodes(node), coarser_node(node)]}
        last = {node: [source for source, reader in readers.items() if reader == node] for node in order}
        object.__setattr__(self, "last_reads", last)

    def skip_nodes(self, node: Node) -> list[Node]:
        """Return the nodes of its level that a node reads, by ascending column."""
        level, column = node
        return [(level, smaller) for smaller in range(column) if smaller == 0 or (level, smaller) in self.order]

    def layer_key(self, node: Node) -> str:
        """Return the name of a node's layers.

        Without ``nested`` each level has only one node outside the encoder, so its number identifies the node.
        """
        return f"{node[0]}_{node[1]}" if self.nested else str(node[0])

    def head_nodes(self, deep: bool) -> list[Node]:
        """Return the nodes with a head, finest first: only (0, depth) unless ``deep`` asks for deep supervision."""
        if not deep:
            return [(0, self.depth)]
        if self.nested:
            return [(0, column) for column in range(self.depth, 0, -1)]
        return [(level, self.depth - level) for level in range(self.depth)]

    def find_smallest(self, encoder: Encoder, trim: int, head: int = 0) -> tuple[int, dict[Node, int]]:
        """Find the smallest image for which every node has at least one pixel.

        Parameters
        ----------
        encoder
            The contracting path.
        trim
            Number of pixels that are cropped from each side of an upsampled node.
        head
            Number of pixels along one axis by which the logits are smaller than a node.

        Returns
        -------
        int
            Side of the image, pixels.
        dict
            Side of each node's output, in pixels of its own level.
        """
        for bottom in count(1):
            if isinstance(encoder, PlainEncoder):
                image, levels, shrink = encoder.compute_sides(bottom)
            else:
                image = bottom << self.depth
                levels = [image >> level for level in range(self.depth + 1)]
                shrink = 0
            sides = {(level, 0): side for level, side in enumerate(levels)}
            for node in self.order:
                sides[node] = 2 * (sides[coarser_node(node)] - trim) - shrink
            if min(sides.values()) >= 1 and sides[0, self.depth] > head:
                break
        return image, sides

    def trace_spans(
        self,
        spans: Mapping[Node, PixelSpan],
        sides: Mapping[Node, int],
        needs: Callable[[Node, PixelSpan], tuple[PixelSpan, PixelSpan]],
    ) -> dict[Node, PixelSpan]:
        """Trace the spans of some nodes back through the grid, along every path from them to column 0.

        Parameters
        ----------
        spans
            Required pixels of some nodes.
        sides
            Sides from `find_smallest`; their differences give the number of pixels cropped from a skip connection.
        needs
            Function of a node and a span of its pixels that returns what `septa.nets.join.Join.needs` does.

        Returns
        -------
        dict
            Required pixels of every node that the given ones depend on, and of these themselves.
        """
        found = dict(spans)
        for node in reversed(self.order):
            if node in found:
                skip_span, coarse_span = needs(node, found[node])
                reads = {coarser_node(node): coarse_span}
                for skip in self.skip_nodes(node):
                    inside = sides[skip] // 2 - sides[coarser_node(node)]
                    reads[skip] = skip_span[0] + inside, skip_span[1] + inside
                found |= {source: union_spans(found.get(source), read) or read for source, read in reads.items()}
        return found
