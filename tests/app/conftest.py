"""A folder of images with a model, and a real server of it on a free port."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

from septa.app import Access, Workspace, make_server  # noqa: E402
from septa.app.decoder import Decoders  # noqa: E402
from septa.app.predictor import Predictor  # noqa: E402
from septa.app.serve import bind  # noqa: E402

FILES = Path(__file__).parents[1] / "files" / "v0.1"


@dataclass
class Site:
    """A server that runs, and a client of it."""

    workspace: Workspace
    access: Access
    port: int

    @property
    def folder(self) -> Path:
        return self.workspace.folder.path

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request as given, with the headers of the page unless they are replaced; "" leaves one out."""
        given = {"X-Septa-Token": self.access.page_token, "Host": f"127.0.0.1:{self.port}"} | (headers or {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        for name, value in (given | {"Content-Length": str(len(data))} | (headers or {})).items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def read(self, path: str) -> Any:
        status, _, content = self.ask("GET", path)
        assert status == 200, content
        return json.loads(content)

    def send(self, path: str, body: Any = None, status: int = 200) -> Any:
        found, _, content = self.ask("POST", path, {} if body is None else body)
        assert found == status, content
        return json.loads(content)

    def wait_for_job(self) -> Any:
        self.workspace.jobs.wait(200)  # numba may have to compile first
        return self.read("/api/jobs")[-1]

    def read_saved(self, name: str = "0.png") -> Any:
        """Return the labels on disk once everything is saved."""
        from septa.images import read_labels

        self.workspace.saver.flush()
        return read_labels(self.folder / "labels" / name).array


@pytest.fixture(scope="session")
def decoders() -> Iterator[Decoders]:
    """Start the processes that decode, which all servers of the tests share."""
    shared = Decoders()
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def predictor() -> Iterator[Predictor]:
    """Start the process that predicts, which all servers of the tests share."""
    shared = Predictor()
    yield shared
    shared.close()


def start(folder: Path, decoders: Decoders, predictor: Predictor, token: str | None = None) -> Iterator[Site]:
    bound = bind("127.0.0.1", None)
    port = bound.getsockname()[1]
    workspace = Workspace(folder, decoders=decoders, predictor=predictor)
    access = Access.make("127.0.0.1", port, token)
    config = uvicorn.Config(make_server(workspace, access), log_level="warning", access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Site(workspace, access, port)
    server.should_exit = True
    thread.join()
    bound.close()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Write a folder of two images and a model."""
    folder = tmp_path / "cells"
    folder.mkdir()
    for number in range(2):
        shutil.copy(FILES / "data" / "images" / f"{number}.png", folder)
    shutil.copy(FILES / "instances.septa", folder / "old.septa")
    return folder


@pytest.fixture
def site(images: Path, decoders: Decoders, predictor: Predictor) -> Iterator[Site]:
    yield from start(images, decoders, predictor)


@pytest.fixture
def guarded(images: Path, decoders: Decoders, predictor: Predictor) -> Iterator[Site]:
    """Serve the folder with a token."""
    yield from start(images, decoders, predictor, "0123456789abcdef")
