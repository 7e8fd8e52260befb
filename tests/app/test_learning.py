"""Learning over HTTP: trainings and what survives a restart, checked areas, suggestions and suspect labels."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from septa.app import trainer, trainings
from septa.app.comparison import compare_models
from septa.app.folder import ImageFolder
from septa.app.openapi import OPERATIONS
from septa.app.server import make_server
from septa.app.training_folder import IGNORED
from septa.app.training_record import TrainingRecord
from septa.app.trainings import Trainings
from septa.images import read_image, read_labels, write_labels
from septa.model import Model
from septa.objects import confidence
from septa.recipe import Recipe
from septa.training import TrainingDone

from .conftest import Site
from .test_pages import make_class_model

IMAGE = "/api/images/0.png"
# A worker without septa: it runs until its input ends, or ends as the model's name says.
WORKER = """
import json, pathlib, sys
record, model = pathlib.Path(sys.argv[1]), sys.argv[2]
def write(state, **more):
    (record / "new.json").write_text(json.dumps({"state": state, "lines": [], **more}))
    (record / "new.json").replace(record / "state.json")
if model == "silent.septa":
    print("error: here: it broke. Mend it.")
    sys.exit(4)
write("running", text="step 10", share=0.5)
if model == "failing.septa":
    write("failed", error="batch: it is too large. Give a smaller one.")
    sys.exit(2)
if model != "quick.septa":
    sys.stdin.buffer.read()
    write("interrupted")
    sys.exit(143)
scores = {"old.septa": {"f1": 0.5, "accuracy": 0.25}, "quick.septa": {"f1": 0.75, "accuracy": 0.5}}
write("done", share=1, scores=scores, held_out=["1.png"], comparison="Held out: 1 image.")
"""


def test_the_page_has_the_lines_that_a_training_ends_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order = SimpleNamespace(minutes=1, start="nuclei", classes=(), ignore=None, settings=(), model="new.septa")
    states: list[Any] = []
    record: Any = SimpleNamespace(order=order, data=tmp_path, model=tmp_path / "new.septa", write=states.append)
    nothing: Any = None
    lines = {"verdict": "", "start": "start: the mean", "joining": "touching parts are joined"}
    done = TrainingDone(model=nothing, path=record.model, report=tmp_path, evaluation=nothing, **lines)  # type: ignore[arg-type]
    monkeypatch.setattr("septa.training.train_steps", lambda request: iter([done]))
    monkeypatch.setattr(trainer, "_compare", lambda *_: None)
    trainer._run(record)
    assert states[-1].state == "done"
    assert states[-1].lines == ["start: the mean", "touching parts are joined"]


@pytest.fixture
def quick_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(record: TrainingRecord) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", WORKER, str(record.path), record.order.model]
        with record.output.open("ab") as output:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, start_new_session=True)

    monkeypatch.setattr(trainings, "_start_worker", start)


def wait(read: Callable[[], Any], wanted: Any) -> None:
    end = time.monotonic() + 60
    while (found := read()) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.02)


def check(site: Site) -> None:
    site.send(f"{IMAGE}/edit", {"tool": "brush", "points": [[10.5, 10.5]], "radius": 6})
    site.send(f"{IMAGE}/check", {"checked": True})


@pytest.mark.usefixtures("quick_worker")
def test_one_training_runs_the_others_wait_and_none_is_lost_by_a_restart(site: Site) -> None:
    refused = site.send("/api/trainings", {"name": "a", "minutes": 1}, status=422)
    assert "nothing is marked as checked. Mark images or areas" in refused["error"]
    check(site)
    site.send("/api/trainings", {"name": "a", "model": "old.septa", "minutes": 1})
    site.send("/api/trainings", {"name": "quick", "minutes": 1})

    def read_states() -> list[str]:
        return [one["state"] for one in site.read("/api/trainings")]

    wait(read_states, ["running", "waiting"])
    wait(lambda: site.read("/api/trainings/1")["text"], "step 10")
    for body in ({"name": "a"}, {"name": "old"}):
        assert "name is in use" in site.send("/api/trainings", body, status=422)["error"]
    assert "the training runs" in site.send("/api/trainings/1/remove", status=422)["error"]

    site.workspace.learning.trainings.close()  # as at the end of the server
    record = site.workspace.learning.trainings.get(1)
    assert record.read().state == "interrupted"
    assert read_labels(record.data / "labels" / "0.png").array.any()
    again = Trainings(site.workspace.desk)
    site.workspace.learning.trainings = again
    wait(lambda: record.read().state, "running")
    again.stop(1)
    wait(lambda: [again.read(one).state for one in again.list_records()], ["stopped", "done"])
    wait(again.get(2).data.exists, False)
    again.resume(1)
    wait(lambda: again.read(record).state, "running")
    with pytest.raises(Exception, match="runs, or is finished"):
        again.resume(1)
    again.stop(1)
    wait(lambda: again.read(record).state, "stopped")
    again.remove(1)
    assert [one.order.model for one in again.list_records()] == ["quick.septa"]
    again.close()


@pytest.mark.usefixtures("quick_worker")
def test_scores_stand_beside_the_models_and_errors_are_one_line(site: Site) -> None:
    check(site)
    for name in ("quick", "failing", "silent"):
        site.send("/api/trainings", {"name": name, "model": "old.septa", "minutes": 1})
    wait(lambda: [one["state"] for one in site.read("/api/trainings")], ["done", "failed", "failed"])
    errors = [one["error"] for one in site.read("/api/trainings")]
    assert errors == ["", "batch: it is too large. Give a smaller one.", "here: it broke. Mend it."]
    (old,) = [one for one in site.read("/api/models") if one["origin"] == "folder"]
    assert old["scores"] == {"training": 1, "images": 1, "f1": 0.5, "accuracy": 0.25, "dice": None, "iou": None}
    (site.folder / "quick-run").mkdir()
    rows = "step,minutes,loss,score\n10,0.1,2.5,\n20,0.2,,0.5\n30,0."
    (site.folder / "quick-run" / "log.csv").write_text(rows)
    curve = site.read("/api/trainings/1")["curve"]
    assert curve[:2] == [{"step": 10, "minutes": 0.1, "loss": 2.5}, {"step": 20, "minutes": 0.2, "score": 0.5}]
    assert site.ask("GET", "/api/trainings/1/previews/0")[0] == 422
    assert site.ask("GET", "/api/trainings/9")[0] == 422


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"name": "../a"}, "name: String should match pattern"),
        ({"name": "a", "minutes": 0}, "minutes: Input should be greater than 0"),
        ({"name": "a", "model": "none.septa"}, "none.septa: there is no such model"),
        ({"name": "a", "settings": ["net.wide=3"]}, "net.wide"),
    ],
    ids=str,
)
def test_orders_that_make_no_sense_are_refused(site: Site, body: dict[str, Any], text: str) -> None:
    check(site)
    assert text in site.send("/api/trainings", body, status=422)["error"]
    assert site.read("/api/trainings") == []


def test_pixels_outside_of_checked_areas_are_ignored_in_the_training(site: Site) -> None:
    height, width = site.workspace.open_document("0.png").labels_yx.shape
    check(site)
    site.send(f"{IMAGE}/check", {"checked": False})
    brush = {"tool": "brush", "points": [[10.5, 10.5]], "radius": 6, "label": 65_535}
    site.send("/api/images/1.png/edit", brush)
    site.send("/api/images/1.png/check", {"checked": True})
    site.send(f"{IMAGE}/check", {"checked": True, "area": [-5, 4, 20, 30]})
    answer = site.send(f"{IMAGE}/check", {"checked": True, "area": [25, 0, 30, 9000]})
    assert answer["areas"] == [[0, 4, 20, 30], [25, 0, 30, width]]
    assert not answer["checked"]
    assert "outside" in site.send(f"{IMAGE}/check", {"checked": True, "area": [-5, 0, 0, 9]}, status=422)["error"]
    assert site.send(f"{IMAGE}/segment", {"model": "old.septa"}, status=409)["confirm"]
    assert ImageFolder(site.folder).get_marks("0.png").areas == ((0, 4, 20, 30), (25, 0, 30, width))
    written = site.send("/api/training-folder")
    assert written["ignore"] == IGNORED
    expected = np.full((height, width), IGNORED)
    saved = site.read_saved()
    for rows, columns in ((slice(0, 20), slice(4, 30)), (slice(25, 30), slice(0, width))):
        expected[rows, columns] = saved[rows, columns]
    np.testing.assert_array_equal(read_labels(Path(written["path"]) / "labels" / "0.png").array, expected)
    other = read_labels(Path(written["path"]) / "labels" / "1.png").array
    np.testing.assert_array_equal(other, site.read_saved("1.png") > 0)  # 65535 is no object there
    site.send(f"{IMAGE}/check", {"checked": False, "area": [25, 0, 30, width]})
    site.send(f"{IMAGE}/check", {"checked": True})
    assert site.send("/api/training-folder")["ignore"] is None
    np.testing.assert_array_equal(read_labels(Path(written["path"]) / "labels" / "0.png").array, saved)


def test_unchecked_images_are_suggested_and_changed_labels_suspected(site: Site) -> None:
    model = Model.load(site.folder / "old.septa")
    site.send("/api/suggestions", {"model": "old.septa"})
    assert site.wait_for_job()["state"] == "done"
    found = site.read("/api/suggestions")
    assert {one["image"] for one in found["images"]} == {"0.png", "1.png"}
    doubts = [one["doubt"] for one in found["images"]]
    assert doubts == sorted(doubts, reverse=True)

    site.send(f"{IMAGE}/segment", {"model": "old.septa"})
    site.wait_for_job()
    labels_yx = site.read_saved()
    logits_kyx = model.logits(site.workspace.open_picture("0.png").image_cyx)
    sure = model.confidence_curve.apply(confidence(labels_yx, model.task.probabilities(logits_kyx)[1]))
    site.send(f"{IMAGE}/edit", {"tool": "delete", "label": int(sure.argmax()) + 1})
    site.send(f"{IMAGE}/check", {"checked": True})
    site.send("/api/suspects", {"model": "old.septa"})
    assert site.wait_for_job()["state"] == "done"
    answer = site.read("/api/suspects")
    assert answer["images"] == 1
    if sure.max() >= 0.8:
        rows, columns = np.nonzero(labels_yx == int(sure.argmax()) + 1)
        assert answer["suspects"][0] | {"certainty": 1} == {
            "image": "0.png",
            "kind": "missing",
            "drawn": [],
            "predicted": 1,
            "box": [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1],
            "certainty": 1,
        }
    site.send("/api/suggestions", {"model": "old.septa"})
    site.wait_for_job()
    assert [one["image"] for one in site.read("/api/suggestions")["images"]] == ["1.png"]


@pytest.mark.usefixtures("quick_worker")
def test_classes_of_pixels_are_learned_compared_and_ranked(site: Site) -> None:
    model = make_class_model()
    model.save(site.folder / "classes.septa")
    for name in ("0.png", "1.png"):
        site.send(f"/api/images/{name}/segment", {"model": "classes.septa"})
    site.wait_for_job()
    site.send(f"{IMAGE}/check", {"checked": True})
    site.send("/api/trainings", {"name": "a", "model": "classes.septa", "minutes": 1})
    wait(lambda: site.read("/api/trainings/1")["state"], "running")
    record = site.workspace.learning.trainings.get(1)
    classes = tuple(zip(model.labels.raw_values.tolist(), model.labels.class_names))
    assert record.order.classes == classes
    recipe = Recipe().with_overrides(trainer._list_overrides(record.order))
    assert (recipe.task, recipe.data.encoding, recipe.data.values) == ("semantic", "index", (0, 5, 9))
    assert recipe.data.class_names == model.labels.class_names

    found = compare_models(
        record.data, {"classes.septa": model, "old.septa": Model.load(site.folder / "old.septa")}, None, classes
    )
    assert found.images == ("0",)
    assert found.scores == {"classes.septa": {"dice": 1.0, "iou": 1.0}}  # its labels are its own; the other has none

    site.send("/api/suggestions", {"model": "classes.septa"})
    site.wait_for_job()
    (suggested,) = site.read("/api/suggestions")["images"]
    probability_yx = model.task.probabilities(model.logits(read_image(site.folder / "1.png"))).max(0)
    assert suggested["image"] == "1.png"
    assert suggested["doubt"] == pytest.approx(np.minimum(1, 2 - 2 * probability_yx).mean(), abs=1e-3)
    shutil.copy(site.folder / "1.png", site.folder / "2.png")
    site.send("/api/images/2.png/edit", {"tool": "brush", "points": [[10.5, 10.5]], "radius": 6})
    site.send("/api/images/2.png/check", {"checked": True})
    refused = site.send("/api/trainings", {"name": "b", "minutes": 1}, status=422)["error"]
    assert refused.startswith("2.png: its labels mean others than those of 0.png")
    site.workspace.learning.trainings.close()


def test_the_openapi_document_has_every_route_and_every_schema(site: Site) -> None:
    gate = make_server(site.workspace, site.access)
    routes = {
        f"{method} {route.path}"
        for route in gate._app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
        if route.path.startswith("/api/")
    }
    assert routes == set(OPERATIONS)
    document = site.read("/api/openapi.json")
    assert document["paths"]["/api/trainings/{number}"]["get"]["parameters"][0]["schema"] == {"type": "integer"}
    text = json.dumps(document)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.split('"')[0] in document["components"]["schemas"]
    guide = (Path(__file__).parents[2] / "docs" / "app.md").read_text(encoding="utf-8")
    for path in document["paths"]:
        last = path.rsplit("/", 1)[1]
        assert f"/{last}" in guide or last.startswith("{"), f"docs/app.md does not name {path}"


def test_checked_planes_of_a_stack_become_images_of_the_training(site: Site) -> None:
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 255, (3, 40, 50), np.uint8)
    write_labels(site.folder / "stack.tif", planes)
    page = "/api/images/stack.tif%232"
    site.send(f"{page}/edit", {"tool": "brush", "points": [[10.5, 10.5]], "radius": 6})
    site.send(f"{page}/check", {"checked": True, "area": [0, 0, 40, 20]})
    written = site.send("/api/training-folder")
    assert written["images"] == ["stack.tif#2"]
    path = Path(written["path"])
    np.testing.assert_array_equal(read_image(path / "images" / "stack_0002.tif")[0], planes[2])
    copy, own = read_labels(path / "labels" / "stack_0002.tif").array, site.folder / "labels" / "stack.tif"
    np.testing.assert_array_equal(copy[:, :20], read_labels(own, 2).array[:, :20])
    assert (copy[:, 20:] == IGNORED).all()
    site.send(f"{page}/check", {"checked": False, "area": [0, 0, 40, 20]})
    check(site)
    assert site.send("/api/training-folder")["images"] == ["0.png"]
    assert [one.name for one in (path / "images").glob("[!.]*")] == ["0.png"]


@pytest.mark.slow  # three servers and three workers
def test_a_training_outlives_sigterm_and_the_death_of_its_server(images: Path) -> None:
    import http.client
    import signal
    from contextlib import closing

    labels = Model.load(images / "old.septa")
    for name in ("0.png", "1.png"):
        write_labels(images / "labels" / name, labels.segment(read_image(images / name)))
    marks = {"version": 1, "images": {name: {"checked": True} for name in ("0.png", "1.png")}}
    (images / ".septa-app.json").write_text(json.dumps(marks))
    port, server = 0, None

    def start() -> None:
        nonlocal port, server
        command = [sys.executable, "-m", "septa", "app", str(images), "--no-browser"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        port = int(server.stdout.readline().split("/ (")[0].rsplit(":", 1)[1])

    def ask(method: str, path: str, body: Any = None) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/api/session")
            token = json.loads(connection.getresponse().read())["X-Septa-Token"]
            connection.request(method, path, json.dumps(body), {"X-Septa-Token": token})
            return json.loads(connection.getresponse().read())

    def wait_for_step(step: int) -> None:
        end = time.monotonic() + 300
        while max((row["step"] for row in ask("GET", "/api/trainings/1")["curve"]), default=0) < step:
            assert time.monotonic() < end
            assert not ask("GET", "/api/trainings/1")["error"]
            time.sleep(0.1)

    start()
    settings = ["training.steps=100000", "training.batch=1", "sampling.patch=[32, 32]", "training.validations=1"]
    ask("POST", "/api/trainings", {"name": "new", "model": "old.septa", "minutes": 100, "settings": settings})
    record = TrainingRecord(images / ".septa-trainings" / "1", images)
    steps = []
    for way in (signal.SIGTERM, signal.SIGKILL):
        wait_for_step(20 + max(steps, default=0))
        server.send_signal(way)
        server.wait(120)
        server.stdout.close()
        wait(lambda: record.read().state, "interrupted")
        steps.append(int(record.read_curve()[-1]["step"]))
        assert list((images / "new-run" / "checkpoints").iterdir())
        start()
    wait_for_step(steps[1] + 10)
    numbers = [row["step"] for row in record.read_curve()]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) >= len(numbers) - 1  # no step was trained twice; a validation may share its step
    server.send_signal(signal.SIGTERM)
    assert server.wait(120) in (0, -signal.SIGTERM, 143)
    server.stdout.close()
