"""The page in a real browser: look, segment, correct, reload; the pixels on disk are checked."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import tifffile

from septa.images import read_image, read_labels, write_image, write_labels
from septa.metrics import score_objects
from septa.model import Model
from septa.synthetic import draw_cells

from .chromium import Browser, find_chromium
from .conftest import Site

# The page orders trainings of minutes; this adds settings to the order.
FEW_STEPS = """(() => {
    const ask = window.fetch;
    window.fetch = (path, options) => ask(path, path === "/api/trainings" && options?.body
        ? { ...options, body: JSON.stringify({ ...JSON.parse(options.body), settings: septa.few }) } : options);
})()"""

NO_CHROMIUM = "no Chromium is installed (apt-get install chromium)"
NEEDS_CHROMIUM = pytest.mark.skipif(find_chromium() is None, reason=NO_CHROMIUM)


@NEEDS_CHROMIUM
def test_files_are_dropped_and_stacks_shown_page_by_page(site: Site, tmp_path: Path) -> None:
    pages = np.stack([read_image(site.folder / f"{number % 2}.png")[0] for number in range(3)])
    tifffile.imwrite(tmp_path / "stack.tif", pages, metadata={"axes": "ZYX"}, imagej=True)
    encoded = base64.b64encode((tmp_path / "stack.tif").read_bytes()).decode()
    with Browser(find_chromium() or "", tmp_path / "profile") as browser:
        browser.open(f"http://127.0.0.1:{site.port}/")
        browser.evaluate(f"""(() => {{
            const bytes = Uint8Array.from(atob("{encoded}"), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "../stack.tif"));
            data.items.add(new File(["no image"], "notes.txt"));
            document.dispatchEvent(new DragEvent("drop", {{ dataTransfer: data, bubbles: true }}));
        }})()""")
        browser.wait("septa.state.picture?.name === 'stack.tif#0' && !document.getElementById('message').hidden")
        assert "notes.txt is not an image" in browser.evaluate("document.getElementById('message').innerText")
        assert (site.folder / "stack.tif").read_bytes() == (tmp_path / "stack.tif").read_bytes()
        browser.press(".", "Period")
        browser.wait("septa.state.picture.name === 'stack.tif#1'")
        assert browser.evaluate("document.getElementById('page-text').textContent") == "plane 2 of 3"
        browser.press("s", "KeyS")
        browser.wait("septa.state.job?.state === 'done' && document.querySelector('#table tbody tr')")
        labels_yx = Model.load(site.folder / "old.septa").segment(read_image(site.folder / "1.png"))
        site.workspace.saver.flush()
        found = [read_labels(site.folder / "labels" / "stack.tif", page).array for page in range(3)]
        np.testing.assert_array_equal(found[1], labels_yx)
        assert not found[0].any()
        assert not found[2].any()

        browser.evaluate("document.getElementById('color-by').value = 'confidence'")
        browser.evaluate("document.getElementById('color-by').dispatchEvent(new Event('change'))")
        colors = browser.evaluate(
            "septa.objects.objects.rows.map((row) => septa.viewer.labelLook.colorFor(row[0]).join())"
        )
        assert 1 < len(set(colors)) <= len(colors)
        assert [error for error in browser.errors if "422" not in error] == []


@NEEDS_CHROMIUM
def test_the_loop_from_opening_to_corrected_labels(site: Site, tmp_path: Path) -> None:
    with Browser(find_chromium() or "", tmp_path / "profile") as browser:
        browser.open(f"http://127.0.0.1:{site.port}/")
        browser.wait("septa.state.labels")
        browser.press("s", "KeyS")
        browser.wait("septa.state.job?.state === 'done' && document.querySelector('#table tbody tr')")
        expected = Model.load(site.folder / "old.septa").segment(read_image(site.folder / "0.png"))
        np.testing.assert_array_equal(site.read_saved(), expected)
        assert browser.evaluate("document.querySelectorAll('#table tbody tr').length") == expected.max()
        drawn = "septa.viewer.context.getImageData(0, 0, 1080, 700).data.some((value) => value > 60)"
        assert browser.evaluate(drawn)

        browser.press("b", "KeyB")
        browser.evaluate("document.getElementById('over').click()")
        at = "((p) => { const b = septa.viewer.canvas.getBoundingClientRect(), c = septa.viewer.toCanvas(p);"
        points = [browser.evaluate(f"{at} return [b.left + c[0], b.top + c[1]]; }})([{x}, 10.5])") for x in (8.5, 20.5)]
        browser.drag(*map(tuple, points))
        browser.wait("septa.state.labels.corrections === 1 && septa.state.selected")
        label = browser.evaluate("septa.state.selected")
        saved = site.read_saved()
        assert label > expected.max()
        assert (saved[10, 8:21] == label).all()
        browser.press("z", "KeyZ", control=True)
        browser.wait("septa.state.labels.can_redo")
        np.testing.assert_array_equal(site.read_saved(), expected)
        browser.press("Z", "KeyZ", control=True, shift=True)
        browser.wait("!septa.state.labels.can_redo")

        browser.press("c", "KeyC")  # checked; then the keyboard alone draws an object
        browser.wait("septa.state.labels.checked")
        browser.press("n", "KeyN")
        browser.evaluate("septa.viewer.canvas.focus()")
        browser.press("ArrowRight", shift=True)
        browser.press("Enter")
        browser.press("ArrowRight", shift=True)
        browser.press("Enter")
        browser.wait("septa.state.labels.corrections === 2")
        assert len(np.unique(site.read_saved())) == len(np.unique(saved)) + 1

        browser.open(f"http://127.0.0.1:{site.port}/#1.png")
        browser.call("Page.reload")
        browser.wait("document.body.dataset.ready && septa.state.picture.name === '1.png'")
        browser.evaluate("document.querySelector('#images button').click()")
        browser.wait("septa.state.picture.name === '0.png' && septa.state.labels?.checked")
        assert browser.evaluate("document.querySelector('#images .state').textContent") == "✓ checked"
        assert browser.errors == []


@NEEDS_CHROMIUM
def test_a_training_survives_a_reload_and_its_model_has_scores_beside_the_old_one(site: Site, tmp_path: Path) -> None:
    for number in range(3):
        drawing = draw_cells(64, 64, number)
        write_image(site.folder / f"cells-{number}.png", drawing.image_cyx)
        write_labels(site.folder / "labels" / f"cells-{number}.png", drawing.labels_yx)
    with Browser(find_chromium() or "", tmp_path / "profile") as browser:
        browser.open(f"http://127.0.0.1:{site.port}/#cells-0.png")
        browser.wait(
            "document.getElementById('learn-checked').textContent && document.getElementById('train').disabled"
        )
        for number in range(3):
            browser.wait(f"septa.state.picture?.name === 'cells-{number}.png' && septa.state.labels?.count")
            browser.press("c", "KeyC")
            browser.wait("septa.state.labels?.checked")
            browser.press("PageDown")
        browser.wait("document.getElementById('learn-checked').textContent.startsWith('3 images checked')")
        few = "['training.steps=2', 'training.batch=1', 'training.validations=1', 'sampling.patch=[32, 32]']"
        browser.evaluate(f"septa.few = {few}")
        browser.evaluate(FEW_STEPS)
        assert browser.evaluate("document.getElementById('learn-start').value") == "old.septa"
        browser.evaluate("document.getElementById('train').click()")
        browser.wait("document.querySelector('.training[data-state=running]')")
        browser.call("Page.reload")
        browser.wait("document.body.dataset.ready && document.querySelector('.training')")
        assert browser.evaluate("document.querySelector('.training').dataset.state") == "running"
        browser.wait("document.querySelector('.training[data-state=done] img')", 120)
        rows = browser.evaluate(
            "[...document.querySelectorAll('.scores tbody tr')].map((row) => row.innerText.split('\\t'))"
        )
        assert [row[0] for row in rows] == ["old.septa", "trained-1.septa"]
        browser.wait("document.getElementById('model').options.length === 2")
        texts = browser.evaluate("[...document.getElementById('model').options].map((one) => one.textContent)")
        (held_out,) = site.read("/api/trainings")[0]["held_out"]
        (pair,) = [one for one in range(3) if f"cells-{one}" == held_out]
        for row, text in zip(rows, texts, strict=True):
            name, f1, accuracy = row
            model = Model.load(site.folder / name)
            found_yx = model.segment(read_image(site.folder / f"cells-{pair}.png"))
            scores = score_objects(draw_cells(64, 64, pair).labels_yx, found_yx)
            assert (float(f1), float(accuracy)) == pytest.approx((scores.f1[0], scores.mean_accuracy), abs=1e-3)
            assert text == f"{name} (F1 {scores.f1[0]:.2f} on 1 held out)"
        assert browser.errors == []
