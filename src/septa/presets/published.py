"""Figures that were published for the presets, and how far septa's measurement differs from theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_SHIFTED = (
    "A training patch of the image's size is shifted by up to a quarter of its side, mirrored beyond its edge; "
    "the original trains on the image as it lies."
)


@dataclass(frozen=True)
class Figure:
    """One metric of a preset.

    Attributes
    ----------
    metric
        Key in `septa.metrics.scores.Evaluation.summary`, or field of `septa.metrics.neurites.NeuriteScores`.
    label
        What tables call it.
    value
        What was published; None where nothing comparable was.
    relation
        ``=``, or ``>`` where only a lower bound was published.
    source
        Who published it, on which images.
    """

    metric: str
    label: str
    value: float | None = None
    relation: Literal["=", ">"] = "="
    source: str = ""

    @property
    def published(self) -> str:
        """The published figure as text.

        Examples
        --------
        >>> Figure("dice", "Dice", 0.9, ">").published
        '> 0.9'
        """
        if self.value is None:
            return "none"
        return f"{'> ' if self.relation == '>' else ''}{self.value:.10g}"


@dataclass(frozen=True)
class Drawing:
    """Synthetic images that a preset is shown on; parameters of `septa.synthetic.dataset.write_dataset`, and settings
    of the preset that fit another size of image."""

    kind: Literal["cells", "shapes", "oct"]
    count: int
    held_out: int
    size_hw: tuple[int, int]
    overrides: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Published:
    """The figures of a preset, the ways in which the protocols differ, and the drawings it can be shown on.

    ``data`` names the images that the figures are about, ``differences`` and ``notes`` are sentences.
    """

    data: str
    figures: tuple[Figure, ...]
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    drawing: Drawing | None = None


def f1_of_iou(iou: float) -> float:
    """F1 (Dice) that belongs to an IoU when both come from one confusion matrix: ``2 IoU / (1 + IoU)``.

    Examples
    --------
    >>> round(f1_of_iou(0.325), 3)
    0.491
    """
    return 2 * iou / (1 + iou)


def iou_of_f1(f1: float) -> float:
    """IoU that belongs to an F1 (Dice) when both come from one confusion matrix: ``F1 / (2 - F1)``.

    Examples
    --------
    >>> round(iou_of_f1(0.789), 3)
    0.652
    """
    return f1 / (2 - f1)


def _contradiction(iou: float, f1: float) -> str:
    return (
        f"The published IoU of {iou:g} and F1 of {f1:g} contradict each other: F1 = 2 IoU / (1 + IoU), so that an IoU "
        f"of {iou:g} belongs to an F1 of {f1_of_iou(iou):.3f}, and an F1 of {f1:g} to an IoU of {iou_of_f1(f1):.3f}. "
        "They cannot come from one confusion matrix."
    )


_ISBI = "the usual report for this variant"
_GLAS, _GLAS_IOU, _GLAS_F1 = "published for this variant", 0.325, 0.789
_PAPER = "Ronneberger, Fischer, Brox 2015, table 1: test set of the ISBI 2012 challenge"

PUBLISHED: dict[str, Published] = {
    "isbi": Published(
        "the ISBI 2012 EM challenge's training slices and their labels",
        (Figure("dice", "Dice", 0.9, ">", _ISBI), Figure("iou", "IoU"), Figure("pixel_error", "pixel error")),
        ("The published figure names no split; the measured one is of slices that this training held out.", _SHIFTED),
        (
            (
                "About 77 % of the pixels of these slices are cell interior, so that calling every pixel interior "
                "already has a Dice of 0.87; the pixel error tells more."
            ),
        ),
    ),
    "glas": Published(
        "the GlaS challenge's images and labels",
        (
            Figure("iou", "IoU", _GLAS_IOU, "=", _GLAS),
            Figure("dice", "F1 = Dice", _GLAS_F1, "=", _GLAS),
            Figure("precision", "precision"),
            Figure("recall", "recall"),
        ),
        (
            (
                "septa scores at each image's own size, after the labels were enlarged from 128 x 128; the variant "
                "works at 128 x 128 throughout."
            ),
            (
                "Figures are of glands against background, pixel by pixel, as the mean over images; they are not the "
                "challenge's object scores."
            ),
            _SHIFTED,
        ),
        (_contradiction(_GLAS_IOU, _GLAS_F1),),
    ),
    "oct": Published(
        "OCT B-scans and labels of fluid",
        (
            Figure("dice", "Dice of fluid"),
            Figure("iou", "IoU"),
            Figure("precision", "precision"),
            Figure("recall", "recall"),
        ),
        ("Nothing was published for this variant that could be compared: only the measured figures stand here.",),
        drawing=Drawing(
            "oct", 60, 12, (320, 480), note="Drawn B-scans are no recordings: the figures say that the preset learns."
        ),
    ),
    "carvana": Published(
        "the Carvana challenge's images and masks",
        (
            Figure("dice", "Dice", 0.988423, "=", "README of milesial/Pytorch-UNet: 100k test images of the challenge"),
            Figure("iou", "IoU"),
        ),
        (
            (
                "The published Dice was computed by the challenge on its test images, whose masks are not public; the "
                "measured one is of held-out images."
            ),
            (
                "septa halves the channels before each bilinear up-sampling by a 1x1 convolution, and interpolates "
                "without aligned corners; the repository halves them in the block after it."
            ),
            _SHIFTED,
        ),
        drawing=Drawing(
            "cells",
            60,
            12,
            (320, 480),
            ("sampling.patch=[320, 480]",),
            "Drawn cells are no photographs of cars: the published Dice says nothing about them.",
        ),
    ),
    "shapes": Published(
        "drawings of 'septa synth --kind shapes'",
        (Figure("dice", "mean Dice", 0.95, ">", "target of septa's own"), Figure("iou", "mean IoU")),
        drawing=Drawing("shapes", 400, 40, (192, 192)),
    ),
    "paper": Published(
        "the ISBI 2012 EM challenge's training slices and their labels",
        (
            Figure("warping_error", "warping error", 0.000353, "=", _PAPER),
            Figure("rand_error", "Rand error", 0.0382, "=", _PAPER),
            Figure("pixel_f_error", "pixel error", 0.0611, "=", _PAPER),
            Figure("dice", "Dice"),
        ),
        (
            (
                "The published errors are of the challenge's test slices, whose labels are not public, computed by the "
                "challenge; the measured ones are of held-out training slices, each the best over thresholds on the "
                "probability. They are not comparable one to one."
            ),
            "The authors trained on all 30 slices and for ten hours on a GPU.",
        ),
    ),
}
