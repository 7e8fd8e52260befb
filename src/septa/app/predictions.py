"""Segmentations of open images: ordered, done by the process that predicts, and decoded again by other thresholds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from septa.errors import InputError

from .document import Document
from .edits import Part
from .jobs import Job, JobOrder, Jobs
from .messages import DecodeRequest, SegmentRequest
from .models import Models
from .predictor import FoundLabels, Predictor
from .saver import Saver
from .thresholds import Thresholds

_KEPT = 2
"""Number of images whose net output is kept."""


class CorrectionsAtStake(InputError):
    """A segmentation would replace corrections."""


class Predictions:
    """The segmentations of a folder.

    Parameters
    ----------
    models, saver, jobs, predictor
        Those of the workspace.
    open_document
        Function that returns the labels of a page.
    """

    def __init__(
        self,
        *,
        models: Models,
        saver: Saver,
        jobs: Jobs,
        predictor: Predictor,
        open_document: Callable[[str], Document],
    ) -> None:
        self._models = models
        self._saver = saver
        self._jobs = jobs
        self._predictor = predictor
        self._open_document = open_document
        self._kept: OrderedDict[str, FoundLabels] = OrderedDict()

    def warm(self) -> None:
        """Let the process load the model that is chosen first."""
        if models := self._models.list_models():
            self._predictor.warm(models[0])

    def get(self, image: str) -> FoundLabels | None:
        """Return the last prediction for a page, without its labels; None for one of long ago."""
        return self._kept.get(image)

    @contextmanager
    def change(self, document: Document, base: int | None) -> Iterator[None]:
        """Hold the labels of a page for a change.

        Parameters
        ----------
        document
            The labels.
        base
            Version of the labels that whoever wants the change has seen; None for any.

        Raises
        ------
        InputError
            They are about to be replaced, so that the change would be lost.
        StaleLabels
            They are others by now.
        """
        with document.lock:
            self._require_rest(document)
            document.require_version(base)
            yield

    def _require_rest(self, document: Document) -> None:
        if self._jobs.find("segment", document.name) is not None:
            problem = "the image is being segmented, or waits for it"
            raise InputError(document.name, problem, "Wait until it is done, or cancel it")

    def order(self, name: str, request: SegmentRequest) -> Job:
        """Order the segmentation of a page: the part that is visible first, then all of it.

        Raises
        ------
        CorrectionsAtStake
            The labels were corrected, or drawn by a person, and ``request.replace`` is False.
        InputError
            The image cannot be segmented, there is no such model, or it is ordered already.
        """
        document = self._open_document(name)
        self._models.find(request.model)
        order = JobOrder(kind="segment", model=request.model, image=document.name, visible=request.visible)
        with self.change(document, request.base):
            _refuse_loss(document, request.replace)
            return self._jobs.add(order)

    def segment(self, job: Job) -> None:
        """Segment the page of a job, and save its labels; errors are those of `Predictor.segment`."""
        document = self._open_document(job.order.image)
        choice = self._models.find(job.order.model)
        visible = None if job.order.visible is None else Part(*job.order.visible)
        image_cyx = document.picture.image_cyx
        try:
            found = self._predictor.segment(
                job.watch(), document.name, choice, image_cyx, visible=visible, show=document.show_preview
            )
        finally:
            document.show_preview(None, None)
        job.lines = list(found.lines)
        self._keep(document.name, found.drop_labels())
        document.replace_all("segment", found.labels_yx, found.marks, found.thresholds, found.classes)
        self._saver.save(document)

    def _keep(self, image: str, found: FoundLabels) -> None:
        """Keep a prediction; that for the same image, or for an image of long ago, is dropped."""
        if (before := self._kept.pop(image, None)) is not None:
            self._predictor.forget(before.number)
        self._kept[image] = found
        while len(self._kept) > _KEPT:
            self._predictor.forget(self._kept.popitem(last=False)[1].number)

    def find_decoding(self, document: Document) -> tuple[FoundLabels, Thresholds] | None:
        """Return the prediction for a page, and the thresholds in use; None if they cannot be moved."""
        found, thresholds = self.get(document.name), document.decoding
        if found is None or thresholds is None or found.marks.pixels or not self._predictor.keeps(found.number):
            return None
        return found, thresholds

    def decode(self, name: str, request: DecodeRequest) -> Document:
        """Find the objects again from the kept output of the net, with other thresholds.

        Raises
        ------
        CorrectionsAtStake
            The labels were corrected, and ``request.replace`` is False.
        InputError
            The output of the net is not kept, or the image is being segmented.
        """
        document = self._open_document(name)
        kept = self.find_decoding(document)
        if kept is None:
            raise InputError(name, "the output of the net is not kept any more", "Segment the image again")
        with self.change(document, request.base):
            _refuse_loss(document, request.replace)
            base = document.version
        found = kept[0]
        given = request.model_dump(exclude={"replace", "confidence", "base"}, exclude_none=True)
        decoding = replace(found.thresholds.decoding, **given)
        thresholds = Thresholds(decoding=decoding, confidence=request.confidence or 0.0)
        labels_yx, classes = self._predictor.decode(document.name, found.number, thresholds)
        with self.change(document, base):
            document.replace_all("decode", labels_yx, found.marks, thresholds, classes)
        self._saver.save(document)
        return document


def _refuse_loss(document: Document, replace_corrections: bool) -> None:
    marks = document.marks
    drawn = document.count > 0 and not marks.model
    if (marks.corrections or marks.is_ground_truth or drawn) and not replace_corrections:
        problem = f"the labels have {marks.corrections} corrections"
        if marks.is_ground_truth:
            problem = "the labels were checked"
        if drawn and not marks.corrections:
            problem = f"the {document.count} objects in the label file were not found by the app"
        raise CorrectionsAtStake(document.name, problem, "Confirm that they may be replaced; undo brings them back")
