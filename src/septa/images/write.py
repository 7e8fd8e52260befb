"""Write arrays to files atomically: a file exists whole or not at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import math
import os
import secrets
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from septa.errors import InputError, ResourceError
from septa.images._ome_metadata import OME_TYPES, build_ome_metadata
from septa.images._units import CM_UM, INCH_UM
from septa.images.calibration import Calibration
from septa.images.written import Guard

_TIFF_SUFFIXES = (".tif", ".tiff")
_UNCALIBRATED = Calibration()


def write_atomic(path: str | Path, write: Callable[[BinaryIO], None], *, guard: Guard | None = None) -> None:
    """Write a file under a temporary name in the folder of ``path``, flush it to disk, then rename it.

    Missing parent folders are created. If anything fails, ``path`` stays unchanged and no other file remains.

    Parameters
    ----------
    path
        File to create or to replace.
    write
        Function that writes the content into the open binary file.
    guard
        Guard of `septa.images.WrittenFiles`, which keeps files that septa did not write.

    Raises
    ------
    ResourceError
        If the disk or the quota is full.
    InputError
        If the path cannot be written for another reason, or ``guard`` refuses.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with temporary.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if guard is not None:
            guard(path, temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise make_write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote ``path``.

    If ``path`` is a folder, the temporary files of all files in it are removed.
    """
    path = Path(path)
    folder, name = (path, "*") if path.is_dir() else (path.parent, glob.escape(path.name))
    for temporary in folder.glob(f".{name}.{'[0-9a-f]' * 16}.tmp"):
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: str | Path, data: bytes, *, guard: Guard | None = None) -> None:
    """Write ``data`` atomically; see `write_atomic`."""
    write_atomic(path, lambda stream: _write_all(stream, data), guard=guard)


def write_text(path: str | Path, text: str, *, guard: Guard | None = None) -> None:
    """Write ``text`` atomically as UTF-8, undecodable bytes of file names as backslash escapes; see `write_atomic`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), guard=guard)


def write_labels(
    path: str | Path,
    labels: NDArray[Any],
    *,
    axes: str = "",
    calibration: Calibration = _UNCALIBRATED,
    guard: Guard | None = None,
) -> None:
    """Write labels in the smallest unsigned type that holds them.

    A TIFF is an OME-TIFF if its pages count frames and planes, or if a scale is known.

    Parameters
    ----------
    path
        File that ends in ``.png`` (8 or 16 bits) or ``.tif``/``.tiff`` (zlib; 8, 16 or 32 bits).
    labels
        Integers >= 0, axes ``YX``; or with further axes in front, along which such planes become the pages of a TIFF.
    axes
        Letters of all axes: T, Z, C, and Q for an axis without a meaning, before "YX". The default is Q for each
        further axis.
    calibration
        Scale to write into the file; a PNG holds only the pixel size.
    guard
        See `write_atomic`.

    Raises
    ------
    InputError
        If the suffix is another one, PNG cannot hold the labels, or ``guard`` refuses.
    ValueError
        If ``labels`` has another type, rank or range.
    """
    path = Path(path)
    axes = axes or "YX".rjust(labels.ndim, "Q")
    if labels.ndim < 2 or len(axes) != labels.ndim or labels.size == 0 or labels.dtype.kind not in "uib":
        got = f"{labels.dtype} {labels.shape} with the axes {axes}"
        raise ValueError(f"labels must be a YX array of integers or a stack of them, got {got}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= 2**32:
        raise ValueError(f"labels must lie in 0..{2**32 - 1}, got {low}..{high}")
    stored = labels.astype(np.min_scalar_type(high))
    if _check_suffix(path) != ".png":
        _write_tiff(path, stored, axes, calibration, guard)
        return
    if labels.ndim > 2:
        count = math.prod(labels.shape[:-2])
        raise InputError(path, f"PNG cannot hold a stack of {count} label planes", "Write to a .tif file")
    if high > 65535:
        raise InputError(path, f"PNG cannot hold label {high}, its largest is 65535", "Write to a .tif file")
    write_bytes(path, _encode_png(stored, calibration.pixel_size_um), guard=guard)


def write_image(
    path: str | Path,
    image_cyx: NDArray[Any],
    *,
    calibration: Calibration = _UNCALIBRATED,
    guard: Guard | None = None,
) -> None:
    """Write an image in its own type.

    Parameters
    ----------
    path
        File that ends in ``.png``, for 1 or 3 channels of uint8 or uint16, or in ``.tif``/``.tiff`` (zlib), for any
        image.
    image_cyx
        Integers or floats, axes ``CYX``.
    calibration
        Scale to write into the file; a PNG holds only the pixel size.
    guard
        See `write_atomic`.

    Raises
    ------
    InputError
        If the suffix is another one, or PNG cannot hold the image.
    ValueError
        If ``image_cyx`` is not a numeric ``CYX`` array.
    """
    path = Path(path)
    if image_cyx.ndim != 3 or image_cyx.size == 0 or image_cyx.dtype.kind not in "uibf":
        raise ValueError(f"an image must be a CYX array of numbers, got {image_cyx.dtype} {image_cyx.shape}")
    stored = image_cyx.astype(np.uint8) if image_cyx.dtype == bool else image_cyx
    channels = len(stored)
    rgb = channels == 3 and stored.dtype == np.uint8
    if _check_suffix(path) != ".png":
        array = np.moveaxis(stored, 0, 2) if rgb else stored[0] if channels == 1 else stored
        _write_tiff(path, array, "YXS" if rgb else "YX" if channels == 1 else "CYX", calibration, guard)
        return
    if channels not in (1, 3) or stored.dtype not in (np.uint8, np.uint16):
        problem = f"PNG cannot hold {channels} channels of {stored.dtype}"
        raise InputError(path, problem, "Write to a .tif file")
    array = stored[0] if channels == 1 else np.moveaxis(stored, 0, 2)
    write_bytes(path, _encode_png(array, calibration.pixel_size_um), guard=guard)


def write_probabilities(
    path: str | Path,
    probabilities_kyx: NDArray[Any],
    *,
    calibration: Calibration = _UNCALIBRATED,
    guard: Guard | None = None,
) -> None:
    """Write class probabilities as a TIFF of float16 planes, axes ``CYX``, zlib.

    Parameters
    ----------
    path
        File that ends in ``.tif`` or ``.tiff``.
    probabilities_kyx
        Floats in 0..1, axes ``KYX``.
    calibration
        Scale to write into the file; a PNG holds only the pixel size.
    guard
        See `write_atomic`.

    Raises
    ------
    InputError
        If the suffix is another one.
    ValueError
        If ``probabilities_kyx`` is not a ``KYX`` array of floats.
    """
    path = Path(path)
    if probabilities_kyx.ndim != 3 or probabilities_kyx.size == 0 or probabilities_kyx.dtype.kind != "f":
        got = f"{probabilities_kyx.dtype} {probabilities_kyx.shape}"
        raise ValueError(f"probabilities must be a KYX array of floats, got {got}")
    if _check_suffix(path) == ".png":
        raise InputError(path, "PNG cannot hold probabilities", "Write to a .tif file")
    _write_tiff(path, probabilities_kyx.astype(np.float16), "CYX", calibration, guard)


def encode_png(array: NDArray[Any]) -> bytes:
    r"""Encode a picture as the bytes of a PNG file.

    Parameters
    ----------
    array
        uint8, axes ``YXS`` with 3 samples, or ``YX``.

    Returns
    -------
    bytes
        Content of the file.

    Raises
    ------
    ValueError
        If ``array`` is not such a picture.

    Examples
    --------
    >>> encode_png(np.zeros((2, 3), np.uint8))[:4]
    b'\x89PNG'
    """
    if array.dtype != np.uint8 or array.size == 0 or (array.ndim != 2 and array.shape[2:] != (3,)):
        raise ValueError(f"a picture must be uint8 with axes YX or YXS (3 samples), got {array.dtype} {array.shape}")
    return _encode_png(array, None)


def _encode_png(array: NDArray[Any], pixel_size_um: tuple[float, float] | None) -> bytes:
    array = np.ascontiguousarray(array)
    if array.ndim == 3 and array.dtype == np.uint16:
        # Pillow has no 16-bit colours, and imagecodecs, which has them, writes no resolution.
        import imagecodecs

        return bytes(imagecodecs.png_encode(array))
    buffer = io.BytesIO()
    options: dict[str, Any] = {}
    if pixel_size_um is not None:
        options["dpi"] = (INCH_UM / pixel_size_um[1], INCH_UM / pixel_size_um[0])
    Image.fromarray(array).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def _write_tiff(path: Path, array: NDArray[Any], axes: str, calibration: Calibration, guard: Guard | None) -> None:
    import tifffile

    rgb = axes.endswith("S")
    options: dict[str, Any] = {"photometric": "rgb" if rgb else "minisblack", "metadata": {"axes": axes}}
    if calibration.pixel_size_um is not None:
        y, x = calibration.pixel_size_um
        options |= {"resolution": (CM_UM / x, CM_UM / y), "resolutionunit": "CENTIMETER"}
    known = replace(calibration, channel_names=()) != _UNCALIBRATED
    if (known or set("TZ") & set(axes)) and set(axes) <= set("TZCYX") and array.dtype.name in OME_TYPES:
        # By default tifffile makes the identifier from the machine and the time; this one makes equal files equal.
        digest = hashlib.blake2b(array.tobytes(), digest_size=16).digest()
        identifier = {"UUID": uuid.UUID(bytes=digest, version=4).urn}
        options |= {"ome": True, "metadata": build_ome_metadata(axes, array.shape, calibration) | identifier}

    def write(stream: BinaryIO) -> None:
        tifffile.imwrite(stream, array, compression="zlib", **options)

    write_atomic(path, write, guard=guard)


def _check_suffix(path: Path) -> str:
    """Return the suffix in lower case; refuse one that septa does not write."""
    suffix = path.suffix.lower()
    if suffix != ".png" and suffix not in _TIFF_SUFFIXES:
        problem = f"septa cannot write files with the suffix '{path.suffix}'" if suffix else "the name has no suffix"
        raise InputError(path, problem, "End the name in .png or .tif")
    return suffix


def _write_all(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename survives a power cut; skip it if the system cannot open folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_write_error(path: Path, error: OSError) -> InputError | ResourceError:
    """Return the error for a file or folder that the system does not let septa write."""
    # numpy reports a full disk without an error number, as "N requested and M written".
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error)):
        return ResourceError(path, "the disk or the quota is full", "Free some space or write elsewhere")
    reason = f" ({error.strerror})" if error.strerror else ""
    return InputError(path, f"the file cannot be written{reason}", "Check the path and its permissions")
