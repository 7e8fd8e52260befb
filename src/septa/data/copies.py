"""Which images of a dataset are copies of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from septa.data.fingerprint import ImageFacts

Array = npt.NDArray[Any]

# Measured at this scale on ISBI 2012 (EM), GlaS (H&E) and DSB 2018 (nuclei): unlike images correlate up to 0.30 and
# neighbouring serial sections up to 0.58 in the best of 8 symmetries; copies that were halved, blurred, re-encoded as
# JPEG at quality 15, noised (15 of 255 grey values) or shifted by 2 pixels stay above 0.92.
SIMILAR = 0.9
# A turned or flipped file differs from its original by rounding only (0.99), whereas 7 more chances to look alike
# would be given to images that hold one or two round objects.
SIMILAR_TURNED = 0.97

_DETAIL_SIGMA = 2.0
_COMMON_IMAGES = 10
_COMMON_SHARE = 0.2
_ROUNDING = 0.02
_CORRELATION_BLOCK = 1024
_ASPECT_TOLERANCE = 0.05


def find_near_duplicates(facts: Sequence[ImageFacts]) -> list[list[str]]:
    """Find the sets of images that are copies of each other, also flipped, turned, rescaled or re-encoded.

    Images are compared by the correlation of the details of their 32 x 32 thumbs in the 8 symmetries of the square;
    identical pixels always count. Constant images never do: they are alike without being copies. Memory grows with
    the number of images, not with its square.

    Parameters
    ----------
    facts
        Facts of images with unique names.

    Returns
    -------
    list of list of str
        Sets of two and more names, sorted.
    """
    facts = [item for item in facts if not item.constant]
    if not facts:
        return []
    first: dict[str, int] = {}
    identical = [(first.setdefault(item.image_digest, index), index) for index, item in enumerate(facts)]
    sets: dict[int, list[str]] = {}
    for index, label in enumerate(_components(np.concatenate([identical, *_correlated(facts)]), len(facts))):
        sets.setdefault(label, []).append(facts[index].name)
    return sorted(sorted(names) for names in sets.values() if len(names) > 1)


def _details(facts: Sequence[ImageFacts]) -> npt.NDArray[np.float32]:
    """What tells the images from each other, N x 32 x 32, each of norm 1 (or 0).

    Uneven illumination alone lets unlike images correlate by more than 0.99, so the coarsest scales are dropped, and
    so is a pattern that most images share (the rim of a well, a fixed scene), which shows as a strong mean.
    """
    details = np.stack([item.thumb for item in facts])
    for thumb in details:
        thumb -= cv2.GaussianBlur(thumb, (0, 0), _DETAIL_SIGMA, borderType=cv2.BORDER_REFLECT)
    details = _unit(details)
    common = details.mean(axis=0)
    if len(facts) < _COMMON_IMAGES or float((common**2).sum()) < _COMMON_SHARE:
        return details
    distinct = details - common
    # An image that is nothing but the shared pattern is compared by it: what is left of it is rounding noise.
    bare = np.linalg.norm(distinct, axis=(1, 2), keepdims=True) < _ROUNDING
    return np.where(bare, details, _unit(distinct))


def _unit(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(images, axis=(1, 2), keepdims=True)
    return np.asarray(images / np.maximum(norms, 1e-6), np.float32)


def _correlated(facts: Sequence[ImageFacts]) -> Iterator[Array]:
    """Index pairs, N x 2, that join the images whose details correlate enough in one of the 8 symmetries."""
    details = _details(facts)
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
                        yield _spanning(similar, top, left)


def _spanning(similar: npt.NDArray[np.bool_], top: int, left: int) -> Array:
    """Few index pairs, N x 2, that join what the true entries join: all would be too many if all images are alike."""
    nodes, ends = np.unique(np.argwhere(similar) + np.array((top, left)), return_inverse=True)
    labels = _components(ends.reshape(-1, 2), nodes.size)
    _, first, members = np.unique(labels, return_index=True, return_inverse=True)
    return np.stack((nodes[first][members], nodes), axis=1)


def _components(pairs: Array, count: int) -> list[int]:
    """For each of ``count`` nodes the label of its connected component."""
    graph = coo_array((np.ones(len(pairs), np.int32), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels: list[int] = connected_components(graph, directed=False)[1].tolist()
    return labels
