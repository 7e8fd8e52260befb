"""The options of ``septa predict`` that concern single objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from septa.cli.commands import OBJECTS
from septa.cli.options import option
from septa.cli.values import MEASUREMENTS, number, path


@dataclass(frozen=True, kw_only=True)
class ObjectFileOptions:
    """The options of ``septa predict`` that concern single objects, in files and in stores."""

    table: Annotated[
        Path | None,
        option(
            "--table",
            heading=OBJECTS,
            kind=path(example="objects.csv"),
            help="Also write one row of measurements for each object (CSV, or Parquet for NAME.parquet).",
        ),
    ] = None
    measure: Annotated[
        tuple[str, ...] | None,
        option(
            "--measure",
            heading=OBJECTS,
            kind=MEASUREMENTS,
            help="Measurements of --table and --geojson: basic (the default), full, or some of "
            "perimeter, circularity, solidity, axes, orientation, feret, std, median, integrated, background and "
            "neighbours besides the basic ones.",
        ),
    ] = None
    geojson: Annotated[
        bool, option("--geojson", heading=OBJECTS, help="Also write the outlines of objects for QuPath.")
    ] = False
    min_confidence: Annotated[
        float | None,
        option(
            "--min-confidence",
            heading=OBJECTS,
            kind=number(most=1, example=0.5),
            help="Drop objects with a lower confidence (0 to 1).",
        ),
    ] = None
