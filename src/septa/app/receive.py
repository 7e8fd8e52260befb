"""Receive a file that was dropped on the page: it goes to the disk piece by piece, and is checked there."""

from __future__ import annotations

import errno

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from septa.errors import ResourceError

from .replies import reply_error, reply_json
from .uploads import accept, check_room, clean_name, open_part
from .workspace import Workspace

_PIECE = 2**20


async def receive(workspace: Workspace, request: HttpRequest) -> Response:
    """Save the file that a request carries, and answer with its name in the folder."""
    folder, declared = workspace.folder, request.headers.get("content-length", "")
    name = clean_name(str(request.path_params["name"]))
    check_room(folder, int(declared) if declared.isdecimal() else 0)
    part = open_part(folder)
    try:
        with part.open("xb") as stream:
            waiting: list[bytes] = []
            async for piece in request.stream():
                waiting.append(piece)
                if sum(map(len, waiting)) >= _PIECE:
                    await run_in_threadpool(stream.writelines, waiting)
                    waiting = []
            await run_in_threadpool(stream.writelines, waiting)
        saved = await run_in_threadpool(accept, folder, workspace.decoders, part, name)
        return reply_json({"name": saved})
    except ClientDisconnect:
        return reply_error(413, "The file did not arrive whole. Drop it again.")
    except OSError as error:
        problem = (
            "the disk is full" if error.errno == errno.ENOSPC else f"the file cannot be written ({error.strerror})"
        )
        raise ResourceError(folder.images, problem, "Free some space, or make the folder writable") from None
    finally:
        part.unlink(missing_ok=True)
