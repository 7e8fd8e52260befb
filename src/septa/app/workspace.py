"""Everything that is open in the app: pictures, documents, models and the job that runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np

from septa.errors import InputError
from septa.notices import Notices
from septa.objects import ObjectTable, measure_objects, to_geojson
from septa.tasks import Decoding

from . import edits
from .document import Document
from .folder import ImageFolder
from .jobs import Job, Jobs
from .messages import DecodeRequest, EditRequest
from .picture import Picture
from .saver import Saver
from .segmenter import ModelChoice, NetOutput, Segmenter
from .training_folder import TrainingFolder

_OPEN = 3
"""Number of pictures and documents that stay open."""


class CorrectionsAtStake(InputError):
    """A segmentation would replace corrections."""


class Workspace:
    """A folder that is open in the app; every action of the page is a method here or of what it returns.

    Methods may be called from several threads.

    Parameters
    ----------
    path
        Folder of images.
    model
        Model that is chosen first; None for the first of the list.

    Raises
    ------
    InputError
        The folder cannot be used.
    """

    def __init__(self, path: Path, model: ModelChoice | None = None) -> None:
        self.folder = ImageFolder(path)
        self.segmenter = Segmenter(self.folder, model)
        self.jobs = Jobs()
        self.saver = Saver()
        self._lock = threading.RLock()
        self._pictures: OrderedDict[str, tuple[str, Picture]] = OrderedDict()
        self._documents: OrderedDict[str, Document] = OrderedDict()

    def close(self) -> None:
        """Stop the job, and wait until everything is saved."""
        self.jobs.cancel()
        self.jobs.wait(30)
        self.saver.close()

    def open_picture(self, name: str) -> tuple[str, Picture]:
        """Return a picture and the key of its file, which changes when the file does.

        Raises
        ------
        InputError
            There is no such image, or it cannot be shown.
        """
        with self._lock:
            if name in self._pictures and self.folder.contains(self._pictures[name][1].path):
                self._pictures.move_to_end(name)
                return self._pictures[name]
            path = self.folder.find_image(name)
            status = path.stat()
            found = f"{status.st_mtime_ns:x}-{status.st_size:x}", Picture(path)
            self._pictures[name] = found
            while len(self._pictures) > _OPEN:
                _, (_, old) = self._pictures.popitem(last=False)
                old.close()
            return found

    def open_document(self, name: str) -> Document:
        """Return the labels of an image.

        Raises
        ------
        InputError
            There is no such image, it is too large, or its label file cannot be read.
        """
        with self._lock:
            if name not in self._documents:
                _, picture = self.open_picture(name)
                _ = picture.image_cyx  # an image that is too large has no labels in memory
                self._documents[name] = Document(self.folder, picture)
            self._documents.move_to_end(name)
            for old in list(self._documents):
                document = self._documents[old]
                if len(self._documents) > _OPEN and old != name and document.version == document.saved_version:
                    if self.jobs.last is not None and self.jobs.running and self.jobs.last.image == old:
                        continue
                    del self._documents[old]
            return self._documents[name]

    # --- labels -----------------------------------------------------------------------------------------------------

    def edit(self, name: str, request: EditRequest) -> tuple[Document, int | None]:
        """Make one edit and save it; return the document, and the object that was made or changed.

        Raises
        ------
        InputError
            The edit does not apply.
        """
        document = self.open_document(name)
        with document.lock:
            label = request.label or document.next_label
            box = document.edit(request.tool, lambda labels_yx: _find_change(labels_yx, request, label))
            touched = None if box is None else _find_touched(document, request, label)
        self.saver.save(document)
        return document, touched

    def step(self, name: str, *, forward: bool) -> Document:
        """Undo the last edit, or do it again."""
        document = self.open_document(name)
        if forward:
            document.redo()
        else:
            document.undo()
        self.saver.save(document)
        return document

    def check(self, name: str, checked: bool) -> Document:
        """Mark the labels of an image as ground truth, or take the mark away; labels without objects are saved too.

        Raises
        ------
        InputError
            The labels cannot be saved.
        """
        document = self.open_document(name)
        if checked:
            document.save()
            if document.error is not None:
                raise document.error
        self.folder.set_marks(name, checked=checked)
        return document

    # --- segmentation -----------------------------------------------------------------------------------------------

    def segment(self, name: str, model: str, *, replace_corrections: bool) -> Job:
        """Start the segmentation of an image.

        Raises
        ------
        CorrectionsAtStake
            The labels were corrected, or drawn by a person, and ``replace_corrections`` is False.
        InputError
            The image cannot be segmented, or septa is busy.
        """
        document = self.open_document(name)
        self._refuse_loss(document, replace_corrections)

        def work(job: Job) -> None:
            notices = Notices()
            output = self.segmenter.compute(document.picture, model, job.report, notices)
            job.lines = notices.lines()
            labels_yx = output.decode(output.model.decoding)
            job.report(1, "finding the objects")
            self.segmenter.keep(name, output)
            document.replace_all("segment", labels_yx, model=model, decoding=output.model.decoding)
            self.saver.save(document)

        return self.jobs.start("segment", name, work)

    def find_decoding(self, name: str) -> tuple[NetOutput, Decoding] | None:
        """Return the kept output of the net for an image, and the thresholds in use."""
        output, decoding = self.segmenter.get(name), self.open_document(name).decoding
        return None if output is None or decoding is None else (output, decoding)

    def decode(self, name: str, request: DecodeRequest) -> Document:
        """Find the objects again from the kept output of the net, with other thresholds.

        Raises
        ------
        CorrectionsAtStake
            The labels were corrected, and ``request.replace`` is False.
        InputError
            The output of the net is not kept.
        """
        document = self.open_document(name)
        found = self.find_decoding(name)
        if found is None:
            raise InputError(name, "the output of the net is not kept any more", "Segment the image again")
        self._refuse_loss(document, request.replace)
        output = found[0]
        given = request.model_dump(exclude={"replace"}, exclude_none=True)
        decoding = replace(output.model.decoding, **given)
        labels_yx = output.decode(decoding)
        document.replace_all("decode", labels_yx, model=output.name, decoding=decoding)
        self.saver.save(document)
        return document

    def _refuse_loss(self, document: Document, replace_corrections: bool) -> None:
        marks = self.folder.get_marks(document.name)
        drawn = document.count > 0 and not marks.model
        if (marks.corrections or marks.checked or drawn) and not replace_corrections:
            problem = "the labels were checked" if marks.checked else f"the labels have {marks.corrections} corrections"
            if drawn:
                problem = f"the {document.count} objects in the label file were not found by the app"
            raise CorrectionsAtStake(document.name, problem, "Confirm that they may be replaced; undo brings them back")

    # --- results ----------------------------------------------------------------------------------------------------

    def measure(self, name: str, *, intensities: bool) -> tuple[int, ObjectTable]:
        """Measure the objects of an image; return the version of the labels, and the table."""
        document = self.open_document(name)
        with document.lock:
            version, labels_yx = document.version, document.labels_yx.copy()
        output, picture = self.segmenter.get(name), document.picture
        table = measure_objects(
            labels_yx,
            picture.image_cyx if intensities else None,
            foreground_yx=None if output is None else output.foreground_yx,
            pixel_size_um=picture.calibration.pixel_size_um,
        )
        if output is not None:
            confidence = output.model.confidence_curve.apply(table.columns["confidence"])
            table = ObjectTable({**table.columns, "confidence": confidence})
        return version, table

    def make_csv(self, name: str) -> str:
        """Return the table of objects as CSV."""
        _, table = self.measure(name, intensities=True)
        stem = self.open_document(name).path.stem
        return ObjectTable({"image": np.full(len(table), stem), **table.columns}).to_csv()

    def make_geojson(self, name: str) -> str:
        """Return the outlines of objects as GeoJSON."""
        document = self.open_document(name)
        with document.lock:
            labels_yx = document.labels_yx.copy()
        return to_geojson(labels_yx, self.measure(name, intensities=True)[1])

    def write_training_folder(self) -> TrainingFolder:
        """Write the checked images and their labels to a folder that ``septa train`` reads.

        Raises
        ------
        InputError
            No image is checked, or files would be replaced that septa did not write.
        """
        self.saver.flush()
        return TrainingFolder.write(self.folder)


def _find_change(labels_yx: edits.Int32, request: EditRequest, label: int) -> edits.Change | None:
    """Find the change of an edit."""
    tool, points = request.tool, request.points
    size = labels_yx.shape[0], labels_yx.shape[1]
    if tool in ("delete", "merge"):
        if request.label is None or (tool == "merge" and request.into is None):
            raise InputError("", "no object is selected", "Click an object with the tool Select first")
        if tool == "merge" and request.into is not None:
            if request.into == request.label:
                raise InputError("", "the two objects are the same", "Click another object")
            return edits.merge(labels_yx, request.label, request.into)
        return edits.delete(labels_yx, request.label)
    if not points:
        raise InputError("", "the stroke has no points", "Draw on the image")
    if tool == "fill":
        return edits.fill(labels_yx, points[0])
    if tool == "split":
        return edits.split(labels_yx, points, max(label, int(labels_yx.max(initial=0)) + 1))
    if tool == "polygon":
        return edits.paint(labels_yx, *edits.draw_polygon(size, points), label, over=request.over)
    box, mask_yx = edits.draw_stroke(size, points, request.radius)
    if tool == "eraser":
        return edits.erase(labels_yx, box, mask_yx, request.label)
    return edits.paint(labels_yx, box, mask_yx, label, over=request.over)


def _find_touched(document: Document, request: EditRequest, label: int) -> int | None:
    """Return the object that an edit leaves selected."""
    if request.tool in ("delete", "split"):
        return None
    if request.tool == "fill":
        return int(document.labels_yx[edits.locate(document.labels_yx, request.points[0])]) or None
    chosen = request.into if request.tool == "merge" else request.label if request.tool == "eraser" else label
    return chosen if chosen is not None and bool((document.labels_yx == chosen).any()) else None
