"""Images as a model takes them: its number of channels, and values that the net can process."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, format_count
from septa.images import check_magnitude, fit_channels
from septa.notices import Notices

_EQUAL_CHANNELS = "the three equal channels are read as one"


def adapt_image(
    image_cyx: NDArray[Any], channels: int, color: bool, where: str | PathLike[str], notices: Notices | None
) -> NDArray[Any]:
    """Adapt an image ``(C, Y, X)`` to a number of channels, which are a colour or not, as `Model.as_model_input` says.

    Raises
    ------
    InputError
        The number of channels does not fit, the image has no pixels, or a value is NaN, Inf or beyond float32.
    """
    try:
        input_cyx: NDArray[Any] = fit_channels(image_cyx, channels, color)
    except ValueError:
        found = format_count(image_cyx.shape[0], "channel")
        problem = f"the image has {found}, but the model was trained on {channels}"
        remedy = f"Give images with the {channels} channels of the training images, in the same order"
        if channels == 1:
            remedy = "Give images with one channel, or choose one with --channels and a store as output"
        raise InputError(where, problem, remedy) from None
    if notices is not None and len(image_cyx) != channels:
        grey = len(image_cyx) == 1
        notices.add(where, "the grey image is repeated in red, green and blue" if grey else _EQUAL_CHANNELS)
    if input_cyx.size == 0:
        raise InputError(where, "the image has no pixels", "Give an image of at least 1 x 1 pixels")
    if input_cyx.dtype.kind == "f" and not np.isfinite(input_cyx).all():
        raise InputError(where, "the image holds NaN or Inf", "Replace these pixels")
    check_magnitude(input_cyx, where)
    return input_cyx
