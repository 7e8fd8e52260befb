"""The dataset check's part about pixel values: NaN, nodata, and pixels far from all others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from septa.data.check_result import Problem
from septa.data.fingerprint import ImageFacts
from septa.data.intensities import ChannelValues, find_range, select_far
from septa.errors import format_count, shorten_list
from septa.images import is_nodata

_NAMES = 3
"""Images that a line names; the others are only counted."""


def check_values(facts: Sequence[ImageFacts], locations: Mapping[str, str]) -> list[Problem]:
    """Return one problem for each kind of value that no microscope measures, with the images concerned.

    Pixels far from all others are reported only if they are far from the objects and the background of all images too,
    so bright cells in otherwise dark images are not.

    Parameters
    ----------
    facts
        Facts of the images.
    locations
        Text that names each image, by its name in ``facts``.
    """
    problems = []
    broken = [locations[item.name] for item in facts if not item.finite]
    if broken:
        remedy = "Replace these pixels by finite numbers, or leave the image out"
        problems.append(_join("error", broken, f"{_hold(broken)} NaN or infinite pixels", remedy))
    for value, shares in _find_nodata(facts).items():
        files = [locations[name] for name in shares]
        text = f"{_hold(files)} the nodata value {value:.6g} in up to {max(shares.values()):.2g} % of the pixels"
        remedy = "Crop them or mark them with an ignore label; septa clips them and leaves them out of statistics"
        problems.append(_join("warning", files, text, remedy))
    stray = _find_stray(facts)
    if stray:
        files = [locations[item.name] for item in stray]
        worst = max(stray, key=lambda item: item.distance)
        text = f"{_hold(files)} pixels far from all others, {worst.describe(named=len(stray) > 1)}"
        remedy = "Repair them if they cover objects; septa clips them, so that they do not spoil the normalisation"
        problems.append(_join("warning", files, text, remedy))
    return problems


@dataclass(frozen=True, kw_only=True)
class _Stray:
    """The value of an image that is furthest from all others, with the number of pixels that have it."""

    name: str
    channel: str
    pixels: int
    value: float
    distance: float
    central: tuple[float, float]

    def describe(self, *, named: bool) -> str:
        """Return the end of a sentence about this image, which is named if the sentence is about several."""
        low, high = self.central
        pixels = f"{format_count(self.pixels, 'pixel')} of {self.value:.6g}"
        place = f" in {self.name}" if named else ""
        return f"such as {pixels}{place}{self.channel}, where 99.8 % lie in {low:.6g} to {high:.6g}"


def _find_nodata(facts: Sequence[ImageFacts]) -> dict[float, dict[str, float]]:
    """Return the nodata values, each with the images that hold it and its share of their pixels in percent."""
    found: dict[float, dict[str, float]] = defaultdict(dict)
    for item in facts:
        for own in item.values:
            for value, count in own.fillers.items():
                if is_nodata(value):
                    share = 100 * count / (item.height * item.width)
                    found[value][item.name] = max(share, found[value].get(item.name, 0.0))
    return found


def _find_stray(facts: Sequence[ImageFacts]) -> list[_Stray]:
    """Return the images with pixels that are far from all others, each with its furthest."""
    found = []
    for channels in {item.channels for item in facts}:
        alike = [item for item in facts if item.channels == channels]
        ranges = [find_range(channel) for channel in zip(*(item.values for item in alike))]
        for item in alike:
            own = [_measure(item, index, ranges[index]) for index in range(channels)]
            stray = [one for one in own if one is not None]
            if stray:
                found.append(max(stray, key=lambda one: one.distance))
    order = {item.name: place for place, item in enumerate(facts)}
    return sorted(found, key=lambda one: order[one.name])


def _measure(item: ImageFacts, index: int, usual: tuple[float, float]) -> _Stray | None:
    own: ChannelValues = item.values[index]
    far = Counter(select_far(own.candidates, usual).tolist())
    far.update({value: count for value, count in own.fillers.items() if not is_nodata(value)})
    if not far:
        return None
    low, high = own.central
    distance, value = max((max(low - value, value - high) / (high - low), value) for value in far)
    channel = f" in channel {index + 1}" if item.channels > 1 else ""
    return _Stray(
        name=item.name, channel=channel, pixels=far[value], value=value, distance=distance, central=own.central
    )


def _hold(files: Sequence[str]) -> str:
    return "the image holds" if len(files) == 1 else f"{len(files)} images hold"


def _join(severity: Literal["error", "warning"], files: Sequence[str], description: str, remedy: str) -> Problem:
    return Problem(severity, shorten_list(files, _NAMES), description, remedy, files=tuple(files))
