"""The interface that every engine implements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """A net that is ready to run: normalised images in, logits out.

    Images and logits are NumPy arrays in the memory of the CPU, wherever the net runs. Only one thread may use an
    engine at a time.
    """

    def __call__(self, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the logits of one image.

        Parameters
        ----------
        image_cyx
            Normalised image ``(C, Y, X)``, float32. It is not changed.

        Returns
        -------
        ndarray
            Logits ``(K, Y, X)``, float32, in memory of their own. Y and X are the image's; those of a valid net are
            smaller by its margin on each side.

        Raises
        ------
        ResourceError
            The memory does not hold an image of this size.
        """
        ...

    def run_many(self, images: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each image, in the order of the images.

        An engine may read several images before it yields the first logits, and compute several images at once.
        Parameters, results and errors are those of a call.
        """
        ...


class SingleImageEngine:
    """An engine that computes one image after the other with a function.

    Parameters
    ----------
    compute
        Function from a normalised image ``(C, Y, X)`` to its logits ``(K, Y, X)``, both float32.

    Examples
    --------
    >>> double = SingleImageEngine(lambda image_cyx: 2 * image_cyx)
    >>> [logits_kyx.max() for logits_kyx in double.run_many([np.ones((1, 2, 2), np.float32)])]
    [np.float32(2.0)]
    """

    def __init__(self, compute: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self._compute = compute

    def __call__(self, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the logits of one image; see `Engine`."""
        return self._compute(image_cyx)

    def run_many(self, images: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each image; see `Engine`."""
        return map(self._compute, images)
