"""The values of all training images together, and the comparison of other images with them.

Only a bit depth whose meaning is certain changes anything: the values are then multiplied by one factor for the whole
image. All else is reported. The limits are such that images of the training's own kind are hardly ever reported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from septa.images.bit_depth import UNIT, choose_factor, explain_factor, find_full_ranges
from septa.images.normalize import find_position
from septa.images.structure import PERCENTILES
from septa.images.value_facts import ValueFacts
from septa.notices import Notice

_LOW, _NEAR_LOW, _MIDDLE, _NEAR_HIGH, _HIGH = range(len(PERCENTILES))
_MOST_CHANGE = 1.0
"""Factor, as its logarithm to base 2, by which the contrast of an image may leave that of the training images."""
_MOST_SHIFT = 0.5
"""Distance by which the median may leave the values of the training images, in shares of their range."""
_MOST_OFFSET = 0.35
"""Distance by which the median may leave the medians of the training images, in shares of their contrast."""
_FEW_IMAGES = 4.0
"""Excess of the two limits for one training image; it falls with their number, as few images show little variety."""
_MOST_EXCESS = 2.0
_LEAST_TILT = 0.04
"""Distance by which the position of the median must leave that of the training images to mean inverted values."""
_TILT_OF_ONE = 0.15
_SEEN = 0.01
"""Share of training images without objects from which on such images are known to the model."""
_SAME_FACTOR = 0.02
"""Relative difference of two factors that stand for the same bit depths, such as 256 and 257."""

_BLANK = "the image is blank: all its pixels have one value, so objects in it are false"
_NOISE = "the image holds nothing but noise, so objects in it are probably false"
_INVERTED = "the image looks inverted: {} where training had {}"


@dataclass(frozen=True, kw_only=True)
class ValueCheck:
    """Result of the comparison of an image with the training images.

    Attributes
    ----------
    factor
        Number by which the values must be multiplied before they are normalised; 1 for no change.
    notices
        What is assumed or suspected.
    """

    factor: float = 1.0
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingValues:
    """Values of the training images, kept in the model.

    Attributes
    ----------
    images
        Number of images.
    dtypes
        Number of images of each NumPy dtype, by its name.
    step
        Number that divides all values, as in `ValueFacts`; 0 if there is none or images differ.
    contrast
        For each channel: the smallest and the largest range from percentile 0.5 to percentile 99.8 of an image.
    level
        For each channel: the smallest percentile 0.5 and the largest percentile 99.8.
    median
        For each channel: the smallest and the largest median.
    tilt
        For each channel: the smallest and the largest position of the median between percentiles 1 and 99, 0 to 1.
    constant
        For each channel: True if it has a single value in some image that shows something in other channels.
    unstructured
        Share of images without objects, 0 to 1; they count in none of the ranges, unless all are like that.

    Raises
    ------
    ValueError
        If the attributes contradict each other.
    """

    images: int
    dtypes: Mapping[str, int]
    step: float
    contrast: tuple[tuple[float, float], ...]
    level: tuple[tuple[float, float], ...]
    median: tuple[tuple[float, float], ...]
    tilt: tuple[tuple[float, float], ...]
    constant: tuple[bool, ...]
    unstructured: float

    def __post_init__(self) -> None:
        """Check the attributes."""
        ranges = (*self.contrast, *self.level, *self.median, *self.tilt)
        if not all(math.isfinite(low) and math.isfinite(high) and low <= high for low, high in ranges):
            raise ValueError(f"ranges must be finite and ascending, got {ranges}")
        if (
            len({*map(len, (self.contrast, self.level, self.median, self.tilt, self.constant))}) != 1
            or not self.contrast
        ):
            raise ValueError("there must be one range per channel")
        if any(low < 0 for low, _ in self.contrast) or not 0 <= self.unstructured <= 1:
            raise ValueError("contrasts and shares must not be negative")
        if self.images < 1 or sum(self.dtypes.values()) != self.images or min(self.dtypes.values()) < 1:
            raise ValueError("the numbers of images must add up")
        if any(np.dtype(name).kind not in "buif" for name in self.dtypes):
            raise ValueError(f"dtypes must be of numbers, got {list(self.dtypes)}")
        if not 0 <= self.step < math.inf:
            raise ValueError(f"step must be at least 0, got {self.step}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.contrast)

    @property
    def full_ranges(self) -> tuple[int, ...]:
        """Largest values of the bit depths that the images may have."""
        top, bottom = max(high for _, high in self.level), min(low for low, _ in self.level)
        return tuple(dict.fromkeys(full for name in self.dtypes for full in find_full_ranges(name, bottom, top)))

    def describe(self) -> str:
        """Return a printable line."""
        dtypes = ", ".join(f"{count} {name}" for name, count in self.dtypes.items())
        levels = ", ".join(f"{low:g} to {high:g}" for low, high in self.level)
        contrasts = ", ".join(f"{low:g} to {high:g}" for low, high in self.contrast)
        return f"{self.images} training images ({dtypes}): values {levels}; contrast {contrasts}"

    def to_json(self) -> dict[str, Any]:
        """Return all attributes as JSON values; the inverse of `from_json`."""
        plain = asdict(self)
        ranges = {name: [list(pair) for pair in plain[name]] for name in ("contrast", "level", "median", "tilt")}
        return {**plain, "dtypes": dict(self.dtypes), "constant": list(self.constant), **ranges}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingValues:
        """Build it from the values that `to_json` returns.

        Raises
        ------
        ValueError
            If ``values`` was not made by `to_json`.
        """
        try:
            if not all(type(flag) is bool for flag in values["constant"]):
                raise TypeError("not a boolean")
            if not all(type(count) is int for count in (values["images"], *values["dtypes"].values())):
                raise TypeError("not an integer")
            return cls(
                images=values["images"],
                dtypes=dict(values["dtypes"]),
                step=_as_number(values["step"]),
                contrast=_as_ranges(values["contrast"]),
                level=_as_ranges(values["level"]),
                median=_as_ranges(values["median"]),
                tilt=_as_ranges(values["tilt"]),
                constant=tuple(values["constant"]),
                unstructured=_as_number(values["unstructured"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not the values of training images: {error}") from error

    def compare(self, facts: ValueFacts, *, scaled: bool) -> ValueCheck:
        """Compare an image with the training images.

        Parameters
        ----------
        facts
            Facts of the image, with the channels of the model.
        scaled
            True if the normalisation finds its constants in each image, so that the scale of the values is irrelevant.

        Returns
        -------
        ValueCheck
            Factor and notices. Nothing else is looked for in an image without objects.
        """
        if facts.structured is False or facts.blank:
            if self.unstructured > _SEEN:
                return ValueCheck()
            text, remedy = (_BLANK, "Leave it out") if facts.blank else (_NOISE, "Check it, or leave it out")
            return ValueCheck(notices=(Notice(text, remedy, warning=True),))
        found = list(self._find_constant_channels(facts))
        inverted = self._find_inversion(facts)
        if scaled:
            return ValueCheck(notices=(*found, *inverted))
        factor, scale = self._find_scale(facts)
        if inverted and factor == 1:
            scale = ()  # inverted values are strange in scale as well
        return ValueCheck(factor=factor, notices=(*found, *scale, *inverted))

    def _find_constant_channels(self, facts: ValueFacts) -> Iterator[Notice]:
        for number, (constant, known) in enumerate(zip(facts.constant, self.constant, strict=True)):
            if constant and not known:
                remedy = "Check that all channels were exported"
                yield Notice(
                    f"channel {number} has one value everywhere, as in no training image", remedy, warning=True
                )

    # Inverted values

    def _find_inversion(self, facts: ValueFacts) -> tuple[Notice, ...]:
        """Find values whose median lies on the other side than in all training images."""
        usual, mirrored, middle = 0.0, 0.0, 0.0
        shown = [index for index, constant in enumerate(facts.constant) if not constant]
        for index in shown:
            tilt = _find_tilt(facts.percentiles[index])
            low, high = self.tilt[index]
            usual += max(low - tilt, tilt - high) / len(shown)
            mirrored += max(low - (1 - tilt), (1 - tilt) - high) / len(shown)
            middle += (low + high) / 2 / len(shown)
        least = _LEAST_TILT + _TILT_OF_ONE / self.images
        if usual <= least or usual - mirrored < 2 * least:
            return ()
        here, there = ("light objects on dark", "dark objects on light")[:: 1 if middle > 0.5 else -1]
        return (Notice(_INVERTED.format(here, there), "Invert it, or train on such images too", warning=True),)

    # Scale

    def _find_scale(self, facts: ValueFacts) -> tuple[float, tuple[Notice, ...]]:
        """Return the factor, and a notice about it or about values that no certain factor explains."""
        more = min(_MOST_EXCESS, _FEW_IMAGES / self.images)
        sources, targets = find_full_ranges(facts.dtype, facts.bottom, facts.top), self.full_ranges
        pairs = [(source, target) for source in sources for target in targets if source != target]
        exact = self.step / facts.step if facts.step else 0.0
        stepped = [
            pair for pair in pairs if exact not in (0, 1) and abs(exact / choose_factor(*pair) - 1) < _SAME_FACTOR
        ]
        if stepped and self._fits(facts, exact, more):
            return exact, (explain_factor(*stepped[0], exact),)
        same_unit = (UNIT in sources) == (UNIT in targets)
        if same_unit and self._fits(facts, 1.0):
            return 1.0, tuple(self._find_offset(facts, more))
        differs = not same_unit or (facts.dtype not in self.dtypes and not set(sources[:1]) & set(targets))
        pairs = pairs if differs and not stepped else []
        possible = [pair for pair in pairs if self._fits(facts, choose_factor(*pair), more)]
        factors = {choose_factor(*pair) for pair in possible}
        if len(factors) == 1 and self._fits(facts, min(factors)):
            return min(factors), (explain_factor(*possible[0], min(factors)),)
        return 1.0, tuple(self._find_strange_values(facts, 0.0 if differs else more))

    def _fits(self, facts: ValueFacts, factor: float, more: float = 0.0) -> bool:
        """Return True if the values, multiplied by a factor, are like those of the training images."""
        change, shift = self._find_excess(facts, factor)
        return abs(change) <= _MOST_CHANGE + more and abs(shift) <= _MOST_SHIFT + more / 4

    def _find_excess(self, facts: ValueFacts, factor: float = 1.0) -> tuple[float, float]:
        """Return by how much contrast and median leave the ranges of the training images, of the worst channel.

        Returns
        -------
        change
            Logarithm to base 2; negative for too little contrast.
        shift
            In shares of the range of the training images; negative for too low values.
        """
        changes, shifts = [0.0], [0.0]
        for row, contrast, level, constant in zip(
            facts.percentiles, self.contrast, self.level, facts.constant, strict=True
        ):
            if constant:
                continue
            least = 1e-3 * (level[1] - level[0]) or 1e-30
            own = max((row[_HIGH] - row[_LOW]) * factor, least)
            changes += [min(0.0, math.log2(own / max(contrast[0], least)))]
            changes += [max(0.0, math.log2(own / max(contrast[1], least)))]
            width = (level[1] - level[0]) or 1.0
            shifts += [min(0.0, (row[_MIDDLE] * factor - level[0]) / width)]
            shifts += [max(0.0, (row[_MIDDLE] * factor - level[1]) / width)]
        return max(changes, key=abs), max(shifts, key=abs)

    def _find_strange_values(self, facts: ValueFacts, more: float) -> Iterator[Notice]:
        """Find values that are far from those of the training images; ``more`` widens the limits."""
        change, shift = self._find_excess(facts)
        if abs(change) > _MOST_CHANGE + more:
            text = f"the contrast is far {'higher' if change > 0 else 'lower'} than in the training images"
        elif abs(shift) > _MOST_SHIFT + more / 4:
            text = f"the values are far {'higher' if shift > 0 else 'lower'} than in the training images"
        else:
            return
        yield self._describe_strange_values(text)

    def _find_offset(self, facts: ValueFacts, more: float) -> Iterator[Notice]:
        """Find values of the usual contrast that are shifted, as by another offset of the camera."""
        offsets = [0.0]
        for row, median, (_, contrast), constant in zip(
            facts.percentiles, self.median, self.contrast, facts.constant, strict=True
        ):
            if contrast and not constant:
                offsets += [min(0.0, (row[_MIDDLE] - median[0]) / contrast)]
                offsets += [max(0.0, (row[_MIDDLE] - median[1]) / contrast)]
        offset = max(offsets, key=abs)
        if abs(offset) > _MOST_OFFSET + more / 8:
            side = "higher" if offset > 0 else "lower"
            yield self._describe_strange_values(f"most values are far {side} than in the training images")

    def _describe_strange_values(self, text: str) -> Notice:
        low, high = min(low for low, _ in self.level), max(high for _, high in self.level)
        remedy = "Scale the values as those of the training images, or train with data.normalization=image"
        return Notice(f"{text}, whose values are {low:g} to {high:g}", remedy, warning=True)


def combine_values(facts: Sequence[ValueFacts], channels: int) -> TrainingValues:
    """Combine the facts of the training images.

    Parameters
    ----------
    facts
        Facts of at least one image.
    channels
        Number of channels of the model; single channels count as repeated.

    Raises
    ------
    ValueError
        There is no image, or the channels of one do not fit.
    """
    if not facts:
        raise ValueError("there must be at least one image")
    fitted = [item.fit_channels(channels) for item in facts]
    structured = [item for item in fitted if item.structured is not False and not item.blank]
    shown = structured or fitted
    rows = np.array([item.percentiles for item in shown])
    contrasts = rows[:, :, _HIGH] - rows[:, :, _LOW]
    tilts = np.array([[_find_tilt(row) for row in item.percentiles] for item in shown])
    return TrainingValues(
        images=len(fitted),
        dtypes=dict(sorted(Counter(item.dtype for item in fitted).items())),
        step=_combine_steps(shown),
        contrast=_span(contrasts, contrasts),
        level=_span(rows[:, :, _LOW], rows[:, :, _HIGH]),
        median=_span(rows[:, :, _MIDDLE], rows[:, :, _MIDDLE]),
        tilt=_span(tilts, tilts),
        constant=tuple(any(item.constant[index] for item in shown) for index in range(channels)),
        unstructured=1 - len(structured) / len(fitted),
    )


def _combine_steps(facts: Sequence[ValueFacts]) -> float:
    """Return the number that divides the values of all images; 0 if there is none."""
    steps = {item.step for item in facts if item.step or np.dtype(item.dtype).kind == "f"}
    if len(steps) == 1:
        return steps.pop()
    return float(math.gcd(*map(int, steps))) if all(step >= 1 for step in steps) else 0.0


def _span(low: Any, high: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(first), float(last)) for first, last in zip(low.min(axis=0), high.max(axis=0), strict=True))


def _as_ranges(values: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((_as_number(low), _as_number(high)) for low, high in values)


def _as_number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _find_tilt(row: Sequence[float]) -> float:
    """Return the position of the median between percentiles 1 and 99, 0 to 1; 0.5 if they are equal."""
    return find_position(row[_MIDDLE], row[_NEAR_LOW], row[_NEAR_HIGH])
