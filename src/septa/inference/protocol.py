"""The interface that every engine implements, and the sizes of a net that engines and tiles depend on."""

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


Float32 = NDArray[np.float32]


class SingleImageEngine:
    """An engine that computes one image after the other with a function.

    Parameters
    ----------
    compute
        Function from a normalised image ``(C, Y, X)`` to its logits ``(K, Y, X)``, both float32.
    compute_both
        Function that returns the logits, and the statistics of `septa.nets.pool_statistics` ``(C, Y, X)``; None if the
        engine has no access to features.

    Examples
    --------
    >>> double = SingleImageEngine(lambda image_cyx: 2 * image_cyx)
    >>> [logits_kyx.max() for logits_kyx in double.run_many([np.ones((1, 2, 2), np.float32)])]
    [np.float32(2.0)]
    """

    def __init__(
        self,
        compute: Callable[[Float32], Float32],
        compute_both: Callable[[Float32], tuple[Float32, Float32]] | None = None,
    ) -> None:
        self._compute = compute
        self._compute_both = compute_both

    def __call__(self, image_cyx: Float32) -> Float32:
        """Compute the logits of one image; see `Engine`."""
        return self._compute(image_cyx)

    def run_many(self, images: Iterable[Float32]) -> Iterator[Float32]:
        """Yield the logits of each image; see `Engine`."""
        return map(self._compute, images)

    def run_with_statistics(self, images: Iterable[Float32]) -> Iterator[tuple[Float32, Float32 | None]]:
        """Yield logits and statistics of each image; see `run_with_statistics`."""
        if self._compute_both is None:
            return ((logits_kyx, None) for logits_kyx in self.run_many(images))
        return map(self._compute_both, images)


def run_with_statistics(engine: Engine, images: Iterable[Float32]) -> Iterator[tuple[Float32, Float32 | None]]:
    """Yield the logits of each image, and the statistics of its features from the same pass.

    Parameters
    ----------
    engine
        Engine that runs the net.
    images
        Normalised images ``(C, Y, X)``, float32.

    Yields
    ------
    logits_kyx
        As for `Engine.run_many`.
    statistics_cyx
        As of `septa.nets.pool_statistics`; None if the engine has no access to features.
    """
    run = getattr(engine, "run_with_statistics", None)
    if run is None:
        return ((logits_kyx, None) for logits_kyx in engine.run_many(images))
    results: Iterator[tuple[Float32, Float32 | None]] = run(images)
    return results


class NetGeometry(Protocol):
    """Sizes of a net, in pixels of the image; `septa.nets.UNet` has them all."""

    @property
    def in_channels(self) -> int:
        """Number of channels of the image."""
        ...

    @property
    def multiple(self) -> int:
        """Period of the net: a shift of the image by a multiple of it shifts the logits by as much."""
        ...

    @property
    def margin(self) -> int:
        """Pixels on each side by which the logits of a valid net are smaller than the image; 0 for a padded net."""
        ...

    @property
    def halo(self) -> int:
        """Context that a core needs on each side; the margin for a valid net."""
        ...

    @property
    def steady_side(self) -> int:
        """Side of a window from which PyTorch's choice of CPU kernels does not depend on its size."""
        ...

    @property
    def bytes_per_pixel(self) -> int:
        """Memory of a forward pass, bytes per pixel of the image."""
        ...

    def valid_size(self, size: int) -> int:
        """Return the side nearest to ``size`` that the net accepts."""
        ...

    def input_size(self, size: int) -> int:
        """Return the smallest side of an image whose logits have a side of at least ``size``."""
        ...

    def output_size(self, size: int) -> int:
        """Return the side of the logits of an image with side ``size``; ValueError if the net does not accept it."""
        ...

    def pad_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to which the net pads an image."""
        ...
