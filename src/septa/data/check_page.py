"""The HTML page of a dataset check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from septa.data.check_result import DatasetCheck, Problem
from septa.data.folder import read_pair_image, read_pair_labels
from septa.data.pairs import Pair
from septa.errors import SeptaError, format_count
from septa.images import CLASS_COLORS, shrink_picture, to_rgb
from septa.labels import LabelMapping
from septa.report import (
    draw_labels,
    escape_html,
    format_number,
    render_cards,
    render_notes,
    render_page,
    render_picture,
    render_sections,
    render_swatch,
    render_table,
)

_THUMBNAILS = 60
_THUMBNAIL_SIDE = 240
_DRAWN_SIDE = 1024
_SHOWN_CHANNELS = 3


def render_check(check: DatasetCheck) -> str:
    """Render a dataset check as one self-contained page.

    The images and labels of at most 60 pairs are read again and shown as thumbnails, those with problems first.

    Parameters
    ----------
    check
        Result of `septa.data.check.check_dataset`.

    Returns
    -------
    str
        HTML with embedded pictures and without scripts, for light and dark screens.
    """
    errors = sum(problem.severity == "error" for problem in check.problems)
    warnings = len(check.problems) - errors
    verdict = "cannot be trained on yet" if errors else "is ready, with warnings" if warnings else "is ready"
    tone = "error" if errors else "warning" if warnings else "fine"
    counts = f"{format_count(errors, 'error')}, {format_count(warnings, 'warning')}"
    top = [
        f'<p class="verdict {tone}">This dataset {verdict}: {counts}.</p>',
        render_cards(_summarise(check)),
        render_notes(check.notes),
    ]
    parts = {
        "Problems": _render_problems(check.problems),
        "Classes": _render_classes(check),
        "Images with their labels": _render_gallery(check),
    }
    body = render_sections(str(check.data), "Dataset check", top, parts)
    return render_page(f"septa check: {check.data.name}", body, tooltips=False)


def _summarise(check: DatasetCheck) -> list[tuple[str, str, str]]:
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
        ("Mean intensity", _show_values(found.mean), f"standard deviation {_show_values(found.std)}"),
    ]
    if any(found.diameter_percentiles):
        small, middle, large = found.diameter_percentiles
        entries.append(("Object diameter", f"{middle:.0f} px", f"{small:.0f} to {large:.0f} px for 9 in 10 objects"))
    return entries


def _show_values(values: Sequence[float]) -> str:
    """Return the values of the first channels as text."""
    shown = ", ".join(format_number(float(f"{value:.3g}")) for value in values[:_SHOWN_CHANNELS])
    return shown + (", …" if len(values) > _SHOWN_CHANNELS else "")


def _render_problems(problems: Sequence[Problem]) -> str:
    if not problems:
        return "<p>None found.</p>"
    rows = (
        [
            _render_severity(problem),
            f'<div class="path">{escape_html(problem.where)}</div>',
            escape_html(problem.description),
            escape_html(problem.remedy),
        ]
        for problem in problems
    )
    return f'<div class="box">{render_table(["", "Where", "Problem", "What to do"], rows, names=4)}</div>'


def _render_severity(problem: Problem) -> str:
    return f'<span class="mark {problem.severity}" title="{escape_html(problem.description)}">{problem.severity}</span>'


def _render_classes(check: DatasetCheck) -> str:
    mapping, found = check.mapping, check.fingerprint
    if mapping is None or found is None or not found.class_shares:
        return ""
    without_color = 0 if mapping.kind == "multilabel" else 1
    rows = []
    for k, (name, share) in enumerate(zip(mapping.class_names, found.class_shares, strict=True)):
        index = k - without_color
        color = render_swatch(CLASS_COLORS[index % len(CLASS_COLORS)]) if index >= 0 else ""
        bar = f'<span class="span share"><i style="width:{100 * share:.2f}%"></i></span>'
        images = sum(1 for facts in check.facts if facts.class_pixels.get(k, 0))
        rows.append(
            [
                color + escape_html(name),
                escape_html(_show_raw_value(mapping, k)),
                f"{bar}{100 * share:.3g} %",
                str(images),
            ]
        )
    head = ["Class", "Value in the labels", "Share of the pixels", "Images"]
    table = render_table(head, rows, names=2)
    return f'<p class="soft">{escape_html(mapping.describe())}</p><div class="box">{table}</div>'


def _show_raw_value(mapping: LabelMapping, k: int) -> str:
    if mapping.kind == "multilabel":
        return f"plane {k + 1}"
    if mapping.kind == "instances":
        return "any other" if k else "0"
    value = mapping.values[k]
    return "#{:02x}{:02x}{:02x}".format(*value) if isinstance(value, tuple) else str(value)


def _render_gallery(check: DatasetCheck) -> str:
    pairs = check.pairing.pairs if check.pairing else ()
    entries = sorted(((_select_problems(pair, check.problems), pair) for pair in pairs), key=_rank_entry)
    figures = "".join(_render_figure(pair, problems, check) for problems, pair in entries[:_THUMBNAILS])
    if not figures:
        return ""
    more = len(pairs) - _THUMBNAILS
    hidden = f'<p class="soft">{format_count(more, "more pair")} not shown.</p>' if more > 0 else ""
    return f'<div class="tiles">{figures}</div>{hidden}'


def _select_problems(pair: Pair, problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems that concern a pair."""
    places = {pair.image_location, pair.labels_location, str(pair.image), *map(str, pair.label_files)}
    return [problem for problem in problems if not places.isdisjoint((problem.where, *problem.files))]


def _rank_entry(entry: tuple[Sequence[Problem], Pair]) -> int:
    """Return 0 for a pair with an error, 1 for one with a warning, else 2."""
    problems, _ = entry
    return 0 if any(problem.severity == "error" for problem in problems) else 1 if problems else 2


def _render_figure(pair: Pair, problems: Sequence[Problem], check: DatasetCheck) -> str:
    side = "training" if pair.name in check.train else "validation" if pair.name in check.validation else ""
    picture = _draw_thumbnail(pair, check.mapping)
    shown = '<div class="blank">cannot be read</div>' if picture is None else render_picture(picture, pair.name)
    marks = "".join(_render_severity(problem) for problem in problems)
    caption = f'<figcaption><b>{escape_html(pair.name)}</b>{marks}<span class="side">{side}</span></figcaption>'
    return f'<figure class="panel">{shown}{caption}</figure>'


def _draw_thumbnail(pair: Pair, mapping: LabelMapping | None) -> npt.NDArray[np.uint8] | None:
    """Draw the image with its labels, if these can be used, as RGB ``YXS``; None if the image cannot be read."""
    try:
        image_cyx = read_pair_image(pair)
    except SeptaError:
        return None
    step = -(-max(image_cyx.shape[1:]) // _DRAWN_SIDE)
    picture = shrink_picture(to_rgb(image_cyx[:, ::step, ::step]), _THUMBNAIL_SIDE)
    if mapping is None:
        return picture
    try:
        labels_yx = mapping.encode(read_pair_labels(pair), pair.labels_location)
    except SeptaError:
        return picture
    if labels_yx.shape != image_cyx.shape[1:]:
        return picture
    return draw_labels(picture, labels_yx, mapping.classes if mapping.kind == "multilabel" else 0)
