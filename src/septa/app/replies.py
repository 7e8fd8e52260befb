"""Answers of the server: JSON, pixels, files, and errors as one line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from septa.errors import ResourceError, SeptaError, is_out_of_memory

from .document import StaleLabels
from .predictions import CorrectionsAtStake

Action = Callable[[HttpRequest, bytes], Response]
"""Function from a request and its body to the answer; it runs in a thread."""
_KEPT = "private, max-age=3600, immutable"


class Threads:
    """A limit of threads that run at once, so that many small requests leave the processor to the others.

    Parameters
    ----------
    count
        Number of threads.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._limiter: CapacityLimiter | None = None

    async def run(self, action: Action, request: HttpRequest, body: bytes) -> Response:
        """Run an action in one of the threads, and wait for it."""
        if self._limiter is None:  # it belongs to the event loop
            self._limiter = CapacityLimiter(self._count)
        return await to_thread.run_sync(action, request, body, limiter=self._limiter)


def serve(action: Action, threads: Threads | None = None) -> Callable[[HttpRequest], Any]:
    """Return the endpoint of an action: it runs in a thread, and errors become one line of JSON."""
    run = run_in_threadpool if threads is None else threads.run

    async def answer(request: HttpRequest) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return reply_error(413, "the request is too large. Send less.")
        return await explain_errors(run(action, request, body))

    return answer


async def explain_errors(answer: Awaitable[Response]) -> Response:
    """Wait for an answer; an error becomes one line of JSON."""
    try:
        return await answer
    except CorrectionsAtStake as error:
        return reply_error(409, f"{error.problem}. {error.remedy}.", confirm=True)
    except StaleLabels as error:
        return reply_error(409, f"{error.problem}. {error.remedy}.", stale=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        return reply_error(422, f"{where}: {first['msg']}. Reload the page.")
    except ResourceError as error:
        return reply_error(507, str(error))
    except SeptaError as error:
        return reply_error(422, str(error))
    except Exception as error:
        if is_out_of_memory(error):
            return reply_error(507, "The memory is exhausted. Close other programs, or take a smaller image.")
        raise


def reply_json(value: Any) -> Response:
    """Return an answer in JSON."""
    if isinstance(value, BaseModel):
        return Response(value.model_dump_json(), media_type="application/json")
    return JSONResponse(value)


def reply_error(status: int, text: str, *, confirm: bool = False, stale: bool = False) -> Response:
    """Return an error of one line.

    Parameters
    ----------
    status
        Status of the answer.
    text
        The line.
    confirm
        True if the request may be sent again with ``replace``.
    stale
        True if the client has not seen the newest labels.
    """
    content = json.dumps({"error": text, "confirm": confirm, "stale": stale})
    return Response(content, status, media_type="application/json")


def reply_pixels(content: bytes, shape: tuple[int, ...]) -> Response:
    """Return the answer of a tile; its address changes with its content, so that browsers may keep it."""
    headers = {"X-Shape": ",".join(map(str, shape)), "Content-Encoding": "gzip", "Cache-Control": _KEPT}
    return Response(gzip.compress(content, 1), media_type="application/octet-stream", headers=headers)


def reply_file(name: str, content: bytes, kind: str) -> Response:
    """Return a file to download."""
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
    return Response(content, media_type=kind, headers=headers)
