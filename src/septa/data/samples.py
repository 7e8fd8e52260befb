"""Training samples: which image and which patch comes when, cut, normalised and augmented, prepared ahead of the net.

All randomness is a function of (seed, epoch, place in the epoch). The state of the whole loader is therefore the
number of the next sample, and a training that goes on from there sees what it would have seen.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from septa.data.augment import jitter_patch, warp_patch
from septa.data.folder import read_pair_image, read_pair_labels
from septa.data.pairs import Pair
from septa.errors import InputError
from septa.images import Normalization, fit_channels, resize_image, resize_labels
from septa.labels import LabelMapping, ObjectLabels
from septa.recipe import IGNORE, Recipe, SamplingSettings

_SPOTS = 4096
_SHUFFLE, _PATCH, _SPOT = 0, 1, 2
"""Name spaces of the random streams, so that none is used twice."""


@dataclass
class Example:
    """One image with its labels, decoded: raw ``CYX`` with the net's channels, and encoded labels or object ids, int32
    ``YX``.

    ``spots`` holds for each class that occurs some flat indices of its pixels, evenly drawn. ``class_of_id`` is the
    class of each object, as in `septa.labels.ObjectLabels`; None if labels are no objects, or objects have no classes.
    """

    image_cyx: NDArray[Any]
    labels_yx: NDArray[np.int32]
    spots: tuple[NDArray[np.int64], ...]
    class_of_id: NDArray[np.int32] | None = None
    constants: tuple[Normalization, Normalization] | None = None
    """A rule of normalisation, and its constants for this image, once they were needed."""
    encoded: tuple[object, NDArray[Any], NDArray[np.float32] | None] | None = None
    """What a target and its weight map follow from, and both for the whole image, once a validation needed them."""

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        table = 0 if self.class_of_id is None else self.class_of_id.nbytes
        return self.image_cyx.nbytes + self.labels_yx.nbytes + table + sum(spots.nbytes for spots in self.spots)


@dataclass
class Examples:
    """The examples of a dataset by index, decoded at first use and kept as long as ``memory`` bytes allow.

    Threads may share it. An image that is dropped for lack of room is decoded again when its turn comes. With
    ``objects``, labels are object ids instead of classes. ``resize`` is the height and width that all are brought to.
    """

    pairs: Sequence[Pair]
    labels: LabelMapping
    channels: int
    memory: int
    objects: bool = False
    resize: tuple[int, int] | None = None
    _kept: OrderedDict[int, Example] = field(default_factory=OrderedDict)
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        example = self._read(self.pairs[index])
        with self._lock:
            if index not in self._kept and example.nbytes <= self.memory:
                self._kept[index] = example
                self._used += example.nbytes
                while self._used > self.memory:
                    self._used -= self._kept.popitem(last=False)[1].nbytes
        return example

    def _read(self, pair: Pair) -> Example:
        image_cyx = read_pair_image(pair)
        labels_yx, class_of_id = self._read_labels(pair)
        if image_cyx.shape[1:] != labels_yx.shape:
            sizes = "{} x {} pixels, its labels {} x {}".format(*image_cyx.shape[1:], *labels_yx.shape)
            raise InputError(pair.image, f"has {sizes}", "label the image at its own size")
        try:
            image_cyx = fit_channels(image_cyx, self.channels)
        except ValueError:
            has = f"has {image_cyx.shape[0]} channels, the others {self.channels}"
            raise InputError(pair.image, has, "give images of one kind") from None
        if self.resize is not None:
            image_cyx, labels_yx = resize_image(image_cyx, self.resize), resize_labels(labels_yx, self.resize)
        class_yx = ObjectLabels(labels_yx, class_of_id).class_yx if self.objects else labels_yx
        spots = _spots(class_yx, self.labels.classes, self.labels.kind == "multilabel")
        return Example(image_cyx, labels_yx, spots, class_of_id)

    def _read_labels(self, pair: Pair) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
        raw = read_pair_labels(pair)
        if not self.objects:
            return self.labels.encode(raw, pair.name), None
        objects = self.labels.objects(raw, pair.name)
        return objects.ids_yx, objects.class_of_id


def _spots(labels_yx: NDArray[np.int32], classes: int, multilabel: bool) -> tuple[NDArray[np.int64], ...]:
    rng = np.random.default_rng([_SPOT, labels_yx.size])
    flat = labels_yx.ravel()
    found = []
    for index in range(classes):
        here = np.flatnonzero((flat >> index) & 1 & (flat != IGNORE)) if multilabel else np.flatnonzero(flat == index)
        if here.size:
            found.append(here if here.size <= _SPOTS else here[rng.integers(0, here.size, _SPOTS)])
    return tuple(found)


class Sample(NamedTuple):
    """Normalised, augmented patch ``CYX`` float32, its target ``YX`` (int32 or float32; ``2YX`` where objects have
    classes), its weight map ``YX`` float32 if it has one, and the name of its image.
    """

    image_cyx: NDArray[np.float32]
    target_yx: NDArray[Any]
    weights_yx: NDArray[np.float32] | None
    name: str


@dataclass(frozen=True)
class Batch:
    """Samples in the order drawn: images ``BCYX`` float32, targets ``BYX`` (int32 or float32), weight maps ``BYX``
    float32 if there are any, and the names of their images.
    """

    image_bcyx: NDArray[np.float32]
    target_byx: NDArray[Any]
    weights_byx: NDArray[np.float32] | None
    names: tuple[str, ...]


class Encode(Protocol):
    """A function from the labels of a patch to its target and weight map, as `septa.tasks.Task.encode` is."""

    def __call__(
        self, labels_yx: NDArray[np.int32], *, class_of_id: NDArray[np.int32] | None
    ) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        """Compute both; ``class_of_id`` is that of the `Example`."""


def use_labels_as_target(
    labels_yx: NDArray[np.int32], *, class_of_id: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], None]:
    """Return the labels as target, and no weight map."""
    return labels_yx, None


@dataclass(frozen=True)
class Sampler:
    """Draws sample number n = 0, 1, 2, ... of a training; every image comes once in each epoch of ``len(examples)``.

    Targets and weight maps are derived from labels after augmentation, and lack ``margin`` pixels on each side, as the
    output of a valid net does.
    """

    examples: Examples
    normalization: Normalization
    recipe: Recipe
    encode: Encode = use_labels_as_target
    margin: int = 0

    def image_index(self, number: int) -> int:
        """Which image sample ``number`` is cut from."""
        epoch, place = divmod(number, len(self.examples))
        return int(_order(self.recipe.seed, epoch, len(self.examples))[place])

    def sample(self, number: int) -> Sample:
        """Cut, augment and encode sample ``number``."""
        epoch, place = divmod(number, len(self.examples))
        index = self.image_index(number)
        example = self.examples[index]
        rng = np.random.default_rng([self.recipe.seed, _PATCH, epoch, place])
        output = [side - 2 * self.margin for side in self.recipe.sampling.patch]
        center = _center(example, (output[0], output[1]), self.recipe.sampling, rng)
        augment = self.recipe.augment
        patch, labels_yx = warp_patch(
            example.image_cyx, example.labels_yx, center, self.recipe.sampling.patch, augment, rng
        )
        if example.constants is None or example.constants[0] != self.normalization:
            example.constants = self.normalization, self.normalization.resolve(example.image_cyx)
        patch = jitter_patch(example.constants[1].apply(patch), augment, rng)
        target_yx, weights_yx = self.encode(labels_yx, class_of_id=example.class_of_id)
        rows, columns = (slice(self.margin, size - self.margin) for size in labels_yx.shape)
        weights_yx = None if weights_yx is None else weights_yx[rows, columns]
        return Sample(patch, target_yx[..., rows, columns], weights_yx, self.examples.pairs[index].name)

    def batch(self, number: int, size: int) -> Batch:
        """Samples ``number`` to ``number + size - 1``."""
        images, targets, weights, names = zip(*(self.sample(n) for n in range(number, number + size)))
        stacked = None if weights[0] is None else np.stack(weights)
        return Batch(np.stack(images), np.stack(targets), stacked, names)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _SHUFFLE, epoch]).permutation(count)


def _center(
    example: Example, target: tuple[int, int], sampling: SamplingSettings, rng: np.random.Generator
) -> tuple[int, int]:
    """Centre of a patch: anywhere in the image, or, with chance ``rare_share``, on a pixel of a class drawn uniformly.

    ``target`` is the height and width of what is learned of the patch. It may reach ``overhang`` of its size beyond
    the image, so that pixels near the edge are seen nearly as often as others.
    """
    size = example.labels_yx.shape
    anywhere = []
    for length, side in zip(size, target):
        beyond = int(side * sampling.overhang)
        first, last = side // 2 - beyond, length - side + side // 2 + max(beyond, 1)
        low, high = min(first, length // 2), max(last, length // 2 + 1)
        anywhere.append(int(rng.integers(low, high)))
    if rng.random() >= sampling.rare_share or not example.spots:
        return anywhere[0], anywhere[1]
    spots = example.spots[int(rng.integers(len(example.spots)))]
    y, x = divmod(int(spots[int(rng.integers(spots.size))]), size[1])
    shift = [int(rng.integers(-(side // 4), side // 4 + 1)) for side in target]
    return y + shift[0], x + shift[1]


@dataclass
class Loader:
    """Batches in order, prepared ahead by ``workers`` threads (the array work releases the interpreter lock).

    ``first`` is the number of the first sample; each batch takes ``size`` samples, and ``stride`` samples lie between
    the starts of two batches (more than ``size`` where several processes share one sequence). ``waited`` sums the
    seconds for which the reader of the batches had to wait.
    """

    sampler: Sampler
    first: int
    size: int
    stride: int
    workers: int
    waited: float = 0.0

    def batches(self) -> Generator[Batch, None, None]:
        """Endless; closing the generator ends the threads."""
        numbers = count(self.first, self.stride)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="septa-loader")
        try:
            ahead: deque[Future[Batch]] = deque()
            for _ in range(2 * self.workers):
                ahead.append(pool.submit(self.sampler.batch, next(numbers), self.size))
            while True:
                start = time.perf_counter()
                batch = ahead.popleft().result()
                self.waited += time.perf_counter() - start
                ahead.append(pool.submit(self.sampler.batch, next(numbers), self.size))
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
