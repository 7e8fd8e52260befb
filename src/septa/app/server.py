"""The HTTP interface: the page, and an answer in JSON, pixels or a file for each action."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from septa.runtime import count_cores

from .access import UPLOAD, Access, Gate
from .actions import Actions
from .learning_actions import LearningActions
from .openapi import make_openapi
from .receive import receive
from .replies import Threads, explain_errors, reply_error, reply_json, serve
from .workspace import Workspace

PAGE = Path(__file__).parent / "page"
"""Folder of the page."""
_TILE = "{level:int}"
"""Part of the addresses of tiles."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def make_server(workspace: Workspace, access: Access) -> ASGIApp:
    """Make the server of a workspace, an ASGI application.

    Parameters
    ----------
    workspace
        The folder that is open.
    access
        Who may use it.
    """
    learning = LearningActions(workspace)
    api = Actions(workspace, access)
    reads, writes = api.reads | learning.reads, api.writes | learning.writes
    reads["/api/openapi.json"] = lambda request, _: reply_json(make_openapi())
    page = {"/" if path.name == "index.html" else f"/{path.name}": path for path in sorted(PAGE.iterdir())}
    tiles = Threads(2 * count_cores())
    routes = [
        Route("/api/health", _answer_health),
        Route(f"{UPLOAD}{{name:path}}", _serve_upload(workspace), methods=["POST"]),
        *(Route(url, _serve_file(path)) for url, path in page.items() if path.suffix in _TYPES),
        *(Route(url, serve(read, tiles if _TILE in url else None), methods=["GET"]) for url, read in reads.items()),
        *(Route(url, serve(action), methods=["POST"]) for url, action in writes.items()),
    ]

    @asynccontextmanager
    async def live(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(workspace.close)

    return Gate(Starlette(routes=routes, lifespan=live, exception_handlers={HTTPException: _explain_status}), access)


async def _answer_health(request: HttpRequest) -> Response:
    """Say that the server answers; no thread is needed."""
    return reply_json({"status": "ok"})


def _serve_upload(workspace: Workspace) -> Callable[[HttpRequest], Any]:
    async def answer(request: HttpRequest) -> Response:
        return await explain_errors(receive(workspace, request))

    return answer


def _serve_file(path: Path) -> Callable[[HttpRequest], Any]:
    content, kind = path.read_bytes(), _TYPES[path.suffix]

    async def answer(request: HttpRequest) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer


async def _explain_status(request: HttpRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    remedy = "Reload the page"
    return reply_error(status, f"There is no such address or method ({request.method} {request.url.path}). {remedy}.")
