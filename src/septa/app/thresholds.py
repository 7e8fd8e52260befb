"""Thresholds by which objects are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from septa.tasks import Decoding


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Thresholds by which objects are found: those of the decoder, and the least confidence, 0 to 1."""

    decoding: Decoding
    confidence: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return all attributes as JSON values; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Thresholds:
        """Build them from the values that `to_json` returns."""
        return cls(decoding=Decoding(**values["decoding"]), confidence=values["confidence"])
