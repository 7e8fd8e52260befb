"""The actions of the interface: each turns a request into a call of the workspace, and its result into an answer."""

from __future__ import annotations

import math
from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from septa import __version__
from septa.errors import InputError, SeptaError

from . import messages
from .access import TOKEN_HEADER, Access
from .decoder import make_stamp
from .document import Document
from .edits import Part
from .exports import make_download, measure
from .jobs import Job
from .picture import TILE, Picture
from .replies import Action, reply_file, reply_json, reply_pixels
from .thresholds import Thresholds
from .workspace import Workspace

_TABLE = ("label", "area", "centroid_x", "centroid_y", "equivalent_diameter", "eccentricity", "confidence", "area_um2")
_CLASS_TABLE = ["label", "area"]
_SKIPPED = "was not written by septa", "was changed after septa wrote it", "was written by septa for another image"


class Actions:
    """The actions of the interface."""

    def __init__(self, workspace: Workspace, access: Access) -> None:
        self._workspace = workspace
        self._access = access
        image = "/api/images/{name}"
        self.reads: dict[str, Action] = {
            "/api/session": self._session,
            "/api/images": self._list_images,
            "/api/jobs": self._list_jobs,
            image: self._open,
            f"{image}/thumbnail": self._thumbnail,
            f"{image}/tiles/{{level:int}}/{{row:int}}/{{column:int}}": self._tile,
            f"{image}/labels": self._labels,
            f"{image}/labels/{{level:int}}/{{row:int}}/{{column:int}}": self._label_tile,
            f"{image}/objects": self._objects,
            f"{image}/export/{{kind}}": self._export,
            "/api/models/{name}/file": self._export_model,
        }
        self.writes: dict[str, Action] = {
            f"{image}/cut": self._cut,
            f"{image}/segment": self._segment,
            f"{image}/decode": self._decode,
            f"{image}/edit": self._edit,
            f"{image}/undo": lambda request, body: self._step(request, body, forward=False),
            f"{image}/redo": lambda request, body: self._step(request, body, forward=True),
            f"{image}/check": self._check,
            f"{image}/overwrite": self._overwrite,
            f"{image}/reload": self._reload,
            "/api/jobs/{number:int}/cancel": self._cancel,
            "/api/training-folder": self._training_folder,
        }

    # --- folder -----------------------------------------------------------------------------------------------------

    def _session(self, request: HttpRequest, _: bytes) -> Response:
        folder = self._workspace.folder.path
        return reply_json(
            {"version": __version__, "folder": folder.name, "path": str(folder), TOKEN_HEADER: self._access.page_token}
        )

    def _list_images(self, request: HttpRequest, _: bytes) -> Response:
        return reply_json([one.model_dump() for one in self._workspace.list_images()])

    def _open(self, request: HttpRequest, _: bytes) -> Response:
        picture = self._workspace.open_picture(_name(request))
        problem, labels = "", None
        try:
            labels = self._describe(self._workspace.open_document(picture.name))
        except InputError as error:
            problem = str(error)
        return reply_json(_describe_picture(picture, problem, labels))

    def _thumbnail(self, request: HttpRequest, _: bytes) -> Response:
        content = self._workspace.draw_thumbnail(_name(request))
        if content is None:
            return Response(status_code=204)
        return Response(content, media_type="image/png", headers={"Cache-Control": "max-age=60"})

    def _cut(self, request: HttpRequest, body: bytes) -> Response:
        box = messages.CutRequest.model_validate_json(body).box
        return reply_json({"name": self._workspace.cut(_name(request), Part(*box))})

    # --- tiles ------------------------------------------------------------------------------------------------------

    def _tile(self, request: HttpRequest, _: bytes) -> Response:
        picture = self._workspace.open_picture(_name(request))
        tile_cyx = picture.read_tile(*_place(request))
        content = tile_cyx.astype(tile_cyx.dtype.newbyteorder("<")).tobytes()
        return reply_pixels(content, tile_cyx.shape)

    def _label_tile(self, request: HttpRequest, _: bytes) -> Response:
        document = self._workspace.open_document(_name(request))
        level, row, column = _place(request)
        rows, columns = document.picture.find_tile(level, row, column)
        tile_yx = document.cut_labels(document.picture.levels[level], rows, columns)
        return reply_pixels(tile_yx.astype("<i4").tobytes(), tile_yx.shape)

    # --- labels -----------------------------------------------------------------------------------------------------

    def _labels(self, request: HttpRequest, _: bytes) -> Response:
        return self._answer(self._workspace.open_document(_name(request)))

    def _edit(self, request: HttpRequest, body: bytes) -> Response:
        document, label = self._workspace.edit(_name(request), messages.EditRequest.model_validate_json(body))
        return self._answer(document, label)

    def _check(self, request: HttpRequest, body: bytes) -> Response:
        return self._answer(self._workspace.check(_name(request), messages.CheckRequest.model_validate_json(body)))

    def _step(self, request: HttpRequest, body: bytes, *, forward: bool) -> Response:
        base = messages.ChangeRequest.model_validate_json(body or b"{}").base
        return self._answer(self._workspace.step(_name(request), base, forward=forward))

    def _overwrite(self, request: HttpRequest, _: bytes) -> Response:
        document = self._workspace.open_document(_name(request))
        kept = document.file.allow_replacement()
        document.save()
        folder = self._workspace.folder.path
        return reply_json(self._describe(document).model_dump() | {"kept": kept.relative_to(folder).as_posix()})

    def _reload(self, request: HttpRequest, _: bytes) -> Response:
        document = self._workspace.open_document(_name(request))
        with self._workspace.predictions.change(document, None):
            document.reload()
        return self._answer(document)

    def _objects(self, request: HttpRequest, body: bytes) -> Response:
        document = self._workspace.open_document(_name(request))
        version, _, table, names = measure(document, self._workspace.predictions.get(document.name), intensities=False)
        shown = _CLASS_TABLE if document.marks.pixels else [name for name in _TABLE if name in table.columns]
        columns = {name: [_finite(value) for value in table.columns[name].tolist()] for name in shown}
        if "class" in table.columns and not document.marks.pixels:
            places = {name: float(place) for place, name in enumerate(names)}
            columns["class"] = [places.get(str(one), 0.0) for one in table.columns["class"].tolist()]
        rows = [list(row) for row in zip(*columns.values())]
        return reply_json(messages.ObjectsAnswer(version=version, columns=list(columns), rows=rows))

    # --- segmentation -----------------------------------------------------------------------------------------------

    def _segment(self, request: HttpRequest, body: bytes) -> Response:
        wanted = messages.SegmentRequest.model_validate_json(body)
        return reply_json(describe_job(self._workspace, self._workspace.predictions.order(_name(request), wanted)))

    def _decode(self, request: HttpRequest, body: bytes) -> Response:
        wanted = messages.DecodeRequest.model_validate_json(body)
        return self._answer(self._workspace.predictions.decode(_name(request), wanted))

    def _list_jobs(self, request: HttpRequest, _: bytes) -> Response:
        jobs = self._workspace.jobs.list_jobs()
        places = _find_places(jobs)
        return reply_json([_describe_job(job, places).model_dump() for job in jobs])

    def _cancel(self, request: HttpRequest, _: bytes) -> Response:
        job = self._workspace.jobs.cancel(int(request.path_params["number"]))
        return reply_json(describe_job(self._workspace, job))

    # --- results ----------------------------------------------------------------------------------------------------

    def _export(self, request: HttpRequest, _: bytes) -> Response:
        self._workspace.saver.flush()
        document = self._workspace.open_document(_name(request))
        prediction = self._workspace.predictions.get(document.name)
        made = make_download(document, prediction, str(request.path_params["kind"]))
        return reply_file(made.name, made.content, made.kind)

    def _export_model(self, request: HttpRequest, _: bytes) -> Response:
        choice = self._workspace.models.find(_name(request))
        return reply_file(f"{Path(choice.name).stem}.septa", choice.path.read_bytes(), "application/octet-stream")

    def _training_folder(self, request: HttpRequest, _: bytes) -> Response:
        written = self._workspace.write_training_folder()
        return reply_json(
            messages.TrainingFolderAnswer(path=str(written.path), images=list(written.images), ignore=written.ignore)
        )

    # --- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, document: Document, label: int | None = None) -> Response:
        return reply_json(self._describe(document, label))

    def _describe(self, document: Document, label: int | None = None) -> messages.LabelsAnswer:
        folder = self._workspace.folder
        marks, found = document.marks, self._workspace.predictions.find_decoding(document)
        error = document.error
        decoding = (
            None
            if found is None
            else {
                kind: _describe_thresholds(one)
                for kind, one in {"used": found[1], "model": found[0].thresholds}.items()
            }
        )
        classes = [messages.ClassAnswer(value=value, name=name) for value, name in document.class_table]
        return messages.LabelsAnswer(
            version=document.version,
            saved_version=document.saved_version,
            count=document.count,
            label=label,
            can_undo=document.can_undo,
            can_redo=document.can_redo,
            corrections=marks.corrections,
            checked=marks.checked,
            areas=list(marks.areas),
            classes=classes,
            pixels=marks.pixels,
            file=document.file.path.relative_to(folder.path).as_posix(),
            error=_describe_save_error(error),
            replaceable=error is not None and any(part in error.problem for part in _SKIPPED),
            decoding=decoding,
        )


def _describe_thresholds(thresholds: Thresholds) -> dict[str, float]:
    names = ("foreground", "seed", "least_pixels")
    return {name: float(getattr(thresholds.decoding, name)) for name in names} | {"confidence": thresholds.confidence}


def _describe_picture(picture: Picture, problem: str, labels: messages.LabelsAnswer | None) -> messages.PictureAnswer:
    samples, page = picture.samples, picture.page
    channels = [
        messages.ChannelAnswer(name=one.name, color=one.color, low=one.low, high=one.high)
        for one in picture.shown_channels
    ]
    return messages.PictureAnswer(
        name=picture.name,
        file=page.path.name,
        images=page.header.images,
        image=page.name.image or 0,
        pages=page.header.pages,
        page=page.number,
        position=page.position,
        key=make_stamp(page.path),
        levels=picture.levels,
        tile=TILE,
        dtype=samples.dtype,
        offset=samples.offset,
        scale=samples.scale,
        channels=channels,
        pixel_size_um=picture.calibration.pixel_size_um,
        problem=problem,
        can_cut=not picture.in_memory,
        labels=labels,
    )


def _describe_save_error(error: SeptaError | None) -> str:
    """Return the line of an error while saving; the remedies of the command line do not apply on the page."""
    if error is None:
        return ""
    if any(part in error.problem for part in _SKIPPED):
        return f"{Path(error.where).name}: {error.problem}, so it is kept as it is and your changes are not saved."
    return str(error)


def describe_job(workspace: Workspace, job: Job) -> messages.JobAnswer:
    """Return the answer that describes a job."""
    return _describe_job(job, _find_places(workspace.jobs.list_jobs()))


def _find_places(jobs: list[Job]) -> dict[int, int]:
    """Return for each job that waits how many are done before it."""
    active = (job for job in jobs if job.is_active)
    return {job.number: place for place, job in enumerate(active) if job.state == "waiting"}


def _describe_job(job: Job, places: dict[int, int]) -> messages.JobAnswer:
    return messages.JobAnswer(
        number=job.number,
        kind=job.order.kind,
        image=job.order.image,
        model=job.order.model,
        state=job.state,
        place=places.get(job.number, 0),
        share=job.share,
        text=job.text,
        error=job.error,
        lines=job.lines,
    )


def _name(request: HttpRequest) -> str:
    return str(request.path_params["name"])


def _place(request: HttpRequest) -> tuple[int, int, int]:
    level, row, column = (int(request.path_params[key]) for key in ("level", "row", "column"))
    return level, row, column


def _finite(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
