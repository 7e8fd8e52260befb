"""Charts as inline SVG, coloured by the page, with values at the pointer and without JavaScript."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from septa.report.page import BLUE, Color, escape_html, format_number

_HOVER_COLUMNS = 120
# Differences and quotients of numbers outside this range may overflow or vanish.
_SMALLEST, _LARGEST = 1e-100, 1e100
# Margins of a chart in pixels.
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 22


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Parameters
    ----------
    name
        Name in the legend and at the pointer.
    points
        ``(x, y)`` in order of x. Points that are not finite are omitted, and in a logarithmic chart also those that
        are not positive.
    color
        Colours for light and dark pages.
    faint
        True for raw values: drawn behind the other lines, without an entry in the legend.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: Color = BLUE
    faint: bool = False


def draw_line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "step",
    unit: str = "",
    log: bool = False,
    include: Sequence[float] = (),
    mark: tuple[float, float] | None = None,
    size: tuple[int, int] = (540, 230),
) -> str:
    """Draw curves as inline SVG whose values show at the pointer, through ``<title>`` and CSS alone.

    Parameters
    ----------
    title
        Heading of the chart.
    series
        Lines, each drawn as one ``<polyline>``.
    x_label
        Label of the x axis.
    unit
        Unit appended to the values of y, such as ``"%"``.
    log
        True for a logarithmic y axis.
    include
        Values that the y axis must contain, such as 0.
    mark
        Point to mark with a ring.
    size
        Width and height in pixels for letters of 11 pixels. The drawing scales with the page.

    Returns
    -------
    str
        A ``<figure>``, with the words "nothing recorded" if there is nothing to draw.

    Examples
    --------
    >>> "<polyline" in draw_line_chart("Loss", [Series("training", [(1, 0.9), (2, 0.4), (3, float("nan"))])])
    True
    """
    drawn = [(line, _drawable(line.points, log)) for line in series]
    drawn = [(line, points) for line, points in drawn if points]
    if not drawn:
        caption = f"<figcaption><b>{escape_html(title)}</b></figcaption>"
        return f'<figure class="chart">{caption}<p>nothing recorded</p></figure>'
    frame = _Frame.around([points for _, points in drawn], include, log, size)
    legend = "".join(
        f'<span class="c key" style="{_style(line.color)}">{escape_html(line.name)} '
        f"<b>{escape_html(format_number(points[-1][1]) + unit)}</b></span>"
        for line, points in drawn
        if not line.faint
    )
    lines = "".join(_curve(line, points, frame) for line, points in sorted(drawn, key=lambda item: not item[0].faint))
    ring = "" if mark is None or not _drawable([mark], log) else _circle("ring", frame, mark, 6)
    heading = (
        f"<figcaption><b>{escape_html(title)}</b>{' <i>log scale</i>' if log else ''}<span>{legend}</span></figcaption>"
    )
    return (
        f'<figure class="chart">{heading}<svg viewBox="0 0 {size[0]} {size[1]}" role="img"'
        f' aria-label="{escape_html(title)}">{frame.axes(x_label, unit)}{lines}{ring}'
        f"{_hover(drawn, frame, x_label, unit)}</svg></figure>"
    )


@dataclass(frozen=True)
class _Frame:
    """Mapping from values of x and y to positions in the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]
    ticks: tuple[float, ...]
    log: bool
    size: tuple[int, int]

    @classmethod
    def around(
        cls,
        lines: Sequence[Sequence[tuple[float, float]]],
        include: Sequence[float],
        log: bool,
        size: tuple[int, int],
    ) -> _Frame:
        xs = [x for points in lines for x, _ in points]
        ys = [y for points in lines for _, y in points] + list(include)
        if log:
            ticks = _log_ticks(min(ys), max(ys))
        else:
            ticks = _ticks(*_spread(min(ys), max(ys)), 5 if size[1] >= 200 else 4, outside=True)
        return cls(_spread(min(xs), max(xs)), (ticks[0], ticks[-1]), ticks, log, size)

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        low, high, value = (math.log(v) if self.log else v for v in (*self.y, point[1]))
        up = (value - low) / (high - low)
        width, height = self.size
        return _LEFT + across * (width - _LEFT - _RIGHT), height - _BOTTOM - up * (height - _TOP - _BOTTOM)

    def axes(self, x_label: str, unit: str) -> str:
        width, height = self.size
        parts = []
        for tick in self.ticks:
            y = self.at((self.x[0], tick))[1]
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="y" x="{_LEFT - 7}" y="{y + 4:.1f}">{escape_html(format_number(tick) + unit)}</text>'
            )
        for tick in _ticks(*self.x, max(3, width // 70)):
            x = self.at((tick, self.y[0]))[0]
            if x < width - _RIGHT - 60:  # leave room for the label of the axis
                parts.append(f'<text class="x" x="{x:.1f}" y="{height - 5}">{escape_html(format_number(tick))}</text>')
        parts.append(f'<text class="x end" x="{width - _RIGHT}" y="{height - 5}">{escape_html(x_label)}</text>')
        return "".join(parts)


def _curve(line: Series, points: Sequence[tuple[float, float]], frame: _Frame) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.at, points))
    few = len(points) <= 30 and not line.faint
    dots = "".join(_circle("dot", frame, point, 2.5) for point in points) if few else ""
    kind = "c faint" if line.faint else "c"
    return f'<g class="{kind}" style="{_style(line.color)}"><polyline points="{places}"/>{dots}</g>'


def _hover(
    drawn: Sequence[tuple[Series, Sequence[tuple[float, float]]]], frame: _Frame, x_label: str, unit: str
) -> str:
    """Draw invisible columns with the values at each x as a tooltip; of many columns only some are kept."""
    xs: set[float] = set()
    for _, points in sorted(drawn, key=lambda item: len(item[1])):
        room = _HOVER_COLUMNS - len(xs)
        new = sorted({x for x, _ in points} - xs)
        xs.update(new[:: -(-len(new) // room)] if new and room > 0 else ())
    order = sorted(xs)
    values = [(line, dict(points)) for line, points in drawn]
    places = [frame.at((x, frame.y[0]))[0] for x in order]
    edges = [_LEFT, *((a + b) / 2 for a, b in itertools.pairwise(places)), frame.size[0] - _RIGHT]
    height = frame.size[1] - _TOP - _BOTTOM
    parts = []
    for x, place, (left, right) in zip(order, places, itertools.pairwise(edges), strict=True):
        here = [(line, y[x]) for line, y in values if x in y]
        words = "\n".join([f"{x_label} {format_number(x)}", *(_value(line.name, y, unit) for line, y in here)])
        dots = "".join(
            f'<g class="c" style="{_style(line.color)}">{_circle("dot", frame, (x, y), 3.5)}</g>'
            for line, y in here
            if not line.faint
        )
        parts.append(
            f'<g class="at"><title>{escape_html(words)}</title>'
            f'<rect x="{left:.1f}" y="{_TOP}" width="{max(right - left, 0.1):.1f}" height="{height}"/>'
            f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{_TOP + height}"/>{dots}</g>'
        )
    return "".join(parts)


def _value(name: str, y: float, unit: str) -> str:
    return f"{name}: {format_number(y)}{unit}" if name else f"{format_number(y)}{unit}"


def _circle(kind: str, frame: _Frame, point: tuple[float, float], radius: float) -> str:
    x, y = frame.at(point)
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _drawable(points: Iterable[tuple[float, float]], log: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if abs(x) <= _LARGEST and abs(y) <= _LARGEST and (y >= _SMALLEST or not log)]


def _spread(low: float, high: float) -> tuple[float, float]:
    largest = max(abs(low), abs(high))
    if high - low > max(1e-9 * largest, _SMALLEST):
        return low, high
    around = 0.05 * abs(low) if largest > _SMALLEST else 1.0
    return low - around, high + around


def _ticks(low: float, high: float, count: int, outside: bool = False) -> tuple[float, ...]:
    """Return about ``count`` round values between two limits, or just outside them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = low / step, high / step
    if outside:
        start, stop = math.floor(first + 1e-6), math.ceil(last - 1e-6)
    else:
        start, stop = math.ceil(first - 1e-6), math.floor(last + 1e-6)
    return tuple(float(f"{i * step:.12g}") for i in range(start, stop + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 3 else (1,)
    ticks = [float(f"{factor}e{decade}") for decade in decades for factor in factors]
    first = max((i for i, tick in enumerate(ticks) if tick <= low), default=0)
    last = min((i for i, tick in enumerate(ticks) if tick >= high), default=len(ticks) - 1)
    kept = ticks[first : max(last, first + 1) + 1]
    stride = -(-(len(kept) - 1) // 7)
    return tuple(kept) if stride <= 1 else (*kept[:-1:stride], kept[-1])


def _style(color: Color) -> str:
    return escape_html(f"--l:{color[0]};--d:{color[1]}")
