"""Where to look next: images of which a model is least sure, and labels that it contradicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, SeptaError
from septa.metrics import LabelPair, evaluate_labels
from septa.objects import Suspect, confidence, find_suspects, measure_doubt, measure_pixel_doubt
from septa.recipe import IGNORE

from .decoder import make_stamp
from .desk import Desk
from .folder import Area, Marks
from .jobs import Job, Watch
from .models import ModelChoice
from .pages import ImagePage
from .predictor import FoundLabels

_SIDE = 256
"""Side of the region of an image that is suggested, pixels."""
_MOST_SUSPECTS = 500
_PLANES = 8
_UNLIKE = "unlike the training images"


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """An unchecked image.

    Attributes
    ----------
    image
        Name of the image.
    doubt
        Doubt of the model about the region, 0 to 1; see `septa.objects.measure_doubt`.
    box
        Region of most doubt: first row and column, and the ones after the last.
    objects
        Number of objects that the model finds in the image.
    unlike
        True if the image is unlike those that the model was trained on.
    """

    image: str
    doubt: float
    box: Area
    objects: int
    unlike: bool


@dataclass(frozen=True, kw_only=True)
class Suggestions:
    """Unchecked images, the one that teaches most first; ``skipped`` has a line for each that was not looked at."""

    model: str = ""
    images: tuple[Suggestion, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """Labels that a model contradicts.

    Attributes
    ----------
    model
        Name of the model.
    images
        Number of images whose labels were compared.
    f1
        F1 of its objects in these labels at an IoU of 0.5; None if there are none.
    found
        Image and suspect labels, the most certain first.
    skipped
        A line for each image that was not looked at.
    """

    model: str = ""
    images: int = 0
    f1: float | None = None
    found: tuple[tuple[str, Suspect], ...] = ()
    skipped: tuple[str, ...] = ()


class Review:
    """The searches for images and for suspect labels, with the results of the last ones.

    Parameters
    ----------
    desk
        The workspace.

    Attributes
    ----------
    suggestions, suspects
        Results so far.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.suggestions = Suggestions()
        self.suspects = Suspects()
        self._known: dict[tuple[Any, ...], Suggestion] = {}

    def suggest(self, job: Job) -> None:
        """Rank the unchecked images by the doubt of a model; images that were ranked before are not computed again.

        Of a stack, at most `_PLANES` planes are looked at. The ranking so far can be read while it grows.
        """
        choice = self._desk.models.find(job.order.model)
        model, file = choice.name, choice.path
        self.suggestions = Suggestions(model=model)
        skipped: list[str] = []
        pages = list(self._list_unchecked(skipped))
        if not pages and not skipped:
            raise InputError("", "all images are checked", "Add images to the folder")
        found: list[Suggestion] = []
        for number, page in enumerate(pages):
            watch = job.watch(number, len(pages), str(page.name))
            key = (str(page.name), make_stamp(page.path), file, make_stamp(file))
            try:
                if key not in self._known:
                    self._known[key] = self._suggest_one(page, choice, watch)
                found.append(self._known[key])
            except SeptaError as error:
                skipped.append(str(error))
            ranked = sorted(found, key=lambda one: (not one.unlike, -one.doubt, one.image))
            self.suggestions = Suggestions(model=model, images=tuple(ranked), skipped=tuple(skipped))
        if not found:
            raise InputError("", f"no image can be segmented ({skipped[0]})", "Choose another model")

    def _list_unchecked(self, skipped: list[str]) -> Iterator[ImagePage]:
        """Yield the pages without checked labels; files that cannot be read are named in ``skipped``."""
        checked = set(self._desk.folder.list_ground_truth())
        for name in self._desk.folder.list_images():
            try:
                pages = [page for page in self._desk.list_pages(name) if str(page.name) not in checked]
            except SeptaError as error:
                skipped.append(str(error))
                continue
            yield from pages[:: max(1, -(-len(pages) // _PLANES))]

    def _suggest_one(self, page: ImagePage, choice: ModelChoice, watch: Watch) -> Suggestion:
        found = self._predict(page, choice, watch)
        if found.marks.pixels:
            doubt = measure_pixel_doubt(found.probability_yx, side=_SIDE)
            count = 0
        else:
            confidences = _find_confidences(found)
            doubt = measure_doubt(found.labels_yx, found.probability_yx, confidences, side=_SIDE)
            count = confidences.size
        unlike = any(_UNLIKE in line for line in found.warnings)
        return Suggestion(image=str(page.name), doubt=doubt.amount, box=doubt.box, objects=count, unlike=unlike)

    def _predict(self, page: ImagePage, choice: ModelChoice, watch: Watch) -> FoundLabels:
        image_cyx = self._desk.read_image(page)
        return self._desk.predictor.segment(watch, str(page.name), choice, image_cyx)

    def contradict(self, job: Job) -> None:
        """Find the labels, of those that a person has drawn, corrected or checked, that a model contradicts."""
        self._desk.saver.flush()
        choice = self._desk.models.find(job.order.model)
        skipped: list[str] = []
        pages = list(self._list_drawn(skipped))
        if not pages and not skipped:
            raise InputError("", "no labels are drawn, corrected or checked", "Correct or check an image first")
        found: list[tuple[str, Suspect]] = []
        pairs: list[LabelPair] = []
        for number, page in enumerate(pages):
            name = str(page.name)
            try:
                labels_yx = self._keep_checked(name, self._desk.read_labels(page))
                predicted = self._predict(page, choice, job.watch(number, len(pages), name))
            except SeptaError as error:
                skipped.append(str(error))
                continue
            if predicted.marks.pixels:
                problem = "the model finds classes of pixels, and this search is about objects"
                raise InputError(choice.name, problem, "Choose a model that finds objects")
            pairs.append(LabelPair(name, labels_yx, predicted.labels_yx))
            suspects = find_suspects(
                labels_yx, predicted.labels_yx, predicted.probability_yx, _find_confidences(predicted)
            )
            found += [(name, one) for one in suspects]
        found.sort(key=lambda one: -one[1].certainty)
        score = evaluate_labels(pairs, ("background", "object"), instances=True) if pairs else None
        self.suspects = Suspects(
            model=choice.name,
            images=len(pairs),
            f1=None if score is None else score.objects["f1_50"]["pooled"],
            found=tuple(found[:_MOST_SUSPECTS]),
            skipped=tuple(skipped),
        )

    def _list_drawn(self, skipped: list[str]) -> Iterator[ImagePage]:
        """Yield the pages whose labels a person has drawn, corrected or checked."""
        folder = self._desk.folder
        for name, path in folder.list_images().items():
            if not folder.has_labels(path):
                continue
            try:
                pages = self._desk.list_pages(name)
                marks = [folder.get_marks(str(page.name)) for page in pages]
                yield from (page for page, own in zip(pages, marks) if self._is_drawn(page, own))
            except SeptaError as error:
                skipped.append(str(error))

    def _is_drawn(self, page: ImagePage, marks: Marks) -> bool:
        if marks.pixels or not self._desk.find_labels(page).exists:
            return False
        return marks.is_ground_truth or bool(marks.corrections) or (not marks.model and page.header.pages == 1)

    def _keep_checked(self, name: str, labels_yx: NDArray[np.int32]) -> NDArray[np.int32]:
        """Ignore the labels outside of checked areas, if only areas are checked."""
        marks = self._desk.folder.get_marks(name)
        if marks.checked or not marks.areas:
            return labels_yx
        kept_yx = np.full_like(labels_yx, IGNORE)
        for top, left, bottom, right in marks.areas:
            kept_yx[top:bottom, left:right] = labels_yx[top:bottom, left:right]
        return kept_yx


def _find_confidences(found: FoundLabels) -> NDArray[np.float64]:
    """Return the calibrated confidence of each object."""
    return found.curve.apply(confidence(found.labels_yx, found.probability_yx))
