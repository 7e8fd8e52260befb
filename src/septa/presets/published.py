"""Figures published for the presets, and the ways in which septa's measurements differ from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_SHIFTED = (
    "Training patches have the image's size, but septa shifts each by up to a quarter of its side, mirroring the image "
    "at its edge; the original trains on the unshifted image."
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A published figure: one metric of a preset.

    Attributes
    ----------
    metric
        Key in `septa.metrics.scores.Evaluation.summary`, or field of `septa.metrics.neurites.NeuriteScores`.
    label
        Name in tables.
    value
        Published value; None if nothing comparable was published.
    relation
        ``=``, or ``>`` if only a lower bound was published.
    source
        Publication and its images; empty without a value.
    """

    metric: str
    label: str
    value: float | None = None
    relation: Literal["=", ">"] = "="
    source: str = ""

    @property
    def published(self) -> str:
        """The published value as text.

        Examples
        --------
        >>> Figure(metric="dice", label="Dice", value=0.9, relation=">").published
        '> 0.9'
        """
        if self.value is None:
            return "none"
        return f"{'> ' if self.relation == '>' else ''}{self.value:.10g}"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A synthetic data set for a preset whose own data the user lacks.

    Attributes
    ----------
    kind, count, held_out, size_hw
        Parameters of `septa.synthetic.dataset.write_dataset`.
    overrides
        Settings of the preset that have to change for images of this size, ``section.key=value``.
    note
        Sentence about the meaning of scores on these images; empty if there is nothing to say.
    """

    kind: Literal["cells", "shapes", "oct"]
    count: int
    held_out: int
    size_hw: tuple[int, int]
    overrides: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Published:
    """The published figures of a preset.

    Attributes
    ----------
    data
        Images and labels that the figures are about.
    figures
        Metrics to report, with the published values.
    differences
        Sentences: differences between the published protocol and septa's.
    notes
        Sentences: how to read the figures.
    drawing
        Synthetic data that can stand in for the original; None if there are none.
    """

    data: str
    figures: tuple[Figure, ...]
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    drawing: Drawing | None = None


def iou_to_f1(iou: float) -> float:
    """Convert an IoU to the F1 (Dice) of the same confusion matrix: ``2 IoU / (1 + IoU)``.

    Examples
    --------
    >>> round(iou_to_f1(0.325), 3)
    0.491
    """
    return 2 * iou / (1 + iou)


def f1_to_iou(f1: float) -> float:
    """Convert an F1 (Dice) to the IoU of the same confusion matrix: ``F1 / (2 - F1)``.

    Examples
    --------
    >>> round(f1_to_iou(0.789), 3)
    0.652
    """
    return f1 / (2 - f1)


def _describe_contradiction(iou: float, f1: float) -> str:
    return (
        f"The published IoU of {iou:g} and F1 of {f1:g} contradict each other. By F1 = 2 IoU / (1 + IoU), an IoU of "
        f"{iou:g} belongs to an F1 of {iou_to_f1(iou):.3f}, and an F1 of {f1:g} to an IoU of {f1_to_iou(f1):.3f}. "
        "They cannot come from one confusion matrix."
    )


_ISBI = "the usual report for this variant"
_GLAS = "published for this variant"
_GLAS_IOU = 0.325
_GLAS_F1 = 0.789
_CARVANA = "README of milesial/Pytorch-UNet: 100k test images of the challenge"
_PAPER = "Ronneberger, Fischer, Brox 2015, table 1: test set of the ISBI 2012 challenge"

_INSTEAD_OF_CARS = Drawing(
    kind="cells",
    count=60,
    held_out=12,
    size_hw=(320, 480),
    overrides=("sampling.patch=[320, 480]",),
    note="Synthetic cells are not photographs of cars: the published Dice does not apply to them.",
)

PUBLISHED: dict[str, Published] = {
    "isbi": Published(
        data="the ISBI 2012 EM challenge's training slices and their labels",
        figures=(
            Figure(metric="dice", label="Dice", value=0.9, relation=">", source=_ISBI),
            Figure(metric="iou", label="IoU"),
            Figure(metric="pixel_error", label="pixel error"),
        ),
        differences=(
            "The published figure names no split; the measured one is of slices that this training held out.",
            _SHIFTED,
        ),
        notes=(
            (
                "About 77 % of the pixels of these slices are cell interior, so a prediction of interior everywhere "
                "already has a Dice of 0.87; the pixel error says more."
            ),
        ),
    ),
    "glas": Published(
        data="the GlaS challenge's images and labels",
        figures=(
            Figure(metric="iou", label="IoU", value=_GLAS_IOU, source=_GLAS),
            Figure(metric="dice", label="F1 = Dice", value=_GLAS_F1, source=_GLAS),
            Figure(metric="precision", label="precision"),
            Figure(metric="recall", label="recall"),
        ),
        differences=(
            (
                "septa enlarges the predicted labels from 128 x 128 and scores them at each image's own size; the "
                "variant works at 128 x 128 throughout."
            ),
            (
                "The figures compare glands with background, pixel by pixel, as the mean over images; they are not the "
                "challenge's object scores."
            ),
            _SHIFTED,
        ),
        notes=(_describe_contradiction(_GLAS_IOU, _GLAS_F1),),
    ),
    "oct": Published(
        data="OCT B-scans and labels of fluid",
        figures=(
            Figure(metric="dice", label="Dice of fluid"),
            Figure(metric="iou", label="IoU"),
            Figure(metric="precision", label="precision"),
            Figure(metric="recall", label="recall"),
        ),
        differences=("Nothing comparable was published for this variant, so only measured figures are given.",),
        drawing=Drawing(
            kind="oct",
            count=60,
            held_out=12,
            size_hw=(320, 480),
            note="Synthetic B-scans are not recordings: the figures only show that the preset learns.",
        ),
    ),
    "carvana": Published(
        data="the Carvana challenge's images and masks",
        figures=(
            Figure(metric="dice", label="Dice", value=0.988423, source=_CARVANA),
            Figure(metric="iou", label="IoU"),
        ),
        differences=(
            (
                "The challenge computed the published Dice on its test images, whose masks are not public; the "
                "measured one is of held-out images."
            ),
            (
                "septa halves the channels by a 1x1 convolution before each bilinear upsampling, and interpolates "
                "without aligned corners; the repository halves them in the block after it."
            ),
            _SHIFTED,
        ),
        drawing=_INSTEAD_OF_CARS,
    ),
    "milesial": Published(
        data="the Carvana challenge's images and masks",
        figures=(
            Figure(metric="dice", label="Dice", value=0.988423, source=_CARVANA),
            Figure(metric="iou", label="IoU"),
        ),
        differences=(
            "The published Dice is of a later version of the repository, whose README names no score of this one.",
            (
                "Where a side is not a multiple of 16, the repository pads the upsampled array with zeros; septa "
                "repeats the edge of the image."
            ),
            _SHIFTED,
        ),
        drawing=_INSTEAD_OF_CARS,
    ),
    "shapes": Published(
        data="drawings of 'septa synth --kind shapes'",
        figures=(
            Figure(metric="dice", label="mean Dice", value=0.95, relation=">", source="septa's own target"),
            Figure(metric="iou", label="mean IoU"),
        ),
        drawing=Drawing(kind="shapes", count=400, held_out=40, size_hw=(192, 192)),
    ),
    "paper": Published(
        data="the ISBI 2012 EM challenge's training slices and their labels",
        figures=(
            Figure(metric="warping_error", label="warping error", value=0.000353, source=_PAPER),
            Figure(metric="rand_error", label="Rand error", value=0.0382, source=_PAPER),
            Figure(metric="pixel_f_error", label="pixel error", value=0.0611, source=_PAPER),
            Figure(metric="dice", label="Dice"),
        ),
        differences=(
            (
                "The challenge computed the published errors on its test slices, whose labels are not public. The "
                "measured ones are of held-out training slices, each the best over thresholds on the probability. They "
                "cannot be compared one to one."
            ),
            "The authors trained on all 30 slices, for ten hours on a GPU.",
        ),
    ),
}
"""Published figures by the name of the preset."""
