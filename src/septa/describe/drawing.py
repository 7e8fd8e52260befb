"""The drawing of a U-Net in the style of figure 1 of its paper: feature maps as boxes, operations as arrows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from septa.describe.canvas import ARROW_COLOURS, Box, Canvas

Shape = tuple[int, int, int]
"""Channels, height and width of a feature map."""

# All lengths are in pixels of the drawing.
_GAP = 34.0
"""Distance of two boxes of a block."""
_BADGE = 18.0
"""Additional distance for each badge between two boxes."""
_LABEL = 17.0
"""Height of the number of channels above a box."""
_SIDE = 58.0
"""Width of the size at the left of a box."""
_LEFT = 44.0
_TOP = 92.0
_MAX_WIDTH = 62.0
_MIN_HEIGHT = 26.0
_MAX_HEIGHT = 170.0


@dataclass(frozen=True, kw_only=True)
class DrawingPlan:
    """Content of the drawing of a net; shapes are ``(C, Y, X)``.

    Attributes
    ----------
    title, subtitle
        Plain text above the drawing.
    image
        Shape of the net's input.
    left
        Shapes of the feature maps of the contracting path, level by level: the input of the level, then each map that
        is computed from it.
    right
        Shapes of the feature maps of each node ``(level, column)`` of the expanding path: its input, then each map that
        is computed from it.
    out
        Shape of the logits, and that of the upsampled logits if the net works on a downsampled image.
    words
        Legend of the arrows: plain text for each kind (``conv``, ``copy``, ``pool``, ``up``, ``head``, ``stage``).
    badges
        Legend of the badges: plain text for each sign. ``A`` marks skip connections, ``P`` the bottom, ``H`` nodes with
        a head, and any other sign the last convolution of each block.
    nested
        True for the grid of nodes of U-Net++.
    supervised
        True if the coarser nodes have heads in training.
    """

    title: str
    subtitle: str
    image: Shape
    left: Sequence[Sequence[Shape]]
    right: Mapping[tuple[int, int], Sequence[Shape]]
    out: Sequence[Shape]
    words: Mapping[str, str]
    badges: Mapping[str, str]
    nested: bool = False
    supervised: bool = False


def draw_plan(plan: DrawingPlan) -> str:
    """Draw a net as an SVG document without external files, in light and dark colours."""
    canvas = Canvas()
    if plan.nested:
        _NestedGrid(plan, canvas).draw()
    else:
        _UShape(plan, canvas).draw()
    canvas.add_text((_LEFT - 24, 34), plan.title, "title")
    canvas.add_text((_LEFT - 24, 54), plan.subtitle, "sub")
    _draw_legend(plan, canvas)
    return canvas.to_svg(plan.title)


@dataclass
class _UShape:
    """Layout of the U-Net: a row for each level, contracting path on the left, expanding path on the right."""

    plan: DrawingPlan
    canvas: Canvas

    def draw(self) -> None:
        tops = self._find_tops()
        kind = "stage" if "stage" in self.plan.words else "pool"
        # The last map of each level's left side.
        ends: list[Box] = []
        for level, maps in enumerate(self.plan.left):
            start = _LEFT
            if ends:
                # The first stage of an encoder of another network reads the image itself.
                source = self._find_image_box() if kind == "stage" and level == 1 else ends[-1]
                start = max(source.middle - self._box_width(maps[0]) / 2, _LEFT - 14)
                down = [(source.middle, source.bottom + 3), (source.middle, tops[level] - _LABEL)]
                self.canvas.add_arrow(kind, down)
            ends.append(self._draw_block(maps, start, tops[level], bottom=level == len(tops) - 1))
        last = ends[-1]
        for level in reversed(range(len(tops) - 1)):
            last = self._draw_node(level, tops[level], ends[level], last)
        self._draw_output(last)

    def _find_image_box(self) -> Box:
        """Return the box of the image, which is the last but one of the first row."""
        *others, image, _ = self.plan.left[0]
        x = _LEFT + sum(self._box_width(shape) + _GAP for shape in others)
        return Box(x, _TOP, self._box_width(image), self._box_height(image))

    def _draw_node(self, level: int, top: float, skip: Box, below: Box) -> Box:
        """Draw the node of a level and the arrow from the box ``below``, and return the box of its last map."""
        maps = next(maps for (row, column), maps in self.plan.right.items() if row == level and column > 0)
        whole = self._box_width(maps[0])
        copied = whole * min(self.plan.left[level][-1][0] / maps[0][0], 0.85)
        start = max(below.middle - (copied + whole) / 2, skip.right + _SIDE + _GAP)
        box = Box(start, top, whole, self._box_height(maps[0]))
        target = start + (copied + whole) / 2
        if abs(target - below.middle) < 1:
            self.canvas.add_arrow("up", [(target, below.y - _LABEL), (target, box.bottom + 4)])
        else:
            side = below.y + below.height / 2
            self.canvas.add_arrow("up", [(below.right + 4, side), (target, side), (target, box.bottom + 4)])
        self.canvas.add_arrow("copy", [(skip.right + 4, top + 10), (start - 4, top + 10)])
        if "A" in self.plan.badges:
            self.canvas.add_badge(((skip.right + start) / 2, top + 10), "A")
        last = self._draw_block(maps, start, top, copied=copied)
        if self.plan.supervised and level > 0:
            classes = (self.plan.out[0][0], *maps[-1][1:])
            head = Box(last.right + _GAP, top, self._box_width(classes), last.height)
            self.canvas.add_arrow("head", [(last.right + 4, top + 10), (head.x - 4, top + 10)], dashed=True)
            self._draw_map(classes, head, size=False)
        return last

    def _draw_output(self, last: Box) -> None:
        for index, shape in enumerate(self.plan.out):
            box = Box(last.right + _GAP, last.y, self._box_width(shape), self._box_height(shape))
            self.canvas.add_arrow("up" if index else "head", [(last.right + 4, last.y + 10), (box.x - 4, box.y + 10)])
            self._draw_map(shape, box, size=True)
            last = box

    def _draw_block(
        self, maps: Sequence[Shape], start: float, top: float, *, copied: float = 0.0, bottom: bool = False
    ) -> Box:
        """Draw the maps of a block side by side with arrows in between, and return the last box.

        Parameters
        ----------
        maps
            Shapes of the maps.
        start, top
            Position of the first box.
        copied
            Width of the part of the first box that is a copied skip connection.
        bottom
            True for the lowest level, where a pyramid follows the block.
        """
        stem = "stage" in self.plan.words and not copied
        signs = [] if stem else [sign for sign in self.plan.badges if sign not in "AP"]
        box = Box(start, top, self._box_width(maps[0]), self._box_height(maps[0]))
        self._draw_map(maps[0], box, size=True)
        if copied:
            self.canvas.add_box(Box(start, top, copied, box.height), "map copied")
        has_pyramid = bottom and "P" in self.plan.badges
        signs_at: dict[int, list[str]] = {len(maps) - 1: signs}
        if has_pyramid:
            signs_at = {len(maps) - 2: signs, len(maps) - 1: ["P"]}
        for index, (before, shape) in enumerate(itertools.pairwise(maps), start=1):
            here = signs_at.get(index, [])
            gap = _GAP + _BADGE * len(here)
            after = Box(box.right + gap, top, self._box_width(shape), self._box_height(shape))
            kind = "pool" if shape[1] < before[1] * 0.6 else "conv"
            self.canvas.add_arrow(kind, [(box.right + 4, top + 10), (after.x - 4, top + 10)])
            for position, sign in enumerate(here):
                self.canvas.add_badge((box.right + 14 + _BADGE * position, top + 10), sign)
            self._draw_map(shape, after, size=shape[1:] != before[1:])
            box = after
        return box

    def _draw_map(self, shape: Shape, box: Box, *, size: bool) -> None:
        self.canvas.add_box(box)
        self.canvas.add_text((box.middle, box.y - 5), str(shape[0]), "channels")
        if size:
            self.canvas.add_text((box.x - 8, box.y + 20), _format_shape(shape), "size", upright=True)

    def _find_tops(self) -> list[float]:
        """Return the upper edge of each level's boxes, which leaves space for all elements of the levels above."""
        tops = [_TOP]
        for level, maps in enumerate(self.plan.left[:-1]):
            others = [shape for (row, _), shapes in self.plan.right.items() if row == level for shape in shapes]
            ends = self.plan.out if level == 0 else ()
            tall = max(self._box_height(shape) for shape in [*maps, *others, *ends])
            tops.append(tops[-1] + max(tall, 24 + _SIDE) + _LABEL + 30)
        return tops

    def _box_width(self, shape: Shape) -> float:
        most = max(shape[0] for maps in [*self.plan.left, *self.plan.right.values()] for shape in maps)
        return max(9.0, _MAX_WIDTH * math.sqrt(shape[0] / most))

    def _box_height(self, shape: Shape) -> float:
        return _MIN_HEIGHT + (_MAX_HEIGHT - _MIN_HEIGHT) * math.sqrt(shape[1] / self.plan.image[1])


@dataclass
class _NestedGrid:
    """Layout of U-Net++: a row for each level, columns to the right, every node joined to all later ones of its row."""

    plan: DrawingPlan
    canvas: Canvas

    def draw(self) -> None:
        depth = len(self.plan.left) - 1
        arcs = [16 + 13 * (depth - level) if depth - level > 1 else 0 for level in range(depth + 1)]
        tops = [_TOP + 4 + arcs[0]]
        for height in arcs[1:]:
            tops.append(tops[-1] + 40 + max(58, height + 26))
        nodes = {(level, 0): maps[-1] for level, maps in enumerate(self.plan.left)}
        nodes |= {at: maps[-1] for at, maps in self.plan.right.items()}
        first = self._draw_image(tops[0])
        places = {(i, j): Box(first + 76 * (i + 2 * j), tops[i], 58, 40) for i, j in nodes}
        for i, j in nodes:
            self._draw_arrows(i, j, places)
        for at, shape in nodes.items():
            box = places[at]
            self.canvas.add_box(box, "map" if at[1] else "map copied")
            self.canvas.add_text((box.middle, box.y - 5), str(shape[0]), "channels")
            self.canvas.add_text((box.middle, box.y + 18), f"{at[0]},{at[1]}", "sign")
            self.canvas.add_text((box.middle, box.y + 33), _format_shape(shape), "tiny")
        self._draw_heads(places, depth)

    def _draw_image(self, top: float) -> float:
        """Draw the image, and the downsampled image if there is one, and return the left edge of the first node."""
        # A net that downsamples the image also upsamples its logits, so there are as many images as logits.
        shapes = self.plan.left[0][: len(self.plan.out)]
        x = _LEFT
        for index, shape in enumerate(shapes, start=1):
            self._draw_thin_map(shape, Box(x, top, 12, 40))
            self.canvas.add_arrow("conv" if index == len(shapes) else "pool", [(x + 16, top + 20), (x + 52, top + 20)])
            x += 56
        return x

    def _draw_thin_map(self, shape: Shape, box: Box) -> None:
        self.canvas.add_box(box)
        self.canvas.add_text((box.middle, box.y - 5), str(shape[0]), "channels")
        self.canvas.add_text((box.x - 8, box.y + 30), _format_shape(shape), "size", upright=True)

    def _draw_arrows(self, i: int, j: int, places: Mapping[tuple[int, int], Box]) -> None:
        box = places[i, j]
        if (i + 1, j) in places and j == 0:
            below = places[i + 1, 0]
            kind = "stage" if "stage" in self.plan.words else "pool"
            self.canvas.add_arrow(kind, [(box.middle - 6, box.bottom + 3), (below.x - 2, below.y + 6)])
        if (i + 1, j - 1) in places:
            below = places[i + 1, j - 1]
            self.canvas.add_arrow("up", [(below.right + 2, below.y + 6), (box.middle + 2 - 8, box.bottom + 3)])
        for k in range(j):
            before = places[i, k]
            if k == j - 1:
                self.canvas.add_arrow("copy", [(before.right + 3, box.y + 20), (box.x - 3, box.y + 20)])
                if "A" in self.plan.badges:
                    self.canvas.add_badge(((before.right + box.x) / 2, box.y + 20), "A")
            else:
                self.canvas.add_curve("copy", (before.right - 4, box.y - 2), 16 + 13 * (j - k), (box.x + 4, box.y - 2))

    def _draw_heads(self, places: Mapping[tuple[int, int], Box], depth: int) -> None:
        last = places[0, depth]
        for index, shape in enumerate(self.plan.out):
            box = Box(last.right + _GAP + 22, last.y, 12, 40)
            self.canvas.add_arrow("up" if index else "head", [(last.right + 4, last.y + 20), (box.x - 4, last.y + 20)])
            self._draw_thin_map(shape, box)
            last = box
        if "P" in self.plan.badges:
            self.canvas.add_badge((places[depth, 0].right + 12, places[depth, 0].bottom - 5), "P")
        if self.plan.supervised:
            for j in range(1, depth + 1):
                box = places[0, j]
                self.canvas.add_badge((box.right + 10, box.bottom - 5), "H")


def _draw_legend(plan: DrawingPlan, canvas: Canvas) -> None:
    """Draw all arrows and badges with their words, in as many lines as the drawing's width requires."""
    x = _LEFT - 24
    y = canvas.height + 44
    width = max(canvas.width, 560.0)
    entries: Iterable[tuple[str, str]] = [*plan.words.items(), *plan.badges.items()]
    for kind, words in entries:
        length = 44 + 6.9 * len(words)
        if x + length > width and x > _LEFT:
            x = _LEFT - 24
            y += 22
        if kind in ARROW_COLOURS:
            canvas.add_arrow(kind, [(x, y), (x + 26, y)])
        else:
            canvas.add_badge((x + 18, y), kind)
        canvas.add_text((x + 33, y + 4), words, "words")
        x += length + 14


def _format_shape(shape: Shape) -> str:
    return f"{shape[1]}²" if shape[1] == shape[2] else f"{shape[1]}×{shape[2]}"
