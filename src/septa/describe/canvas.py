"""The canvas of a drawing: boxes, arrows, texts and badges, which become one SVG document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from septa.report import escape_html

Point = tuple[float, float]
"""Position (x, y) on the canvas, pixels from the upper left corner."""

ARROW_COLOURS = {
    "conv": ("#0a6ea8", "#5ab4ea"),
    "copy": ("#7b8794", "#8695a5"),
    "pool": ("#b3261e", "#ff8a80"),
    "up": ("#0b8262", "#3ecf9f"),
    "head": ("#7a3fb0", "#c79bf2"),
    "stage": ("#c4560a", "#f7a35c"),
}
"""Colours of each kind of arrow, on a light and on a dark page."""


@dataclass(frozen=True)
class Box:
    """Rectangle on the canvas; ``x`` and ``y`` are its upper left corner, pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Horizontal centre."""
        return self.x + self.width / 2

    @property
    def right(self) -> float:
        """Right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.y + self.height


@dataclass
class Canvas:
    """Canvas that grows with its elements.

    Attributes
    ----------
    parts
        SVG elements in the order in which they are drawn.
    width, height
        Right and lower edge of all elements, pixels.
    """

    parts: list[str] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0

    def extend_to(self, x: float, y: float) -> None:
        """Enlarge the canvas so that it contains a point."""
        self.width = max(self.width, x)
        self.height = max(self.height, y)

    def add_box(self, box: Box, style: str = "map") -> None:
        """Draw a rectangle; ``style`` names its CSS classes."""
        self.extend_to(box.right, box.bottom)
        self.parts.append(
            f'<rect class="{style}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"/>'
        )

    def add_text(self, at: Point, words: str, style: str, *, upright: bool = False) -> None:
        """Draw text at a point; ``style`` names its CSS class, and ``upright`` turns it to read upwards."""
        x, y = at
        size = {"title": 9.4, "sub": 6.9}.get(style, 6.6) * len(words)
        if upright:
            self.extend_to(x + 4, y + size)
        else:
            self.extend_to(x + (size / 2 if style in ("channels", "sign") else size), y + 4)
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if upright else ""
        self.parts.append(f'<text class="{style}" x="{x:.1f}" y="{y:.1f}"{turn}>{escape_html(words)}</text>')

    def add_arrow(self, kind: str, points: Sequence[Point], *, dashed: bool = False) -> None:
        """Draw an arrow along the points, with its head at the last."""
        (x0, y0), (x1, y1) = points[-2:]
        self._add_line(kind, "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points), (x0, y0), (x1, y1), dashed)

    def add_curve(self, kind: str, start: Point, lift: float, end: Point) -> None:
        """Draw an arrow as an arc, whose middle is ``lift`` pixels above its ends."""
        (x0, y0), (x1, y1) = start, end
        pull = lift * 4 / 3
        lean = (x1 - x0) * 0.2
        path = f"M{x0:.1f} {y0:.1f} C{x0 + lean:.1f} {y0 - pull:.1f} {x1 - lean:.1f} {y1 - pull:.1f} {x1:.1f} {y1:.1f}"
        self._add_line(kind, path, (x1 - lean, y1 - pull), end, False)

    def _add_line(self, kind: str, path: str, before: Point, tip: Point, dashed: bool) -> None:
        angle = math.atan2(tip[1] - before[1], tip[0] - before[0])
        wings = " ".join(
            f"{tip[0] - 8 * math.cos(angle + turn):.1f},{tip[1] - 8 * math.sin(angle + turn):.1f}"
            for turn in (0.42, -0.42)
        )
        self.extend_to(tip[0], tip[1])
        style = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<g class="{kind}"><path d="{path}"{style}/><polygon points="{tip[0]:.1f},{tip[1]:.1f} {wings}"/></g>'
        )

    def add_badge(self, at: Point, sign: str) -> None:
        """Draw a circle with a sign of one letter."""
        self.extend_to(at[0] + 8, at[1] + 8)
        self.parts.append(f'<circle class="badge" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="7.5"/>')
        self.add_text((at[0], at[1] + 3.6), sign, "sign")

    def to_svg(self, title: str) -> str:
        """Return the SVG document; the title is text for screen readers."""
        width, height = math.ceil(self.width + 24), math.ceil(self.height + 20)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="septa-net" viewBox="0 0 {width} {height}" width="{width}"'
            f' height="{height}" role="img" aria-label="{escape_html(title)}">\n<title>{escape_html(title)}</title>\n'
            f'<style>{_make_style()}</style>\n<rect class="page" width="{width}" height="{height}"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def _make_style() -> str:
    light = "".join(f"--{kind}:{pair[0]};" for kind, pair in ARROW_COLOURS.items())
    dark = "".join(f"--{kind}:{pair[1]};" for kind, pair in ARROW_COLOURS.items())
    lines = "".join(
        f".septa-net .{kind} path{{stroke:var(--{kind})}}.septa-net .{kind} polygon{{fill:var(--{kind})}}"
        for kind in ARROW_COLOURS
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
