"""Faults of label values that the counts of a `Survey` reveal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from septa.errors import InputError, format_count
from septa.labels.codes import show_values
from septa.labels.survey import Survey, ValueCount

_MIXED = 32
"""Largest distance in RGB of a mixed colour from the line between two colours."""

_MASK_SHARE = 0.8
"""Share of the flat foreground that has about the largest value if the labels are a mask with soft edges."""


class Noise(NamedTuple):
    """Artefacts among the values: the first label image that holds one, and a clause that describes them."""

    first: str
    problem: str


def find_noise(table: Mapping[int, ValueCount], kind: str) -> Noise | None:
    """Find values that are artefacts of interpolation or of JPEG.

    Artefacts are many different values. Each is rare, lies between real values and forms no 3 x 3 square, except in a
    few flat JPEG blocks. Never taken for artefacts are class indices 0 to n <= 64 without a gap, indices up to 16 with
    some missing, and colours that are not a mixture of two frequent ones.
    """
    values = sorted(table)
    gapless = values == list(range(len(values))) and len(values) <= 65
    if kind != "color" and values and values[0] >= 0 and (gapless or values[-1] <= 16):
        return None
    total = sum(count.pixels for count in table.values())
    artefacts = [value for value in values[1:-1] if _is_artefact(table[value], total)]
    if kind == "color":
        artefacts = _find_mixtures(artefacts, sorted(set(values) - set(artefacts)))
    real = len(values) - len(artefacts)
    many = len(artefacts) >= 8 or len(artefacts) >= max(3, real + 1)
    if not many and not _lie_beside_frequent_values(artefacts, table):
        return None
    pixels = sum(table[value].pixels for value in artefacts)
    shown = f"{show_values(artefacts, kind, most=4)}; {pixels / total:.2%} of all pixels"
    return Noise(
        min((table[value].first for value in artefacts), key=str),
        f"{len(artefacts)} rare values ({shown}) lie between the label values, as after resizing, smoothing or JPEG",
    )


def refuse_noise(table: Mapping[int, ValueCount], kind: str) -> None:
    """Raise InputError if some values are artefacts; see `find_noise`."""
    noise = find_noise(table, kind)
    if noise is not None:
        remedy = "Export the labels again (resize with nearest neighbour), or " + suggest_threshold(table, kind)
        remedy += "list the real values in data.values, or set data.encoding=instances if each value is one object"
        raise InputError(*noise, remedy)


def suggest_threshold(table: Mapping[int, ValueCount], kind: str) -> str:
    """Return advice to set a threshold if the labels are a mask with soft edges: two flat grey values, and mixtures."""
    low, high = min(table), max(table)
    if kind == "color" and (low % 0x010101 or high % 0x010101):
        return ""
    near = high - (high - low) / 10
    flat = sum(count.solid for value, count in table.items() if value != low)
    if not table[low].solid or not flat or sum(table[v].solid for v in table if v >= near) < _MASK_SHARE * flat:
        return ""
    dark, bright = (low & 255, high & 255) if kind == "color" else (low, high)
    return f"set data.threshold={(dark + bright + 1) // 2} if larger values are foreground, or "


def refuse_strays(table: Mapping[int, ValueCount], given: Sequence[int], kind: str) -> None:
    """Raise InputError if values occur that are not among those given."""
    strays = sorted(value for value in table if value not in given)
    if strays:
        refuse_noise(table, kind)
        pixels = sum(table[value].pixels for value in strays)
        problem = f"{pixels} pixels hold {show_values(strays, kind)}, which data.values does not list"
        remedy = "Correct the labels, add the values to data.values, or set data.ignore_label"
        refuse_value(table, strays[0], problem, remedy)


def refuse_negative(table: Mapping[int, ValueCount]) -> None:
    """Raise InputError if a value is below 0."""
    lowest = min(table, default=0)
    if lowest < 0:
        remedy = f"Set data.ignore_label={lowest} if it marks pixels to ignore, else correct the labels"
        below = sum(value < 0 for value in table)
        if below > 1:
            remedy = "Export the labels with values from 0"
        more = f" and {below - 1} more" if below > 1 else ""
        refuse_value(table, lowest, f"the label image holds the negative value {lowest}{more}", remedy)


def refuse_rare(table: Mapping[int, ValueCount], kind: str) -> None:
    """Raise InputError if a value covers only a few pixels: a slip of the brush, from which nothing can be learnt."""
    total = sum(count.pixels for count in table.values())
    for value, count in table.items():
        if count.pixels <= 8 and count.pixels < 1e-4 * total:
            shown = show_values([value], kind)
            problem = f"the value {shown} covers only {count.pixels} of {total} pixels, which looks like a slip"
            remedy = "Correct these pixels, or list the value in data.values or as data.ignore_label"
            refuse_value(table, value, problem, remedy)


def refuse_undeclared_ignore(survey: Survey) -> None:
    """Raise InputError if 255 (or 65535) occurs with class indices: it may be a class or an ignore label."""
    void = survey.find_void()
    if void is not None:
        *_, highest, _ = sorted(survey.index)
        problem = f"the value {void} occurs in addition to the class indices 0 to {highest}"
        remedy = f"Set data.ignore_label={void} if it marks pixels to ignore, else list all classes in data.values"
        refuse_value(survey.index, void, problem, remedy)


def refuse_value(table: Mapping[int, ValueCount], value: int, problem: str, remedy: str) -> None:
    """Raise InputError about a value; the error names the first label image that holds it."""
    others = table[value].images - 1
    more = f" (also in {format_count(others, 'more file')})" if others else ""
    raise InputError(table[value].first, problem + more, remedy)


def _is_artefact(count: ValueCount, total: int) -> bool:
    return count.solid <= 0.02 * count.pixels and count.pixels <= 0.1 * total


def _find_mixtures(artefacts: Sequence[int], real: Sequence[int]) -> list[int]:
    """Return the colours (0xRRGGBB) near the straight line between two real colours, where mixtures lie."""
    rgb = np.array([[color >> 16 & 255, color >> 8 & 255, color & 255] for color in real], float).reshape(-1, 3)
    if len(rgb) > 64:
        return list(artefacts)
    starts, ways = rgb[:, None], rgb[None] - rgb[:, None]
    lengths = np.maximum((ways**2).sum(-1), 1e-9)
    mixed = []
    for color in artefacts:
        point = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], float)
        along = np.clip(((point - starts) * ways).sum(-1) / lengths, 0, 1)
        if np.linalg.norm(starts + along[..., None] * ways - point, axis=-1).min() <= _MIXED:
            mixed.append(color)
    return mixed


def _lie_beside_frequent_values(artefacts: Sequence[int], table: Mapping[int, ValueCount]) -> bool:
    """Return True if each value is close to a far more frequent one, as after JPEG of the highest quality."""
    return len(artefacts) >= 2 and all(
        any(table[near].pixels >= 20 * table[value].pixels for near in range(value - 2, value + 3) if near in table)
        for value in artefacts
    )
