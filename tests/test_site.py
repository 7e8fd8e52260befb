"""The pages of the site: each is listed once, and links lead to pages and headings."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def tools():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield
    for name in ("_stage", "_links", "_reference"):
        sys.modules.pop(name, None)


def make_slug(heading: str) -> str:
    """Return the anchor of a heading, as hosts of Markdown and the site make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().replace("`", "").lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def test_every_page_is_listed_once() -> None:
    from _stage import find_unlisted, list_pages, read_tree

    assert len(list_pages()) > 30
    assert "reference/index" in read_tree()
    assert find_unlisted() == []


def test_links_of_pages_lead_to_files_and_headings_of_the_site() -> None:
    from _stage import GENERATED, find_links, find_place, list_pages

    faults, count = [], 0
    for page in list_pages():
        for match in find_links((ROOT / page).read_text(encoding="utf-8")):
            count += 1
            path = posixpath.normpath(posixpath.join(posixpath.dirname(page), match[1]))
            place = find_place(path) or ""
            if not (ROOT / path).exists() and place.removesuffix(".md") not in GENERATED:
                faults.append(f"{page}: {match[1]} does not exist")
            elif not place and path not in ("README.md", "docs", "examples") and not path.endswith(".png"):
                faults.append(f"{page}: {match[1]} is not shown by the site")
            elif match[2] and path.endswith(".md") and (ROOT / path).exists():
                headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
                if match[2][1:] not in map(make_slug, headings):
                    faults.append(f"{page}: {match[1]}{match[2]}: there is no such heading")
    assert count > 100
    assert faults == []


def test_a_staged_page_has_links_to_the_other_copies(tmp_path: Path) -> None:
    from _stage import stage_page

    text = stage_page("docs/prediction.md", tmp_path).read_text(encoding="utf-8")
    assert "](benchmarks/unlike.md)" in text
    assert "](scaling.md)" in text
    assert "```bash\nsepta predict cells.septa" in text
    notebook = stage_page("docs/tutorials/index.md", tmp_path)
    assert "](03_unet_from_scratch.ipynb)" in notebook.read_text(encoding="utf-8")
    assert "01_first_segmentation\n" in notebook.read_text(encoding="utf-8").partition("{toctree}")[2]


def test_the_reference_shows_every_public_name() -> None:
    from _reference import _classify, _find, list_names, list_rooms

    kinds = {(room, name): _classify(_find(room, name)) for room in list_rooms() for name in list_names(room)}
    assert kinds["septa.nets", "UNet"] == "class"
    assert kinds["septa.plot", "panels"] == "function"
    assert len(kinds) > 300


def test_broken_links_of_a_built_site_are_found(tmp_path: Path) -> None:
    from _links import check_site

    (tmp_path / "a.html").write_text('<h1 id="top"></h1><a href="b.html#there">b</a><a href="http://x">c</a>')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#top">a</a><a href="c.html">c</a><script src="https://h.org/x.js">'
    )
    result = check_site(tmp_path)
    assert (result.pages, result.internal, result.external) == (2, 3, 2)
    assert [fault.partition(":")[0] for fault in result.faults] == ["a.html", "a.html", "b.html"]
    assert result.loaded == {"https://h.org/x.js"}


def test_words_of_the_glossary_are_sorted() -> None:
    words = re.findall(r"^(\S.*)\n: ", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(words) > 20
    assert words == sorted(words)
