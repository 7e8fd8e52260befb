"""A web server of a folder that drops connections, sends short answers, and answers slowly, as it is told."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


class FaultyServer:
    """A web server of a folder.

    Attributes
    ----------
    address
        Address of the folder.
    faults
        Kinds of faults of the next answers, for each file name: ``drop`` (no answer), ``cut`` (half of the stated
        bytes), ``busy`` (status 503), ``slow`` (a pause), ``endless`` (bytes without end).
    statuses
        Statuses that files answer with, by their name, instead of their contents.
    requests
        Number of requests of each path.
    knows_parts
        False to send whole files, whatever part is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[str]] = {}
        self.statuses: dict[str, int] = {}
        self.requests: Counter[str] = Counter()
        self.knows_parts = True
        self.sent = 0
        kit = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with suppress(OSError):  # the client has left
                    kit.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path)
        self.requests[path] += 1
        name = path.rpartition("/")[2]
        fault = self.faults.get(name, []).pop(0) if self.faults.get(name) else ""
        file = self.folder / path.strip("/")
        status = self.statuses.get(name, 503 if fault == "busy" else 200 if file.is_file() else 404)
        if fault == "slow":
            time.sleep(0.3)
        if fault == "drop" or status != 200:
            self._end(request, None if fault == "drop" else status)
            return
        data = file.read_bytes()
        whole = len(data)
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if part and self.knows_parts:
            begin, end = int(part[1]), min(int(part[2]) + 1, whole)
            if begin >= whole:
                self._end(request, 416)
                return
            data = data[begin:end]
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {begin}-{end - 1}/{whole}")
        else:
            request.send_response(200)
        if fault == "endless":
            self._send_without_end(request)
            return
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        request.close_connection = bool(fault)

    def _end(self, request: BaseHTTPRequestHandler, status: int | None) -> None:
        if status is not None:
            request.send_response(status)
            request.send_header("Content-Length", "0")
            request.end_headers()
        request.close_connection = status is None

    def _send_without_end(self, request: BaseHTTPRequestHandler) -> None:
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        while self.sent < 2**29:
            self.sent += request.wfile.write(bytes(2**20))
