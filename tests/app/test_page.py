"""The page in a real browser: look, segment, correct, reload; the pixels on disk are checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from septa.images import read_image
from septa.model import Model

from .chromium import Browser, find_chromium
from .conftest import Site


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed (apt-get install chromium)")
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
