"""Files that are dropped on the page, and files made to harm: nothing is replaced, killed or kept waiting."""

from __future__ import annotations

import json
import os
import pickle
import signal
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from septa.app import receive, uploads
from septa.app.decoder import Decoders
from septa.app.uploads import clean_name
from septa.errors import InputError, ResourceError
from septa.images import write_image

from .conftest import FILES, Site

PNG = (FILES / "data" / "images" / "0.png").read_bytes()


def list_names(site: Site) -> set[str]:
    return {path.name for path in site.folder.iterdir() if path.name != ".septa-app.json"}


def test_a_dropped_file_gets_a_free_name_and_replaces_nothing(site: Site) -> None:
    before = (site.folder / "0.png").read_bytes()
    content = before + b"\0"
    assert site.ask("POST", "/api/files/new%20cell.PNG", content)[0] == 200
    assert (site.folder / "new cell.PNG").read_bytes() == content
    assert json.loads(site.ask("POST", "/api/files/0.png", content)[2]) == {"name": "0-2.png"}
    write_image(site.folder / "twin.tif", np.zeros((1, 8, 8), np.uint8))
    assert json.loads(site.ask("POST", "/api/files/Twin.png", content)[2]) == {"name": "Twin-2.png"}
    assert (site.folder / "0.png").read_bytes() == before
    assert site.read("/api/images/0-2.png")["levels"] == [[48, 48]]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../evil.png", "evil.png"),
        ("..\\..\\evil.png", "evil.png"),
        ("C:\\con.png", "_con.png"),
        (".septa-app.png", "septa-app.png"),
        ("a\0b\n\u202e.png", "ab.png"),
        ("#image1#2.tif", "_image1_2.tif"),
        ("x" * 500 + ".tif", "x" * 120 + ".tif"),
    ],
)
def test_names_of_dropped_files_are_made_safe(given: str, name: str) -> None:
    assert clean_name(given) == name


@pytest.mark.parametrize("name", ["model.septa", "page.html", "noending", "..", "", ".png", "a.png.exe"])
def test_other_files_than_images_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="not an image that the app takes"):
        clean_name(name)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.png", b"<script>alert(1)</script>", "is not a PNG"),
        ("a.tif", pickle.dumps({"a": 1}), "is not a PNG"),
        ("a.png", b"", "empty"),
        ("cells.septa", b"x", "not an image that the app takes"),
    ],
)
def test_a_file_that_is_no_image_leaves_nothing_behind(site: Site, name: str, content: bytes, text: str) -> None:
    before = list_names(site)
    status, _, answer = site.ask("POST", f"/api/files/{name}", content)
    assert status == 422
    line = json.loads(answer)["error"]
    assert text in line
    assert ".septa-upload" not in line
    assert list_names(site) == before


def test_an_upload_needs_the_token_and_must_not_be_too_large(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list_names(site)
    assert site.ask("POST", "/api/files/a.png", PNG, {"X-Septa-Token": ""})[0] == 403
    assert site.ask("POST", "/api/files/a.png", b"", {"Content-Length": str(2**33)})[0] == 413
    assert json.loads(site.ask("POST", "/api/files/..%2F..%2Fa.png", PNG)[2]) == {"name": "a.png"}
    assert not (site.folder.parent / "a.png").exists()
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda path: type("usage", (), {"free": 10}))
    status, _, content = site.ask("POST", "/api/files/b.png", PNG)
    assert (status, "no room" in json.loads(content)["error"]) == (507, True)
    assert list_names(site) - before == {"a.png"}


def test_a_full_disk_is_said_and_leaves_nothing_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def writelines(self, parts: object) -> None:
            raise OSError(28, "No space left on device")

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None: ...

    before = list_names(site)
    monkeypatch.setattr(Path, "open", lambda *_: Full())
    monkeypatch.setattr(receive, "check_room", lambda *_: None)
    status, _, content = site.ask("POST", "/api/files/b.png", PNG)
    monkeypatch.undo()
    assert (status, "the disk is full" in json.loads(content)["error"]) == (507, True)
    assert list_names(site) == before


def make_png_bomb(side: int) -> bytes:
    """Return a PNG of a few kilobytes that states ``side`` x ``side`` pixels and decodes to them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = bytes(side + 1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_bomb_neither_kills_nor_stalls_the_server(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = Decoders(memory=32 * 2**20, seconds=20)
    monkeypatch.setattr(site.workspace, "decoders", decoders)
    try:
        assert site.ask("POST", "/api/files/bomb.png", make_png_bomb(6000))[0] == 200
        status, _, content = site.ask("GET", "/api/images/bomb.png")
        assert status == 507
        assert "memory" in json.loads(content)["error"]
        assert site.ask("GET", "/api/images/bomb.png/thumbnail")[0] == 507
        assert site.read("/api/images/0.png")["levels"] == [[48, 48]]
    finally:
        decoders.close()
        monkeypatch.undo()
    lie = PNG[:16] + struct.pack(">II", 2_000_000, 2_000_000) + PNG[24:]
    assert site.ask("POST", "/api/files/lie.png", lie)[0] == 422


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="the system cannot stop a process")
def test_decoding_that_takes_too_long_is_ended_and_others_go_on(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((1, 8, 8), np.uint8))
    write_image(tmp_path / "slow.png", np.zeros((1, 8, 8), np.uint8))
    decoders = Decoders(seconds=60)
    try:
        decoders.describe(tmp_path / "a.png")
        assert len(decoders._running) == 1
        (process,) = decoders._running
        decoders._seconds = 0.3
        os.kill(process.process.pid, signal.SIGSTOP)  # it never answers
        failed = []

        def read_slow() -> None:
            with pytest.raises(ResourceError, match="takes longer than") as error:
                decoders.describe(tmp_path / "slow.png")
            failed.append(error)

        thread = threading.Thread(target=read_slow)
        thread.start()
        thread.join()
        assert failed
        decoders._seconds = 60
        assert decoders.describe(tmp_path / "a.png").shape == (1, 1, 1, 8, 8)
        begun = time.monotonic()
        with pytest.raises(ResourceError):  # known by now, and not tried again
            decoders.describe(tmp_path / "slow.png")
        assert time.monotonic() - begun < 0.3
    finally:
        decoders.close()


def test_a_model_with_a_pickle_is_refused_and_runs_nothing(site: Site) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (site.folder / "pwned",)  # type: ignore[return-value]

    (site.folder / "trap.septa").write_bytes(pickle.dumps(Trap()))
    site.send("/api/images/0.png/segment", {"model": "trap.septa"})
    job = site.wait_for_job()
    assert job["state"] == "failed"
    assert "trap.septa" in job["error"]
    assert not (site.folder / "pwned").exists()


def test_health_answers_without_a_thread(site: Site) -> None:
    assert site.read("/api/health") == {"status": "ok"}
