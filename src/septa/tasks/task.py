"""The interface of a task: everything that a workflow may ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from septa import recipe
from septa.labels import LabelMapping
from septa.tasks.block_objects import BlockLabels
from septa.tasks.decoding import Decoding
from septa.tasks.tuning import Prior, Tuned
from septa.tasks.watershed import Sides

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


class TaskMisfit(ValueError):
    """Settings that exclude each other, or that do not fit the labels.

    Parameters
    ----------
    problem
        Reason, a clause that names the settings by their keys in the recipe.
    remedy
        Imperative sentence that says which settings to change.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class OutputGroup:
    """Consecutive outputs of a net that share an activation.

    Attributes
    ----------
    activation
        ``softmax`` over these outputs, or a ``sigmoid`` of each.
    names
        Name of each output.
    """

    activation: Literal["softmax", "sigmoid"]
    names: tuple[str, ...]


class Task(Protocol):
    """The meaning of labels and of a net's output: labels are encoded to targets, and logits are decoded to labels.

    A workflow reads the properties and calls the methods below; it never asks which task it has. A new task is a frozen
    dataclass in this folder with all of these members and a class method ``from_recipe``, and an entry in
    `septa.tasks.TASKS`.

    Axes are B batch, K output of the net, Y row and X column. Labels are int32 ``YX``: class indices, bit fields of
    overlapping classes, or object ids from 1 up. 0 is background, and `IGNORE` marks pixels that do not count in any
    loss or score.
    """

    # --- properties ---------------------------------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """Number of channels that the net puts out."""

    @property
    def output_meanings(self) -> tuple[str, ...]:
        """Meaning of each output; a net keeps the weights of an output that means the same in another task."""

    def describe_outputs(self, mapping: LabelMapping) -> tuple[OutputGroup, ...]:
        """Return name and activation of each output, for programs that run the net without septa.

        The groups give the last `outputs` planes of `activations`; with a single output, `activations` adds a plane.
        """

    @property
    def classes(self) -> int:
        """Number of classes of pixels, which `probabilities` and the Dice of `score` are for."""

    @property
    def multilabel(self) -> bool:
        """True if classes of pixels may overlap."""

    @property
    def finds_objects(self) -> bool:
        """True if labels are object ids, False if they are classes of pixels."""

    @property
    def object_classes(self) -> int:
        """Number of classes of objects without background; 1 if objects, or pixels, have no such classes."""

    @property
    def tilewise(self) -> bool:
        """True if the tiles of an image can be decoded one by one; False if only the logits of the whole image can."""

    @property
    def decoding(self) -> Decoding:
        """Thresholds that `decode` uses; the default ones where it uses none."""

    @property
    def has_thresholds(self) -> bool:
        """True if `tune` can choose a better `decoding` from labelled images."""

    @property
    def tuned_score(self) -> str:
        """Name of the score by which `tune` chooses."""

    @property
    def own_metrics(self) -> tuple[str, ...]:
        """Families of `septa.metrics.PER_IMAGE` by which the labels of this task are always scored."""

    @property
    def block_margin(self) -> int:
        """Pixels around a block of a large image within which `label_block` nearly always succeeds."""

    @property
    def block_bytes_per_pixel(self) -> int:
        """Largest memory of `label_block` per pixel of a window, bytes, without logits and probabilities."""

    # --- training -----------------------------------------------------------------------------------------------------

    def check(self, terms: recipe.LossSettings) -> None:
        """Raise `TaskMisfit` if the loss terms do not fit the outputs of the net."""

    def encode(
        self,
        labels_yx: Int32,
        terms: recipe.LossSettings,
        class_weights_k: Float32 | None = None,
        *,
        class_of_id: Int32 | None = None,
    ) -> tuple[NDArray[Any], Float32 | None]:
        """Compute the target of a patch and its weight map.

        Parameters
        ----------
        labels_yx
            Labels, int32 ``YX``, after augmentation.
        terms
            Settings of the loss, of which those of the border weight map are used.
        class_weights_k
            Weight of each of `classes`, float32.
        class_of_id
            Class of each object, as in `ObjectLabels`; needed if `object_classes` is above 1.

        Returns
        -------
        target_yx
            Target that `loss` takes, int32 or float32; ``YX``, or several such planes.
        weights_yx
            Weight of each pixel, float32 ``YX``, which contains the class weights. None if the class weights say it
            all.
        """

    def loss(
        self,
        logits_bkyx: Tensor,
        target_byx: Tensor,
        terms: recipe.LossSettings,
        *,
        class_weights_k: Tensor | None = None,
        weights_byx: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted sum of the recipe's loss terms, a scalar, for targets and weight maps of `encode`."""

    def distillation(self, logits_bkyx: Tensor, expected_bkyx: Tensor) -> Tensor:
        """Compute the cross entropy of logits against the probabilities of other logits, a scalar."""

    def pixel_shares(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Return the share of pixels of each of `classes`, from that of each class of the labels."""

    def score(self, truth_yx: Int32, prediction_yx: Int32) -> tuple[float, tuple[float, ...]]:
        """Score the predicted labels of one image; the mean over images decides which weights are the best.

        Parameters
        ----------
        truth_yx, prediction_yx
            Labels of equal size; pixels that are `IGNORE` in ``truth_yx`` do not count.

        Returns
        -------
        score
            Score in [0, 1]; higher is better.
        dice
            Dice of each of `classes`.
        """

    def tune(self, images: Sequence[tuple[Float32, Int32]], prior: Prior | None = None) -> Tuned:
        """Choose the thresholds of `decode` that score best.

        Parameters
        ----------
        images
            Logits ``KYX`` of whole images, and the ground truth of each.
        prior
            What is known of the thresholds of objects; classes of pixels do not need it.

        Returns
        -------
        decoding
            The chosen thresholds.
        curves
            For each threshold its values and their scores. Empty if `has_thresholds` is False.
        """

    # --- prediction ---------------------------------------------------------------------------------------------------

    def activations(self, logits_kyx: Float32) -> Float32:
        """Compute values in [0, 1] that may be averaged over several predictions; `as_logits` is the inverse."""

    def as_logits(self, activations_kyx: Float32) -> Float32:
        """Compute logits ``KYX`` of which `activations` gives these values."""

    def probabilities(self, logits_kyx: Float32) -> Float32:
        """Compute the probability of each of `classes` in [0, 1], float32 ``(classes, Y, X)``."""

    def decode(self, logits_kyx: Float32) -> Int32:
        """Find the labels in the logits ``KYX`` of an image, or of a tile if the task is `tilewise`."""

    def classify(self, labels_yx: Int32, logits_kyx: Float32) -> Int32 | None:
        """Find the class of each object that `decode` has found in the same logits.

        Returns
        -------
        ndarray or None
            int32, indexed by object id: the class from 1, and 0 at index 0; see `ObjectLabels`. None if
            `object_classes` is 1.
        """

    def sum_classes(self, labels_yx: Int32, logits_kyx: Float32, count: int = 0) -> NDArray[np.float64]:
        """Sum the probabilities of the classes over the pixels of each object, from which `classify` chooses.

        Parameters
        ----------
        labels_yx
            Object ids, 0 for background.
        logits_kyx
            Logits of the same pixels.
        count
            Least number of ids, with the background.

        Returns
        -------
        ndarray
            ``(class - 1, id)``. Sums of parts of an object add up to those of the object.
        """

    def align(self, truth_yx: Int32, prediction_yx: Int32) -> NDArray[Any]:
        """Return predicted labels for display: where they match the ground truth they have its values."""

    def to_raw(self, labels_yx: Int32, mapping: LabelMapping) -> NDArray[Any]:
        """Convert labels to the values of label images: ids, or the raw values of the training labels."""

    # --- images too large for memory ----------------------------------------------------------------------------------

    def label_block(
        self,
        logits_kyx: Float32,
        core: tuple[slice, slice],
        image_ends: Sides,
        blank: Sequence[tuple[slice, slice]] = (),
    ) -> BlockLabels | None:
        """Find the labels of a block from the logits of a window around it.

        Parameters
        ----------
        logits_kyx
            Logits of the window.
        core
            Rows and columns of the window that are the block, each ``slice(start, stop)``.
        image_ends
            True where the image ends at the top, bottom, left and right side of the window.
        blank
            Parts of the window outside the core that are background, whatever the logits say.

        Returns
        -------
        BlockLabels or None
            Labels of the core. None if they depend on the image beyond the window; try again with a larger window.
        """

    def blank_block(self, size_yx: tuple[int, int], core: tuple[slice, slice], image_ends: Sides) -> BlockLabels:
        """Return the block of a window of this size that is all background; see `label_block`."""


def choose_classes(sums: NDArray[np.float64]) -> Int32:
    """Return the class with the largest sum for each object, from `Task.sum_classes`; 0 for the background."""
    class_of_id: Int32 = np.argmax(sums, axis=0).astype(np.int32) + 1
    class_of_id[0] = 0
    return class_of_id
