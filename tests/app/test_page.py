"""The page in a real browser: the whole loop, dropped stacks, and two windows; the pixels on disk are checked."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile

from septa.images import read_image, read_labels, write_image
from septa.metrics import score_objects
from septa.model import Model
from septa.synthetic import draw_cells

from .chromium import Browser, find_chromium
from .conftest import FILES, Decoders, Predictor, Site, start

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed (apt-get install chromium)")
STROKES = "[24.5, 40.5].forEach((x) => septa.toolbox.host.edit({ tool: 'brush', points: [[x, 20.5]], radius: 1 }))"
FEW = ("training.steps=2", "training.batch=1", "training.validations=1", "sampling.patch=[32, 32]")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(find_chromium() or "", tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Give an empty page, and leave one, so that no page asks a server that has ended."""
    chromium.errors.clear()
    yield chromium
    chromium.close_tabs()


@pytest.fixture
def tour() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
        yield importlib.import_module("tour")
    sys.modules.pop("tour", None)


@pytest.fixture
def empty(tmp_path: Path, decoders: Decoders, predictor: Predictor) -> Iterator[Site]:
    """Serve a folder with a model and without images."""
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(FILES / "instances.septa", folder / "old.septa")
    yield from start(folder, decoders, predictor)


def test_the_loop_from_dropped_files_to_the_retrained_model(
    empty: Site, browser: Browser, tour: ModuleType, tmp_path: Path
) -> None:
    files = [tmp_path / f"cells-{number}.png" for number in range(4)]
    for number, path in enumerate(files):
        write_image(path, draw_cells(64, 64, number).image_cyx)
    names = [path.name for path in files]
    old = Model.load(empty.folder / "old.septa")
    walk = tour.Walk(browser=browser, address=f"http://127.0.0.1:{empty.port}/", files=files, settings=FEW)
    found = {}
    for step in walk.run():
        if step == "dropped":
            assert [(empty.folder / path.name).read_bytes() for path in files] == [path.read_bytes() for path in files]
        if step in ("segmented", "deleted", "drawn", "undone", "redone"):
            found[step] = empty.read_saved(names[0])
        if step == "segmented":
            for name, path in zip(names[:-1], files):
                np.testing.assert_array_equal(empty.read_saved(name), old.segment(read_image(path)))
            assert browser.evaluate("document.querySelectorAll('#table tbody tr').length") == found[step].max()
            drawn = "septa.viewer.context.getImageData(0, 0, 700, 600).data.some((value) => value > 60)"
            assert browser.evaluate(drawn)
        if step == "deleted":
            (removed,) = set(np.unique(found["segmented"])) - set(np.unique(found[step]))
            removed_yx = found["segmented"] == removed
            np.testing.assert_array_equal(found[step], np.where(removed_yx, 0, found["segmented"]))
        if step == "drawn":
            changed_yx = found[step] != found["deleted"]
            assert set(np.unique(found[step][changed_yx])) == {found["segmented"].max() + 1}
            assert changed_yx[removed_yx].any()
        if step == "checked":
            marks = [empty.workspace.folder.get_marks(name).checked for name in names]
            assert marks == [True, True, True, False]
    np.testing.assert_array_equal(found["undone"], found["deleted"])
    np.testing.assert_array_equal(found["redone"], found["drawn"])
    new = Model.load(empty.folder / "trained-1.septa")
    np.testing.assert_array_equal(empty.read_saved(names[-1]), new.segment(read_image(files[-1])))
    assert browser.errors == []

    # The scores on the page are those of both models on the checked labels that were held out.
    (held_out,) = empty.read("/api/trainings")[0]["held_out"]
    rows = browser.evaluate(
        "[...document.querySelectorAll('.scores tbody tr')].map((row) => row.innerText.split('\\t'))"
    )
    texts = browser.evaluate("[...document.getElementById('model').options].map((one) => one.textContent)")
    assert [row[0] for row in rows] == ["old.septa", "trained-1.septa"]
    for (name, f1, accuracy), text, model in zip(rows, texts, (old, new), strict=True):
        truth_yx = empty.read_saved(f"{held_out}.png")
        scores = score_objects(truth_yx, model.segment(read_image(empty.folder / f"{held_out}.png")))
        assert (float(f1), float(accuracy)) == pytest.approx((scores.f1[0], scores.mean_accuracy), abs=1e-3)
        assert text == f"{name} (F1 {scores.f1[0]:.2f})"


def test_stacks_are_shown_page_by_page_and_other_files_refused(site: Site, browser: Browser, tmp_path: Path) -> None:
    pages = np.stack([read_image(site.folder / f"{number % 2}.png")[0] for number in range(3)])
    tifffile.imwrite(tmp_path / "stack.tif", pages, metadata={"axes": "ZYX"}, imagej=True)
    (tmp_path / "notes.txt").write_text("no image")
    browser.open(f"http://127.0.0.1:{site.port}/")
    browser.drop([tmp_path / "stack.tif", tmp_path / "notes.txt"])
    browser.wait("septa.state.picture?.name === 'stack.tif#0' && !document.getElementById('message').hidden")
    assert "notes.txt is not an image" in browser.evaluate("document.getElementById('message').innerText")
    browser.press(".", "Period")
    browser.wait("septa.state.picture.name === 'stack.tif#1'")
    assert browser.evaluate("document.getElementById('page-text').textContent") == "plane 2 of 3"
    browser.press("s", "KeyS")
    browser.wait("septa.jobs.last?.state === 'done' && document.querySelector('#table tbody tr')")
    labels_yx = Model.load(site.folder / "old.septa").segment(read_image(site.folder / "1.png"))
    site.workspace.saver.flush()
    found = [read_labels(site.folder / "labels" / "stack.tif", page).array for page in range(3)]
    np.testing.assert_array_equal(found[1], labels_yx)
    assert not found[0].any()
    assert not found[2].any()

    browser.choose("color-by", "confidence")
    colors = browser.evaluate("septa.objects.objects.rows.map((row) => septa.viewer.labelLook.colorFor(row[0]).join())")
    assert 1 < len(set(colors)) <= len(colors)
    assert [error for error in browser.errors if "422" not in error] == []


def test_the_keyboard_alone_draws_and_two_windows_lose_nothing(site: Site, browser: Browser) -> None:
    address = f"http://127.0.0.1:{site.port}/#0.png"

    def draw(y: float) -> None:
        browser.press("n", "KeyN")
        browser.drag(*(browser.find_point(x, y) for x in (8.5, 20.5)))

    browser.open(address)
    first = browser.switch_tab()
    browser.open(address)
    browser.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true })"
    )  # it sees nothing
    second = browser.switch_tab(first)
    draw(10.5)
    browser.wait("septa.state.labels.count === 1 && !septa.state.waiting")
    one = site.read_saved()
    browser.switch_tab(second)
    draw(30.5)
    browser.wait("!document.getElementById('message').hidden && septa.state.labels.count === 1")
    assert "changed since this page showed them" in browser.evaluate("document.getElementById('message').innerText")
    np.testing.assert_array_equal(site.read_saved(), one)
    draw(30.5)
    browser.wait("septa.state.labels.count === 2 && !septa.state.waiting")
    both = site.read_saved()
    np.testing.assert_array_equal(np.where(both == 2, 0, both), one)
    assert (both[30, 8:21] == 2).all()

    browser.switch_tab(first)
    browser.wait("septa.state.labels.count === 2")  # without doing anything
    browser.evaluate(f"{STROKES}; septa.images.step(1)")  # another image is opened before they are answered
    browser.wait("septa.state.picture.name === '1.png' && !septa.state.waiting")
    assert site.workspace.open_document("0.png").count == 4
    assert browser.evaluate("document.getElementById('message').hidden")
    browser.evaluate("septa.images.step(-1)")
    browser.wait("septa.state.picture.name === '0.png' && septa.state.labels")
    browser.press("n", "KeyN")
    browser.evaluate("septa.viewer.canvas.focus()")
    for key, shift in (("ArrowRight", True), ("Enter", False), ("ArrowRight", True), ("Enter", False)):
        browser.press(key, shift=shift)
    browser.wait("septa.state.labels.corrections === 5")
    assert len(np.unique(site.read_saved())) == 6
    assert [error for error in browser.errors if "409" not in error] == []
