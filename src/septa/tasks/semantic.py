"""The semantic task: every pixel has one class, or any number of overlapping ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from septa import recipe
from septa.recipe import IGNORE
from septa.tasks import losses


@dataclass(frozen=True)
class Semantic:
    """Labels are class indices; with ``multilabel`` they are bit fields, bit k telling whether class k is there.

    Parameters
    ----------
    classes
        Number of classes K, which is the number of channels that the net puts out.
    multilabel
        Whether classes may overlap. Each then has its own sigmoid, and there is no background class.

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

    def one_hot(self, labels_byx: Tensor) -> Tensor:
        """Labels as one {0, 1} plane for each class, ``(B, K, Y, X)`` float32; all 0 where ignored."""
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
        terms: recipe.Loss,
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
            Encoded labels, ``(B, Y, X)``, int64, `IGNORE` where ignored.
        terms
            Weight of each loss term.
        class_weights_k, weights_byx
            Weight of each class and of each pixel.

        Returns
        -------
        Tensor
            Scalar.
        """
        weighting: dict[str, Any] = {"class_weights_k": class_weights_k, "weights_byx": weights_byx}
        total = logits_bkyx.new_zeros(())
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

    def _probabilities(self, logits_bkyx: Tensor) -> Tensor:
        return logits_bkyx.sigmoid() if self.multilabel else functional.softmax(logits_bkyx, dim=1)

    def probabilities(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities in [0, 1], ``(K, Y, X)`` float32: softmax, or a sigmoid each where classes overlap."""
        with torch.inference_mode():
            out: NDArray[np.float32] = self._probabilities(torch.from_numpy(logits_kyx)[None])[0].numpy()
        return out

    def decode(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.int32]:
        """Labels ``(Y, X)`` int32: the class of the largest logit (the first of equals), or the bits of all above 0."""
        if self.multilabel:
            bits = np.left_shift(1, np.arange(self.classes, dtype=np.int32), dtype=np.int32)
            return np.asarray(np.tensordot(bits, (logits_kyx > 0).astype(np.int32), axes=1), np.int32)
        return np.asarray(logits_kyx.argmax(axis=0), np.int32)

    def check(self, terms: recipe.Loss) -> None:
        """Refuse loss terms that do not fit.

        Raises
        ------
        ValueError
            Softmax cross entropy with overlapping classes.
        """
        if self.multilabel and terms.cross_entropy:
            raise ValueError("loss.cross_entropy needs exclusive classes, but these overlap: use loss.bce")
