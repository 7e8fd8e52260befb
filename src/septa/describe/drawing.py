"""The drawing of a U-Net, after figure 1 of its paper: maps as boxes, operations as coloured arrows, one SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from septa.report import text

Point = tuple[float, float]
Shape = tuple[int, int, int]
"""Channels, height and width of a feature map."""

_GAP, _BADGE = 34.0, 18.0  # between two boxes, and more of it for each badge there
_LABEL, _SIDE = 17.0, 58.0  # room for the channels above a box, and for a size beside it
_LEFT, _TOP = 44.0, 92.0
_WIDEST, _LOWEST, _TALLEST = 62.0, 26.0, 170.0
_PALETTE = {
    "conv": ("#0a6ea8", "#5ab4ea"),
    "copy": ("#7b8794", "#8695a5"),
    "pool": ("#b3261e", "#ff8a80"),
    "up": ("#0b8262", "#3ecf9f"),
    "head": ("#7a3fb0", "#c79bf2"),
    "stage": ("#c4560a", "#f7a35c"),
}


@dataclass(frozen=True)
class DrawingPlan:
    """What there is to draw; shapes are ``(C, Y, X)``.

    Attributes
    ----------
    title, subtitle
        Plain text above the drawing.
    image
        The net's input.
    left
        Maps of the contracting path, level by level: what a level is given, then each map made of it.
    right
        Maps of each node ``(level, column)`` of the expanding path: what it is given, then each map made of it.
    out
        Logits, and enlarged ones if the net works on a reduced image.
    words
        For the legend: kind of arrow (``conv``, ``copy``, ``pool``, ``up``, ``head``, ``stage``) to plain text.
    badges
        Signs on the last convolution of each block, on skips (``A``), and on the bottom (``P``), to plain text.
    nested
        Whether to draw the triangle of nodes.
    supervised
        Whether nodes on the way have heads of their own in training.
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
    """Draw a net as a complete SVG document that needs nothing else, in light and dark."""
    sheet = _Sheet()
    if plan.nested:
        _Triangle(plan, sheet).draw()
    else:
        _Letter(plan, sheet).draw()
    sheet.text((_LEFT - 24, 34), plan.title, "title")
    sheet.text((_LEFT - 24, 54), plan.subtitle, "sub")
    _legend(plan, sheet)
    return sheet.document(plan.title)


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass
class _Sheet:
    """Elements drawn so far, and how far they reach."""

    parts: list[str] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0

    def reach(self, x: float, y: float) -> None:
        self.width, self.height = max(self.width, x), max(self.height, y)

    def box(self, box: _Box, style: str = "map") -> None:
        self.reach(box.right, box.bottom)
        self.parts.append(
            f'<rect class="{style}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"/>'
        )

    def text(self, at: Point, words: str, style: str, *, upright: bool = False) -> None:
        x, y = at
        size = {"title": 9.4, "sub": 6.9}.get(style, 6.6) * len(words)
        if upright:
            self.reach(x + 4, y + size)
        else:
            self.reach(x + (size / 2 if style in ("channels", "sign") else size), y + 4)
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if upright else ""
        self.parts.append(f'<text class="{style}" x="{x:.1f}" y="{y:.1f}"{turn}>{text(words)}</text>')

    def arrow(self, kind: str, points: Sequence[Point], *, dashed: bool = False) -> None:
        """A line through points with a head at the last."""
        (x0, y0), (x1, y1) = points[-2:]
        self._line(kind, "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points), (x0, y0), (x1, y1), dashed)

    def curve(self, kind: str, start: Point, lift: float, end: Point) -> None:
        """An arc whose middle lies ``lift`` above its ends."""
        (x0, y0), (x1, y1) = start, end
        pull, lean = lift * 4 / 3, (x1 - x0) * 0.2
        path = f"M{x0:.1f} {y0:.1f} C{x0 + lean:.1f} {y0 - pull:.1f} {x1 - lean:.1f} {y1 - pull:.1f} {x1:.1f} {y1:.1f}"
        self._line(kind, path, (x1 - lean, y1 - pull), end, False)

    def _line(self, kind: str, path: str, before: Point, tip: Point, dashed: bool) -> None:
        angle = math.atan2(tip[1] - before[1], tip[0] - before[0])
        wings = " ".join(
            f"{tip[0] - 8 * math.cos(angle + turn):.1f},{tip[1] - 8 * math.sin(angle + turn):.1f}"
            for turn in (0.42, -0.42)
        )
        self.reach(tip[0], tip[1])
        style = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<g class="{kind}"><path d="{path}"{style}/><polygon points="{tip[0]:.1f},{tip[1]:.1f} {wings}"/></g>'
        )

    def badge(self, at: Point, sign: str) -> None:
        self.reach(at[0] + 8, at[1] + 8)
        self.parts.append(f'<circle class="badge" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="7.5"/>')
        self.text((at[0], at[1] + 3.6), sign, "sign")

    def document(self, title: str) -> str:
        width, height = math.ceil(self.width + 24), math.ceil(self.height + 20)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="septa-net" viewBox="0 0 {width} {height}" width="{width}"'
            f' height="{height}" role="img" aria-label="{text(title)}">\n<title>{text(title)}</title>\n'
            f'<style>{_style()}</style>\n<rect class="page" width="{width}" height="{height}"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


@dataclass
class _Letter:
    """The U: a row for each level, contracting path on the left, expanding path on the right."""

    plan: DrawingPlan
    sheet: _Sheet

    def draw(self) -> None:
        tops = self._tops()
        kind = "stage" if "stage" in self.plan.words else "pool"
        ends: list[_Box] = []  # the last map of each level's left side
        for level, maps in enumerate(self.plan.left):
            start = _LEFT
            if ends:
                # An encoder's first stage reads the image itself.
                source = self._image_box() if kind == "stage" and level == 1 else ends[-1]
                start = max(source.middle - self._wide(maps[0]) / 2, _LEFT - 14)
                down = [(source.middle, source.bottom + 3), (source.middle, tops[level] - _LABEL)]
                self.sheet.arrow(kind, down)
            ends.append(self._row(maps, start, tops[level], bottom=level == len(tops) - 1))
        last = ends[-1]
        for level in reversed(range(len(tops) - 1)):
            last = self._rise(level, tops[level], ends[level], last)
        self._finish(last)

    def _image_box(self) -> _Box:
        """The box before the last of the first row."""
        x = _LEFT + sum(self._wide(maps) + _GAP for maps in self.plan.left[0][:-2])
        return _Box(x, _TOP, self._wide(self.plan.left[0][-2]), self._tall(self.plan.left[0][-2]))

    def _rise(self, level: int, top: float, skip: _Box, below: _Box) -> _Box:
        """The way from a level's last map up to the next, and that level's node."""
        maps = next(maps for (row, column), maps in self.plan.right.items() if row == level and column > 0)
        whole = self._wide(maps[0])
        copied = whole * min(self.plan.left[level][-1][0] / maps[0][0], 0.85)
        start = max(below.middle - (copied + whole) / 2, skip.right + _SIDE + _GAP)
        box = _Box(start, top, whole, self._tall(maps[0]))
        target = start + (copied + whole) / 2
        if abs(target - below.middle) < 1:
            self.sheet.arrow("up", [(target, below.y - _LABEL), (target, box.bottom + 4)])
        else:
            side = below.y + below.height / 2
            self.sheet.arrow("up", [(below.right + 4, side), (target, side), (target, box.bottom + 4)])
        self.sheet.arrow("copy", [(skip.right + 4, top + 10), (start - 4, top + 10)])
        if "A" in self.plan.badges:
            self.sheet.badge(((skip.right + start) / 2, top + 10), "A")
        last = self._row(maps, start, top, copied=copied)
        if self.plan.supervised and level > 0:
            classes = (self.plan.out[0][0], *maps[-1][1:])
            head = _Box(last.right + _GAP, top, self._wide(classes), last.height)
            self.sheet.arrow("head", [(last.right + 4, top + 10), (head.x - 4, top + 10)], dashed=True)
            self._map(classes, head, size=False)
        return last

    def _finish(self, last: _Box) -> None:
        for index, shape in enumerate(self.plan.out):
            box = _Box(last.right + _GAP, last.y, self._wide(shape), self._tall(shape))
            self.sheet.arrow("up" if index else "head", [(last.right + 4, last.y + 10), (box.x - 4, box.y + 10)])
            self._map(shape, box, size=True)
            last = box

    def _row(
        self, maps: Sequence[Shape], start: float, top: float, *, copied: float = 0.0, bottom: bool = False
    ) -> _Box:
        """A block: boxes side by side with arrows between; the last box."""
        stem = "stage" in self.plan.words and not copied
        signs = [] if stem else [sign for sign in self.plan.badges if sign not in "AP"]
        box = _Box(start, top, self._wide(maps[0]), self._tall(maps[0]))
        self._map(maps[0], box, size=True)
        if copied:
            self.sheet.box(_Box(start, top, copied, box.height), "map copied")
        for index, (before, shape) in enumerate(itertools.pairwise(maps), start=1):
            pyramid = bottom and "P" in self.plan.badges and index == len(maps) - 1
            here = ["P"] if pyramid else signs if index == len(maps) - 1 - (bottom and "P" in self.plan.badges) else []
            gap = _GAP + _BADGE * len(here)
            after = _Box(box.right + gap, top, self._wide(shape), self._tall(shape))
            reduced = len(maps) > 1 and shape[1] < before[1] * 0.6
            kind = "pool" if reduced else "conv"
            self.sheet.arrow(kind, [(box.right + 4, top + 10), (after.x - 4, top + 10)])
            for place, sign in enumerate(here):
                self.sheet.badge((box.right + 14 + _BADGE * place, top + 10), sign)
            self._map(shape, after, size=shape[1:] != before[1:])
            box = after
        return box

    def _map(self, shape: Shape, box: _Box, *, size: bool) -> None:
        self.sheet.box(box)
        self.sheet.text((box.middle, box.y - 5), str(shape[0]), "channels")
        if size:
            self.sheet.text((box.x - 8, box.y + 20), _size(shape), "size", upright=True)

    def _tops(self) -> list[float]:
        """Where the boxes of each level begin: low enough for boxes, sizes, channels and arrows above."""
        tops = [_TOP]
        for level, maps in enumerate(self.plan.left[:-1]):
            others = [shape for (row, _), shapes in self.plan.right.items() if row == level for shape in shapes]
            ends = self.plan.out if level == 0 else ()
            tall = max(self._tall(shape) for shape in [*maps, *others, *ends])
            tops.append(tops[-1] + max(tall, 24 + _SIDE) + _LABEL + 30)
        return tops

    def _wide(self, shape: Shape) -> float:
        most = max(shape[0] for maps in [*self.plan.left, *self.plan.right.values()] for shape in maps)
        return max(9.0, _WIDEST * math.sqrt(shape[0] / most))

    def _tall(self, shape: Shape) -> float:
        return _LOWEST + (_TALLEST - _LOWEST) * math.sqrt(shape[1] / self.plan.image[1])


@dataclass
class _Triangle:
    """U-Net++: level by level downwards, column by column to the right, every node of a level joined to all after."""

    plan: DrawingPlan
    sheet: _Sheet

    def draw(self) -> None:
        depth = len(self.plan.left) - 1
        arcs = [16 + 13 * (depth - level) if depth - level > 1 else 0 for level in range(depth + 1)]
        tops = [_TOP + 4 + arcs[0]]
        for height in arcs[1:]:
            tops.append(tops[-1] + 40 + max(58, height + 26))
        nodes = {(level, 0): maps[-1] for level, maps in enumerate(self.plan.left)}
        nodes |= {at: maps[-1] for at, maps in self.plan.right.items()}
        first = self._image(tops[0])
        places = {(i, j): _Box(first + 76 * (i + 2 * j), tops[i], 58, 40) for i, j in nodes}
        for i, j in nodes:
            self._arrows(i, j, places)
        for at, shape in nodes.items():
            box = places[at]
            self.sheet.box(box, "map" if at[1] else "map copied")
            self.sheet.text((box.middle, box.y - 5), str(shape[0]), "channels")
            self.sheet.text((box.middle, box.y + 18), f"{at[0]},{at[1]}", "sign")
            self.sheet.text((box.middle, box.y + 33), _size(shape), "tiny")
        self._heads(places, depth)

    def _image(self, top: float) -> float:
        """Draw the image, and the reduced one; where the first node begins."""
        first = self.plan.left[0]
        shapes = first[: len(self.plan.out)]  # a net that reduces the image also enlarges its logits
        x = _LEFT
        for index, shape in enumerate(shapes, start=1):
            self._thin(shape, _Box(x, top, 12, 40))
            self.sheet.arrow("conv" if index == len(shapes) else "pool", [(x + 16, top + 20), (x + 52, top + 20)])
            x += 56
        return x

    def _thin(self, shape: Shape, box: _Box) -> None:
        self.sheet.box(box)
        self.sheet.text((box.middle, box.y - 5), str(shape[0]), "channels")
        self.sheet.text((box.x - 8, box.y + 30), _size(shape), "size", upright=True)

    def _arrows(self, i: int, j: int, places: Mapping[tuple[int, int], _Box]) -> None:
        box = places[i, j]
        if (i + 1, j) in places and j == 0:
            below = places[i + 1, 0]
            kind = "stage" if "stage" in self.plan.words else "pool"
            self.sheet.arrow(kind, [(box.middle - 6, box.bottom + 3), (below.x - 2, below.y + 6)])
        if (i + 1, j - 1) in places:
            below = places[i + 1, j - 1]
            self.sheet.arrow("up", [(below.right + 2, below.y + 6), (box.middle + 2 - 8, box.bottom + 3)])
        for k in range(j):
            before = places[i, k]
            if k == j - 1:
                self.sheet.arrow("copy", [(before.right + 3, box.y + 20), (box.x - 3, box.y + 20)])
                if "A" in self.plan.badges:
                    self.sheet.badge(((before.right + box.x) / 2, box.y + 20), "A")
            else:
                self.sheet.curve("copy", (before.right - 4, box.y - 2), 16 + 13 * (j - k), (box.x + 4, box.y - 2))

    def _heads(self, places: Mapping[tuple[int, int], _Box], depth: int) -> None:
        last = places[0, depth]
        for index, shape in enumerate(self.plan.out):
            box = _Box(last.right + _GAP + 22, last.y, 12, 40)
            self.sheet.arrow("up" if index else "head", [(last.right + 4, last.y + 20), (box.x - 4, last.y + 20)])
            self._thin(shape, box)
            last = box
        if "P" in self.plan.badges:
            self.sheet.badge((places[depth, 0].right + 12, places[depth, 0].bottom - 5), "P")
        if self.plan.supervised:
            for j in range(1, depth + 1):
                box = places[0, j]
                self.sheet.badge((box.right + 10, box.bottom - 5), "H")


def _legend(plan: DrawingPlan, sheet: _Sheet) -> None:
    """Arrows and badges with their words, in as many lines as the drawing's width asks for."""
    x, y, width = _LEFT - 24, sheet.height + 44, max(sheet.width, 560.0)
    entries: Iterable[tuple[str, str]] = [*plan.words.items(), *plan.badges.items()]
    for kind, words in entries:
        long = 44 + 6.9 * len(words)
        if x + long > width and x > _LEFT:
            x, y = _LEFT - 24, y + 22
        if kind in _PALETTE:
            sheet.arrow(kind, [(x, y), (x + 26, y)])
        else:
            sheet.badge((x + 18, y), kind)
        sheet.text((x + 33, y + 4), words, "words")
        x += long + 14


def _size(shape: Shape) -> str:
    return f"{shape[1]}²" if shape[1] == shape[2] else f"{shape[1]}×{shape[2]}"


def _style() -> str:
    light = "".join(f"--{kind}:{pair[0]};" for kind, pair in _PALETTE.items())
    dark = "".join(f"--{kind}:{pair[1]};" for kind, pair in _PALETTE.items())
    lines = "".join(
        f".septa-net .{kind} path{{stroke:var(--{kind})}}.septa-net .{kind} polygon{{fill:var(--{kind})}}"
        for kind in _PALETTE
    )
    return (
        f".septa-net{{--page:#fff;--ink:#17212b;--soft:#5a6876;--fill:#dcebf5;--plain:#fff;{light}}}"
        f"@media (prefers-color-scheme:dark){{.septa-net{{--page:#0e1318;--ink:#e5ebf1;--soft:#95a3b2;--fill:#1d3a4f;"
        f"--plain:#161d25;{dark}}}}}"
        '.septa-net text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;'
        "fill:var(--soft);font-variant-numeric:tabular-nums}"
        ".septa-net .page{fill:var(--page)}.septa-net .map{fill:var(--fill);stroke:var(--conv)}"
        ".septa-net .copied{fill:var(--plain)}.septa-net path{fill:none;stroke-width:1.7}"
        ".septa-net .title{font-size:17px;font-weight:650;fill:var(--ink)}.septa-net .sub{font-size:12.5px}"
        ".septa-net .channels,.septa-net .sign,.septa-net .tiny{text-anchor:middle}"
        ".septa-net .channels{fill:var(--ink);font-weight:600}.septa-net .size{text-anchor:end;font-size:10px}"
        ".septa-net .tiny{font-size:8.5px}.septa-net .sign{font-size:10px;font-weight:600;fill:var(--ink)}"
        f".septa-net .badge{{fill:var(--page);stroke:var(--ink)}}.septa-net .words{{font-size:12px}}{lines}"
    )
