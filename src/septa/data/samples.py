"""Training samples: patches in random order, cut, augmented, normalised and prepared ahead of their use.

All randomness is a function of (seed, epoch, place in the epoch). The state of the whole loader is therefore the
number of the next sample, and a training that resumes from there sees the same samples as an uninterrupted one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
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
from septa.labels import LabelMapping, ObjectLabels, choose_reduction, find_typical_diameter
from septa.recipe import IGNORE, Recipe, SamplingSettings

_SPOTS = 4096
"""Largest number of spots that are kept for one class."""

# Each use of random numbers has its own stream, so that no numbers are used twice.
_SHUFFLE = 0
_PATCH = 1
_SPOT = 2


@dataclass
class Example:
    """One decoded image with its labels.

    Attributes
    ----------
    image_cyx
        Image ``CYX`` with the net's channels, in raw units.
    labels_yx
        Encoded labels or object ids, int32 ``YX``.
    spots
        For each class that occurs, flat indices of some of its pixels, evenly drawn.
    class_of_id
        Class of each object, as in `septa.labels.ObjectLabels`; None if labels are not objects, or objects have no
        classes.
    constants
        Normalisation rule and its constants for this image; None until they are needed.
    encoded
        Key that target and weight map of the whole image follow from, and both; None until a validation needs them.
    """

    image_cyx: NDArray[Any]
    labels_yx: NDArray[np.int32]
    spots: tuple[NDArray[np.int64], ...]
    class_of_id: NDArray[np.int32] | None = None
    constants: tuple[Normalization, Normalization] | None = None
    encoded: tuple[object, NDArray[Any], NDArray[np.float32] | None] | None = None

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        table = 0 if self.class_of_id is None else self.class_of_id.nbytes
        return self.image_cyx.nbytes + self.labels_yx.nbytes + table + sum(spots.nbytes for spots in self.spots)


@dataclass
class Examples:
    """Examples of a dataset by index, decoded at first use and kept in memory as far as there is room.

    Threads may share it. The least recently used example is dropped first and decoded again when it is needed.

    Attributes
    ----------
    pairs
        Pairs of the dataset.
    labels
        Meaning of the label values.
    channels
        Number of channels of the net's input.
    memory
        Largest size of the kept examples together, bytes.
    objects
        True if labels become object ids instead of classes.
    resize
        Height and width in pixels that all examples are resized to; None keeps their own size.
    largest
        Typical diameter of objects from which an example is reduced; see `septa.labels.choose_reduction`. None keeps
        its size.
    """

    pairs: Sequence[Pair]
    labels: LabelMapping
    _: KW_ONLY
    channels: int
    memory: int
    objects: bool = False
    resize: tuple[int, int] | None = None
    largest: float | None = None
    _kept: OrderedDict[int, Example] = field(default_factory=OrderedDict)
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: everything but the kept examples and the lock."""
        return self.__dict__ | {"_kept": OrderedDict(), "_used": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the examples in another process, with a lock of its own."""
        self.__dict__.update(state | {"_lock": threading.Lock()})

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        """Return an example, decoded if it is not in memory.

        Raises
        ------
        InputError
            If a file cannot be read, or image and labels do not fit each other or the net.
        """
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
        image_cyx = read_pair_image(pair, self.channels)
        labels_yx, class_of_id = self._read_labels(pair)
        if image_cyx.shape[1:] != labels_yx.shape:
            sizes = "{} x {} pixels and its labels have {} x {}".format(*image_cyx.shape[1:], *labels_yx.shape)
            raise InputError(pair.image_location, f"the image has {sizes}", "Label the image at its own size")
        try:
            image_cyx = fit_channels(image_cyx, self.channels)
        except ValueError:
            problem = f"the image has {image_cyx.shape[0]} channels and the net takes {self.channels}"
            raise InputError(pair.image_location, problem, "Give images of the same channels") from None
        size = self._choose_size(labels_yx)
        if size != labels_yx.shape:
            image_cyx, labels_yx = resize_image(image_cyx, size), resize_labels(labels_yx, size)
        class_yx = ObjectLabels(labels_yx, class_of_id).class_yx if self.objects else labels_yx
        spots = _draw_spots(class_yx, self.labels.classes, self.labels.kind == "multilabel")
        return Example(image_cyx, labels_yx, spots, class_of_id)

    def _choose_size(self, labels_yx: NDArray[np.int32]) -> tuple[int, int]:
        height, width = labels_yx.shape
        if self.largest is None or not self.objects:
            return self.resize or (height, width)
        diameter = find_typical_diameter(np.unique(labels_yx[labels_yx > 0], return_counts=True)[1])
        reduction = 1 if diameter is None else choose_reduction(diameter, self.largest)
        return -(-height // reduction), -(-width // reduction)

    def _read_labels(self, pair: Pair) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
        raw = read_pair_labels(pair)
        if not self.objects:
            return self.labels.encode(raw, pair.labels_location), None
        objects = self.labels.encode_objects(raw, pair.labels_location)
        return objects.ids_yx, objects.class_of_id


def _draw_spots(labels_yx: NDArray[np.int32], classes: int, multilabel: bool) -> tuple[NDArray[np.int64], ...]:
    """Return flat indices of at most `_SPOTS` pixels for each class that occurs."""
    rng = np.random.default_rng([_SPOT, labels_yx.size])
    flat = labels_yx.ravel()
    found = []
    for index in range(classes):
        here = np.flatnonzero((flat >> index) & 1 & (flat != IGNORE)) if multilabel else np.flatnonzero(flat == index)
        if here.size:
            found.append(here if here.size <= _SPOTS else here[rng.integers(0, here.size, _SPOTS)])
    return tuple(found)


class Sample(NamedTuple):
    """One training sample.

    Attributes
    ----------
    image_cyx
        Augmented, normalised patch ``CYX``, float32.
    target_yx
        Target ``YX``, int32 or float32; ``2YX`` if objects have classes.
    weights_yx
        Weight map ``YX``, float32; None if there is none.
    name
        Name of the image.
    """

    image_cyx: NDArray[np.float32]
    target_yx: NDArray[Any]
    weights_yx: NDArray[np.float32] | None
    name: str


@dataclass(frozen=True)
class Batch:
    """Samples in the order in which they were drawn.

    Attributes
    ----------
    image_bcyx
        Images ``BCYX``, float32.
    target_byx
        Targets ``BYX``, int32 or float32; ``B2YX`` if objects have classes.
    weights_byx
        Weight maps ``BYX``, float32; None if there are none.
    names
        Names of the images.
    """

    image_bcyx: NDArray[np.float32]
    target_byx: NDArray[Any]
    weights_byx: NDArray[np.float32] | None
    names: tuple[str, ...]


class Encode(Protocol):
    """Function from the labels of a patch to its target and weight map, as `septa.tasks.Task.encode` is."""

    def __call__(
        self, labels_yx: NDArray[np.int32], *, class_of_id: NDArray[np.int32] | None
    ) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        """Compute target and weight map; ``class_of_id`` is that of the `Example`."""


def use_labels_as_target(
    labels_yx: NDArray[np.int32], *, class_of_id: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], None]:
    """Return the labels as target, without a weight map."""
    return labels_yx, None


@dataclass(frozen=True)
class Sampler:
    """Source of the samples n = 0, 1, 2, ... of a training.

    Every image occurs in each epoch as often as ``repeats`` says. Targets and weight maps are derived from the
    labels after augmentation.

    Attributes
    ----------
    examples
        Decoded images with their labels.
    normalization
        Rule that patches are normalised by.
    recipe
        Settings of patches, augmentation and the seed.
    encode
        Function from the labels of a patch to its target and weight map.
    margin
        Pixels that are cut from each side of targets and weight maps, as the output of a valid net lacks them.
    repeats
        Number of samples of each image in an epoch; empty for one of each.
    """

    examples: Examples
    normalization: Normalization
    recipe: Recipe
    _: KW_ONLY
    encode: Encode = use_labels_as_target
    margin: int = 0
    repeats: tuple[int, ...] = ()

    @property
    def epoch(self) -> int:
        """Number of samples in an epoch."""
        return sum(self.repeats) or len(self.examples)

    def image_index(self, number: int) -> int:
        """Return the index of the image that sample ``number`` is cut from."""
        epoch, place = divmod(number, self.epoch)
        drawn = int(_draw_order(self.recipe.seed, epoch, self.epoch)[place])
        return int(np.searchsorted(np.cumsum(self.repeats), drawn, side="right")) if self.repeats else drawn

    def sample(self, number: int) -> Sample:
        """Cut, augment and encode sample ``number``."""
        epoch, place = divmod(number, self.epoch)
        index = self.image_index(number)
        example = self.examples[index]
        rng = np.random.default_rng([self.recipe.seed, _PATCH, epoch, place])
        output = [side - 2 * self.margin for side in self.recipe.sampling.patch]
        center = _draw_center(example, (output[0], output[1]), self.recipe.sampling, rng)
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
        """Stack samples ``number`` to ``number + size - 1``."""
        images, targets, weights, names = zip(*(self.sample(n) for n in range(number, number + size)))
        stacked = None if weights[0] is None else np.stack(weights)
        return Batch(np.stack(images), np.stack(targets), stacked, names)


@lru_cache(maxsize=4)
def _draw_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _SHUFFLE, epoch]).permutation(count)


def _draw_center(
    example: Example, target: tuple[int, int], sampling: SamplingSettings, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the centre of a patch: anywhere in the image, or near a pixel of a class that is drawn uniformly.

    ``sampling.rare_share`` is the probability of the latter. ``target`` is the height and width of the patch's target.
    It may reach beyond the image by ``overhang`` of its size, so that pixels near the edge are seen nearly as often as
    others.
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
    """Loader that prepares batches ahead in threads: the work on arrays releases the interpreter lock.

    Attributes
    ----------
    sampler
        Source of the samples.
    first
        Number of the first sample.
    size
        Number of samples in a batch.
    stride
        Number of samples between the starts of two batches; more than ``size`` if several processes share one
        sequence.
    workers
        Number of threads.
    waited
        Seconds that the consumer of the batches has waited so far.
    """

    sampler: Sampler
    _: KW_ONLY
    first: int
    size: int
    stride: int
    workers: int
    waited: float = 0.0

    def batches(self) -> Generator[Batch, None, None]:
        """Yield batches in order without end; closing the generator ends the threads."""
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
