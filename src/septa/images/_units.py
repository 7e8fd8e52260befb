"""Names of units of length and time, and the sizes of pixels that microscopes can have."""

from __future__ import annotations

from collections.abc import Mapping

INCH_UM = 25400.0
CM_UM = 10000.0
_POWERS = {
    "yocto y": -24,
    "zepto z": -21,
    "atto a": -18,
    "femto f": -15,
    "pico p": -12,
    "nano n": -9,
    "micro u": -6,
    "micro \u00b5": -6,
    "micro \u03bc": -6,
    "milli m": -3,
    "centi c": -2,
    "deci d": -1,
    " ": 0,
    "deca da": 1,
    "hecto h": 2,
    "kilo k": 3,
    "mega M": 6,
    "giga G": 9,
    "tera T": 12,
    "peta P": 15,
    "exa E": 18,
    "zetta Z": 21,
    "yotta Y": 24,
}
"""Power of ten of each prefix, given its name and its sign."""
_INCHES = {
    "inch in": 1.0,
    "inches": 1.0,
    "thou mil": 1 / 1000,
    "li line": 1 / 12,
    "pt point": 1 / 72,
    "ft foot feet": 12.0,
    "yd yard": 36.0,
    "mi mile": 63360.0,
}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "minute min": 60.0, "hour hr h": 3600.0, "day d": 86400.0}
_ANGSTROM = ("A", "\u00c5", "\u212b", "\u00e5", "angstrom", "\u00e5ngstr\u00f6m")
_PAPER_DPI = (
    *(1, 72, 75, 90, 96, 100, 110, 120, 144, 150, 160, 180, 192, 200, 220, 240, 250, 254, 266, 288, 300, 320, 350),
    *(360, 400, 450, 480, 500, 600, 720, 800, 1000, 1200, 1440, 2400, 4800),
)
_LEAST_UM, _MOST_UM = 1e-5, 1000.0


def _add_prefixes(name: str, sign: str, exponent: int) -> dict[str, float]:
    """Return the sizes of a unit with every prefix, by name and by sign."""
    found: dict[str, float] = {}
    for prefixes, power in _POWERS.items():
        prefix, short = prefixes.split(" ")
        found |= dict.fromkeys((prefix + name, short + sign), 10.0 ** (power + exponent))
    return found


def _split_names(units: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: size * factor for names, size in units.items() for name in names.split()}


_UM_PER_LENGTH = {
    **_add_prefixes("meter", "m", 6),
    **_add_prefixes("metre", "m", 6),
    **_split_names(_INCHES, INCH_UM),
    **dict.fromkeys(_ANGSTROM, 1e-4),
    "micron": 1.0,
}
_S_PER_TIME = _add_prefixes("second", "s", 0) | _split_names(_SECONDS, 1.0)


def um_per_unit(name: object) -> float | None:
    r"""Return the micrometres of a unit of length, given its name or sign; None if it is not one.

    Examples
    --------
    >>> um_per_unit("nanometer"), um_per_unit(r"\u00B5m"), um_per_unit("Microns"), um_per_unit("pixel")
    (0.001, 1.0, 1.0, None)
    """
    return _find(_UM_PER_LENGTH, name)


def s_per_unit(name: object) -> float | None:
    """Return the seconds of a unit of time, given its name or sign; None if it is not one.

    Examples
    --------
    >>> s_per_unit("ms"), s_per_unit("minutes"), s_per_unit("frame")
    (0.001, 60.0, None)
    """
    return _find(_S_PER_TIME, name)


def _find(units: Mapping[str, float], name: object) -> float | None:
    """Find a unit as it is written, because "mm" is not "Mm"; then in lower case, and in the singular."""
    text = str(name).strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    candidates = (text, text.lower(), text.lower().removesuffix("s"))
    return next((units[one] for one in candidates if one in units), None)


def keep_plausible_size(y: float, x: float) -> tuple[float, float] | None:
    """Return a pixel size in micrometres, or None if no microscope can have it."""
    return (y, x) if _LEAST_UM <= y <= _MOST_UM and _LEAST_UM <= x <= _MOST_UM else None


def read_resolution(y_per_unit: float, x_per_unit: float, unit_um: float) -> tuple[float, float] | None:
    """Return the pixel size in micrometres that a resolution states, or None if it only sets a size on paper.

    A resolution is a number of pixels per inch, centimetre, or metre. Cameras, printers and scanners write usual values
    such as 72 or 300 dpi, whatever the image shows.

    Examples
    --------
    >>> read_resolution(20000, 20000, 10000)
    (0.5, 0.5)
    >>> read_resolution(11811, 11811, 1e6) is None
    True
    """
    dpi = [per_unit * INCH_UM / unit_um for per_unit in (y_per_unit, x_per_unit)]
    if all(any(abs(value - usual) < 0.005 * usual for usual in _PAPER_DPI) for value in dpi):
        return None
    return keep_plausible_size(unit_um / y_per_unit, unit_um / x_per_unit)
