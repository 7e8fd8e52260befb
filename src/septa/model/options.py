"""The options that all predictions of a model share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from septa.inference import Engine, FeatureSums


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Options that `Model.segment`, `Model.logits` and `Model.probabilities` share; `Model.segment` describes them.

    If ``fixed_tile`` is True, a tile that does not fit into the memory is an error; else it is halved. ``factor``
    multiplies the values of the image before they are normalised; see `Model.check_values`. ``sums`` receives the
    features of the image; see `Model.report_unlike`. ``on_pixels`` is called with the number of pixels of each tile
    that is done.
    """

    tile: int | None = None
    device: str = "auto"
    tta: int | None = None
    engine: str | Engine | None = None
    precision: str | None = None
    fixed_tile: bool = False
    factor: float = 1.0
    sums: FeatureSums | None = None
    on_pixels: Callable[[int], object] | None = None
