"""What the dataset check found, and the page that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from septa.data.fingerprint import Fingerprint, ImageFacts
from septa.data.folder import Pair, Pairing, read_pair_image, read_pair_labels
from septa.errors import SeptaError
from septa.images import CLASS_COLORS, shrink_picture, to_rgb
from septa.labels import LabelMapping
from septa.report import (
    cards,
    chapters,
    draw_labels,
    html_page,
    notes,
    number,
    picture_tag,
    plural,
    swatch,
    table,
    text,
)

_THUMBNAILS = 60
_THUMBNAIL_SIDE = 240
_DRAWN_SIDE = 1024
_SHOWN_CHANNELS = 3


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset.

    Attributes
    ----------
    severity
        ``error`` if a training would fail, else ``warning``.
    where
        The file or folder concerned.
    description
        What came and what was expected, without a closing full stop.
    remedy
        What the user can do, without a closing full stop.
    """

    severity: Literal["error", "warning"]
    where: str
    description: str
    remedy: str

    def __str__(self) -> str:
        line = f"{self.where}: {self.description}."
        return f"{line} {self.remedy}." if self.remedy else line


@dataclass(frozen=True)
class DatasetCheck:
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
    facts: tuple[ImageFacts, ...]
    problems: tuple[Problem, ...]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def fatal(self) -> bool:
        """Whether a training on this dataset would fail."""
        return any(problem.severity == "error" for problem in self.problems)


def explain_task(mapping: LabelMapping, facts: Sequence[ImageFacts]) -> str:
    """Why labels are for the task that they are for: how many objects they number, else what their values mean."""
    counts = [item.objects for item in facts if item.objects is not None]
    if mapping.task == "semantic" or not counts:
        return mapping.describe()
    low, high = min(counts), max(counts)
    return f"the labels number {high if low == high else f'{low} to {high}'} object{'s' * (high != 1)} an image"


def render_check(check: DatasetCheck) -> str:
    """Write a check as one self-contained page.

    The images and labels of at most 60 pairs are read again and shown as thumbnails, those with problems first.

    Parameters
    ----------
    check
        What `septa.data.check_dataset` returned.

    Returns
    -------
    str
        HTML with embedded pictures and without scripts, for light and dark screens.
    """
    errors = sum(problem.severity == "error" for problem in check.problems)
    warnings = len(check.problems) - errors
    verdict = "cannot be trained on yet" if errors else "is ready, with warnings" if warnings else "is ready"
    tone = "error" if errors else "warning" if warnings else "fine"
    counts = f"{plural(errors, 'error')}, {plural(warnings, 'warning')}"
    top = [
        f'<p class="verdict {tone}">This dataset {verdict}: {counts}.</p>',
        cards(_summary(check)),
        notes(check.notes),
    ]
    parts = {
        "Problems": _problem_table(check.problems),
        "Classes": _class_table(check),
        "Images with their labels": _gallery(check),
    }
    body = chapters(str(check.data), "Dataset check", top, parts)
    return html_page(f"septa check: {check.data.name}", body, tooltips=False)


def _summary(check: DatasetCheck) -> list[tuple[str, str, str]]:
    split = f"{len(check.train)} for training, {len(check.validation)} for validation"
    entries = [("Images read", str(len(check.facts)), split)]
    found = check.fingerprint
    if found is None:
        return entries
    (low_h, low_w), (high_h, high_w) = found.sizes[0], found.sizes[2]
    largest = "" if (low_h, low_w) == (high_h, high_w) else f"to {high_h} × {high_w} "
    entries += [
        ("Height × width", f"{low_h} × {low_w}", f"{largest}pixels"),
        ("Channels", str(found.channels), found.dtype),
        ("Mean intensity", _values(found.mean), f"standard deviation {_values(found.std)}"),
    ]
    if any(found.diameter_percentiles):
        small, middle, large = found.diameter_percentiles
        entries.append(("Object diameter", f"{middle:.0f} px", f"{small:.0f} to {large:.0f} px for 9 in 10 objects"))
    return entries


def _values(values: Sequence[float]) -> str:
    """One number for each channel, of the first few."""
    shown = ", ".join(number(float(f"{value:.3g}")) for value in values[:_SHOWN_CHANNELS])
    return shown + (", …" if len(values) > _SHOWN_CHANNELS else "")


def _problem_table(problems: Sequence[Problem]) -> str:
    if not problems:
        return "<p>None found.</p>"
    rows = (
        [
            _mark(problem),
            f'<div class="path">{text(problem.where)}</div>',
            text(problem.description),
            text(problem.remedy),
        ]
        for problem in problems
    )
    return f'<div class="box">{table(["", "Where", "What is wrong", "What to do"], rows, names=4)}</div>'


def _mark(problem: Problem) -> str:
    return f'<span class="mark {problem.severity}" title="{text(problem.description)}">{problem.severity}</span>'


def _class_table(check: DatasetCheck) -> str:
    mapping, found = check.mapping, check.fingerprint
    if mapping is None or found is None or not found.class_shares:
        return ""
    undrawn = 0 if mapping.kind == "multilabel" else 1
    rows = []
    for k, (name, share) in enumerate(zip(mapping.class_names, found.class_shares, strict=True)):
        color = swatch(CLASS_COLORS[(k - undrawn) % len(CLASS_COLORS)]) if k >= undrawn else ""
        bar = f'<span class="span share"><i style="width:{100 * share:.2f}%"></i></span>'
        images = sum(1 for facts in check.facts if facts.class_pixels.get(k, 0))
        rows.append([color + text(name), text(_raw_value(mapping, k)), f"{bar}{100 * share:.3g} %", str(images)])
    head = ["Class", "Value in the labels", "Share of the pixels", "Images"]
    return f'<p class="soft">{text(mapping.describe())}</p><div class="box">{table(head, rows, names=2)}</div>'


def _raw_value(mapping: LabelMapping, k: int) -> str:
    if mapping.kind == "multilabel":
        return f"plane {k + 1}"
    if mapping.kind == "instances":
        return "any other" if k else "0"
    value = mapping.values[k]
    return "#{:02x}{:02x}{:02x}".format(*value) if isinstance(value, tuple) else str(value)


def _gallery(check: DatasetCheck) -> str:
    pairs = check.pairing.pairs if check.pairing else ()
    marked = sorted(((_marks(pair, check.problems), pair) for pair in pairs), key=lambda entry: _rank(entry[0]))
    figures = "".join(_figure(pair, problems, check) for problems, pair in marked[:_THUMBNAILS])
    if not figures:
        return ""
    more = len(pairs) - _THUMBNAILS
    left = f'<p class="soft">{plural(more, "more pair")} not shown.</p>' if more > 0 else ""
    return f'<div class="tiles">{figures}</div>{left}'


def _marks(pair: Pair, problems: Sequence[Problem]) -> list[Problem]:
    several = isinstance(pair.labels, tuple)
    labels = pair.labels if isinstance(pair.labels, tuple) else (pair.labels,)
    paths = {str(path) for path in (pair.image, *labels) if path is not None}
    paths |= {f"{path} page {pair.page}" for path in paths} | {str(path.parent) for path in labels if several and path}
    return [problem for problem in problems if problem.where in paths]


def _rank(problems: Sequence[Problem]) -> int:
    return 0 if any(problem.severity == "error" for problem in problems) else 1 if problems else 2


def _figure(pair: Pair, problems: Sequence[Problem], check: DatasetCheck) -> str:
    side = "training" if pair.name in check.train else "validation" if pair.name in check.validation else ""
    picture = _thumbnail(pair, check.mapping)
    shown = '<div class="blank">cannot be read</div>' if picture is None else picture_tag(picture, pair.name)
    marks = "".join(_mark(problem) for problem in problems)
    caption = f'<figcaption><b>{text(pair.name)}</b>{marks}<span class="side">{side}</span></figcaption>'
    return f'<figure class="panel">{shown}{caption}</figure>'


def _thumbnail(pair: Pair, mapping: LabelMapping | None) -> npt.NDArray[np.uint8] | None:
    """RGB, YXS, of the image under its labels; without these if they cannot be used, None without an image."""
    try:
        image_cyx = read_pair_image(pair)
    except SeptaError:
        return None
    step = -(-max(image_cyx.shape[1:]) // _DRAWN_SIDE)
    picture = shrink_picture(to_rgb(image_cyx[:, ::step, ::step]), _THUMBNAIL_SIDE)
    if mapping is None:
        return picture
    try:
        labels_yx = mapping.encode(read_pair_labels(pair), pair.name)
    except SeptaError:
        return picture
    if labels_yx.shape != image_cyx.shape[1:]:
        return picture
    return draw_labels(picture, labels_yx, mapping.classes if mapping.kind == "multilabel" else 0)
