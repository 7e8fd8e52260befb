"""The physical scale of an image: sizes, steps and positions in micrometres and seconds, and the names of channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Physical scale of an image, as its file states it; the rest is None, 0 or empty.

    Attributes
    ----------
    pixel_size_um
        (y, x) micrometres per pixel.
    z_step_um
        Micrometres between planes along Z.
    time_step_s
        Seconds between frames along T.
    origin_um
        (z, y, x) position of the centre of the first pixel in micrometres.
    time_origin_s
        Time of the first frame in seconds.
    channel_names
        Names of the channels, one for each, or none at all; a channel without a name has an empty one.

    Examples
    --------
    >>> calibration = Calibration(pixel_size_um=(0.5, 0.5), z_step_um=2.0)
    >>> calibration.rescale((1, 2, 2)).pixel_size_um
    (1.0, 1.0)
    >>> Calibration.from_json(calibration.to_json()) == calibration
    True
    """

    pixel_size_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    time_step_s: float | None = None
    origin_um: tuple[float, float, float] = (0.0, 0.0, 0.0)
    time_origin_s: float = 0.0
    channel_names: tuple[str, ...] = ()

    def rescale(self, factors_zyx: tuple[float, float, float]) -> Calibration:
        """Return the calibration of an image whose pixels are larger by some factors along Z, Y and X."""
        z, y, x = factors_zyx
        return replace(
            self,
            pixel_size_um=self.pixel_size_um and (self.pixel_size_um[0] * y, self.pixel_size_um[1] * x),
            z_step_um=self.z_step_um and self.z_step_um * z,
        )

    def crop(self, top: int, left: int) -> Calibration:
        """Return the calibration of an image that starts at another row and column."""
        if self.pixel_size_um is None:
            return self
        z, y, x = self.origin_um
        return replace(self, origin_um=(z, y + top * self.pixel_size_um[0], x + left * self.pixel_size_um[1]))

    def turn(self) -> Calibration:
        """Return the calibration of an image whose rows became columns."""
        z, y, x = self.origin_um
        return replace(self, pixel_size_um=self.pixel_size_um and self.pixel_size_um[::-1], origin_um=(z, x, y))

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Rebuild a calibration from `to_json`, after JSON has turned its tuples into lists."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**plain)
