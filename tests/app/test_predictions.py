"""Predictions over HTTP: the queue, what survives a restart or the death of the process, and two windows."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from septa.app import Workspace, predict_worker, predictor
from septa.app.jobs import Watch
from septa.app.predictor import Predictor
from septa.app.wire import read_message, write_message
from septa.app.workspace import QUEUE
from septa.images import read_image, read_labels
from septa.model import Model

from .conftest import Site
from .test_learning import wait

STROKE = {"tool": "brush", "points": [[5.5, 5.5]], "radius": 2}
ORDER = {"model": "old.septa"}


@pytest.fixture
def endless(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let predictions last until they are cancelled."""

    def compute(watch: Watch, *_: Any, **__: Any) -> None:
        while True:
            watch.report(0.5, "1 of 2 tiles")
            time.sleep(0.01)

    monkeypatch.setattr(site.workspace.predictor, "segment", compute)


def read_states(site: Site) -> list[tuple[str, str, int]]:
    return [(one["image"], one["state"], one["place"]) for one in site.read("/api/jobs")]


@pytest.mark.usefixtures("endless")
def test_predictions_wait_for_their_turn_and_each_can_be_cancelled(site: Site) -> None:
    site.send("/api/images/0.png/segment", ORDER)
    second = site.send("/api/images/1.png/segment", ORDER)
    site.send("/api/suggestions", ORDER)
    wait(lambda: read_states(site), [("0.png", "running", 0), ("1.png", "waiting", 1), ("", "waiting", 2)])
    wait(lambda: site.read("/api/jobs")[0]["text"], "1 of 2 tiles")
    for body in (ORDER, ORDER | {"replace": True}):
        refused = site.send("/api/images/1.png/segment", body, status=422)["error"]
        assert "the image is being segmented, or waits for it. Wait until it is done, or cancel it." in refused
    assert "this search runs already" in site.send("/api/suggestions", ORDER, status=422)["error"]
    for action in ("edit", "check", "undo", "reload"):
        body = STROKE if action == "edit" else {"checked": True} if action == "check" else {}
        assert "waits for it" in site.send(f"/api/images/1.png/{action}", body, status=422)["error"]
    site.send(f"/api/jobs/{second['number']}/cancel")
    wait(lambda: read_states(site)[1:], [("1.png", "cancelled", 0), ("", "waiting", 1)])
    site.send("/api/images/1.png/edit", STROKE)
    for number in (1, 3):
        site.send(f"/api/jobs/{number}/cancel")
    wait(lambda: {state for _, state, _ in read_states(site)}, {"cancelled"})
    assert not (site.folder / QUEUE).exists()
    assert site.ask("POST", "/api/jobs/9/cancel", {})[0] == 422


@pytest.mark.usefixtures("endless")
def test_predictions_that_run_and_wait_start_again_after_a_restart(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0.png", "1.png"):
        site.send(f"/api/images/{name}/segment", ORDER)
    wait(lambda: read_states(site)[0][1], "running")
    site.workspace.jobs.close()  # as at the end of the server
    assert [one["image"] for one in json.loads((site.folder / QUEUE).read_text())["orders"]] == ["0.png", "1.png"]
    monkeypatch.undo()
    again = Workspace(site.folder, decoders=site.workspace.decoders, predictor=site.workspace.predictor)
    again.jobs.wait(60)
    again.close()
    model = Model.load(site.folder / "old.septa")
    for name in ("0.png", "1.png"):
        found = read_labels(site.folder / "labels" / name).array
        np.testing.assert_array_equal(found, model.segment(read_image(site.folder / name)))
    assert not (site.folder / QUEUE).exists()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="the system cannot stop a process")
def test_the_death_of_the_process_is_one_sentence_and_the_queue_continues(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = site.workspace.predictor

    def stop_process() -> int:
        site.send("/api/images/0.png/segment", ORDER | {"replace": True})
        site.wait_for_job()
        assert shared._process is not None
        os.kill(shared._process.pid, signal.SIGSTOP)  # it never answers
        return shared._process.pid

    pid = stop_process()
    for name in ("0.png", "1.png"):
        site.send(f"/api/images/{name}/segment", ORDER)
    wait(lambda: read_states(site)[-2][1], "running")
    os.kill(pid, signal.SIGKILL)
    site.workspace.jobs.wait(60)
    failed, done = site.read("/api/jobs")[-2:]
    assert failed["error"] == (
        "0.png: the system ended the process that predicts, perhaps because the memory was exhausted. "
        "Close other programs, or segment a part of the image."
    )
    assert done["state"] == "done"
    assert site.send("/api/images/0.png/decode", {}, status=422)["error"] == (
        "0.png: the output of the net is not kept any more. Segment the image again."
    )
    assert site.send("/api/images/1.png/decode", {"foreground": 0.4})["decoding"]["used"]["foreground"] == 0.4

    monkeypatch.setattr(predictor, "_PATIENCE_S", 0.2)
    stop_process()
    number = site.send("/api/images/0.png/segment", ORDER)["number"]
    site.send(f"/api/jobs/{number}/cancel")
    assert site.wait_for_job()["state"] == "cancelled"


def test_exhausted_memory_is_one_sentence() -> None:
    def exhaust(*_: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    target = io.BytesIO()
    predict_worker.Worker(target)._answer(3, exhaust, {"where": "0.png"}, [])
    answer, _ = read_message(io.BytesIO(target.getvalue()))
    assert str(Predictor(memory=3 * 2**30)._explain_error(*answer["error"])) == (
        "0.png: segmenting it needs more than the 3.0 GiB of memory that the app allows. "
        "Segment a part of it, or use 'septa predict'."
    )


def test_messages_carry_arrays_of_any_shape_and_type() -> None:
    arrays = [np.arange(6, dtype=np.uint16).reshape(2, 3)[:, ::-1], np.zeros((0, 4), bool), np.float32(0.5)]
    stream = io.BytesIO()
    write_message(stream, {"a": [1, "ü"]}, arrays)
    write_message(stream, {})
    content = stream.getvalue()
    values, found = read_message(io.BytesIO(content))
    assert values == {"a": [1, "ü"]}
    for one, other in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(EOFError):
        read_message(io.BytesIO(content[:60]))


def test_a_window_that_has_not_seen_the_labels_changes_nothing(site: Site) -> None:
    image = "/api/images/0.png"
    seen = site.read(f"{image}/labels")["version"]
    newer = site.send(f"{image}/edit", STROKE | {"base": seen})["version"]
    before = site.read_saved()
    for action, body in (
        ("edit", STROKE | {"points": [[30.5, 30.5]]}),
        ("edit", {"tool": "delete", "label": 1}),
        ("undo", {}),
        ("check", {"checked": True}),
        ("segment", ORDER | {"replace": True}),
    ):
        refused = site.send(f"{image}/{action}", body | {"base": seen}, status=409)
        assert refused["stale"]
        assert not refused["confirm"]
    np.testing.assert_array_equal(site.read_saved(), before)
    assert not site.read(f"{image}/labels")["checked"]
    site.send(f"{image}/edit", STROKE | {"points": [[30.5, 30.5]], "base": newer})
    assert site.read_saved().max() == 2


def test_a_damaged_queue_is_no_obstacle(site: Site) -> None:
    (site.folder / QUEUE).write_text("{", encoding="utf-8")
    again = Workspace(site.folder, decoders=site.workspace.decoders, predictor=site.workspace.predictor)
    assert again.jobs.list_jobs() == []
    again.close()
    assert not (site.folder / QUEUE).exists()
    elsewhere = site.folder.parent / "elsewhere.json"
    elsewhere.write_text("{}", encoding="utf-8")
    Path(site.folder / QUEUE).symlink_to(elsewhere)
    with pytest.raises(Exception, match="link that leads out"):
        Workspace(site.folder, decoders=site.workspace.decoders, predictor=site.workspace.predictor)
