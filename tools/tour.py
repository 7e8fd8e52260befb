"""Walk through the loop of `septa app` in a headless Chromium, and take the pictures of docs/app.md.

Usage: ``python tools/tour.py [--minutes 1] [--out docs/images]``, or ``make tour``.

An empty folder is opened, the example images of the shipped model (CC0) are dropped on the page, segmented, corrected
and checked, a model is trained on them, and used. ``tests/app`` walks the
same way with drawn images, and checks the files that it leaves.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests" / "app"))
from chromium import Browser, find_chromium

SIZE = 1280, 800
"""Width and height of the pictures, pixels."""
COLORS = 256
"""Number of colours of a picture, which keeps it small."""
PICTURES = {
    "segmented": ("app-segment-light", "app-segment-dark"),
    "drawn": ("app-correct-light",),
    "training": ("app-train-light", "app-train-dark"),
    "used": ("app-retrained-light",),
}
"""Step after which pictures are taken, and their names, which end in the theme."""

# The page orders trainings of minutes; this adds settings to the order.
_ADD_SETTINGS = """(() => {
    const ask = window.fetch;
    window.fetch = (path, options) => ask(path, path === "/api/trainings" && options?.body
        ? { ...options, body: JSON.stringify({ ...JSON.parse(options.body), settings: SETTINGS }) } : options);
})()"""
_LARGEST = """(({ columns, rows }) => {
    const row = rows.reduce((most, one) => (one[columns.indexOf("area")] > most[columns.indexOf("area")] ? one : most));
    return ["label", "area", "centroid_x", "centroid_y"].map((name) => row[columns.indexOf(name)]);
})(septa.objects.objects)"""
_SETTLED = """septa.viewer.labels && !septa.state.waiting
    && [septa.viewer.tiles, septa.viewer.labels].every((one) => !one.active && !one.wanted.length)
    && [...document.querySelectorAll("#images img")].every((one) => one.complete)
    && septa.state.labels.version === septa.state.labels.saved_version"""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A walk through the loop.

    Attributes
    ----------
    browser
        Browser.
    address
        Address of the page; its folder has a model and no images.
    files
        Images that are dropped on the page. All but the last are checked; it is segmented by the trained model.
    minutes
        Time of the training.
    settings
        Changes of the recipe, for a test.
    """

    browser: Browser
    address: str
    files: Sequence[Path]
    minutes: float = 1.0
    settings: Sequence[str] = ()

    def run(self) -> Iterator[str]:
        """Do one step after the other, and yield its name when the page shows that it is done."""
        browser, names = self.browser, [path.name for path in self.files]
        browser.open(self.address)
        browser.wait("document.getElementById('hint').textContent.includes('no images yet')")
        yield "opened"
        browser.drop(self.files)
        browser.wait(f"document.querySelectorAll('#images button').length === {len(names)} && septa.state.labels")
        yield "dropped"
        for name in names[:-1]:  # all are ordered before the first one is done
            self.show(name)
            browser.press("s", "KeyS")
        self.show(names[0])
        browser.wait(
            "septa.jobs.jobs.length && !septa.jobs.hasActive && document.querySelector('#table tbody tr')", 300
        )
        self.settle()
        yield "segmented"
        yield from self._correct()
        for name in names[:-1]:
            self.show(name)
            self.settle()
            browser.press("c", "KeyC")
            browser.wait("septa.state.labels?.checked")
        yield "checked"
        yield from self._train()
        self.show(names[-1])
        browser.evaluate("document.querySelector('[data-action=use]').click()")
        browser.wait("document.getElementById('model').value === 'trained-1.septa'")
        browser.press("s", "KeyS")
        browser.wait("septa.jobs.last?.state === 'done' && !septa.jobs.hasActive && septa.state.labels.can_undo", 300)
        self.settle()
        yield "used"

    def _correct(self) -> Iterator[str]:
        """Delete the largest object, draw another one at its place, undo that and do it again."""
        browser = self.browser
        label, area, x, y = browser.evaluate(_LARGEST)
        browser.evaluate(f"document.querySelector('#table tr[data-label=\"{label:.0f}\"]').click()")
        browser.evaluate("septa.viewer.fit()")
        browser.press("Delete")
        browser.wait("septa.state.labels.corrections === 1")
        self.settle()
        yield "deleted"
        browser.press("n", "KeyN")
        browser.choose("radius", f"{max(1, 0.4 * area**0.5):.1f}")
        browser.drag(*(browser.find_point(x + shift, y) for shift in (-2, 0, 2)))
        browser.wait("septa.state.labels.corrections === 2 && septa.state.selected")
        self.settle()
        yield "drawn"
        browser.press("z", "KeyZ", control=True)
        browser.wait("septa.state.labels.can_redo")
        self.settle()
        yield "undone"
        browser.press("Z", "KeyZ", control=True, shift=True)
        browser.wait("!septa.state.labels.can_redo")
        self.settle()
        yield "redone"

    def _train(self) -> Iterator[str]:
        """Train on what is checked, and load the page again meanwhile."""
        browser = self.browser
        if self.settings:
            browser.evaluate(_ADD_SETTINGS.replace("SETTINGS", str(list(self.settings))))
        browser.evaluate(f"document.getElementById('learn-minutes').value = {self.minutes}")
        browser.evaluate("document.getElementById('train').click()")
        browser.wait("document.querySelector('.training[data-state=running]')", 120)
        browser.call("Page.reload")
        browser.wait("document.body.dataset.ready && document.querySelector('.training')")
        assert browser.evaluate("document.querySelector('.training').dataset.state") == "running"
        ended = "document.querySelector('.training:not([data-state=running])')"
        browser.wait(f"document.querySelectorAll('.training .curve circle').length > 1 || {ended}", 600)
        browser.evaluate("document.querySelector('#learn-panel .training').scrollIntoView()")
        yield "training"
        browser.wait(ended, 600)
        if not browser.evaluate("document.querySelector('.training[data-state=done] .scores')?.isConnected"):
            raise RuntimeError(browser.evaluate("document.querySelector('.training').innerText"))
        browser.wait("document.getElementById('model').options.length > 1")
        yield "trained"

    def show(self, name: str) -> None:
        """Choose an image in the list."""
        if self.browser.evaluate(f"septa.state.picture?.name === '{name}'"):
            return
        self.browser.evaluate(f"document.querySelector('#images [title=\"{name}\"]').closest('button').click()")
        self.browser.wait(f"septa.state.picture?.name === '{name}' && septa.state.labels")

    def settle(self) -> None:
        """Wait until the page shows everything, and all is saved."""
        self.browser.wait(_SETTLED)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Start `septa app` on a folder, and return the address of the page."""
    command = [sys.executable, "-m", "septa", "app", str(folder), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def take_pictures(walk: Walk, out: Path) -> list[Path]:
    """Walk, and take the pictures; return their paths."""
    written = []
    for step in walk.run():
        for name in PICTURES.get(step, ()):
            theme = name.rpartition("-")[2]
            walk.browser.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
            with Image.open(io.BytesIO(walk.browser.screenshot())) as picture:
                small = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
            written.append(out / f"{name}.png")
            small.save(written[-1], optimize=True)
    return written


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="time of the training")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    arguments = parser.parse_args()
    program = find_chromium()
    if program is None:
        sys.exit("error: no Chromium is installed. Run apt-get install chromium.")
    from septa.pretrained import find_example_images

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "my-images"
        folder.mkdir()
        with serve(folder) as address, Browser(program, Path(name) / "profile", SIZE) as browser:
            walk = Walk(browser=browser, address=address, files=find_example_images(), minutes=arguments.minutes)
            for path in take_pictures(walk, arguments.out):
                print(path)


if __name__ == "__main__":
    main()
