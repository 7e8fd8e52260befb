"""The one rule by which stored samples become an image: palettes, inks, luma and chroma, and white stored as 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images._info import Array

JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
JPEG2000_COMPRESSIONS = (33003, 33004, 33005, 34712)
_APERIO_YCBCR = 33003
_DECODED_TO_RGB = (22610, 34933, 34934, 50001, 50002, 52546)
"""Compressions whose decoders return RGB: JPEG XR, PNG, WebP and JPEG XL."""
_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LINEAR_RAW = 0, 2, 3, 5, 6, 34892
_REFUSED = {
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a colour filter array (camera raw)",
    32844: "LogL",
    32845: "LogLuv",
}
_INK_SET, _YCBCR_COEFFICIENTS, _REFERENCE_BLACK_WHITE = 332, 529, 532
_INKS_ARE_CMYK = 1
_MARKER_COD = b"\xff\x52"
_HEAD_BYTES = 4096

NOTE_CMYK = "CMYK is converted to RGB"
NOTE_PALETTE = "the palette is applied, so the image is RGB"

Kind = Literal["stored", "inverted", "cmyk", "ycbcr", "palette"]
"""Conversion of the samples."""


@dataclass(frozen=True, eq=False)
class Photometric:
    """Meaning of the samples of a file, and their conversion to an image.

    Attributes
    ----------
    kind
        Conversion: none, inversion of grey values, or inks, luma and chroma, or indices to RGB.
    color
        True if the first three channels of the image are a colour.
    top
        Value of black, if white is stored as 0.
    palette
        N x 3 uint8, the colour table of indices.
    coefficients
        Shares of red, green and blue in the luma.
    reference
        Values of black and white of the luma and of both chromas.
    note
        Clause for the user about a conversion; empty if there is nothing to say.
    """

    kind: Kind = "stored"
    color: bool = False
    top: int = 0
    palette: NDArray[np.uint8] | None = None
    coefficients: tuple[float, ...] = (0.299, 0.587, 0.114)
    reference: tuple[float, ...] = (0, 255, 128, 255, 128, 255)
    note: str = ""

    @property
    def samples(self) -> int:
        """Number of samples that become one colour; 1 if each sample becomes one channel."""
        return {"cmyk": 4, "ycbcr": 3}.get(self.kind, 1)

    def count_channels(self, samples: int) -> int:
        """Return the number of channels that a number of stored samples becomes."""
        return samples + {"cmyk": -1, "palette": 2}.get(self.kind, 0)

    def convert(self, samples_cyx: Array) -> Array:
        """Convert stored samples, axes ``CYX``, to the channels of the image.

        Samples beyond those of the colour follow unchanged.
        """
        if self.kind == "stored":
            return samples_cyx
        if self.kind == "inverted":
            return _invert(samples_cyx, self.top)
        colors_cyx, others_cyx = samples_cyx[: self.samples], samples_cyx[self.samples :]
        converted: Array
        if self.kind == "cmyk":
            converted = _convert_cmyk(colors_cyx)
        elif self.kind == "ycbcr":
            converted = self._convert_ycbcr(colors_cyx)
        else:
            assert self.palette is not None
            converted = np.moveaxis(_look_up(self.palette, colors_cyx[0]), 2, 0)
        return converted if not len(others_cyx) else np.concatenate([converted, others_cyx])

    def _convert_ycbcr(self, samples_cyx: Array) -> NDArray[np.uint8]:
        """Convert luma and chroma to RGB (TIFF 6.0, section 21)."""
        red, green, blue = self.coefficients
        luma, cb, cr = (
            (plane.astype(np.float32) - black) * (full / (white - black))
            for plane, black, white, full in zip(
                samples_cyx, self.reference[::2], self.reference[1::2], (255, 127, 127), strict=True
            )
        )
        r = luma + cr * (2 - 2 * red)
        b = luma + cb * (2 - 2 * blue)
        g = (luma - blue * b - red * r) / green
        rgb: NDArray[np.uint8] = np.clip(np.rint(np.stack([r, g, b])), 0, 255).astype(np.uint8)
        return rgb


@dataclass(frozen=True, eq=False, kw_only=True)
class Decoded:
    """One page as stored: neither colours nor the orientation are applied.

    Attributes
    ----------
    array_cyx
        Samples as stored, without alpha, axes ``CYX``.
    alpha_yx
        Channel that the file calls alpha, or None.
    photometric
        Meaning of the samples.
    color
        True if the first three channels are a colour.
    lossy
        True if the compression changes values.
    """

    array_cyx: Array
    alpha_yx: Array | None
    photometric: Photometric
    color: bool
    lossy: bool


def find_photometric(path: Path, keyframe: Any, samples: int, undeclared: int) -> Photometric:
    """Find the meaning of the samples of TIFF directories.

    Parameters
    ----------
    path
        Path that errors name.
    keyframe
        First directory, as tifffile describes it.
    samples
        Number of samples of a directory, without alpha.
    undeclared
        Number of those whose meaning the file does not state.

    Raises
    ------
    InputError
        The file states colours that septa does not read.
    """
    code = int(keyframe.photometric)
    if code in _REFUSED:
        problem = f"septa does not read images whose samples are {_REFUSED[code]}"
        raise InputError(path, problem, "Convert the image to RGB or grey")
    if code == _WHITE_IS_ZERO:
        return _find_inversion(keyframe)
    if code == _PALETTE and not keyframe.parent.is_imagej:
        return _find_palette(path, keyframe, samples)
    if code == _CMYK:
        return _find_inks(path, keyframe, samples - undeclared)
    if code == _YCBCR or int(keyframe.compression) == _APERIO_YCBCR:
        return _find_ycbcr(path, keyframe, samples)
    return Photometric(color=code in (_RGB, _LINEAR_RAW) and samples >= 3)


def _find_inversion(keyframe: Any) -> Photometric:
    if keyframe.parent.is_imagej:
        return Photometric(note="ImageJ displays the image inverted, but its values are kept as stored")
    if keyframe.dtype is None or keyframe.dtype.kind not in "bu":
        return Photometric(note="white is stored as 0, which means nothing for these values; they are kept as stored")
    top = 2 ** int(keyframe.bitspersample) - 1
    return Photometric("inverted", top=top, note="white is stored as 0, so the values are inverted")


def _find_palette(path: Path, keyframe: Any, samples: int) -> Photometric:
    """Return the colour table.

    That of an ImageJ file is not a palette: it only holds the colours in which ImageJ shows grey values.
    """
    table = keyframe.colormap
    problem = ""
    if samples != 1:
        problem = f"the image has a palette and {samples} channels, so their meaning is unclear"
    elif keyframe.dtype is None or keyframe.dtype not in (np.bool_, np.uint8, np.uint16):
        problem = f"the image has a palette, but its samples are {keyframe.dtype or 'of an unknown type'}"
    elif table is None or table.ndim != 2 or len(table) != 3:
        problem = "the image is made of palette indices, but its colour table is missing or damaged"
    if problem:
        raise InputError(path, problem, "Convert the image to RGB or grey")
    colors = table.T if table.max() < 256 else table.T >> 8
    palette = np.ascontiguousarray(colors.astype(np.uint8))
    return Photometric("palette", color=True, palette=palette, note=NOTE_PALETTE)


def _find_inks(path: Path, keyframe: Any, inks: int) -> Photometric:
    if keyframe.tags.valueof(_INK_SET, _INKS_ARE_CMYK) != _INKS_ARE_CMYK:
        return Photometric(note="the inks are not CMYK, so each is read as a channel")
    if inks != 4 or keyframe.dtype not in (np.uint8, np.uint16):
        problem = f"septa does not read CMYK images of {inks} inks and {keyframe.dtype or 'unknown'} samples"
        raise InputError(path, problem, "Convert the image to RGB or grey")
    return Photometric("cmyk", color=True, note=NOTE_CMYK)


def _find_ycbcr(path: Path, keyframe: Any, samples: int) -> Photometric:
    compression = int(keyframe.compression)
    if compression in _DECODED_TO_RGB or (
        compression in JPEG_COMPRESSIONS and keyframe.planarconfig == 1 and not keyframe.extrasamples
    ):
        return Photometric(color=True)  # the decoder converts
    if compression in JPEG2000_COMPRESSIONS and _transforms_colors(keyframe):
        return Photometric(color=True)
    coefficients = keyframe.tags.valueof(_YCBCR_COEFFICIENTS)
    reference = keyframe.tags.valueof(_REFERENCE_BLACK_WHITE)
    chosen = Photometric(
        "ycbcr",
        color=True,
        coefficients=_divide(coefficients, 3) or Photometric.coefficients,
        reference=_divide(reference, 6) or Photometric.reference,
        note="YCbCr is converted to RGB",
    )
    spans = [white - black for black, white in zip(chosen.reference[::2], chosen.reference[1::2])]
    if samples != 3 or keyframe.dtype != np.uint8 or min(spans) <= 0 or min(chosen.coefficients) <= 0:
        problem = f"septa does not read YCbCr images of {samples} samples of type {keyframe.dtype or 'unknown'}"
        raise InputError(path, problem, "Convert the image to RGB or grey")
    return chosen


def _transforms_colors(keyframe: Any) -> bool:
    """Return True if the JPEG 2000 data hold RGB that their own decoder restores (Annex A.6.1: the transform)."""
    handle = keyframe.parent.filehandle
    handle.seek(keyframe.dataoffsets[0])
    head = handle.read(_HEAD_BYTES)
    start = head.find(_MARKER_COD)
    return bool(start >= 0 and len(head) > start + 8 and head[start + 8])


def _divide(values: Any, count: int) -> tuple[float, ...]:
    """Return fractions, which are stored as pairs of numbers, as floats; () if there are not as many as expected."""
    if not isinstance(values, tuple) or len(values) != 2 * count or 0 in values[1::2]:
        return ()
    return tuple(over / under for over, under in zip(values[::2], values[1::2]))


def _invert(samples: Array, top: int) -> Array:
    return ~samples if samples.dtype == np.bool_ else samples.dtype.type(top) - samples


def _convert_cmyk(samples_cyx: Array) -> Array:
    """Convert inks, 0 = none, to RGB without a colour profile: each ink and black absorb independently."""
    full = int(np.iinfo(samples_cyx.dtype).max)
    left = full - samples_cyx.astype(np.uint64)
    rgb: Array = ((left[:3] * left[3] + full // 2) // full).astype(samples_cyx.dtype)
    return rgb


def _look_up(palette: NDArray[np.uint8], indices: Array) -> NDArray[np.uint8]:
    """Return the colours of palette indices; an index beyond the table is black."""
    top = int(indices.max(initial=0))
    table = np.zeros((max(len(palette), top + 1), 3), dtype=np.uint8)
    table[: len(palette)] = palette
    colors: NDArray[np.uint8] = table[indices.astype(np.uint8) if indices.dtype == np.bool_ else indices]
    return colors
