"""Read DICOM files with the package pydicom; the frames of a file are its pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, DamagedDataError
from septa.images._ome import read_positive
from septa.images._units import keep_plausible_size
from septa.images.calibration import Calibration
from septa.images.formats.container import NOTE_SCALED, Scene, load_reader, quiet

_MM_UM = 1000.0
_GREY = ("MONOCHROME1", "MONOCHROME2")
_RGB = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_422")
_HEADER = "1 MB"
"""Size of the elements from which on they are read only when they are used."""


class DicomContainer:
    """A DICOM file. See `septa.images.formats.container.Container`."""

    def __init__(self, path: Path, dataset: str) -> None:
        package = load_reader(path, "a DICOM", "pydicom")
        self._path = path
        with path.open("rb") as stream:
            facts = package.dcmread(stream, stop_before_pixels=True, defer_size=_HEADER)
        colors = str(facts.get("PhotometricInterpretation", ""))
        if "Rows" not in facts:
            raise InputError(path, "the DICOM file holds no image", "Leave it out")
        if "TotalPixelMatrixColumns" in facts:
            problem = "the DICOM file holds the tiles of a slide, which septa does not put together"
            raise InputError(path, problem, "Convert the slide to OME-TIFF, for example with bfconvert")
        if colors not in (*_GREY, *_RGB):
            problem = f"septa does not read DICOM images whose samples are {colors[:40] or 'not described'}"
            raise InputError(path, problem, "Convert it to grey or RGB")
        bits, signed = int(facts.BitsAllocated), bool(facts.get("PixelRepresentation", 0))
        if bits not in (1, 8, 16, 32):
            raise DamagedDataError(f"it states {bits} bits per sample")
        self._scale = float(facts.get("RescaleSlope") or 1), float(facts.get("RescaleIntercept") or 0)
        scaled = self._scale != (1.0, 0.0)
        stored = np.dtype(np.uint8) if bits == 1 else np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
        pages = int(facts.get("NumberOfFrames") or 1)
        self._samples = int(facts.get("SamplesPerPixel") or 1)
        if pages < 1 or self._samples != (3 if colors in _RGB else 1):
            raise DamagedDataError("its header is not valid")
        self.scenes = [
            Scene(
                height=int(facts.Rows),
                width=int(facts.Columns),
                channels=self._samples,
                dtype=np.dtype(np.float32) if scaled else stored,
                page_axes="I" if pages > 1 else "",
                page_shape=(pages,) if pages > 1 else (),
                color=self._samples == 3,
                inverted_top=2 ** int(facts.get("BitsStored") or bits) - 1 if colors == _GREY[0] and not scaled else 0,
                lossy=str(facts.get("LossyImageCompression", "")) == "01",
                calibration=_read_calibration(facts),
                notes=(NOTE_SCALED,) if scaled else (),
            )
        ]

    def read(self, scene: int, page: int) -> Array:
        """Return a frame."""
        pixels = load_reader(self._path, "a DICOM", "pydicom", "pydicom.pixels")
        facts = self.scenes[0]
        with quiet(), self._path.open("rb") as stream:
            values: Array = pixels.pixel_array(stream, index=page)
        if values.shape[:2] != (facts.height, facts.width):
            raise DamagedDataError("the image has another size than its header states")
        values = np.moveaxis(values.reshape(facts.height, facts.width, self._samples), 2, 0)
        slope, offset = self._scale
        if (slope, offset) != (1.0, 0.0):
            values = values.astype(np.float64) * slope + offset
        return values.astype(facts.dtype)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


def _read_calibration(facts: Any) -> Calibration:
    """Return the size of pixels, which stands at the top or in a group that all frames share."""
    groups = facts.get("SharedFunctionalGroupsSequence") or []
    measures = [one for group in groups for one in group.get("PixelMeasuresSequence") or []]
    for place in (facts, *measures):
        spacing = place.get("PixelSpacing") or place.get("ImagerPixelSpacing")
        if not spacing or len(spacing) != 2:
            continue
        y, x = (read_positive(value) for value in spacing)
        step = read_positive(place.get("SpacingBetweenSlices"))
        if y and x:
            size = keep_plausible_size(y * _MM_UM, x * _MM_UM)
            return Calibration(pixel_size_um=size, z_step_um=step and step * _MM_UM)
    return Calibration()
