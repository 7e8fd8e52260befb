"""The interface of the app, asked over HTTP: what it answers, what it writes, and which attacks it refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from septa.app import AppOptions, run_app, serve
from septa.errors import InputError
from septa.images import read_image, read_labels, write_image, write_labels
from septa.model import Model
from septa.pretrained import shipped

from .conftest import Site

IMAGE = "/api/images/0.png"


def test_an_image_is_segmented_decoded_corrected_and_taken_away(site: Site) -> None:
    assert [one["name"] for one in site.read("/api/images")] == ["0.png", "1.png"]
    (model,) = [one for one in site.read("/api/models") if one["origin"] == "folder"]
    site.send(f"{IMAGE}/segment", {"model": model["name"]})
    assert site.wait_for_job()["state"] == "done"
    loaded, image_cyx = Model.load(site.folder / "old.septa"), read_image(site.folder / "0.png")
    expected = loaded.segment(image_cyx)
    np.testing.assert_array_equal(site.read_saved(), expected)
    assert site.read(f"{IMAGE}/labels")["count"] == expected.max()

    answer = site.send(f"{IMAGE}/decode", {"foreground": 0.3, "seed": 0.4, "least_pixels": 9})
    from dataclasses import replace

    decoding = replace(loaded.decoding, foreground=0.3, seed=0.4, least_pixels=9)
    redecoded = replace(loaded, decoding=decoding).segment(image_cyx)
    np.testing.assert_array_equal(site.read_saved(), redecoded)
    assert answer["decoding"]["used"]["foreground"] == 0.3
    assert site.send(f"{IMAGE}/undo")["decoding"]["used"]["foreground"] == loaded.decoding.foreground
    np.testing.assert_array_equal(site.read_saved(), expected)

    brush = {"tool": "brush", "points": [[3.5, 3.5]], "radius": 2, "over": True}
    label = site.send(f"{IMAGE}/edit", brush)["label"]
    assert label not in redecoded
    assert site.read_saved()[3, 3] == label
    refused = site.send(f"{IMAGE}/segment", {"model": model["name"]}, status=409)
    assert refused["confirm"]
    assert site.send(f"{IMAGE}/decode", {}, status=409)["confirm"]
    assert site.read(f"{IMAGE}/labels")["corrections"] == 1

    site.send(f"{IMAGE}/check", {"checked": True})
    written = site.send("/api/training-folder")
    assert written["images"] == ["0.png"]
    from septa.data import find_pairs

    (pair,) = find_pairs(Path(written["path"])).pairs
    assert pair.image.read_bytes() == (site.folder / "0.png").read_bytes()
    np.testing.assert_array_equal(read_labels(pair.labels).array, site.read_saved())

    rows = site.ask("GET", f"{IMAGE}/export/csv")[2].decode().splitlines()
    count = site.read(f"{IMAGE}/labels")["count"]
    assert len(rows) == count + 1
    assert rows[0].startswith("image,label,centroid_y")
    assert len(json.loads(site.ask("GET", f"{IMAGE}/export/geojson")[2])["features"]) == count
    assert site.ask("GET", f"{IMAGE}/export/labels")[2] == (site.folder / "labels" / "0.png").read_bytes()
    assert [one["checked"] for one in site.read("/api/images")] == [True, False]


def test_without_a_folder_three_example_images_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", Path(shipped.__file__).parent)
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    folder = serve._write_examples(lines.append)
    images = [read_image(path) for path in sorted(folder.iterdir())]
    assert [image.shape[0] for image in images] == [1, 3, 3]  # fluorescence, stained tissue, a stained smear
    assert lines == ["example images: septa-examples"]


def test_tiles_hold_the_pixels_of_the_image_and_of_its_labels(site: Site) -> None:
    rng = np.random.default_rng(0)
    image_cyx = rng.integers(0, 60000, (2, 300, 530), np.uint16)
    write_image(site.folder / "big.tif", image_cyx)
    labels_yx = rng.integers(0, 4, (300, 530)).astype(np.int32)
    write_labels(site.folder / "labels" / "big.tif", labels_yx)
    opened = site.read("/api/images/big.tif")
    assert (opened["levels"], opened["tile"], opened["dtype"]) == ([[300, 530], [150, 265], [75, 133]], 256, "uint16")
    _, headers, content = site.ask("GET", "/api/images/big.tif/tiles/0/1/2")
    assert headers["x-shape"] == "2,44,18"
    tile = np.frombuffer(gzip.decompress(content), "<u2").reshape(2, 44, 18)
    np.testing.assert_array_equal(tile, image_cyx[:, 256:, 512:])
    _, _, content = site.ask("GET", "/api/images/big.tif/labels/0/1/2")
    tile = np.frombuffer(gzip.decompress(content), "<i4").reshape(46, 20)
    np.testing.assert_array_equal(tile, np.pad(labels_yx, 1)[256:302, 512:532])
    _, _, content = site.ask("GET", "/api/images/big.tif/labels/1/0/0")
    tile = np.frombuffer(gzip.decompress(content), "<i4").reshape(152, 258)
    np.testing.assert_array_equal(tile[1:-1, 1:-1], labels_yx[1::2, 1:513:2])
    assert site.ask("GET", "/api/images/big.tif/tiles/0/9/0")[0] == 422
    assert site.ask("GET", "/api/images/big.tif/thumbnail")[2].startswith(b"\x89PNG")


def test_labels_that_septa_did_not_write_are_kept_until_the_user_says_otherwise(site: Site) -> None:
    path = site.folder / "labels" / "0.png"
    drawn = np.zeros(site.workspace.open_picture("0.png").size_yx, np.uint8)
    drawn[10:20, 10:20] = 5
    write_labels(path, drawn)
    before = path.read_bytes()
    stroke = {"tool": "brush", "points": [[40.5, 40.5]], "radius": 3}
    site.send(f"{IMAGE}/edit", stroke)
    site.workspace.saver.flush()
    answer = site.read(f"{IMAGE}/labels")
    assert path.read_bytes() == before
    assert answer["replaceable"]
    assert "not written by septa, so it is kept" in answer["error"]
    assert site.ask("POST", f"{IMAGE}/segment", {"model": "old.septa"})[0] == 409
    kept = site.send(f"{IMAGE}/overwrite")
    assert (site.folder / kept["kept"]).read_bytes() == before
    assert sorted(np.unique(site.read_saved())) == [0, 5, 6]
    site.send(f"{IMAGE}/edit", stroke | {"points": [[30.5, 8.5]]})
    assert site.read_saved().max() == 7


def test_undo_and_redo_reach_the_first_edit_and_the_disk(site: Site) -> None:
    states = [site.workspace.open_document("0.png").labels_yx.copy()]
    for place in range(4):
        stroke = {"tool": "brush", "points": [[5.0 + 9 * place, 8], [9.0 + 9 * place, 30]], "radius": 2.5}
        site.send(f"{IMAGE}/edit", stroke)
        states.append(site.read_saved())
    for state in states[-2::-1]:
        site.send(f"{IMAGE}/undo")
        np.testing.assert_array_equal(site.read_saved(), state)
    assert not site.read(f"{IMAGE}/labels")["can_undo"]
    for state in states[1:]:
        site.send(f"{IMAGE}/redo")
        np.testing.assert_array_equal(site.read_saved(), state)


def test_twins_and_missing_pages_are_named(site: Site) -> None:
    write_labels(site.folder / "stack.tif", np.zeros((3, 8, 8), np.uint8))
    write_image(site.folder / "0.tif", np.zeros((1, 8, 8), np.uint8))
    for name, text in (("stack.tif%233", "no such page"), ("0.tif", "same name"), ("none.png", "no such image")):
        status, _, content = site.ask("GET", f"/api/images/{name}")
        assert status == 422
        assert text in json.loads(content)["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1:1"}, 421),
        ({"Host": ""}, 400),  # no HTTP/1.1 without it
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"X-Septa-Token": ""}, 403),
        ({"X-Septa-Token": "x" * 43}, 403),
        ({"Content-Length": "3000000"}, 413),
    ],
    ids=str,
)
def test_requests_of_strangers_change_nothing(site: Site, headers: dict[str, str], status: int) -> None:
    stroke = {"tool": "brush", "points": [[5, 5]], "radius": 2}
    assert site.ask("POST", f"{IMAGE}/edit", stroke, headers)[0] == status
    assert site.workspace.open_document("0.png").count == 0


@pytest.mark.parametrize(
    "path",
    [
        "/api/images/..%2Fsecret.png",
        "/api/images/%2Fetc%2Fpasswd",
        "/api/images/out.png",
        "/api/images/out.png/thumbnail",
        "/api/images/far%2Fsecret.png/tiles/0/0/0",
        "/../pyproject.toml",
        "/%2e%2e/serve.py",
        "/page/index.html",
        "/api/images/0.png/tiles/0/-1/0",
        "/api/images/0.png/tiles/99999999999999999999/0/0",
    ],
)
def test_nothing_outside_the_folder_is_read(site: Site, path: str) -> None:
    secret = site.folder.parent / "secret.png"
    write_image(secret, np.full((1, 9, 9), 42, np.uint8))
    (site.folder / "out.png").symlink_to(secret)
    (site.folder / "far").symlink_to(site.folder.parent)
    status, _, content = site.ask("GET", path)
    assert status in (404, 422)
    assert secret.read_bytes()[:20] not in content
    assert "out.png" not in [one["name"] for one in site.read("/api/images")]


def test_nothing_outside_the_folder_is_written(site: Site) -> None:
    elsewhere = site.folder.parent / "elsewhere"
    elsewhere.mkdir()
    site.workspace.open_document("0.png")
    (site.folder / "labels").symlink_to(elsewhere)
    site.send(f"{IMAGE}/edit", {"tool": "brush", "points": [[5, 5]], "radius": 2})
    site.workspace.saver.flush()
    assert "link that leads out" in site.read(f"{IMAGE}/labels")["error"]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        {"tool": "paint"},
        {"tool": "brush", "points": [[1, 2]], "radius": 1e9},
        {"tool": "brush", "points": [[1e300, 2]]},
        b'{"tool": "brush", "points": [[NaN, 2]]}',
        {"tool": "brush", "points": [[900, 900]], "radius": 2},
        {"tool": "brush", "points": []},
        {"tool": "brush", "points": [[1, 2]], "label": 0},
        {"tool": "polygon", "points": [[1, 2], [3, 4]]},
        {"tool": "delete", "label": 77},
        {"tool": "merge", "label": 1},
        {"tool": "fill", "points": [[1, 1]]},
        {"tool": "brush", "points": [[1, 2]], "more": 1},
    ],
    ids=lambda body: str(body)[:40],
)
def test_requests_that_make_no_sense_are_refused_in_one_line(site: Site, body: object) -> None:
    status, _, content = site.ask("POST", f"{IMAGE}/edit", body)
    assert status == 422
    line = json.loads(content)["error"]
    assert line.endswith(".")
    assert "\n" not in line


def test_each_answer_forbids_scripts_of_others_and_frames(site: Site) -> None:
    for path in ("/", "/app.js", "/api/images", "/nothing"):
        headers = site.ask("GET", path)[1]
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert "access-control-allow-origin" not in headers
    page = site.ask("GET", "/")[2].decode()
    assert "http" not in page.replace("http-equiv", "")
    assert "style=" not in page


def test_a_token_is_asked_for_and_exchanged_for_a_cookie(guarded: Site) -> None:
    token = "0123456789abcdef"
    for headers in ({}, {"Cookie": "septa=wrong"}, {"Authorization": "Bearer wrong"}):
        for path in ("/", "/app.js", "/api/images", "/?token=wrong", f"/api/images?token={token}"):
            assert guarded.ask("GET", path, headers=headers)[0] == 401
    status, headers, _ = guarded.ask("GET", f"/?token={token}")
    assert (status, headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in headers["set-cookie"].split(";")}
    cookie = headers["set-cookie"].split(";")[0]
    assert guarded.ask("GET", "/api/images", headers={"Cookie": cookie})[0] == 200
    assert guarded.ask("GET", "/api/images", headers={"Authorization": f"Bearer {token}"})[0] == 200


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0: other machines could read and change all images of the folder."),
        ({"token": "short"}, "--token: the token must have at least 16 letters, digits, - or _."),
        ({"port": 1}, ""),
        ({"model": "none.septa"}, "none.septa: there is no such model file or shipped model."),
        ({"folder": Path("missing")}, "missing: there is no such folder."),
    ],
    ids=str,
)
def test_wrong_options_are_refused(site: Site, options: dict[str, object], line: str) -> None:
    options = {"port": site.port} if not line else options
    with pytest.raises(InputError) as error:
        run_app(AppOptions(**({"folder": site.folder, "browser": False} | options)), print)  # type: ignore[arg-type]
    assert str(error.value).startswith(line or f"--port {site.port}: the server cannot listen there")
