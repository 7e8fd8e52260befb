"""Comparison of labels in bfloat16 with those in float32, on the validation images, after a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from septa.model import BF16, Bf16Difference, Model, decode_as_predicted
from septa.runtime import has_fast_bf16
from septa.training.scoring import SegmentedExample

_MOST_PIXELS = 4_000_000
"""Largest number of pixels that are compared, so that it takes seconds."""


class Bf16Comparison:
    """Comparison of the labels of a model in bfloat16 with those in float32.

    Nothing is compared on a device that is not fast in bfloat16. Ids of objects do not count: an object that both find
    has one id, and an object that only one of them finds differs in all of its pixels. A pixel also differs if its
    object has another class.

    Parameters
    ----------
    model
        Model as it will be used, with its thresholds.
    device
        Name of the device.
    """

    def __init__(self, model: Model, device: str) -> None:
        self._model = model
        self._engine = model.engine(device, BF16) if has_fast_bf16(device) else None
        self._changed = 0
        self._pixels = 0

    def follow(self, images: Iterable[SegmentedExample]) -> Iterator[SegmentedExample]:
        """Yield images unchanged, and compare those that fit into four megapixels, but at least one."""
        for image in images:
            size = image.predicted_yx.size
            if self._engine is not None and (not self._pixels or self._pixels + size <= _MOST_PIXELS):
                self._changed += int(np.count_nonzero(self._compare(image)))
                self._pixels += size
            yield image

    @property
    def difference(self) -> Bf16Difference | None:
        """Number of pixels that differ so far; None if nothing was compared."""
        return Bf16Difference(changed=self._changed, pixels=self._pixels) if self._pixels else None

    def _compare(self, image: SegmentedExample) -> NDArray[np.bool_]:
        """Return the pixels ``YX`` whose labels differ."""
        model, task = self._model, self._model.task
        image_cyx, expected_yx = image.examples[image.index].image_cyx, image.predicted_yx
        if not task.finds_objects:
            return np.asarray(model.segment(image_cyx, engine=self._engine) != expected_yx)
        logits_kyx = model.logits(image_cyx, engine=self._engine)
        labels_yx = decode_as_predicted(model, logits_kyx)
        differs_yx = np.asarray(task.align(expected_yx, labels_yx) != expected_yx)
        class_of_id = task.classify(labels_yx, logits_kyx)
        if image.class_of_id is not None and class_of_id is not None:
            differs_yx |= class_of_id[labels_yx] != image.class_of_id[expected_yx]
        return differs_yx


def describe_difference(difference: Bf16Difference | None) -> tuple[str, ...]:
    """Return a note for the report; none if nothing was compared."""
    if difference is None:
        return ()
    use = "it is" if difference.is_small else "it is not"
    share = f"{100 * difference.share:.2g} % of {difference.pixels} validation pixels"
    return (f"bf16 changes the labels of {share}, so {use} used where a processor is fast in it",)
