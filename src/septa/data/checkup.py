"""What the dataset check found, and the page that shows it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from septa.data.fingerprint import Facts, Fingerprint
from septa.data.folder import Pair, Pairing, read_pair_image, read_pair_labels
from septa.data.labels import LabelMapping
from septa.errors import SeptaError
from septa.images.overlay import overlay, shrink, to_rgb
from septa.images.write import encode_png

_THUMBNAILS = 60
_THUMBNAIL_SIDE = 240
_DRAWN_SIDE = 1024


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset.

    Attributes
    ----------
    severity
        ``error`` if a training would fail, else ``warning``.
    path
        The file or folder concerned.
    what
        What came and what was expected, without a closing full stop.
    remedy
        What the user can do, without a closing full stop.
    """

    severity: Literal["error", "warning"]
    path: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}. {self.remedy}." if self.remedy else f"{self.path}: {self.what}."


@dataclass(frozen=True)
class Checkup:
    """All that a check found.

    Attributes
    ----------
    data
        The folder that was checked.
    pairing, mapping, fingerprint
        None where the problems left none.
    facts
        Facts of every image that could be read, in the order of the pairs; without class pixels where the labels
        could not be used.
    problems
        Errors first.
    train, validation
        Names of the pairs on either side of the split; empty if no image can be held out.
    notes
        What was inferred, printable lines.
    """

    data: Path
    pairing: Pairing | None
    mapping: LabelMapping | None
    fingerprint: Fingerprint | None
    facts: tuple[Facts, ...]
    problems: tuple[Problem, ...]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def fatal(self) -> bool:
        """Whether a training on this dataset would fail."""
        return any(problem.severity == "error" for problem in self.problems)


def check_html(checkup: Checkup) -> str:
    """Write a check as one self-contained page.

    The images and labels of at most 60 pairs are read again and shown as thumbnails, those with problems first.

    Parameters
    ----------
    checkup
        What `septa.data.doctor.check` returned.

    Returns
    -------
    str
        HTML with embedded pictures and without scripts, for light and dark screens.
    """
    errors = sum(problem.severity == "error" for problem in checkup.problems)
    warnings = len(checkup.problems) - errors
    verdict = "cannot be trained on yet" if errors else "is ready, with warnings" if warnings else "is ready"
    tone = "error" if errors else "warning" if warnings else "fine"
    counts = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    body = [
        f"<header><p>septa check</p><h1>{escape(str(checkup.data))}</h1>",
        f"<p class='verdict {tone}'>This dataset {verdict}: {counts}.</p></header>",
        _summary(checkup),
        _problem_table(checkup.problems),
        _class_table(checkup),
        _gallery(checkup),
        _list("What was inferred", checkup.notes),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>septa check: {escape(checkup.data.name)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _summary(checkup: Checkup) -> str:
    found = checkup.fingerprint
    entries = [("Images read", str(len(checkup.facts)))]
    if found is not None:
        (low_h, low_w), (high_h, high_w) = found.sizes[0], found.sizes[2]
        same = (low_h, low_w) == (high_h, high_w)
        entries += [
            ("Height × width", f"{low_h} × {low_w}" if same else f"{low_h} × {low_w} to {high_h} × {high_w}"),
            ("Channels", str(found.channels)),
            ("Pixel type", found.dtype),
            ("Mean", ", ".join(f"{value:.4g}" for value in found.mean)),
            ("Standard deviation", ", ".join(f"{value:.4g}" for value in found.std)),
        ]
        if any(found.diameter_percentiles):
            small, middle, large = found.diameter_percentiles
            entries.append(("Object diameter", f"{middle:.0f} px ({small:.0f} to {large:.0f})"))
    entries.append(("Training / validation", f"{len(checkup.train)} / {len(checkup.validation)}"))
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in entries)
    return f"<dl class='summary'>{cells}</dl>"


def _problem_table(problems: Sequence[Problem]) -> str:
    if not problems:
        return "<section><h2>Problems</h2><p>None found.</p></section>"
    rows = "".join(
        f"<tr><td><span class='mark {problem.severity}'>{problem.severity}</span></td>"
        f"<td class='path'>{escape(problem.path)}</td><td>{escape(problem.what)}</td>"
        f"<td>{escape(problem.remedy)}</td></tr>"
        for problem in problems
    )
    head = "<tr><th></th><th>Where</th><th>What is wrong</th><th>What to do</th></tr>"
    return f"<section><h2>Problems</h2>{_table(head, rows)}</section>"


def _class_table(checkup: Checkup) -> str:
    mapping, found = checkup.mapping, checkup.fingerprint
    if mapping is None or found is None or not found.class_shares:
        return ""
    rows = []
    for k, (name, share) in enumerate(zip(mapping.class_names, found.class_shares, strict=True)):
        shown = sum(1 for facts in checkup.facts if facts.class_pixels.get(k, 0))
        percent = f"{100 * share:.3g} %"
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{escape(_raw_value(mapping, k))}</td><td class='number'>{percent}</td>"
            f"<td class='bar'><span style='width:{100 * share:.2f}%'></span></td><td class='number'>{shown}</td></tr>"
        )
    head = "<tr><th>Class</th><th>Value in the labels</th><th class='number'>Share of the pixels</th><th></th>"
    head += "<th class='number'>Images</th></tr>"
    table = _table(head, "".join(rows))
    return f"<section><h2>Classes</h2><p>{escape(mapping.describe())}</p>{table}</section>"


def _raw_value(mapping: LabelMapping, k: int) -> str:
    if mapping.kind == "multilabel":
        return f"plane {k + 1}"
    if mapping.kind == "instances":
        return "any other" if k else "0"
    value = mapping.values[k]
    return "#{:02x}{:02x}{:02x}".format(*value) if isinstance(value, tuple) else str(value)


def _table(head: str, rows: str) -> str:
    return f"<div class='wide'><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>"


def _list(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<section><h2>{escape(title)}</h2><ul>{items}</ul></section>" if items else ""


def _gallery(checkup: Checkup) -> str:
    pairs = checkup.pairing.pairs if checkup.pairing else ()
    marked = sorted(((_marks(pair, checkup.problems), pair) for pair in pairs), key=lambda entry: _rank(entry[0]))
    figures = "".join(_figure(pair, problems, checkup) for problems, pair in marked[:_THUMBNAILS])
    if not figures:
        return ""
    more = len(pairs) - _THUMBNAILS
    left = f"<p>{_count(more, 'more pair')} not shown.</p>" if more > 0 else ""
    return f"<section><h2>Images with their labels</h2><div class='gallery'>{figures}</div>{left}</section>"


def _marks(pair: Pair, problems: Sequence[Problem]) -> list[Problem]:
    several = isinstance(pair.labels, tuple)
    labels = pair.labels if isinstance(pair.labels, tuple) else (pair.labels,)
    paths = {str(path) for path in (pair.image, *labels) if path is not None}
    paths |= {f"{path} page {pair.page}" for path in paths} | {str(path.parent) for path in labels if several and path}
    return [problem for problem in problems if problem.path in paths]


def _rank(problems: Sequence[Problem]) -> int:
    return 0 if any(problem.severity == "error" for problem in problems) else 1 if problems else 2


def _figure(pair: Pair, problems: Sequence[Problem], checkup: Checkup) -> str:
    side = "training" if pair.name in checkup.train else "validation" if pair.name in checkup.validation else ""
    picture = _thumbnail(pair, checkup.mapping)
    if picture is None:
        shown = "<div class='blank'>cannot be read</div>"
    else:
        data = base64.b64encode(encode_png(picture)).decode("ascii")
        shown = f"<img src='data:image/png;base64,{data}' alt='{escape(pair.name)}' loading='lazy'>"
    marks = "".join(f"<span class='mark {p.severity}' title='{escape(p.what)}'>{p.severity}</span>" for p in problems)
    tags = f"{marks}<span class='side'>{side}</span>"
    return f"<figure>{shown}<figcaption><b>{escape(pair.name)}</b>{tags}</figcaption></figure>"


def _thumbnail(pair: Pair, mapping: LabelMapping | None) -> npt.NDArray[np.uint8] | None:
    """RGB, YXS, of the image under its labels; without these if they cannot be used, None without an image."""
    try:
        image_cyx = read_pair_image(pair)
    except SeptaError:
        return None
    step = -(-max(image_cyx.shape[1:]) // _DRAWN_SIDE)
    thin_cyx = image_cyx[:, ::step, ::step]
    labels_yx = None if mapping is None else _class_labels(pair, mapping)
    if labels_yx is None or labels_yx.shape != image_cyx.shape[1:]:
        return shrink(to_rgb(thin_cyx), _THUMBNAIL_SIDE)
    return shrink(overlay(thin_cyx, labels_yx[::step, ::step]), _THUMBNAIL_SIDE)


def _class_labels(pair: Pair, mapping: LabelMapping) -> npt.NDArray[Any] | None:
    try:
        labels_yx = mapping.encode(read_pair_labels(pair), pair.name)
    except SeptaError:
        return None
    if mapping.kind != "multilabel":
        return labels_yx
    # Of overlapping classes the last is drawn; 0 stays the background.
    drawn_yx = np.minimum(labels_yx, 0)
    for k in range(mapping.classes):
        drawn_yx[(labels_yx >= 0) & (labels_yx >> k & 1 == 1)] = k + 1
    return drawn_yx


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


_STYLE = """
:root { color-scheme: light dark; --back: #fbfbf9; --card: #fff; --text: #1c2024; --soft: #62686f; --line: #e2e3df;
  --accent: #2f6f8f; --error: #b3261e; --warning: #8a5a00; --fine: #22693f; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --card: #1d2125; --text: #e7e9ea; --soft: #9aa2a9;
  --line: #30363c; --accent: #6fb3d2; --error: #ff8a80; --warning: #f0b64d; --fine: #7fd09b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
header p:first-child { margin: 0; color: var(--soft); letter-spacing: .06em; }
h1 { margin: 0 0 .75rem; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2.25rem 0 .6rem; font-size: 1.1rem; }
.verdict { border-left: 4px solid; padding: .35rem .8rem; background: var(--card); font-weight: 600; }
.error { color: var(--error); } .warning { color: var(--warning); } .fine { color: var(--fine); }
.summary { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: .75rem;
  margin: 1.5rem 0 0; }
.summary div, figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.summary div { padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-size: .8rem; color: var(--soft); font-weight: 600; }
th, td { padding: .5rem .8rem; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.path { font-family: ui-monospace, monospace; font-size: .85em; overflow-wrap: anywhere; min-width: 14rem; }
.bar { width: 30%; min-width: 6rem; }
.bar span { display: block; height: .7rem; min-width: 2px; margin-top: .4rem; border-radius: 3px;
  background: var(--accent); }
.mark { border: 1px solid; border-radius: 99px; padding: 0 .5rem; font-size: .75rem; font-weight: 600; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 1rem; }
figure { margin: 0; overflow: hidden; }
img, .blank { display: block; width: 100%; height: 200px; object-fit: contain; background: #000; }
.blank { display: grid; place-items: center; background: var(--line); color: var(--soft); }
figcaption { display: flex; flex-wrap: wrap; gap: .3rem .5rem; align-items: center; padding: .5rem .7rem;
  font-size: .85rem; }
figcaption b { overflow-wrap: anywhere; } .side { color: var(--soft); margin-left: auto; }
ul { padding-left: 1.2rem; }
"""
