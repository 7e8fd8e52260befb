from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septa.report.chart import Series, draw_line_chart

NAN = float("nan")


def _polylines(markup: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]*)"', markup)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())] for points in found]


def _columns(markup: str) -> list[tuple[float, float]]:
    return [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="10" width="([\d.]+)"', markup)]


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.floats(allow_nan=True, allow_infinity=True)),
        max_size=30,
        unique_by=lambda point: point[0],
    ),
    st.booleans(),
)
def test_every_drawable_point_lies_on_the_drawing(points: list[tuple[float, float]], log: bool) -> None:
    points = sorted(points)
    expected = [y for _, y in points if abs(y) <= 1e100 and (y >= 1e-100 or not log)]
    markup = draw_line_chart("t", [Series("a", points)], log=log)
    drawn = _polylines(markup)
    if not expected:
        assert "nothing recorded" in markup
        assert not drawn
        return
    assert len(drawn[0]) == len(expected)
    assert all(46 <= x <= 528 and 9.9 <= y <= 208.1 for x, y in drawn[0])
    assert all(a <= b for a, b in pairwise(x for x, _ in drawn[0]))
    for (y, place), (other, other_place) in pairwise(zip(expected, (y for _, y in drawn[0]), strict=True)):
        assert place >= other_place - 0.11 if y <= other else place <= other_place + 0.11


def test_positions_are_linear_between_the_ticks() -> None:
    markup = draw_line_chart("t", [Series("a", [(0, 0.0), (5, 0.25), (10, 1.0)])])
    assert _polylines(markup) == [[(46.0, 208.0), (287.0, 158.5), (528.0, 10.0)]]


def test_positions_are_logarithmic_when_asked() -> None:
    markup = draw_line_chart("t", [Series("a", [(0, 0.01), (5, 0.1), (10, 1.0)])], log=True)
    assert _polylines(markup) == [[(46.0, 208.0), (287.0, 109.0), (528.0, 10.0)]]
    assert "log scale" in markup


def test_ticks_are_round_and_include_what_must_show() -> None:
    markup = draw_line_chart("t", [Series("a", [(0, 21.3), (1000, 37.9)])], include=[0], unit="%")
    assert re.findall(r'class="y"[^>]*>([^<]*)<', markup) == ["0%", "10%", "20%", "30%", "40%"]


def test_values_show_at_the_pointer_without_script() -> None:
    markup = draw_line_chart("t", [Series("<a>", [(1, 0.5), (2, 0.25)]), Series("b", [(2, 0.125)])])
    titles = re.findall(r"<title>(.*?)</title>", markup, re.DOTALL)
    assert titles == ["step 1\n&lt;a&gt;: 0.5", "step 2\n&lt;a&gt;: 0.25\nb: 0.125"]


@pytest.mark.parametrize("count", [1, 2, 119, 121, 5000])
def test_hover_columns_tile_the_drawing_and_keep_sparse_lines(count: int) -> None:
    dense = Series("a", [(i, math.sin(i)) for i in range(count)])
    sparse = Series("b", [(i, 0.5) for i in range(0, count, max(count // 10, 1))][:10])
    markup = draw_line_chart("t", [dense, sparse])
    columns = _columns(markup)
    assert len(columns) == min(count, len(columns)) <= 120
    assert columns[0][0] == 46
    assert columns[-1][0] + columns[-1][1] == pytest.approx(528, abs=0.2)
    assert all(x + w == pytest.approx(following, abs=0.21) for (x, w), (following, _) in pairwise(columns))
    assert markup.count("b: 0.5") == len(sparse.points)
    assert len(_polylines(markup)[0]) == count


def test_legend_names_the_last_value_but_no_faint_line() -> None:
    markup = draw_line_chart(
        "t", [Series("raw", [(1, 3.0), (2, 1.0)], faint=True), Series("mean", [(1, 2.0), (2, 1.5)])]
    )
    legend = markup[: markup.index("<svg")]
    assert "mean <b>1.5</b>" in legend
    assert "raw" not in legend
    assert markup.index("faint") < markup.rindex("<polyline")


def test_mark_is_ringed_where_it_lies() -> None:
    markup = draw_line_chart("t", [Series("a", [(0, 0.0), (10, 1.0)])], mark=(10, 1.0))
    assert '<circle class="ring" cx="528.0" cy="10.0"' in markup
    assert "ring" not in draw_line_chart("t", [Series("a", [(0, 0.0), (10, 1.0)])], mark=(10, NAN))


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-300, 1e99])
@pytest.mark.parametrize("steps", [[7], [7, 8], [7, 7]])
def test_constant_values_are_drawn(value: float, steps: list[int]) -> None:
    markup = draw_line_chart("t", [Series("a", [(step, value) for step in steps])])
    assert len(_polylines(markup)[0]) == len(steps)
    assert "nan" not in markup.lower()
