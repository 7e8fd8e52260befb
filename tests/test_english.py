"""The words of the project: docs, help texts, messages and docstrings follow the style of CONTRIBUTING."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROSE = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "quality.md",
    ROOT / "benchmarks" / "unlike.md",
    *sorted((ROOT / "src" / "septa" / "presets").glob("*.yaml")),
    *sorted((ROOT / "src" / "septa" / "pretrained").glob("*.md")),
]
SOURCES = sorted((ROOT / "src" / "septa").rglob("*.py"))

AVOIDED = {
    r"\btold\b|\btells?\b|\btelling\b": "report, print, say, infer, detect",
    r"\bmend(s|ed|ing)?\b": "fix, correct",
    r"\bgo(es)? on\b|\bwent on\b|\bgoing on\b": "continue, resume",
    r"\bsuffic(e|es|ed)\b": "be enough",
    r"\bso many\b": "that many, a number",
    r"\bwant of\b": "lack of, out of",
    r"\botherwise than\b": "differently from",
    r"(?<!there )\bis no (file|folder|image|model|recipe|setting|size|amount|list|number|glob|store)\b": "is not a",
}
"""Patterns of words that the style avoids, each with words to use instead."""

FIRST_WORDS_AVOIDED = {"what", "whether", "how", "of", "by", "that", "which", "who", "where"}
"""First words of a docstring that name neither an action nor a thing."""


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string and comment of a Python file."""
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)):
                yield token.start[0], token.string


def avoided_words(text: str) -> list[str]:
    """Find the words of a text that the style avoids, each with a remedy."""
    return [
        f"'{match[0]}': use {instead}"
        for pattern, instead in AVOIDED.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_pages_use_plain_words(path: Path) -> None:
    found = [
        f"{path.name}:{number}: {fault}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for fault in avoided_words(line)
    ]
    assert found == []


def test_sources_use_plain_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in SOURCES
        for line, text in texts_of(path)
        for fault in avoided_words(text)
    ]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_docstrings_open_with_an_action_or_a_thing() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                if text.partition(" ")[0].strip("`.,:").lower() in FIRST_WORDS_AVOIDED:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text.splitlines()[0]}")
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_each_page_of_the_docs_says_who_needs_it() -> None:
    for path in sorted((ROOT / "docs").glob("*.md")):
        title, first = [block for block in path.read_text(encoding="utf-8").split("\n\n") if block.strip()][:2]
        assert title.startswith("# "), path.name
        assert re.match(r"This page is for |Read this page ", first), f"{path.name}: {first}"


def test_the_readme_links_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([^)#]+)", readme))
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}
    assert {*pages, "benchmarks/RESULTS.md", "benchmarks/quality.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= links
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The format is told from the content", 1),
        ("Errors that a user can mend", 1),
        ("x is no file", 1),
        ("there is no file here, and nobody recommends it", 0),
        ("Formats are detected from file contents", 0),
        ("the recommended amendment", 0),
    ],
)
def test_avoided_words_are_found(text: str, count: int) -> None:
    assert len(avoided_words(text)) == count
