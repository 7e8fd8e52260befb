"""Check the links of a built site: files, anchors, and that nothing is loaded from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}


class _Page(HTMLParser):
    """Anchors, links and loaded files of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag names."""
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in ("canonical", "search", "index", "next", "prev"):
            self.links.append(found.get("href", ""))
            return
        self.loads += [value for name, value in found.items() if (tag, name) in LOADS and not value.startswith("data:")]


@dataclass
class SiteCheck:
    """Result of the check.

    Attributes
    ----------
    pages, internal, external
        Number of pages, of links inside the site, and of different addresses elsewhere.
    faults
        Printable lines: links that lead nowhere, and addresses that are malformed.
    loaded
        Files of other hosts that a page loads.
    """

    pages: int = 0
    internal: int = 0
    external: int = 0
    faults: list[str] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)


def check_site(folder: Path) -> SiteCheck:
    """Check every link of every page of a site."""
    pages: dict[Path, _Page] = {}
    for path in sorted(folder.rglob("*.html")):
        if path.relative_to(folder).parts[0] == "_static":  # templates of the theme, not pages
            continue
        pages[path.resolve()] = page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    result = SiteCheck(pages=len(pages))
    elsewhere: set[str] = set()
    for path, page in pages.items():
        name = path.relative_to(folder.resolve())
        for address in [*page.links, *page.loads]:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https"):
                elsewhere.add(address)
                if not parts.hostname or "." not in parts.hostname or " " in address:
                    result.faults.append(f"{name}: the address {address} is malformed")
                if address in page.loads:
                    result.loaded.add(address)
                continue
            if parts.scheme:
                continue
            result.internal += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                result.faults.append(f"{name}: {address} does not exist")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                result.faults.append(f"{name}: {address}: the page has no such anchor")
    result.external = len(elsewhere)
    return result
