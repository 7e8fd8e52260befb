"""The gallery: images with ground truth, prediction and errors, as HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from septa.images import ERROR_COLORS, draw_error_map, draw_overlay, encode_png, shrink_picture, to_rgb
from septa.report.page import escape_html, render_png, render_swatch

MAX_PANELS = 24
THUMBNAIL = 384
"""Longest side of an image in pixels."""
THUMBNAIL_OF_MANY = 288
"""Longest side in a gallery of more than 8 images, in pixels; it keeps the file small enough to mail."""


@dataclass(frozen=True)
class Panel:
    """One validation image of the gallery.

    Parameters
    ----------
    name
        Name of the image, any text.
    image_cyx
        Image as read, CYX, any number type and any number of channels.
    truth_yx, prediction_yx
        Encoded labels YX of ground truth and prediction (class index or bit field), -1 where ignored.
    score
        Score, 0 to 1. The gallery shows the worst first.
    """

    name: str
    image_cyx: NDArray[Any]
    truth_yx: NDArray[np.integer[Any]]
    prediction_yx: NDArray[np.integer[Any]]
    score: float


def render_gallery(panels: Sequence[Panel], classes: Mapping[str, tuple[int, int, int]], bits: int = 0) -> str:
    """Show the worst panels, worst first, below a legend.

    Parameters
    ----------
    panels
        At most `MAX_PANELS` are shown, each image at most `THUMBNAIL` pixels wide and high. Panels whose score is not
        finite come last.
    classes
        Name of each class to its RGB colour in `draw_overlay`, for the legend.
    bits
        Number of overlapping classes that the labels hold as bits; 0 if labels are class indices.

    Returns
    -------
    str
        HTML, empty without panels.

    Raises
    ------
    ValueError
        Image, ground truth and prediction of a panel differ in size.
    """
    if not panels:
        return ""
    order = sorted(panels, key=lambda panel: panel.score if math.isfinite(panel.score) else math.inf)[:MAX_PANELS]
    longest = THUMBNAIL if len(order) <= 8 else THUMBNAIL_OF_MANY
    count = f"The worst {len(order)} of {len(panels)}" if len(order) < len(panels) else str(len(order))
    intro = f'<p class="soft">{count} image{"s" if len(panels) > 1 else ""}, worst first.</p>'
    return intro + _legend(classes) + "\n".join(_panel(panel, bits, longest) for panel in order)


def draw_labels(rgb_yxs: NDArray[np.uint8], labels_yx: NDArray[Any], bits: int = 0) -> NDArray[np.uint8]:
    """Draw labels over a picture; each bit of overlapping classes has its own colour.

    Parameters
    ----------
    rgb_yxs
        Picture, uint8, axes YXS; it may be smaller than the image.
    labels_yx
        Encoded labels YX of the whole image. Each pixel of the picture gets the nearest label, so outlines stay sharp.
    bits
        Number of overlapping classes that the labels hold as bits; 0 if labels are class indices.

    Returns
    -------
    ndarray
        uint8, axes YXS, of the same size as the picture.
    """
    near_yx = _nearest(labels_yx, rgb_yxs.shape[:2])
    for bit in range(bits):
        ignored = -1 if bit == 0 else 0  # drawn in grey once, not for each bit
        one_yx = np.where(near_yx < 0, ignored, (near_yx >> bit & 1) * (bit + 1))
        rgb_yxs = draw_overlay(np.moveaxis(rgb_yxs, -1, 0), one_yx)
    return rgb_yxs if bits else draw_overlay(np.moveaxis(rgb_yxs, -1, 0), near_yx)


def render_picture(rgb_yxs: NDArray[np.uint8], alt: str) -> Markup:
    """Return an ``<img>`` with an embedded uint8 YXS picture; a grey picture is stored with one channel.

    ``alt`` describes the picture in plain text.
    """
    height, width = rgb_yxs.shape[:2]
    grey = bool((rgb_yxs == rgb_yxs[..., :1]).all())
    png = encode_png(np.ascontiguousarray(rgb_yxs[..., 0] if grey else rgb_yxs))
    return render_png(png, alt, width, height)


def _legend(classes: Mapping[str, tuple[int, int, int]]) -> str:
    rows = {"Classes": classes, "Error map": ERROR_COLORS}
    return "".join(
        f'<div class="legend"><b>{title}</b>'
        + "".join(f"<span>{render_swatch(rgb)}{escape_html(name)}</span>" for name, rgb in colors.items())
        + "</div>"
        for title, colors in rows.items()
        if colors
    )


def _panel(panel: Panel, bits: int, longest: int) -> str:
    if panel.truth_yx.shape != panel.prediction_yx.shape or panel.truth_yx.shape != panel.image_cyx.shape[1:]:
        raise ValueError(
            f"image {panel.image_cyx.shape}, ground truth {panel.truth_yx.shape} and prediction "
            f"{panel.prediction_yx.shape} of {panel.name!r} differ in size"
        )
    image = shrink_picture(to_rgb(panel.image_cyx), longest)
    pictures = {
        "image": image,
        "ground truth": draw_labels(image, panel.truth_yx, bits),
        "prediction": draw_labels(image, panel.prediction_yx, bits),
        "errors": shrink_picture(draw_error_map(panel.truth_yx, panel.prediction_yx), longest),
    }
    figures = "".join(
        f"<figure>{render_picture(rgb, f'{kind} of {panel.name}')}<figcaption>{escape_html(kind)}</figcaption></figure>"
        for kind, rgb in pictures.items()
    )
    height, width = panel.truth_yx.shape
    return (
        f'<article class="panel"><h3>{escape_html(panel.name)}<span>score {_score(panel.score)} · '
        f"{width} × {height} px</span></h3>"
        f'<div class="four">{figures}</div></article>'
    )


def _score(score: float) -> str:
    return f"{score:.3f}" if math.isfinite(score) else "–"


def _nearest(labels_yx: NDArray[np.integer[Any]], shape: tuple[int, ...]) -> NDArray[np.integer[Any]]:
    """Return the nearest label for each pixel of a smaller image."""
    rows, columns = (
        ((np.arange(small) + 0.5) * size / small).astype(np.intp)
        for size, small in zip(labels_yx.shape, shape, strict=True)
    )
    return labels_yx[np.ix_(rows, columns)]
