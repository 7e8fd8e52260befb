"""Everything that is open in the app: pictures, documents, models and the predictions that wait."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

from septa.errors import InputError
from septa.images import write_image

from .decoder import Decoders, Header, make_stamp
from .desk import Desk
from .document import Document
from .edits import Part
from .folder import Area, ImageFolder
from .jobs import Job, Jobs
from .label_file import LabelFile
from .learning import Learning
from .messages import CheckRequest, EditRequest, ImageAnswer
from .models import ModelChoice, Models
from .pages import ImagePage, PageName
from .picture import Picture, is_quick
from .predictions import Predictions
from .predictor import Predictor
from .saver import Saver
from .shelf import Shelf
from .strokes import find_touched, plan_edit
from .training_folder import TrainingFolder
from .uploads import remove_parts, reserve_file

QUEUE = ".septa-queue.json"
"""File in the folder that keeps the predictions that wait."""
CUT_PIXELS = 32_000_000
"""Largest part that is cut out of an image, pixels."""
_MOST_AREAS = 1000
_OPEN = 3
"""Number of documents that stay open."""
_PICTURE_BYTES = 2**31
"""Memory of the pictures that stay open."""
_HEADERS = 10_000
_THUMBNAILS = 2_000


class Workspace:
    """A folder that is open in the app; every action of the page is a method here or of what it returns.

    Methods may be called from several threads.

    Parameters
    ----------
    path
        Folder of images.
    model
        Model that is chosen first; None for the first of the list.
    decoders, predictor
        Processes that decode images, and the one that predicts; None for own ones.

    Raises
    ------
    InputError
        The folder cannot be used.
    """

    def __init__(
        self,
        path: Path,
        model: ModelChoice | None = None,
        decoders: Decoders | None = None,
        predictor: Predictor | None = None,
    ) -> None:
        self.folder = ImageFolder(path)
        remove_parts(self.folder)
        self.folder.check_inside(self.folder.path / QUEUE)
        self.models = Models(self.folder, model)
        self.jobs = Jobs(self.folder.path / QUEUE, self._do)
        self.saver = Saver()
        self.decoders = Decoders() if decoders is None else decoders
        self.predictor = Predictor() if predictor is None else predictor
        self._owned = [own for own, given in ((self.decoders, decoders), (self.predictor, predictor)) if given is None]
        self._headers: Shelf[Header] = Shelf(lambda values: len(values) > _HEADERS)
        self._pictures: Shelf[Picture] = Shelf(lambda values: sum(one.nbytes for one in values) > _PICTURE_BYTES)
        self._files: Shelf[LabelFile] = Shelf(lambda values: False)
        self._documents: Shelf[Document] = Shelf(lambda values: len(values) > _OPEN, self._can_close)
        self._thumbnails: Shelf[bytes] = Shelf(lambda values: len(values) > _THUMBNAILS)
        self.desk = Desk(
            folder=self.folder,
            models=self.models,
            predictor=self.predictor,
            jobs=self.jobs,
            saver=self.saver,
            decoders=self.decoders,
            find_page=self.find_page,
            find_document=self._documents.find,
            find_labels=self._find_labels,
        )
        self.predictions = Predictions(
            models=self.models,
            saver=self.saver,
            jobs=self.jobs,
            predictor=self.predictor,
            open_document=self.open_document,
        )
        self.learning = Learning(self.desk)
        self.jobs.restore()

    def close(self) -> None:
        """Stop predictions and training, which continue in the next server, and wait until everything is saved."""
        self.jobs.close()
        self.learning.trainings.close()
        self.saver.close()
        for own in self._owned:
            own.close()

    def _do(self, job: Job) -> None:
        """Do the work of a job."""
        do = {
            "segment": self.predictions.segment,
            "suggest": self.learning.review.suggest,
            "suspects": self.learning.review.contradict,
        }
        do[job.order.kind](job)

    def _can_close(self, _: Hashable, document: Document) -> bool:
        return document.version == document.saved_version and self.jobs.find("segment", document.name) is None

    def list_images(self) -> list[ImageAnswer]:
        """List the images of the folder with their marks."""
        found = []
        for name, path in self.folder.list_images().items():
            pages = [self.folder.get_marks(own) for own in self.folder.list_pages(name)]
            marks = self.folder.get_marks(name)
            answer = ImageAnswer(
                name=name,
                labels=self.folder.has_labels(path),
                checked=marks.checked,
                checked_pages=sum(one.checked for one in pages),
                areas=sum(len(one.areas) for one in pages if not one.checked),
                corrections=sum(one.corrections for one in pages),
                model=next((one.model for one in pages if one.model), ""),
            )
            found.append(answer)
        return found

    def find_page(self, name: str) -> ImagePage:
        """Return the page of a name; the name of a file stands for its first page.

        Raises
        ------
        InputError
            There is no such page, or the file is not an image.
        """
        wanted = PageName.parse(name, self.folder.list_images())
        path = self.folder.find_image(wanted.file)
        header = self._describe(path, wanted.image)
        if header.images > 1 and wanted.image is None:
            wanted = replace(wanted, image=0)
            header = self._describe(path, 0)
        if header.pages > 1 and wanted.page is None:
            wanted = replace(wanted, page=0)
        if (wanted.image or 0) >= header.images or (wanted.page or 0) >= header.pages:
            raise InputError(name, "the file has no such page", "Choose one of its pages")
        simple = replace(wanted, image=wanted.image if header.images > 1 else None)
        return ImagePage(name=replace(simple, page=simple.page if header.pages > 1 else None), path=path, header=header)

    def _describe(self, path: Path, image: int | None) -> Header:
        key = path, image, make_stamp(path)
        return self._headers.get(key, lambda: self.decoders.describe(path, image))

    def open_picture(self, name: str) -> Picture:
        """Return the picture of a page.

        Raises
        ------
        InputError
            There is no such image, or it cannot be shown.
        """
        found = self._pictures.find(name)
        if found is not None and self.folder.contains(found.path):
            return found
        page = self.find_page(name)
        return self._pictures.get(str(page.name), lambda: Picture(page, self.decoders))

    def draw_thumbnail(self, name: str) -> bytes | None:
        """Return a small picture of the first page of an image, PNG; None for one that must be opened for an overview.

        Raises
        ------
        InputError
            There is no such image, or it cannot be shown.
        """
        page = self.find_page(name)
        full = str(page.name)
        open_already = self._pictures.find(full)
        if open_already is None and not is_quick(page.header):
            return None
        key = full, make_stamp(page.path)
        return self._thumbnails.get(key, lambda: (open_already or Picture(page, self.decoders)).draw_thumbnail())

    def open_document(self, name: str) -> Document:
        """Return the labels of a page.

        Raises
        ------
        InputError
            There is no such page, it is too large, or its label file cannot be read.
        """
        found = self._documents.find(name)
        if found is not None:
            return found
        picture = self.open_picture(name)
        _ = picture.image_cyx  # an image that is too large has no labels in memory
        file = self._find_labels(picture.page)
        return self._documents.get(picture.name, lambda: Document(self.folder, picture, file))

    def _find_labels(self, page: ImagePage) -> LabelFile:
        """Return the label file of a page."""
        return self._files.get((page.path, page.name.image), lambda: LabelFile(self.folder, page, self.decoders))

    def cut(self, name: str, box: Part) -> str:
        """Save a part of a page as an image of its own, and return its name.

        Raises
        ------
        InputError
            The part is empty or too large.
        ResourceError
            The disk is full.
        """
        picture = self.open_picture(name)
        height, width = picture.size_yx
        box = Part(max(0, box.top), max(0, box.left), min(height, box.bottom), min(width, box.right))
        pixels = max(0, box.bottom - box.top) * max(0, box.right - box.left)
        if not 0 < pixels <= CUT_PIXELS:
            problem = f"the part has {pixels} pixels, and the app cuts out 1 to {CUT_PIXELS}"
            raise InputError(name, problem, "Zoom in until the part that you need fills the view")
        image_cyx = picture.cut(box.top, box.left, box.bottom, box.right)
        stem = f"{picture.page.page_stem}_y{box.top}_x{box.left}"
        calibration = replace(picture.calibration.crop(box.top, box.left), channel_names=())
        with reserve_file(self.folder, f"{stem}.tif") as (part, target):
            write_image(part, image_cyx, calibration=calibration)
        return target.name

    # --- labels -----------------------------------------------------------------------------------------------------

    def edit(self, name: str, request: EditRequest) -> tuple[Document, int | None]:
        """Make one edit and save it; return the document, and the object that was made or changed.

        Raises
        ------
        InputError
            The edit does not apply.
        """
        document = self.open_document(name)
        with self.predictions.change(document, request.base):
            if request.tool == "class":
                if request.label is None or request.value is None:
                    raise InputError("", "no object or no class is chosen", "Choose a class, then click an object")
                document.classify(request.label, request.value)
                touched: int | None = request.label
            else:
                find_change, label = plan_edit(document, request)
                box = document.edit(request.tool, find_change)
                touched = None if box is None else find_touched(document, request, label)
        self.saver.save(document)
        return document, touched

    def step(self, name: str, base: int | None, *, forward: bool) -> Document:
        """Undo the last edit, or do it again; ``base`` as in `ChangeRequest`."""
        document = self.open_document(name)
        with self.predictions.change(document, base):
            if forward:
                document.redo()
            else:
                document.undo()
        self.saver.save(document)
        return document

    def check(self, name: str, request: CheckRequest) -> Document:
        """Mark labels as ground truth, or take the mark away; labels without objects are saved too.

        Parameters
        ----------
        name
            Name of the page.
        request
            What is marked; a rectangle is cut to the image.

        Raises
        ------
        InputError
            The labels cannot be saved, or the area lies outside the image.
        """
        document, checked, area = self.open_document(name), request.checked, request.area
        with self.predictions.change(document, request.base):
            pass
        if checked and (not document.file.exists or document.version != document.saved_version):
            document.save()
            if document.error is not None:
                raise document.error
        if area is None:
            self.folder.set_marks(document.name, checked=checked)
            return document
        inside = _cut_area(area, document.labels_yx.shape)
        others = tuple(one for one in document.marks.areas if one != inside)
        if len(others) >= _MOST_AREAS:
            raise InputError(name, f"the image has {_MOST_AREAS} checked areas already", "Check the whole image")
        self.folder.set_marks(document.name, areas=(*others, inside) if checked else others)
        return document

    # --- results ----------------------------------------------------------------------------------------------------

    def write_training_folder(self) -> TrainingFolder:
        """Write the checked images and their labels to a folder that ``septa train`` reads.

        Raises
        ------
        InputError
            No image is checked, or files would be replaced that septa did not write.
        """
        self.learning.save_checked()
        return TrainingFolder.write(self.desk)


def _cut_area(area: Area, shape: tuple[int, ...]) -> Area:
    """Cut a rectangle to the image.

    Raises
    ------
    InputError
        Nothing is left of it.
    """
    top, left, bottom, right = area
    inside = max(0, top), max(0, left), min(shape[0], bottom), min(shape[1], right)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise InputError("", "the area lies outside the image", "Draw it inside the image")
    return inside
