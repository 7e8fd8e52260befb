"""The instances task: objects that are kept apart, each with an id of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from septa import recipe
from septa.recipe import IGNORE
from septa.tasks.border_weights import cut_seams
from septa.tasks.components import components
from septa.tasks.semantic import Semantic


@dataclass(frozen=True)
class Instances:
    """Labels are object ids. The net separates cell from background, as in the U-Net paper.

    Between touching objects the target has a seam of background, one pixel wide, and the border weight map makes the
    seam count. Objects of a prediction are the 4-connected regions of the foreground.

    Parameters
    ----------
    sigmoid
        Whether the net has one output in place of two.

    Examples
    --------
    >>> target_yx, weights_yx = Instances().encode(np.array([[7, 7, 9, 9]], np.int32), recipe.Loss())
    >>> target_yx
    array([[1, 0, 1, 1]], dtype=int32)
    """

    sigmoid: bool = False

    tilewise = False
    """Objects reach across tiles: a prediction is decoded whole."""
    multilabel = False
    classes = 2

    @property
    def pixels(self) -> Semantic:
        """The task that the net learns: background and foreground."""
        return Semantic(2, sigmoid=self.sigmoid)

    @property
    def outputs(self) -> int:
        """Channels that the net puts out."""
        return self.pixels.outputs

    def encode(
        self,
        labels_yx: NDArray[np.int32],
        terms: recipe.Loss,
        class_weights_k: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        """Object ids to background and foreground with seams, and the weight map; see `Semantic.encode`."""
        ids_yx = cut_seams(labels_yx)
        target_yx = np.minimum(ids_yx, 1)
        return target_yx, self.pixels.weight_map(target_yx, ids_yx, terms, class_weights_k)

    def loss(
        self,
        logits_bkyx: Tensor,
        target_byx: Tensor,
        terms: recipe.Loss,
        *,
        class_weights_k: Tensor | None = None,
        weights_byx: Tensor | None = None,
    ) -> Tensor:
        """The recipe's weighted sum of loss terms; see `Semantic.loss`."""
        return self.pixels.loss(
            logits_bkyx, target_byx, terms, class_weights_k=class_weights_k, weights_byx=weights_byx
        )

    def probabilities(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of background and foreground in [0, 1], ``(2, Y, X)`` float32."""
        return self.pixels.probabilities(logits_kyx)

    def as_logits(self, probabilities_kyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of which `probabilities` gives these."""
        return self.pixels.as_logits(probabilities_kyx)

    def decode(self, logits_kyx: NDArray[np.float32]) -> NDArray[np.int32]:
        """Object ids ``(Y, X)`` int32, 1..n, of the logits of a whole image."""
        return components(self.pixels.decode(logits_kyx))

    def class_labels(self, labels_yx: NDArray[np.int32]) -> NDArray[np.int32]:
        """Object ids as classes: 1 for every object, `IGNORE` where ignored."""
        return np.clip(labels_yx, IGNORE, 1)

    def check(self, terms: recipe.Loss) -> None:
        """Refuse loss terms that do not fit; see `Semantic.check`."""
        self.pixels.check(terms)
