"""The semantic task: every pixel has one class, or any number of overlapping ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from septa import recipe
from septa.labels import LabelMapping, label_components
from septa.recipe import IGNORE
from septa.tasks import losses
from septa.tasks.block_objects import BlockLabels
from septa.tasks.border_weights import border_weights
from septa.tasks.decoding import Decoding
from septa.tasks.tuning import Curve
from septa.tasks.watershed import Sides


@dataclass(frozen=True)
class Semantic:
    """Labels are class indices; with ``multilabel`` they are bit fields, bit k telling whether class k is there.

    Parameters
    ----------
    classes
        Number of classes K, which is the number of channels that the net puts out.
    multilabel
        Whether classes may overlap. Each then has its own sigmoid, and there is no background class.
    sigmoid
        Whether two exclusive classes share one output, the logit of class 1 against class 0.

    Raises
    ------
    ValueError
        ``sigmoid`` with more than two classes.

    Examples
    --------
    >>> task = Semantic(classes=3)
    >>> task.decode(np.array([[[0.0]], [[2.0]], [[1.0]]], np.float32))
    array([[1]], dtype=int32)
    >>> Semantic(classes=2, multilabel=True).decode(np.array([[[3.0]], [[0.1]]], np.float32))
    array([[3]], dtype=int32)
    """

    classes: int
    multilabel: bool = False
    sigmoid: bool = False

    tilewise = True
    finds_objects = False
    object_classes = 1
    decoding = Decoding()
    has_thresholds = False
    block_margin = 0
    block_bytes_per_pixel = 8

    def __post_init__(self) -> None:
        if self.sigmoid and not self.multilabel and self.classes != 2:
            raise ValueError(f"net.output=sigmoid is for two classes, or for overlapping ones, not for {self.classes}")

    @classmethod
    def from_recipe(cls, recipe: recipe.Recipe, labels: LabelMapping, decoding: Decoding) -> Semantic:
        """Make the task of a recipe; ``decoding`` is not used. ValueError as for the class."""
        return cls(labels.classes, multilabel=labels.kind == "multilabel", sigmoid=recipe.net.output == "sigmoid")

    @property
    def _one_output(self) -> bool:
        return self.sigmoid and not self.multilabel

    @property
    def outputs(self) -> int:
        """Channels that the net puts out: one for each class, or one in all."""
        return 1 if self._one_output else self.classes

    def encode(
        self,
        labels_yx: NDArray[np.int32],
        terms: recipe.LossSettings,
        class_weights_k: NDArray[np.float32] | None = None,
        *,
        class_of_id: NDArray[np.int32] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        """Labels of a patch to what the net is trained on.

        Parameters
        ----------
        labels_yx
            Encoded labels, int32 YX, after augmentation.
        terms
            Its border weight map is used.
        class_weights_k
            Weight of each class.
        class_of_id
            Not used: labels are no objects.

        Returns
        -------
        target_yx
            int32 YX, the labels.
        weights_yx
            Weight map, float32 YX, with the class weights in it; None where these say it all. For the border weight
            map, cells are the 4-connected regions of each class but the first.
        """
        if not terms.border_weight:
            return labels_yx, self.weight_map(labels_yx, labels_yx, terms, class_weights_k)
        return labels_yx, self.weight_map(labels_yx, label_components(labels_yx), terms, class_weights_k)

    def weight_map(
        self,
        target_yx: NDArray[np.int32],
        ids_yx: NDArray[np.int32],
        terms: recipe.LossSettings,
        class_weights_k: NDArray[np.float32] | None,
    ) -> NDArray[np.float32] | None:
        """Equation 2 of the U-Net paper, ``w_c + w0 exp(-(d1 + d2)^2 / 2 sigma^2)``; None if it is the same everywhere
        or can be told for each class.
        """
        if not terms.border_weight and not (self._one_output and class_weights_k is not None):
            return None
        if class_weights_k is None:
            weights_yx = np.ones(target_yx.shape, np.float32)
        else:
            weights_yx = class_weights_k.astype(np.float32)[target_yx]  # IGNORE takes the last one and counts nowhere
        if terms.border_weight:
            weights_yx += border_weights(ids_yx, w0=terms.border_weight, sigma=terms.border_sigma)
        return weights_yx

    def one_hot(self, labels_byx: Tensor) -> Tensor:
        """Labels as one {0, 1} plane for each output, ``(B, K, Y, X)`` float32; all 0 where ignored."""
        if self._one_output:
            return (labels_byx == 1).float()[:, None]
        if self.multilabel:
            bits = torch.arange(self.classes, device=labels_byx.device)[None, :, None, None]
            planes = (labels_byx[:, None] >> bits) & 1
        else:
            indices = torch.arange(self.classes, device=labels_byx.device)[None, :, None, None]
            planes = labels_byx[:, None] == indices
        return planes.float() * (labels_byx != IGNORE)[:, None]

    def loss(
        self,
        logits_bkyx: Tensor,
        labels_byx: Tensor,
        terms: recipe.LossSettings,
        *,
        class_weights_k: Tensor | None = None,
        weights_byx: Tensor | None = None,
    ) -> Tensor:
        """The recipe's weighted sum of loss terms.

        Parameters
        ----------
        logits_bkyx
            Output of the net, ``(B, K, Y, X)``, float32.
        labels_byx
            Encoded labels, ``(B, Y, X)``, integers, `IGNORE` where ignored.
        terms
            Weight of each loss term.
        class_weights_k, weights_byx
            Weight of each class, and of each pixel. A weight map from `encode` has the class weights in it already.

        Returns
        -------
        Tensor
            Scalar.
        """
        weighting: dict[str, Any] = {"class_weights_k": class_weights_k, "weights_byx": weights_byx}
        total, labels_byx = logits_bkyx.new_zeros(()), labels_byx.long()
        if terms.cross_entropy:
            total = total + terms.cross_entropy * losses.cross_entropy(logits_bkyx, labels_byx, **weighting)
        if not (terms.bce or terms.dice):
            return total
        valid, planes = labels_byx != IGNORE, self.one_hot(labels_byx)
        if terms.bce:
            bce = losses.binary_cross_entropy(logits_bkyx, planes, valid_byx=valid, **weighting)
            total = total + terms.bce * bce
        if terms.dice:
            dice = losses.soft_dice(self._probabilities(logits_bkyx), planes, valid_byx=valid, **weighting)
            total = total + terms.dice * dice
        return total

    def distillation(self, logits_bkyx: Tensor, expected_bkyx: Tensor) -> Tensor:
        """Cross entropy against the probabilities of other logits, a scalar, averaged over pixels (and overlapping
        classes): least where both agree.

        References
        ----------
        Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531), temperature 1.
        """
        if self._independent:
            return functional.binary_cross_entropy_with_logits(logits_bkyx, expected_bkyx.sigmoid())
        return functional.cross_entropy(logits_bkyx, expected_bkyx.softmax(dim=1))

    @property
    def _independent(self) -> bool:
        """Whether each output has a sigmoid."""
        return self.multilabel or self.sigmoid

    def _probabilities(self, logits_bkyx: Tensor) -> Tensor:
        return logits_bkyx.sigmoid() if self._independent else functional.softmax(logits_bkyx, dim=1)

    def probabilities(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of each class in [0, 1], ``(K, Y, X)`` float32: softmax, or a sigmoid each where classes
        overlap.
        """
        with torch.inference_mode():
            out: NDArray[np.float32] = self._probabilities(torch.from_numpy(logits_kyx)[None])[0].numpy()
        return np.concatenate([1 - out, out]) if self._one_output else out

    def activations(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is averaged over versions of an image: the probabilities."""
        return self.probabilities(logits_kyx)

    def as_logits(self, probabilities_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of which `probabilities` gives these, ``(outputs, Y, X)`` float32."""
        known = np.clip(probabilities_kyx, np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg)
        if self._one_output:
            return np.asarray(np.log(known[1:]) - np.log(known[:1]), np.float32)
        return np.asarray(np.log(known) - np.log1p(-known) if self.multilabel else np.log(known), np.float32)

    def decode(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.int32]:
        """Labels ``(Y, X)`` int32: the class of the largest logit (the first of equals), or the bits of all above 0."""
        if self.multilabel:
            bits = np.left_shift(1, np.arange(self.classes, dtype=np.int32), dtype=np.int32)
            return np.asarray(np.tensordot(bits, (logits_kyx > 0).astype(np.int32), axes=1), np.int32)
        if self._one_output:
            return np.asarray(logits_kyx[0] > 0, np.int32)
        return np.asarray(logits_kyx.argmax(axis=0), np.int32)

    def classify(self, labels_yx: NDArray[np.int32], logits_kyx: NDArray[np.float32]) -> None:
        """Return None: this task finds no objects that could have classes."""

    def pixel_shares(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Return the shares as they are: the classes of labels are those of pixels."""
        return tuple(shares)

    def score(self, truth_yx: NDArray[np.int32], prediction_yx: NDArray[np.int32]) -> tuple[float, tuple[float, ...]]:
        """Return the mean Dice over the foreground classes, and the Dice of each class; see `Task.score`."""
        from septa.metrics import class_counts, confusion, confusion_multilabel, dice

        count = confusion_multilabel if self.multilabel else confusion
        each = dice(class_counts(count(truth_yx, prediction_yx, self.classes))).tolist()
        return float(np.mean(each if self.multilabel else each[1:])), tuple(each)

    def tune(
        self, images: Sequence[tuple[NDArray[np.float32], NDArray[np.int32]]]
    ) -> tuple[Decoding, dict[str, Curve]]:
        """Return the default thresholds: this task uses none."""
        return self.decoding, {}

    def align(self, truth_yx: NDArray[np.int32], prediction_yx: NDArray[np.int32]) -> NDArray[Any]:
        """Return the prediction: classes have the same values in both."""
        return prediction_yx

    def to_raw(self, labels_yx: NDArray[np.int32], mapping: LabelMapping) -> NDArray[Any]:
        """Convert labels to the raw values of the training labels; see `LabelMapping.decode`."""
        return mapping.decode(labels_yx)

    def label_block(
        self,
        logits_kyx: NDArray[np.float32],
        core: tuple[slice, slice],
        image_ends: Sides,
        blank: Sequence[tuple[slice, slice]] = (),
    ) -> BlockLabels:
        """Decode the core, on which nothing around it has an influence; see `Task.label_block`."""
        return BlockLabels(self.decode(logits_kyx[(slice(None), *core)]), None)

    def blank_block(self, size_yx: tuple[int, int], core: tuple[slice, slice], image_ends: Sides) -> BlockLabels:
        """Return a block of class 0; see `Task.blank_block`."""
        rows, columns = core
        return BlockLabels(np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.int32), None)

    def check(self, terms: recipe.LossSettings) -> None:
        """Refuse loss terms that do not fit.

        Raises
        ------
        ValueError
            Softmax cross entropy with overlapping classes or one output, or a border weight map of overlapping classes.
        """
        if self.multilabel and terms.cross_entropy:
            raise ValueError("loss.cross_entropy needs exclusive classes, but these overlap: use loss.bce")
        if self._one_output and terms.cross_entropy:
            raise ValueError(
                "loss.cross_entropy needs an output for each class, but net.output is sigmoid: use loss.bce"
            )
        if self.multilabel and terms.border_weight:
            raise ValueError("loss.border_weight needs exclusive classes, but these overlap: set it to 0")
