"""The semantic task: each pixel has one class, or any number of overlapping classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from septa import losses, recipe
from septa.labels import LabelMapping, label_components
from septa.losses import border_weights
from septa.recipe import IGNORE
from septa.tasks.block_objects import BlockLabels
from septa.tasks.decoding import Decoding
from septa.tasks.growth import PIXELS_PER_STEP, grow_regions
from septa.tasks.task import OutputGroup, TaskMisfit
from septa.tasks.tuning import Prior, Tuned, search_wall_thresholds
from septa.tasks.watershed import Sides


@dataclass(frozen=True)
class Semantic:
    """A task whose labels are class indices, or bit fields of overlapping classes (bit k = class k).

    `Task` describes the methods; docstrings here say what is special to this task.

    Parameters
    ----------
    classes
        Number of classes K.
    multilabel
        True if classes may overlap. Each then has a sigmoid of its own, and there is no background class.
    sigmoid
        True if two exclusive classes share one output, the logit of class 1 against class 0.
    walls
        True if class 0 is thin walls between regions of class 1, for which `tune` chooses thresholds.
    decoding
        With walls, pixels whose probability of class 1 exceeds its ``seed`` are regions. These grow by at most its
        ``reach`` to pixels that exceed ``foreground``, but do not merge; see `grow_regions`.

    Raises
    ------
    TaskMisfit
        ``sigmoid`` or ``walls`` with other classes than two exclusive ones.

    Examples
    --------
    >>> task = Semantic(classes=3)
    >>> task.decode(np.array([[[0.0]], [[2.0]], [[1.0]]], np.float32))
    array([[1]], dtype=int32)
    >>> Semantic(classes=2, multilabel=True).decode(np.array([[[3.0]], [[0.1]]], np.float32))
    array([[3]], dtype=int32)
    >>> task = Semantic(2, walls=True, decoding=Decoding(seed=0.8))
    >>> task.decode(np.array([[[0.0, 0.0]], [[1.0, 2.0]]], np.float32))
    array([[0, 1]], dtype=int32)
    """

    classes: int
    multilabel: bool = False
    sigmoid: bool = False
    walls: bool = False
    decoding: Decoding = field(default_factory=Decoding)

    finds_objects = False
    object_classes = 1
    tuned_score = "V-Rand of regions"

    def __post_init__(self) -> None:
        """Check that the classes fit the outputs."""
        if self.sigmoid and not self.multilabel and self.classes != 2:
            needs = "net.output=sigmoid needs two classes or overlapping classes"
            problem = f"{needs}, and the number of exclusive classes is {self.classes}"
            raise TaskMisfit(problem, "Set net.output=softmax")
        if self.walls and not self._two_classes:
            count = f"{self.classes} overlapping" if self.multilabel else str(self.classes)
            problem = f"semantic.walls needs two exclusive classes, got {count} classes"
            raise TaskMisfit(problem, "Set semantic.walls=false")

    @classmethod
    def from_recipe(cls, recipe: recipe.Recipe, labels: LabelMapping, decoding: Decoding) -> Semantic:
        """Make the task of a recipe. Errors as for the class."""
        return cls(
            labels.classes,
            multilabel=labels.kind == "multilabel",
            sigmoid=recipe.net.output == "sigmoid",
            walls=recipe.semantic.walls,
            decoding=_keep_walls(decoding) if recipe.semantic.walls else Decoding(),
        )

    @property
    def has_thresholds(self) -> bool:
        """True if class 0 is walls."""
        return self.walls

    @property
    def tilewise(self) -> bool:
        """True unless regions grow."""
        return not self.decoding.reach

    @property
    def block_margin(self) -> int:
        """Pixels around a block on which its classes depend."""
        return PIXELS_PER_STEP * self.decoding.reach

    @property
    def block_bytes_per_pixel(self) -> int:
        """Bytes of classes, masks and candidates."""
        return 8 if self.tilewise else 32

    @property
    def own_metrics(self) -> tuple[str, ...]:
        """V-Rand and V-Info if class 0 is walls."""
        return ("regions",) if self.walls else ()

    @property
    def _two_classes(self) -> bool:
        return self.classes == 2 and not self.multilabel

    @property
    def _one_output(self) -> bool:
        return self.sigmoid and not self.multilabel

    @property
    def outputs(self) -> int:
        """Number of channels that the net puts out: one per class, or one for two classes."""
        return 1 if self._one_output else self.classes

    @property
    def output_meanings(self) -> tuple[str, ...]:
        """Meaning of each output: a class among as many classes."""
        kind = "overlapping class" if self.multilabel else "sigmoid of class" if self.sigmoid else "class"
        return tuple(f"{kind} {index} of {self.classes}" for index in range(self.outputs))

    def describe_outputs(self, mapping: LabelMapping) -> tuple[OutputGroup, ...]:
        """Return one group: a softmax over the classes, or a sigmoid of each output."""
        names = mapping.class_names[-self.outputs :]
        return (OutputGroup("sigmoid" if self._independent else "softmax", names),)

    def encode(
        self,
        labels_yx: NDArray[np.int32],
        terms: recipe.LossSettings,
        class_weights_k: NDArray[np.float32] | None = None,
        *,
        class_of_id: NDArray[np.int32] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        """Return the labels as target, and compute their weight map; see `Task.encode`.

        For the border weight map, cells are the 4-connected regions of each class except class 0. ``class_of_id`` is
        not used.
        """
        if not terms.border_weight:
            return labels_yx, self.compute_weight_map(labels_yx, labels_yx, terms, class_weights_k)
        return labels_yx, self.compute_weight_map(labels_yx, label_components(labels_yx), terms, class_weights_k)

    def compute_weight_map(
        self,
        target_yx: NDArray[np.int32],
        ids_yx: NDArray[np.int32],
        terms: recipe.LossSettings,
        class_weights_k: NDArray[np.float32] | None,
    ) -> NDArray[np.float32] | None:
        """Compute equation 2 of the U-Net paper, ``w_c + w0 exp(-(d1 + d2)^2 / 2 sigma^2)``.

        Parameters
        ----------
        target_yx
            Class of each pixel, int32 ``YX``.
        ids_yx
            Cells between which the border weights lie, int32 ``YX``.
        terms
            Its border weight map is used.
        class_weights_k
            Weight ``w_c`` of each class; 1 if None.

        Returns
        -------
        ndarray or None
            float32 ``YX``. None if the class weights say it all, or if every pixel has the same weight.
        """
        if not terms.border_weight and not (self._one_output and class_weights_k is not None):
            return None
        if class_weights_k is None:
            weights_yx = np.ones(target_yx.shape, np.float32)
        else:
            weights_yx = class_weights_k.astype(np.float32)[target_yx]  # IGNORE takes the last weight, but never counts
        if terms.border_weight:
            weights_yx += border_weights(ids_yx, w0=terms.border_weight, sigma=terms.border_sigma)
        return weights_yx

    def encode_one_hot(self, labels_byx: Tensor) -> Tensor:
        """Return labels as one {0, 1} plane per output, ``(B, K, Y, X)`` float32; all are 0 where ignored."""
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
        """Compute the weighted sum of the recipe's loss terms; see `Task.loss`.

        Parameters
        ----------
        logits_bkyx
            Output of the net, ``(B, K, Y, X)``, float32.
        labels_byx
            Encoded labels, ``(B, Y, X)``, integers; `IGNORE` where ignored.
        terms
            Weight of each loss term.
        class_weights_k, weights_byx
            Weight of each class, and of each pixel. A weight map from `encode` already contains the class weights.

        Returns
        -------
        Tensor
            Scalar.
        """
        weighting: dict[str, Any] = {"class_weights_k": class_weights_k, "weights_byx": weights_byx}
        total = logits_bkyx.new_zeros(())
        labels_byx = labels_byx.long()
        if terms.cross_entropy:
            total = total + terms.cross_entropy * losses.cross_entropy(logits_bkyx, labels_byx, **weighting)
        if not (terms.bce or terms.dice):
            return total
        valid = labels_byx != IGNORE
        planes = self.encode_one_hot(labels_byx)
        if terms.bce:
            bce = losses.binary_cross_entropy(logits_bkyx, planes, valid_byx=valid, **weighting)
            total = total + terms.bce * bce
        if terms.dice:
            dice = losses.soft_dice(self._probabilities(logits_bkyx), planes, valid_byx=valid, **weighting)
            total = total + terms.dice * dice
        return total

    def distillation(self, logits_bkyx: Tensor, expected_bkyx: Tensor) -> Tensor:
        """Compute the cross entropy against the probabilities of other logits; see `Task.distillation`.

        It is the mean over pixels, and over overlapping classes, and smallest if both logits agree.

        References
        ----------
        Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531), temperature 1.
        """
        if self._independent:
            return functional.binary_cross_entropy_with_logits(logits_bkyx, expected_bkyx.sigmoid())
        return functional.cross_entropy(logits_bkyx, expected_bkyx.softmax(dim=1))

    @property
    def _independent(self) -> bool:
        """True if each output has a sigmoid."""
        return self.multilabel or self.sigmoid

    def _probabilities(self, logits_bkyx: Tensor) -> Tensor:
        return logits_bkyx.sigmoid() if self._independent else functional.softmax(logits_bkyx, dim=1)

    def probabilities(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the probability of each class: by softmax, or by a sigmoid each if classes overlap."""
        # numpy, not torch: torch rounds the last values of a vector differently from the others, so a probability would
        # depend on the size of the tile. numpy computes each value in the same way wherever it lies.
        if self._independent:
            out_kyx = np.negative(logits_kyx, dtype=np.float32)
            with np.errstate(over="ignore"):  # exp of a large number is infinite, and the probability 0
                np.exp(out_kyx, out=out_kyx)
            out_kyx += 1
            np.divide(np.float32(1), out_kyx, out=out_kyx)
        else:
            out_kyx = np.subtract(logits_kyx, logits_kyx.max(axis=0), dtype=np.float32)
            np.exp(out_kyx, out=out_kyx)
            out_kyx /= out_kyx.sum(axis=0)
        return np.concatenate([1 - out_kyx, out_kyx]) if self._one_output else out_kyx

    def activations(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities; see `Task.activations`."""
        return self.probabilities(logits_kyx)

    def as_logits(self, probabilities_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits ``(outputs, Y, X)``, float32, of which `probabilities` gives these values."""
        known = np.clip(probabilities_kyx, np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg)
        if self._one_output:
            return np.asarray(np.log(known[1:]) - np.log(known[:1]), np.float32)
        return np.asarray(np.log(known) - np.log1p(-known) if self.multilabel else np.log(known), np.float32)

    def decode(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the class of the largest logit (the first of equal ones), or the bits of all logits above 0.

        With walls, class 1 is found as the parameter ``decoding`` says.
        """
        if self.multilabel:
            bits = np.left_shift(1, np.arange(self.classes, dtype=np.int32), dtype=np.int32)
            return np.asarray(np.tensordot(bits, (logits_kyx > 0).astype(np.int32), axes=1), np.int32)
        if self.walls:
            above_yx = logits_kyx[0] if self.sigmoid else logits_kyx[1] - logits_kyx[0]
            regions_yx, allowed_yx = (
                above_yx > np.float32(math.log(cut) - math.log1p(-cut))
                for cut in (self.decoding.seed, self.decoding.foreground)
            )
            return grow_regions(regions_yx, allowed_yx, self.decoding.reach).astype(np.int32)
        if self._one_output:
            return np.asarray(logits_kyx[0] > 0, np.int32)
        return np.asarray(logits_kyx.argmax(axis=0), np.int32)

    def classify(self, labels_yx: NDArray[np.int32], logits_kyx: NDArray[np.float32]) -> None:
        """Return None, because this task finds no objects."""

    def sum_classes(self, labels_yx: Any, logits_kyx: Any, count: int = 0) -> NDArray[Any]:
        """Return no sums, because this task finds no objects."""
        return np.zeros((0, count))

    def pixel_shares(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Return the shares unchanged: the classes of labels are those of pixels."""
        return tuple(shares)

    def score(self, truth_yx: NDArray[np.int32], prediction_yx: NDArray[np.int32]) -> tuple[float, tuple[float, ...]]:
        """Return the mean Dice over the foreground classes, and the Dice of each class; see `Task.score`."""
        from septa.metrics import class_counts, confusion, confusion_multilabel, dice

        count = confusion_multilabel if self.multilabel else confusion
        each = dice(class_counts(count(truth_yx, prediction_yx, self.classes))).tolist()
        return float(np.mean(each if self.multilabel else each[1:])), tuple(each)

    def tune(
        self, images: Sequence[tuple[NDArray[np.float32], NDArray[np.int32]]], prior: Prior | None = None
    ) -> Tuned:
        """Choose how regions are found if class 0 is walls; see `Task.tune` and `search_wall_thresholds`."""
        if not self.walls:
            return self.decoding, {}
        maps = [(self.probabilities(logits_kyx)[1], truth_yx) for logits_kyx, truth_yx in images]
        return search_wall_thresholds(maps, self.decoding)

    def align(self, truth_yx: NDArray[np.int32], prediction_yx: NDArray[np.int32]) -> NDArray[Any]:
        """Return the prediction unchanged: a class has one value in both."""
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
    ) -> BlockLabels | None:
        """Decode the core; None if the window lacks the margin of growing regions. See `Task.label_block`."""
        if self.tilewise:
            return BlockLabels(self.decode(logits_kyx[(slice(None), *core)]), None)
        rows, columns = core
        height, width = logits_kyx.shape[1:]
        around = rows.start, height - rows.stop, columns.start, width - columns.stop
        if any(margin < self.block_margin and not ends for margin, ends in zip(around, image_ends)):
            return None
        labels_yx = self.decode(logits_kyx)
        return BlockLabels(np.ascontiguousarray(labels_yx[core]), None)

    def blank_block(self, size_yx: tuple[int, int], core: tuple[slice, slice], image_ends: Sides) -> BlockLabels:
        """Return a block of class 0; see `Task.blank_block`."""
        rows, columns = core
        return BlockLabels(np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.int32), None)

    def check(self, terms: recipe.LossSettings) -> None:
        """Check that the loss terms fit the outputs.

        Raises
        ------
        TaskMisfit
            Softmax cross entropy with overlapping classes or one output, or a border weight map of overlapping classes.
        """
        use_bce = "Set loss.cross_entropy=0 and loss.bce=1"
        if self.multilabel and terms.cross_entropy:
            raise TaskMisfit("loss.cross_entropy needs exclusive classes, but the classes overlap", use_bce)
        if self._one_output and terms.cross_entropy:
            raise TaskMisfit("loss.cross_entropy needs one output per class, but net.output is sigmoid", use_bce)
        if self.multilabel and terms.border_weight:
            problem = "loss.border_weight needs exclusive classes, but the classes overlap"
            raise TaskMisfit(problem, "Set loss.border_weight=0")


def _keep_walls(decoding: Decoding) -> Decoding:
    """Return thresholds without those of objects."""
    return Decoding(decoding.foreground, decoding.seed, reach=decoding.reach)
