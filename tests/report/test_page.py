from __future__ import annotations

import base64
import hashlib
import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septa.report.page import (
    adapt_color,
    escape_html,
    format_number,
    render_cards,
    render_notes,
    render_page,
    render_png,
    render_sections,
    render_swatch,
    render_table,
)


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_text_is_harmless_and_encodable(value: str) -> None:
    escaped = escape_html(value)
    assert not set(escaped) & set("<>\"'\0\x1b\u202e")
    escaped.encode("utf-8")
    if value.isascii() and value.isprintable():
        assert html.unescape(escaped) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (0.91236, "0.9124"),
        (1, "1"),
        (999.94, "999.9"),
        (12345, "12\u202f345"),
        (-2000.0, "-2\u202f000"),
        (2e-5, "2e-5"),
        (1.5e9, "1.5e9"),
        (float("inf"), "–"),
        (float("nan"), "–"),
    ],
)
def test_number(value: float, written: str) -> None:
    assert format_number(value) == written


def _contrast(color: str, page_luminance: float) -> float:
    linear = []
    for i in (1, 3, 5):
        value = int(color[i : i + 2], 16) / 255
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (max(luminance, page_luminance) + 0.05) / (min(luminance, page_luminance) + 0.05)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_tint_is_legible_on_both_pages(rgb: tuple[int, int, int]) -> None:
    light, dark = adapt_color(rgb)
    assert _contrast(light, 1.0) >= 2.9
    assert _contrast(dark, 0.012) >= 3.0


def test_tint_keeps_a_legible_colour() -> None:
    assert adapt_color((0, 158, 115)) == ("#009e73", "#009e73")


def test_page_allows_its_own_script_and_nothing_else() -> None:
    document = render_page("a <b>", "<p>body</p>")
    assert "<title>a &lt;b&gt;</title>" in document
    (script,) = re.findall(r"<script>(.*?)</script>", document, re.DOTALL)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', document)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert "prefers-color-scheme:dark" in document


def test_without_tooltips_no_script_can_run() -> None:
    document = render_page("a", "<p>body</p>", tooltips=False)
    assert "<script" not in document
    assert "script-src" not in document
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in document


def test_chapters_link_to_what_they_hold() -> None:
    parts = {"Problems": "<p>one</p>", "Empty ones": "", "Images <b>": "<p>two</p>"}
    body = render_sections("a<b", "lead & more", ["<p>top</p>", ""], parts)
    anchors = re.findall(r'<a href="#(\w+)">', body)
    assert anchors == re.findall(r'<section id="(\w+)">', body) == ["problems", "images"]
    assert re.findall("<p>(.*?)</p>", body) == ["lead &amp; more", "top", "one", "two"]
    assert "<h1>a&lt;b</h1>" in body
    assert "<h2>Images &lt;b&gt;</h2>" in body


def test_cards_and_notes_escape_and_may_be_empty() -> None:
    assert render_cards([]) == render_notes([]) == ""
    markup = render_cards([("<i>", "<b>", "&"), ("x", "y", "z")])
    assert markup.count('"card first"') == markup.count('"card"') == 1
    assert "&lt;i&gt;" in markup
    assert "&lt;b&gt;" in markup
    assert "<li>&lt;i&gt;</li>" in render_notes(["<i>"])
    assert 'class="notes hints"' in render_notes(["a"], hints=True)


@pytest.mark.parametrize(("count", "folded"), [(12, 0), (13, 1), (40, 28)])
def test_many_notes_are_folded(count: int, folded: int) -> None:
    before, _, after = render_notes([f"note {i}" for i in range(count)]).partition("<details>")
    assert re.findall(r"note (\d+)", before + after) == [str(i) for i in range(count)]
    assert len(re.findall("note ", after)) == folded
    assert (f"{folded} more" in after) == bool(folded)


def test_png_tag_carries_the_file() -> None:
    tag = render_png(b"bytes of a file", 'a "quoted" <name>', 400, 4)
    assert base64.b64decode(re.findall(r"base64,([^\"]*)", tag)[0]) == b"bytes of a file"
    assert 'alt="a &#34;quoted&#34; &lt;name&gt;"' in tag
    assert "aspect-ratio:3.000" in tag
    assert "pixels" not in tag
    assert "pixels" in render_png(b"", "", 20, 20)


def test_table_escapes_titles_and_keeps_cells() -> None:
    markup = render_table(["<class>", "score"], [["<i>a</i>", "1"]])
    assert "&lt;class&gt;" in markup
    assert "<td><i>a</i></td>" in markup
    assert '<td class="n">1</td>' in markup


def test_swatch_is_the_very_colour() -> None:
    assert "#f0e442" in render_swatch((240, 228, 66))
