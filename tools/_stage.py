"""Pages of the site: where each comes from, where it lies in the site, and links between the copies."""

from __future__ import annotations

import os
import posixpath
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = tuple(sorted((ROOT / "examples").glob("[0-9][0-9]_*.py")))

GENERATED = {"reference/cli", "reference/api/index"}
"""Pages that `_reference.py` writes."""

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
"""Path and anchor of a Markdown link to a file."""

FENCE = re.compile(r"^(```|~~~|:::).*?^\1", re.DOTALL | re.MULTILINE)


def list_pages() -> list[str]:
    """List the Markdown pages of the site by their paths in the repository, sorted."""
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    pages += [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CODE_OF_CONDUCT.md"]
    pages.append(ROOT / "LICENSE")
    pages += (ROOT / "src" / "septa" / "pretrained").glob("*.md")
    return sorted(path.relative_to(ROOT).as_posix() for path in pages if path.is_file())


def find_place(path: str) -> str | None:
    """Return the place of a file of the repository in the site; None if it has none.

    Examples
    --------
    >>> find_place("docs/data.md"), find_place("CHANGELOG.md"), find_place("examples/03_scratch.py")
    ('data.md', 'project/changelog.md', 'tutorials/03_scratch.ipynb')
    """
    folder, _, name = path.rpartition("/")
    if folder == "src/septa/pretrained" and name.endswith(".md"):
        return f"reference/models/{name}"
    if re.fullmatch(r"examples/\d\d_\w+\.py", path):
        return f"tutorials/{name.removesuffix('.py')}.ipynb"
    if path == "docs/site/index.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if folder == "benchmarks":
        return f"benchmarks/{name.lower()}" if name.endswith(".md") else None
    if path == "LICENSE":
        return "project/license.md"
    if not folder and name.endswith(".md") and name != "README.md":
        return f"project/{name.lower()}"
    return None


def find_links(text: str) -> Iterator[re.Match[str]]:
    """Find the links of a page to files, outside its code blocks."""
    blocks = [match.span() for match in FENCE.finditer(text) if not match[0].startswith(":::")]
    for match in LINK.finditer(text):
        if not any(begin <= match.start() < end for begin, end in blocks):
            yield match


def stage_page(page: str, folder: Path) -> Path:
    """Copy a page to its place, with links that lead to the places of their files; return the copy."""
    place = find_place(page)
    assert place is not None
    text = (ROOT / page).read_text(encoding="utf-8")
    parts, end = [], 0
    for match in find_links(text):
        parts += [text[end : match.start()], _move(match[1], page, place) + (match[2] or "")]
        end = match.end()
    text = "".join(parts) + text[end:]
    if page == "LICENSE":
        text = f"# Licence\n\n```text\n{text}```\n"
    if page.startswith("src/septa/pretrained/"):
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text += write_toctree(place.removesuffix(".md"))
    write_changed(folder / place, _name_shell_blocks(text))
    return folder / place


def write_changed(path: Path, text: str) -> None:
    """Write a file if its text is another one, so that sphinx reads again only what has changed."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _name_shell_blocks(text: str) -> str:
    """Return a page whose code blocks without a language are marked as commands of a shell."""
    lines, inside = text.split("\n"), False
    for number, line in enumerate(lines):
        if line.startswith("```"):
            if line == "```" and not inside:
                lines[number] = "```bash"
            inside = not inside
    return "\n".join(lines)


def _move(link: str, page: str, place: str) -> str:
    """Return a link of a page as its copy needs it."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    here = posixpath.dirname(place)
    if path in ("docs", "README.md"):
        return posixpath.relpath("index.md", here)
    if path == "examples":
        return posixpath.relpath("tutorials/index.md", here)
    found = find_place(path)
    if found is not None and ((ROOT / path).exists() or found.removesuffix(".md") in GENERATED):
        return posixpath.relpath(found, here)
    if (ROOT / path).is_file() and path.endswith((".png", ".svg")):
        return os.path.relpath(ROOT / path, ROOT / "build" / "site-pages" / here)
    raise SystemExit(f"{page}: the link {link} leads to nothing that the site shows")


def read_tree() -> dict[str, list[str]]:
    """Read the order of the pages: for each index page, the pages below it, without suffixes."""
    with (ROOT / "docs" / "site" / "tree.toml").open("rb") as file:
        return tomllib.load(file)


def write_toctree(page: str) -> str:
    """Return the directive that lists the pages below an index page; empty for other pages."""
    below = read_tree().get(page, [])
    return "\n".join(["", "```{toctree}", ":hidden:", "", *below, "```", ""]) if below else ""


def find_unlisted() -> list[str]:
    """Find the pages of the site that no index page lists, and the listed ones that do not exist."""
    places = {str(find_place(page)).removesuffix(".md") for page in list_pages()}
    places |= {str(find_place(f"examples/{path.name}")).removesuffix(".ipynb") for path in NOTEBOOKS}
    listed = ["index"]
    for page, below in read_tree().items():
        listed += [posixpath.normpath(posixpath.join(posixpath.dirname(page), name)) for name in below]
    twice = {f"{name} is listed twice" for name in listed if listed.count(name) > 1}
    faults = {f"{name} is not listed in docs/site/tree.toml" for name in places - set(listed)}
    faults |= {f"{name} does not exist" for name in set(listed) - places - GENERATED}
    return sorted(faults | twice)
