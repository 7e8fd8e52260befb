"""The HTTP interface: the page, and an answer in JSON, pixels or a file for each action."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from septa import __version__
from septa.errors import InputError, ResourceError, SeptaError, is_out_of_memory

from . import messages
from .access import TOKEN_HEADER, Access, Gate
from .document import Document
from .jobs import Job
from .picture import TILE, Picture
from .workspace import CorrectionsAtStake, Workspace

PAGE = Path(__file__).parent / "page"
"""Folder of the page."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_TABLE = ("label", "area", "centroid_x", "centroid_y", "equivalent_diameter", "eccentricity", "confidence", "area_um2")
_KEPT = "private, max-age=3600, immutable"
_SKIPPED = "was not written by septa", "was changed after septa wrote it", "was written by septa for another image"

Action = Callable[[HttpRequest, bytes], Response]
"""Function from a request and its body to the answer; it runs in a thread."""


def make_server(workspace: Workspace, access: Access) -> ASGIApp:
    """Make the server of a workspace, an ASGI application.

    Parameters
    ----------
    workspace
        The folder that is open.
    access
        Who may use it.
    """
    api = _Api(workspace, access)
    page = {"/" if path.name == "index.html" else f"/{path.name}": path for path in sorted(PAGE.iterdir())}
    routes = [
        *(Route(url, _serve_file(path)) for url, path in page.items() if path.suffix in _TYPES),
        *(Route(url, _serve(action), methods=["GET"]) for url, action in api.reads.items()),
        *(Route(url, _serve(action), methods=["POST"]) for url, action in api.writes.items()),
    ]

    @asynccontextmanager
    async def live(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(workspace.close)

    return Gate(Starlette(routes=routes, lifespan=live, exception_handlers={HTTPException: _explain_status}), access)


class _Api:
    """The actions of the interface."""

    def __init__(self, workspace: Workspace, access: Access) -> None:
        self._workspace = workspace
        self._access = access
        image = "/api/images/{name}"
        self.reads: dict[str, Action] = {
            "/api/session": self._session,
            "/api/images": self._list_images,
            "/api/models": self._list_models,
            "/api/job": self._job,
            image: self._open,
            f"{image}/thumbnail": self._thumbnail,
            f"{image}/tiles/{{level:int}}/{{row:int}}/{{column:int}}": self._tile,
            f"{image}/labels": self._labels,
            f"{image}/labels/{{level:int}}/{{row:int}}/{{column:int}}": self._label_tile,
            f"{image}/objects": self._objects,
            f"{image}/export/labels": self._export_labels,
            f"{image}/export/csv": self._export_csv,
            f"{image}/export/geojson": self._export_geojson,
        }
        self.writes: dict[str, Action] = {
            f"{image}/segment": self._segment,
            f"{image}/decode": self._decode,
            f"{image}/edit": self._edit,
            f"{image}/undo": lambda request, _: self._answer(self._workspace.step(_name(request), forward=False)),
            f"{image}/redo": lambda request, _: self._answer(self._workspace.step(_name(request), forward=True)),
            f"{image}/check": self._check,
            f"{image}/overwrite": self._overwrite,
            f"{image}/reload": self._reload,
            "/api/job/cancel": self._cancel,
            "/api/training-folder": self._training_folder,
        }

    # --- folder -----------------------------------------------------------------------------------------------------

    def _session(self, request: HttpRequest, _: bytes) -> Response:
        folder = self._workspace.folder.path
        return _json(
            {"version": __version__, "folder": folder.name, "path": str(folder), TOKEN_HEADER: self._access.page_token}
        )

    def _list_images(self, request: HttpRequest, _: bytes) -> Response:
        folder, found = self._workspace.folder, []
        for name, path in folder.list_images().items():
            marks = folder.get_marks(name)
            own = folder.find_labels(path) is not None
            facts = {"checked": marks.checked, "corrections": marks.corrections, "model": marks.model}
            found.append(messages.ImageAnswer(name=name, labels=own, **facts).model_dump())  # type: ignore[arg-type]
        return _json(found)

    def _list_models(self, request: HttpRequest, _: bytes) -> Response:
        choices = self._workspace.segmenter.list_models()
        return _json([{"name": one.name, "origin": one.origin, "summary": one.summary} for one in choices])

    def _open(self, request: HttpRequest, _: bytes) -> Response:
        name = _name(request)
        key, picture = self._workspace.open_picture(name)
        problem, labels = "", None
        try:
            labels = self._describe(self._workspace.open_document(name))
        except InputError as error:
            problem = str(error)
        samples = picture.samples
        channels = [
            messages.ChannelAnswer(name=one.name, color=one.color, low=one.low, high=one.high)
            for one in picture.shown_channels
        ]
        answer = messages.PictureAnswer(
            name=name,
            key=key,
            levels=picture.levels,
            tile=TILE,
            dtype=samples.dtype,
            offset=samples.offset,
            scale=samples.scale,
            channels=channels,
            pixel_size_um=picture.calibration.pixel_size_um,
            problem=problem,
            labels=labels,
        )
        return _json(answer)

    def _thumbnail(self, request: HttpRequest, _: bytes) -> Response:
        picture = Picture(self._workspace.folder.find_image(_name(request)))
        try:
            return Response(picture.draw_thumbnail(), media_type="image/png", headers={"Cache-Control": "max-age=60"})
        finally:
            picture.close()

    # --- tiles ------------------------------------------------------------------------------------------------------

    def _tile(self, request: HttpRequest, _: bytes) -> Response:
        picture = self._workspace.open_picture(_name(request))[1]
        tile_cyx = picture.read_tile(*_place(request))
        content = tile_cyx.astype(tile_cyx.dtype.newbyteorder("<")).tobytes()
        return _pixels(content, tile_cyx.shape)

    def _label_tile(self, request: HttpRequest, _: bytes) -> Response:
        document = self._workspace.open_document(_name(request))
        level, row, column = _place(request)
        rows, columns = document.picture.find_tile(level, row, column)
        tile_yx = document.cut_labels(document.picture.levels[level], rows, columns)
        return _pixels(tile_yx.astype("<i4").tobytes(), tile_yx.shape)

    # --- labels -----------------------------------------------------------------------------------------------------

    def _labels(self, request: HttpRequest, _: bytes) -> Response:
        return self._answer(self._workspace.open_document(_name(request)))

    def _edit(self, request: HttpRequest, body: bytes) -> Response:
        document, label = self._workspace.edit(_name(request), messages.EditRequest.model_validate_json(body))
        return self._answer(document, label)

    def _check(self, request: HttpRequest, body: bytes) -> Response:
        wanted = messages.CheckRequest.model_validate_json(body).checked
        return self._answer(self._workspace.check(_name(request), wanted))

    def _overwrite(self, request: HttpRequest, _: bytes) -> Response:
        document = self._workspace.open_document(_name(request))
        kept = document.allow_replacement()
        document.save()
        folder = self._workspace.folder.path
        return _json(self._describe(document).model_dump() | {"kept": kept.relative_to(folder).as_posix()})

    def _reload(self, request: HttpRequest, _: bytes) -> Response:
        document = self._workspace.open_document(_name(request))
        document.reload()
        return self._answer(document)

    def _objects(self, request: HttpRequest, _: bytes) -> Response:
        version, table = self._workspace.measure(_name(request), intensities=False)
        names = [name for name in _TABLE if name in table.columns]
        columns = [[_finite(value) for value in table.columns[name].tolist()] for name in names]
        return _json(messages.ObjectsAnswer(version=version, columns=names, rows=[list(row) for row in zip(*columns)]))

    # --- segmentation -----------------------------------------------------------------------------------------------

    def _segment(self, request: HttpRequest, body: bytes) -> Response:
        wanted = messages.SegmentRequest.model_validate_json(body)
        job = self._workspace.segment(_name(request), wanted.model, replace_corrections=wanted.replace)
        return _json(_describe_job(job))

    def _decode(self, request: HttpRequest, body: bytes) -> Response:
        wanted = messages.DecodeRequest.model_validate_json(body)
        return self._answer(self._workspace.decode(_name(request), wanted))

    def _job(self, request: HttpRequest, _: bytes) -> Response:
        job = self._workspace.jobs.last
        return _json(None if job is None else _describe_job(job))

    def _cancel(self, request: HttpRequest, _: bytes) -> Response:
        self._workspace.jobs.cancel()
        return self._job(request, b"")

    # --- results ----------------------------------------------------------------------------------------------------

    def _export_labels(self, request: HttpRequest, _: bytes) -> Response:
        self._workspace.saver.flush()
        document = self._workspace.open_document(_name(request))
        if document.error is not None:
            raise document.error
        if not document.path.is_file():
            raise InputError(document.name, "the image has no labels yet", "Segment it or draw an object first")
        return _file(document.path.name, document.path.read_bytes(), "application/octet-stream")

    def _export_csv(self, request: HttpRequest, _: bytes) -> Response:
        name = _name(request)
        text = self._workspace.make_csv(name)
        return _file(f"{Path(name).stem}.csv", text.encode("utf-8", "replace"), "text/csv; charset=utf-8")

    def _export_geojson(self, request: HttpRequest, _: bytes) -> Response:
        name = _name(request)
        text = self._workspace.make_geojson(name)
        return _file(f"{Path(name).stem}.geojson", text.encode("utf-8", "replace"), "application/geo+json")

    def _training_folder(self, request: HttpRequest, _: bytes) -> Response:
        written = self._workspace.write_training_folder()
        return _json({"path": str(written.path), "images": written.images, "left_out": written.left_out})

    # --- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, document: Document, label: int | None = None) -> Response:
        return _json(self._describe(document, label))

    def _describe(self, document: Document, label: int | None = None) -> messages.LabelsAnswer:
        folder = self._workspace.folder
        marks, found = folder.get_marks(document.name), self._workspace.find_decoding(document.name)
        error = document.error
        decoding = None
        if found is not None:
            names = ("foreground", "seed", "least_pixels")
            pairs = {"used": found[1], "model": found[0].model.decoding}
            decoding = {kind: {name: float(getattr(one, name)) for name in names} for kind, one in pairs.items()}
        return messages.LabelsAnswer(
            version=document.version,
            saved_version=document.saved_version,
            count=document.count,
            label=label,
            can_undo=document.can_undo,
            can_redo=document.can_redo,
            corrections=marks.corrections,
            checked=marks.checked,
            file=document.path.relative_to(folder.path).as_posix(),
            error=_describe_save_error(error),
            replaceable=error is not None and any(part in error.problem for part in _SKIPPED),
            decoding=decoding,
        )


def _describe_save_error(error: SeptaError | None) -> str:
    """Return the line of an error while saving; the remedies of the command line do not apply on the page."""
    if error is None:
        return ""
    if any(part in error.problem for part in _SKIPPED):
        return f"{Path(error.where).name}: {error.problem}, so it is kept as it is and your changes are not saved."
    return str(error)


def _describe_job(job: Job) -> messages.JobAnswer:
    return messages.JobAnswer(
        number=job.number,
        kind=job.kind,
        image=job.image,
        state=job.state,
        share=job.share,
        text=job.text,
        error=job.error,
        lines=job.lines,
    )


def _serve(action: Action) -> Callable[[HttpRequest], Any]:
    """Return the endpoint of an action: it runs in a thread, and errors become one line of JSON."""

    async def answer(request: HttpRequest) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return _fail(413, "the request is too large. Send less.")
        try:
            return await run_in_threadpool(action, request, body)
        except CorrectionsAtStake as error:
            return _fail(409, f"{error.problem}. {error.remedy}.", confirm=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the request"
            return _fail(422, f"{where}: {first['msg']}. Reload the page.")
        except ResourceError as error:
            return _fail(507, str(error))
        except SeptaError as error:
            return _fail(422, str(error))
        except Exception as error:
            if is_out_of_memory(error):
                return _fail(507, "The memory is exhausted. Close other programs, or take a smaller image.")
            raise

    return answer


def _serve_file(path: Path) -> Callable[[HttpRequest], Any]:
    content, kind = path.read_bytes(), _TYPES[path.suffix]

    async def answer(request: HttpRequest) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer


async def _explain_status(request: HttpRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    remedy = "Reload the page"
    return _fail(status, f"There is no such address or method ({request.method} {request.url.path}). {remedy}.")


def _name(request: HttpRequest) -> str:
    return str(request.path_params["name"])


def _place(request: HttpRequest) -> tuple[int, int, int]:
    level, row, column = (int(request.path_params[key]) for key in ("level", "row", "column"))
    return level, row, column


def _finite(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _json(value: Any) -> Response:
    if isinstance(value, BaseModel):
        return Response(value.model_dump_json(), media_type="application/json")
    return JSONResponse(value)


def _fail(status: int, text: str, *, confirm: bool = False) -> Response:
    return Response(json.dumps({"error": text, "confirm": confirm}), status, media_type="application/json")


def _pixels(content: bytes, shape: tuple[int, ...]) -> Response:
    """Return the answer of a tile; its address changes with its content, so that browsers may keep it."""
    headers = {"X-Shape": ",".join(map(str, shape)), "Content-Encoding": "gzip", "Cache-Control": _KEPT}
    return Response(gzip.compress(content, 1), media_type="application/octet-stream", headers=headers)


def _file(name: str, content: bytes, kind: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
    return Response(content, media_type=kind, headers=headers)
