"""Detection of images that are copies of each other, or overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from septa.data.fingerprint import ImageFacts
from septa.data.overlaps import find_overlaps

Array = npt.NDArray[Any]

# Measured at this scale on ISBI 2012 (EM), GlaS (H&E) and DSB 2018 (nuclei): different images correlate up to 0.30,
# and neighbouring serial sections up to 0.58, in the best of 8 symmetries. Copies that were reduced to half size,
# blurred, re-encoded as JPEG at quality 15, made noisy (15 of 255 grey values) or shifted by 2 pixels stay above 0.92.
SIMILAR = 0.9
"""Correlation above which images are copies."""

# A rotated or flipped file differs from its original by rounding only (0.99). The higher threshold makes up for the 7
# additional comparisons, in which images of one or two round objects may look alike by chance.
SIMILAR_TURNED = 0.97
"""Correlation above which images are copies after a rotation or flip."""

_DETAIL_SIGMA = 2.0
_CORRELATION_BLOCK = 1024

# Largest difference between the logarithms of two aspect ratios.
_ASPECT_TOLERANCE = 0.05

# A pattern counts as common from this number of images, if its squared norm is at least this share of theirs.
_COMMON_IMAGES = 10
_COMMON_SHARE = 0.2

# Norm below which details are rounding noise.
_ROUNDING = 0.02


def find_near_duplicates(facts: Sequence[ImageFacts]) -> list[list[str]]:
    """Find sets of images that show the same objects: copies that may be changed, and parts of one field that overlap.

    Images are compared by the correlation of the details of their 32 x 32 thumbs in the 8 symmetries of the square,
    and by their sketches; see `find_overlaps`. Images with identical pixels are always copies, constant images never:
    they are alike without being copies. Memory grows with the number of images, not with its square.

    Parameters
    ----------
    facts
        Facts of images with unique names.

    Returns
    -------
    list of list of str
        Sets of at least two names; names and sets are sorted.
    """
    facts = [item for item in facts if not item.constant]
    if not facts:
        return []
    first: dict[str, int] = {}
    identical = [(first.setdefault(item.image_digest, index), index) for index, item in enumerate(facts)]
    copies = np.concatenate([identical, *_find_correlated(facts)])
    # One image of each set of copies is enough to find what overlaps with them.
    chosen = np.unique(_label_graph(copies, len(facts)), return_index=True)[1]
    overlaps = np.array(find_overlaps([facts[index].sketch for index in chosen]), int).reshape(-1, 2)
    sets: dict[int, list[str]] = {}
    for index, label in enumerate(_label_graph(np.concatenate([copies, chosen[overlaps]]), len(facts))):
        sets.setdefault(label, []).append(facts[index].name)
    return sorted(sorted(names) for names in sets.values() if len(names) > 1)


def _extract_details(facts: Sequence[ImageFacts]) -> npt.NDArray[np.float32]:
    """Extract the details that distinguish the images, N x 32 x 32, each with norm 1 (or 0).

    The coarsest scales are removed: uneven illumination alone makes different images correlate by more than 0.99. A
    pattern that most images share, such as the rim of a well, shows as a strong mean and is removed too.
    """
    details = np.stack([item.thumb for item in facts])
    for thumb in details:
        thumb -= cv2.GaussianBlur(thumb, (0, 0), _DETAIL_SIGMA, borderType=cv2.BORDER_REFLECT)
    details = _normalise(details)
    common = details.mean(axis=0)
    if len(facts) < _COMMON_IMAGES or float((common**2).sum()) < _COMMON_SHARE:
        return details
    distinct = details - common
    # An image that consists of the shared pattern alone is compared by it: the remaining details are rounding noise.
    bare = np.linalg.norm(distinct, axis=(1, 2), keepdims=True) < _ROUNDING
    return np.where(bare, details, _normalise(distinct))


def _normalise(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(images, axis=(1, 2), keepdims=True)
    return np.asarray(images / np.maximum(norms, 1e-6), np.float32)


def _find_correlated(facts: Sequence[ImageFacts]) -> Iterator[Array]:
    """Yield index pairs, N x 2, that connect the images whose details correlate in one of the 8 symmetries."""
    details = _extract_details(facts)
    shapes = np.array([(item.height, item.width) for item in facts], np.float64)
    aspects = np.log(shapes[:, 0] / shapes[:, 1])
    for top in range(0, len(facts), _CORRELATION_BLOCK):
        rows = details[top : top + _CORRELATION_BLOCK]
        for turns in range(4):
            row_aspects = aspects[top : top + len(rows)] * (-1 if turns % 2 else 1)
            for flipped in (False, True):
                least = SIMILAR_TURNED if turns or flipped else SIMILAR
                turned = np.rot90(rows, turns, axes=(1, 2))
                turned = (turned[:, :, ::-1] if flipped else turned).reshape(len(rows), -1)
                for left in range(top, len(facts), _CORRELATION_BLOCK):
                    columns = slice(left, left + _CORRELATION_BLOCK)
                    similar = turned @ details[columns].reshape(-1, turned.shape[1]).T > least
                    similar &= np.abs(row_aspects[:, None] - aspects[None, columns]) < _ASPECT_TOLERANCE
                    if similar.any():
                        yield _reduce_edges(similar, top, left)


def _reduce_edges(similar: npt.NDArray[np.bool_], top: int, left: int) -> Array:
    """Return few index pairs, N x 2, with the connected components of the true entries.

    All true entries would be too many if all images are alike.
    """
    nodes, ends = np.unique(np.argwhere(similar) + np.array((top, left)), return_inverse=True)
    labels = _label_graph(ends.reshape(-1, 2), nodes.size)
    _, first, members = np.unique(labels, return_index=True, return_inverse=True)
    return np.stack((nodes[first][members], nodes), axis=1)


def _label_graph(pairs: Array, count: int) -> list[int]:
    """Return the label of the connected component of each of ``count`` nodes."""
    graph = coo_array((np.ones(len(pairs), np.int32), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels: list[int] = connected_components(graph, directed=False)[1].tolist()
    return labels
