"""Measurements of the objects of an instance label image: position, size, shape, intensity and neighbours.

An object is the set of all pixels with one id above 0, connected or not. As much as possible is computed from runs:
stretches of a row in which the id stays the same. Runs are far fewer than pixels, and their moments have a closed form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from septa.objects.intensities import (
    describe_basic_intensities,
    describe_intensities,
    group_pixels,
    name_channels,
)
from septa.objects.names import BASIC, choose_measurements
from septa.objects.neighbours import RING, ColumnNeighbours, count_touching, find_nearest_centroids
from septa.objects.runs import Array, Runs, check_arrays, find_runs
from septa.objects.shapes import (
    ObjectMoments,
    PixelSize,
    add_unit,
    describe_basic_shapes,
    describe_shapes,
    measure_moments,
)
from septa.objects.soft_iou import compute_confidence
from septa.objects.table import ObjectTable

_RIM = 2
"""Distance in pixels up to which `confidence` regards the background of an object, and a neighbour may touch it."""


def measure_objects(
    labels_yx: Array,
    image_cyx: Array | None = None,
    *,
    foreground_yx: Array | None = None,
    confidences: Array | None = None,
    pixel_size_um: tuple[float, float] | None = None,
    channel_names: Sequence[str] | None = None,
    class_yx: Array | None = None,
    class_names: Sequence[str] = (),
    measure: str | Sequence[str] = BASIC,
    origin_yx: tuple[int, int] = (0, 0),
    size_yx: tuple[int, int] | None = None,
) -> ObjectTable:
    """Measure every object of a label image.

    Parameters
    ----------
    labels_yx
        Instance ids, any integer dtype or bool; ids may be large and have gaps. 0 is background. Pixels below 0
        (`septa.recipe.IGNORE`) are neither object nor background.
    image_cyx
        Image of the same size, any real dtype.
    foreground_yx
        Foreground probability of the net, float in 0..1; see `confidence`.
    confidences
        Confidence of each object by ascending id, in place of ``foreground_yx``.
    pixel_size_um
        (y, x) micrometres per pixel.
    channel_names
        One name per channel. The default, also for an empty name, is ``channel_1``, ``channel_2`` and so on. A
        repeated name gets a number.
    class_yx
        Class of each pixel, integer; 0 is background.
    class_names
        Names of the classes, background (class 0) first.
    measure
        ``basic``; ``full``; or names of `septa.objects.MEASUREMENTS`, whose columns follow the basic ones.
    origin_yx, size_yx
        Row and column of the first pixel in a larger image, and the size of that image, if the labels are a window of
        it. Coordinates and ``touches_edge`` then refer to the larger image. The values of an object are those of the
        whole image if the window holds it with all that `find_context` asks for.

    Returns
    -------
    ObjectTable
        The objects by ascending id, with these columns in this order:

        ``label``
            int64, the id.
        ``class``
            With ``class_yx``: the most frequent class of the object's pixels other than background; the lowest such
            class in a tie, and 0 if all pixels are background. int64, or the name if ``class_names`` are given.
        ``centroid_y``, ``centroid_x``
            Mean coordinates of the pixels. The centre of the first pixel is (0, 0).
        ``bbox_top``, ``bbox_left``, ``bbox_bottom``, ``bbox_right``
            int64, the bounding box: first row and column, and one past the last.
        ``area``
            int64, number of pixels.
        ``equivalent_diameter``
            Diameter in pixels of the disc of the same area.
        ``eccentricity``
            Eccentricity of the ellipse with the same second moments: 0 for a disc, 1 for a line. As in scikit-image,
            pixels are points: with an extent, 1/12 would be added to the moments and a row of pixels would not be a
            line. The value assumes square pixels.
        ``touches_edge``
            bool, True if the object reaches the first or last row or column, so it may continue beyond the image.
        ``confidence``
            With ``foreground_yx``: see `confidence`. Or the value of ``confidences``.
        ``mean_NAME``, ``min_NAME``, ``max_NAME``
            With ``image_cyx``: intensities of each channel, minimum and maximum in the image's dtype. NaN if any pixel
            of the object is NaN.
        ``centroid_y_um``, ``centroid_x_um``, ``area_um2``, ``equivalent_diameter_um``
            With ``pixel_size_um``: the same in micrometres. The diameter is that of the disc of the same area.

        Further columns, by the names in ``measure``. Lengths are in pixels; with ``pixel_size_um``, columns that end in
        ``_um`` follow all others. Distances are between centres of pixels.

        ``perimeter`` (perimeter)
            `skimage.measure.perimeter`: length of the line through the centres of the pixels that have a pixel of
            something else at a side; 0 for a single pixel. In micrometres it is NaN unless pixels are square.
        ``circularity`` (circularity)
            4π area / perimeter². Above 1 for objects of few pixels; NaN if the perimeter is 0.
        ``solidity`` (solidity)
            Area divided by the number of pixels in the convex hull, as in scikit-image; see `septa.objects.hulls`.
        ``feret_max``, ``feret_min`` (feret)
            Largest and least distance of two parallel lines around the convex hull. A pixel reaches to the middles of
            its sides, as in scikit-image.
        ``major_axis``, ``minor_axis`` (axes)
            Lengths of the axes of the ellipse with the same second moments. Pixels are points.
        ``orientation_deg`` (orientation)
            Angle from the y axis to the major axis, counter-clockwise, -90 to 90 degrees; scikit-image's
            ``orientation`` in degrees. NaN if the axes are equal.
        ``touching_objects`` (neighbours)
            int64, number of objects of which a pixel shares a side or a corner with one of this object.
        ``nearest_centroid_distance``, ``nearest_edge_distance`` (neighbours)
            Distance to the nearest centroid of another object, and to the nearest pixel of another object: 1 if they
            share a side. NaN for the only object.
        ``std_NAME``, ``median_NAME``, ``integrated_NAME`` (std, median, integrated)
            With ``image_cyx``: standard deviation (of the pixels, not an estimate for more of them), median and sum.
        ``background_NAME``, ``corrected_mean_NAME`` (background)
            With ``image_cyx``: median of the background pixels that are more than 2 and at most 10 pixels from this
            object and nearer to it than to any other, and the mean minus this. NaN without such pixels.

    Raises
    ------
    ValueError
        The arrays have wrong sizes or dtypes, an id exceeds 2**63 - 1, the pixel size is not above 0, the number of
        names and channels differ, a class has no name, or a measurement is unknown.

    Examples
    --------
    >>> table = measure_objects(np.array([[0, 7, 7, 7]]), np.array([[[1, 2, 4, 9]]]), pixel_size_um=(0.5, 0.5))
    >>> print(table.select([0]).to_csv().replace(",", " "))  # doctest: +NORMALIZE_WHITESPACE
    label centroid_y centroid_x bbox_top bbox_left bbox_bottom bbox_right area equivalent_diameter eccentricity
    touches_edge mean_channel_1 min_channel_1 max_channel_1 centroid_y_um centroid_x_um area_um2 equivalent_diameter_um
    7 0 2 0 1 1 4 3 1.9544100476116797 1 true 5 2 9 0 1 0.75 0.9772050238058398
    """
    check_arrays(labels_yx, image_cyx, class_yx)
    chosen = choose_measurements([measure] if isinstance(measure, str) else measure)
    if pixel_size_um is not None and not all(0 < size < np.inf for size in pixel_size_um):
        raise ValueError(f"a pixel size must be above 0 and finite, got {pixel_size_um}")
    runs = find_runs(labels_yx, class_yx)
    height, width = labels_yx.shape
    moments = measure_moments(runs, height, width, origin_yx)
    channels = [] if image_cyx is None else list(zip(name_channels(channel_names, len(image_cyx)), image_cyx))
    columns: dict[str, Array] = {"label": runs.ids}
    if class_yx is not None:
        columns["class"] = _classes(runs, class_yx, class_names)
    columns |= describe_basic_shapes(moments, runs.areas, *(size_yx or labels_yx.shape))
    if foreground_yx is not None:
        confidences = compute_confidence(runs, labels_yx, foreground_yx)
    if confidences is not None:
        if confidences.shape != runs.ids.shape:
            raise ValueError(f"expected one confidence for each of {runs.ids.size} objects, got {confidences.shape}")
        columns["confidence"] = confidences
    for name, plane_yx in channels:
        columns |= describe_basic_intensities(runs, plane_yx, name)
    if pixel_size_um is not None:
        y, x = pixel_size_um
        columns |= {"centroid_y_um": columns["centroid_y"] * y, "centroid_x_um": columns["centroid_x"] * x}
        columns["area_um2"] = columns["area"] * (y * x)
        columns["equivalent_diameter_um"] = np.sqrt(4 / np.pi * columns["area_um2"])
    if chosen:
        columns |= _describe_more(runs, moments, labels_yx, channels, pixel_size_um, chosen)
    return ObjectTable(columns)


def find_context(measure: Sequence[str]) -> int:
    """Return how many pixels around an object its measurements depend on, except distances to its neighbours.

    Parameters
    ----------
    measure
        As for `measure_objects`.

    Examples
    --------
    >>> find_context(["basic"]), find_context(["background"])
    (2, 21)
    """
    return 2 * RING[1] + 1 if "background" in choose_measurements(measure) else _RIM


def _describe_more(
    runs: Runs,
    moments: ObjectMoments,
    labels_yx: Array,
    channels: Sequence[tuple[str, Array]],
    pixel_size_um: PixelSize,
    chosen: frozenset[str],
) -> dict[str, Array]:
    """Return the columns beyond the basic ones: shapes, neighbours, intensities, and lengths in micrometres."""
    objects_yx, count = runs.draw(*labels_yx.shape), runs.ids.size
    columns, scaled = describe_shapes(runs, moments, objects_yx, pixel_size_um, chosen)
    near = ColumnNeighbours.find(objects_yx) if chosen & {"neighbours", "background"} else None
    if near is not None and "neighbours" in chosen:
        columns |= {"touching_objects": count_touching(objects_yx, count), **_describe_gaps(near, moments, (1, 1))}
        if pixel_size_um is not None:
            scaled |= add_unit(_describe_gaps(near, moments, pixel_size_um))
    if channels and chosen & {"std", "median", "integrated", "background"}:
        pixels = group_pixels(objects_yx.reshape(-1), count)
        rings = None
        if near is not None and "background" in chosen:
            rings = group_pixels(near.find_rings().reshape(-1), count)
        for name, plane_yx in channels:
            columns |= describe_intensities(plane_yx, name, pixels, rings, chosen)
    return columns | scaled


def _describe_gaps(near: ColumnNeighbours, moments: ObjectMoments, pixel_size: tuple[float, float]) -> dict[str, Array]:
    y, x = pixel_size
    return {
        "nearest_centroid_distance": find_nearest_centroids(moments.y * y, moments.x * x),
        "nearest_edge_distance": near.measure_gaps(moments.y.size, float(y), float(x)),
    }


def _classes(runs: Runs, class_yx: Array, names: Sequence[str]) -> Array:
    classes = class_yx[np.unravel_index(runs.starts, class_yx.shape)].astype(np.int64)
    voting = runs.inside & (classes > 0)
    values, index = np.unique(classes[voting], return_inverse=True)
    if names and values.size and values[-1] >= len(names):
        raise ValueError(f"objects have the class {values[-1]}, but the last one named is {len(names) - 1}")
    values = np.append(values, 0)  # chosen where no other class has a vote
    votes = np.zeros((runs.ids.size, values.size), np.int64)
    np.add.at(votes, (runs.objects[voting], index), runs.lengths[voting])
    votes[~votes.any(axis=1), -1] = 1
    winners: Array = values[votes.argmax(axis=1)]
    return np.asarray(names, np.str_)[winners] if names else winners
