"""The instances task: objects that are kept apart, each with an id of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from septa import recipe
from septa.labels import LabelMapping, ObjectLabels
from septa.recipe import IGNORE
from septa.tasks import losses
from septa.tasks.block_objects import BlockLabels, find_block_objects
from septa.tasks.border_weights import cut_seams
from septa.tasks.decoding import Decoding, find_objects
from septa.tasks.semantic import Semantic
from septa.tasks.tuning import Curve, tune_decoding
from septa.tasks.watershed import Sides

Encoding = Literal["seam", "border", "distance"]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

_NO_EDGE = np.float32(1e12)
"""Distance to the edge of an object that fills the image, pixels: longer than any. OpenCV gives a larger number there
that differs in its last bit from pixel to pixel.
"""


@dataclass(frozen=True)
class Instances:
    """Labels are object ids. What the net learns of them is the encoding; objects are found again by a watershed.

    ``seam``: background and foreground with a seam of background, one pixel wide, between touching objects, as in the
    U-Net paper, whose border weight map makes it count. ``border``: background, the inside of objects, and their rim.
    ``distance``: foreground, and how far inside its object a pixel lies, 1 at the innermost one.

    Parameters
    ----------
    encoding
        One of these.
    sigmoid
        Whether the net has one output in place of two, for ``seam``.
    rim
        Width of the rim of ``border``, pixels.
    decoding
        Thresholds by which objects are found.
    object_classes
        Number of classes K that objects are told apart by. Above 1, the net has K outputs more, the logits of a softmax
        that is learned inside objects only, and an object has the class of the largest sum of probabilities over its
        pixels.

    Raises
    ------
    ValueError
        ``sigmoid`` with an encoding that has other outputs.

    Examples
    --------
    >>> target_yx, weights_yx = Instances().encode(np.array([[7, 7, 9, 9]], np.int32), recipe.LossSettings())
    >>> target_yx
    array([[1, 0, 1, 1]], dtype=int32)
    """

    encoding: Encoding = "seam"
    sigmoid: bool = False
    rim: int = 2
    decoding: Decoding = field(default_factory=Decoding)
    object_classes: int = 1

    tilewise = False
    finds_objects = True
    multilabel = False
    classes = 2
    has_thresholds = True
    block_bytes_per_pixel = 72
    """Maps, seeds, queues, labels and regions of background."""

    def __post_init__(self) -> None:
        if self.sigmoid and self.encoding != "seam":
            raise ValueError(f"net.output=sigmoid goes with instances.encoding=seam, not with {self.encoding}")

    @classmethod
    def from_recipe(cls, recipe: recipe.Recipe, labels: LabelMapping, decoding: Decoding) -> Instances:
        """Make the task of a recipe. ValueError as for the class, and for labels from which objects cannot be told."""
        if (labels.kind != "instances" and labels.classes != 2) or labels.kind == "multilabel":
            raise ValueError(f"task=instances takes objects of one class, and the labels have {labels.classes}")
        return cls(
            encoding=recipe.instances.encoding,
            sigmoid=recipe.net.output == "sigmoid",
            rim=recipe.instances.rim,
            decoding=decoding,
            object_classes=labels.object_classes,
        )

    @property
    def block_margin(self) -> int:
        """Pixels around a block within which its objects are nearly always certain."""
        return max(32, self.decoding.reach + 16)

    @property
    def pixels(self) -> Semantic:
        """What the net learns, where that is classes of pixels."""
        return Semantic(3 if self.encoding == "border" else 2, sigmoid=self.sigmoid)

    @property
    def outputs(self) -> int:
        """Channels that the net puts out."""
        return (2 if self.encoding == "distance" else self.pixels.outputs) + self._more

    @property
    def _more(self) -> int:
        """Outputs that tell classes."""
        return self.object_classes if self.object_classes > 1 else 0

    @property
    def _kinds(self) -> Semantic:
        return Semantic(self.object_classes)

    def encode(
        self,
        labels_yx: Int32,
        terms: recipe.LossSettings,
        class_weights_k: Float32 | None = None,
        *,
        class_of_id: Int32 | None = None,
    ) -> tuple[NDArray[Any], Float32 | None]:
        """Object ids of a patch to what the net is trained on.

        Parameters
        ----------
        labels_yx
            Object ids, int32 YX, after augmentation; `IGNORE` where ignored.
        terms
            Its border weight map is used.
        class_weights_k
            Weights of background and foreground.
        class_of_id
            Class of each object from 1, as in `ObjectLabels`; needed where objects have classes.

        Returns
        -------
        target_yx
            ``seam``: 0 and 1; ``border``: 0, 1 inside, 2 on rims, int32 YX. ``distance``: float32 YX, 0 outside, in
            objects the distance to what is not the object, as a share of its largest. That is exactly 1 at the
            innermost pixels of an object, and everywhere in an object that fills the image. `IGNORE` stays. Where
            objects have classes, ``2YX``: then comes the class of each object from 0, `IGNORE` outside.
        weights_yx
            Weight map, float32 YX, with the class weights in it; None where these say it all.

        Raises
        ------
        ValueError
            Objects have classes, and there is no table of them.
        """
        target_yx, weights_yx = self._encode(labels_yx, terms, class_weights_k)
        if not self._more:
            return target_yx, weights_yx
        if class_of_id is None:
            raise ValueError(f"the objects have no classes, and the task tells {self.object_classes} apart")
        class_yx = ObjectLabels(labels_yx, class_of_id).class_yx
        classes_yx = np.where(class_yx > 0, class_yx - 1, IGNORE)
        return np.stack([target_yx, classes_yx.astype(target_yx.dtype)]), weights_yx

    def _encode(
        self, labels_yx: Int32, terms: recipe.LossSettings, class_weights_k: Float32 | None
    ) -> tuple[NDArray[Any], Float32 | None]:
        ids_yx = cut_seams(labels_yx)
        classes_yx = np.minimum(ids_yx, 1)
        if self.encoding == "seam":
            return classes_yx, self.pixels.weight_map(classes_yx, ids_yx, terms, class_weights_k)
        if self.encoding == "border":  # rims take in the seams
            classes_yx = np.minimum(labels_yx, 1)
        weights_yx = Semantic(2, sigmoid=True).weight_map(classes_yx, ids_yx, terms, class_weights_k)
        objects_yx = (ids_yx > 0).astype(np.uint8)
        inside_yx = np.asarray(cv2.distanceTransform(objects_yx, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
        np.minimum(inside_yx, _NO_EDGE, out=inside_yx)
        if self.encoding == "border":
            rim_yx = (labels_yx > 0) & (inside_yx <= self.rim)
            return np.where(rim_yx, np.int32(2), np.minimum(labels_yx, 1)), weights_yx
        return np.where(ids_yx == IGNORE, np.float32(IGNORE), _shares(inside_yx, ids_yx)), weights_yx

    def loss(
        self,
        logits_bkyx: Tensor,
        target_byx: Tensor,
        terms: recipe.LossSettings,
        *,
        class_weights_k: Tensor | None = None,
        weights_byx: Tensor | None = None,
    ) -> Tensor:
        """The recipe's weighted sum of loss terms; see `Semantic.loss`.

        For ``distance``, foreground and distance are two outputs with a sigmoid each: ``cross_entropy`` weighs the sum
        of the cross entropies of both (that of the distance against its share), ``dice`` the foreground's Dice. Classes
        of objects add their cross entropy, in which every pixel inside objects counts the same.
        """
        if self._more:
            own_bkyx, class_bkyx = logits_bkyx[:, : -self._more], logits_bkyx[:, -self._more :]
            objects = replace(self, object_classes=1).loss(
                own_bkyx, target_byx[:, 0], terms, class_weights_k=class_weights_k, weights_byx=weights_byx
            )
            return objects + losses.cross_entropy(class_bkyx, target_byx[:, 1].long())
        if self.encoding != "distance":
            return self.pixels.loss(
                logits_bkyx, target_byx, terms, class_weights_k=class_weights_k, weights_byx=weights_byx
            )
        valid_byx, target = target_byx != IGNORE, target_byx[:, None].clamp(min=0)
        planes = torch.cat([(target > 0).to(logits_bkyx.dtype), target.to(logits_bkyx.dtype)], dim=1)
        bce = losses.binary_cross_entropy(logits_bkyx, planes, valid_byx=valid_byx, weights_byx=weights_byx)
        total = 2 * terms.cross_entropy * bce
        if terms.dice:
            foreground = logits_bkyx[:, :1].sigmoid()
            dice = losses.soft_dice(foreground, planes[:, :1], valid_byx=valid_byx, weights_byx=weights_byx)
            total = total + terms.dice * dice
        return total

    def distillation(self, logits_bkyx: Tensor, expected_bkyx: Tensor) -> Tensor:
        """Cross entropy against what other logits say; see `Semantic.distillation`. That of classes is added."""
        own = logits_bkyx.shape[1] - self._more
        total = self._activation.distillation(logits_bkyx[:, :own], expected_bkyx[:, :own])
        if self._more:
            total = total + self._kinds.distillation(logits_bkyx[:, own:], expected_bkyx[:, own:])
        return total

    def activations(self, logits_kyx: Float32) -> Float32:
        """Each output in [0, 1], ``(outputs, Y, X)``, of a single one both classes: what versions are averaged in."""
        own_kyx = self._activation.probabilities(self._own(logits_kyx))
        if not self._more:
            return own_kyx
        return np.concatenate([own_kyx, self._kinds.probabilities(logits_kyx[-self._more :])])

    def as_logits(self, activations_kyx: Float32) -> Float32:
        """Logits of which `activations` gives these."""
        own_kyx = self._activation.as_logits(self._own(activations_kyx))
        if not self._more:
            return own_kyx
        return np.concatenate([own_kyx, self._kinds.as_logits(activations_kyx[-self._more :])])

    def _own(self, planes_kyx: Float32) -> Float32:
        """The planes that tell where objects are."""
        return planes_kyx[: len(planes_kyx) - self._more]

    @property
    def _activation(self) -> Semantic:
        return Semantic(2, multilabel=True) if self.encoding == "distance" else self.pixels

    def maps(self, logits_kyx: Float32) -> tuple[Float32, Float32]:
        """Foreground probability and what is high inside objects, float32 YX in [0, 1]."""
        parts_kyx = self._activation.probabilities(self._own(logits_kyx))
        if self.encoding == "seam":
            return parts_kyx[1], parts_kyx[1]
        if self.encoding == "border":
            return np.float32(1) - parts_kyx[0], parts_kyx[1]
        return parts_kyx[0], parts_kyx[1]

    def probabilities(self, logits_kyx: Float32) -> Float32:
        """Probabilities of background and foreground in [0, 1], ``(2, Y, X)`` float32."""
        if self.encoding == "seam":
            return self._activation.probabilities(self._own(logits_kyx))
        foreground_yx, _ = self.maps(logits_kyx)
        return np.stack([np.float32(1) - foreground_yx, foreground_yx])

    def decode(self, logits_kyx: Float32) -> Int32:
        """Object ids ``(Y, X)`` int32, 1..n, of the logits of a whole image."""
        return find_objects(*self.maps(logits_kyx), self.decoding)

    def classify(self, labels_yx: Int32, logits_kyx: Float32) -> Int32 | None:
        """Class of each object, int32, 1..K indexed by object id, 0 at index 0; None where objects have no classes.

        Parameters
        ----------
        labels_yx
            What `decode` gives.
        logits_kyx
            The logits that it was given.
        """
        if not self._more:
            return None
        parts_kyx = self._kinds.probabilities(logits_kyx[-self._more :])
        sums = [np.bincount(labels_yx.ravel(), part_yx.ravel()) for part_yx in parts_kyx]
        class_of_id: Int32 = np.argmax(sums, axis=0).astype(np.int32) + 1
        class_of_id[0] = 0
        return class_of_id

    def class_labels(self, labels_yx: Int32) -> Int32:
        """Object ids as classes: 1 for every object, `IGNORE` where ignored."""
        return np.clip(labels_yx, IGNORE, 1)

    def pixel_shares(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Return the shares of background and of all objects: a loss of its own tells their classes apart."""
        return (*shares[:1], *((sum(shares[1:]),) if len(shares) > 1 else ()))

    def score(self, truth_yx: Int32, prediction_yx: Int32) -> tuple[float, tuple[float, ...]]:
        """Return the accuracy of objects, and the Dice of background and foreground; see `Task.score`.

        The accuracy is the mean over IoU thresholds 0.5 to 0.95 of tp / (tp + fp + fn), the average precision of the
        2018 Data Science Bowl. Classes of objects do not count.
        """
        from septa.metrics import score_objects  # takes a third of a second, which the use of a model need not spend

        _, each = Semantic(2).score(self.class_labels(truth_yx), self.class_labels(prediction_yx))
        return score_objects(truth_yx, prediction_yx).mean_accuracy, each

    def tune(self, images: Sequence[tuple[Float32, Int32]]) -> tuple[Decoding, dict[str, Curve]]:
        """Choose the thresholds by which objects are found; see `Task.tune`."""
        return tune_decoding([(*self.maps(logits_kyx), truth_yx) for logits_kyx, truth_yx in images], self.decoding)

    def align(self, truth_yx: Int32, prediction_yx: Int32) -> NDArray[Any]:
        """Return predicted objects with the ids of the true objects that they match; see `Task.align`."""
        from septa.metrics import align_ids

        return align_ids(truth_yx, prediction_yx)

    def to_raw(self, labels_yx: Int32, mapping: LabelMapping) -> NDArray[Any]:
        """Convert ids to the smallest dtype that holds them."""
        return labels_yx.astype(np.min_scalar_type(int(labels_yx.max(initial=0))))

    def label_block(
        self,
        logits_kyx: Float32,
        core: tuple[slice, slice],
        image_ends: Sides,
        blank: Sequence[tuple[slice, slice]] = (),
    ) -> BlockLabels | None:
        """Find the objects of a block; see `Task.label_block` and `find_block_objects`."""
        foreground_yx, inner_yx = self.maps(logits_kyx)
        for part in blank:
            foreground_yx[part] = 0
        return find_block_objects(foreground_yx, inner_yx, self.decoding, core, image_ends)

    def blank_block(self, size_yx: tuple[int, int], core: tuple[slice, slice], image_ends: Sides) -> BlockLabels:
        """Return a block without objects; see `Task.blank_block`."""
        nothing_yx = np.zeros(size_yx, np.float32)
        block = find_block_objects(nothing_yx, nothing_yx, self.decoding, core, image_ends)
        assert block is not None
        return block

    def check(self, terms: recipe.LossSettings) -> None:
        """Refuse loss terms that do not fit.

        Raises
        ------
        ValueError
            As `Semantic.check`; and ``bce`` with ``distance``, which takes its weight from ``cross_entropy``.
        """
        if self.encoding == "distance":
            if terms.bce or not terms.cross_entropy:
                raise ValueError("instances.encoding=distance weighs its loss by loss.cross_entropy, not by loss.bce")
        else:
            self.pixels.check(terms)


def _shares(inside_yx: Float32, ids_yx: Int32) -> Float32:
    """Distances as shares of the largest of their object."""
    from scipy import ndimage  # takes a fifth of a second, which the use of a model need not spend

    _, places = np.unique(ids_yx, return_inverse=True)
    places_yx = places.reshape(ids_yx.shape)
    largest = np.asarray(ndimage.maximum(inside_yx, places_yx, np.arange(places.max(initial=0) + 1)), np.float32)
    return np.asarray(inside_yx / np.maximum(largest, 1)[places_yx], np.float32)
