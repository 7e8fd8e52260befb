"""What becomes of a channel that a file calls alpha, in images and in labels; it never vanishes silently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images._info import Array
from septa.notices import Notices

DROPPED = "the constant alpha channel is dropped"
_DECLARED = "the file declares an alpha channel, which is dropped"
_VARIES = "the alpha channel is not constant, but it is dropped because no such channel is expected"
_KEPT = "the channel that the file calls alpha is read as the last channel"
_IS_MASK = "the colour is constant, so the alpha channel is the mask"
_IMPLIED = "the alpha channel is dropped, since the colours already differ where it does"
_REMEDY = "Save the labels without transparency"


class AlphaWatch:
    """A watch over the alpha channel of an image that is read window by window.

    Parameters
    ----------
    path
        Path that the notices name.
    channels
        Number of channels of the image without alpha.
    kept
        True if the channel is read as data.
    notices
        Receives the notices, or None.
    """

    def __init__(self, path: Path, channels: int, kept: bool, notices: Notices | None) -> None:
        self._path = path
        self._channels = channels
        self._notices = notices
        self._range: tuple[float, float] | None = None
        self.active = notices is not None and not kept
        """True if `watch` needs the values."""
        if notices is not None:
            notices.add(path, _KEPT if kept else _DECLARED)

    def watch(self, alpha_yx: Array) -> None:
        """Look at a window, and warn once values differ in it or between windows."""
        low, high = float(alpha_yx.min()), float(alpha_yx.max())
        if self._range is not None:
            low, high = min(low, self._range[0]), max(high, self._range[1])
        self._range = low, high
        if low < high and self._notices is not None:
            _warn(self._notices, self._path, self._channels)
            self.active = False


def report_alpha(path: Path, alpha_yx: Array, channels: int, kept: bool, notices: Notices | None) -> None:
    """Report what becomes of the alpha channel of a whole page."""
    if notices is None:
        return
    if kept:
        notices.add(path, _KEPT)
    elif varies(alpha_yx):
        _warn(notices, path, channels)
    else:
        notices.add(path, DROPPED)


def _warn(notices: Notices, path: Path, channels: int) -> None:
    notices.add(path, _VARIES, f"If it holds data, train with --set data.channels={channels + 1}", warning=True)


def varies(values: Array) -> bool:
    """Return True if the values are not all equal."""
    return bool(values.min() != values.max())


def choose_soft_mask(path: Path, labels_cyx: Array, alpha_yx: Array, notices: Notices | None) -> Array:
    """Return what a threshold applies to, axes ``CYX``: alpha if the colour is constant, else the colours."""
    if varies(alpha_yx) and not any(varies(plane_yx) for plane_yx in labels_cyx):
        if notices is not None:
            notices.add(path, _IS_MASK)
        return alpha_yx[None]
    report_alpha(path, alpha_yx, len(labels_cyx), False, notices)
    return labels_cyx


def merge_label_alpha(path: Path, labels_cyx: Array, alpha_yx: Array, notices: Notices | None) -> Array | None:
    """Decide whether the alpha channel of a label file is the mask.

    Returns
    -------
    ndarray or None
        The mask, axes ``YX``; None if the labels are the colours.

    Raises
    ------
    InputError
        If pixels of one colour differ in alpha, and alpha is not a mask of two values.
    """

    def note(text: str) -> None:
        if notices is not None:
            notices.add(path, text)

    plain = all(not varies(plane_yx) for plane_yx in labels_cyx)
    if not varies(alpha_yx):
        if plain and not alpha_yx.any():
            note(_IS_MASK)
            return alpha_yx
        note(DROPPED)
        return None
    if plain:
        values = np.unique(alpha_yx)
        if len(values) > 2:
            problem = f"the labels have one colour and an alpha channel of {len(values)} values, so no mask is certain"
            raise InputError(path, problem, "Save the mask with two values, or set data.threshold=128")
        note(_IS_MASK)
        return alpha_yx
    codes = _number_colors(labels_cyx)
    if len(np.unique(codes)) != len(np.unique(codes * _LEVELS + alpha_yx)):
        problem = "colour and alpha of the labels both vary, and pixels of one colour differ in alpha"
        raise InputError(path, problem, _REMEDY)
    note(_IMPLIED)
    return None


_LEVELS = 1 << 16
"""More than the values of an alpha channel of 16 bits."""


def _number_colors(labels_cyx: Array) -> NDArray[np.int64]:
    """Replace the colour of each pixel by a number from 0, so that codes of colour and alpha fit into 64 bits."""
    codes = np.zeros(labels_cyx.shape[1:], np.int64)
    for plane_yx in labels_cyx:
        _, numbers = np.unique(plane_yx, return_inverse=True)
        _, codes = np.unique(codes * (int(numbers.max()) + 1) + numbers.reshape(codes.shape), return_inverse=True)
        codes = codes.reshape(labels_cyx.shape[1:])
    return codes
