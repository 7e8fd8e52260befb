"""Measure `septa app` in a real browser: opening, the first result, panning, strokes and sliders.

Usage: ``python benchmarks/app_browser.py [MODEL] [--rounds 5]``.

Chromium shows the page without a window, at 1280 x 800. MODEL finds the objects; without it, the first shipped model
does. The table has, from the moment the address is entered: first paint, the moment the page can be used, and the first
result on an image of 512 x 512 pixels (the key S is pressed at once). Then: the time from the end of a stroke, or from
a moved slider, to the frame that shows the new labels, medians of some rounds; and the time between two frames while a
pyramid of 16384 x 16384 pixels moves by 24 pixels a frame, and how long the script works for a frame.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from _app import draw_folder, start_app

sys.path.append(str(Path(__file__).parents[1] / "tests" / "app"))
from chromium import Browser, find_chromium

PAN = """new Promise((resolve) => {
    const times = []; let last = 0, left = 180;
    septa.viewer.frames.length = 0;
    const step = (now) => {
        if (last) times.push(now - last);
        last = now;
        septa.viewer.panBy(-24, -9);
        if ((left -= 1)) requestAnimationFrame(step);
        else resolve([times, septa.viewer.frames]);
    };
    requestAnimationFrame(step);
})"""
SHOWN = """new Promise((resolve) => {
    const begun = performance.now(), before = septa.viewer.labelVersion;
    let frames = 0; // the first one after the change asks for tiles
    const look = () => {
        const { labels, labelVersion } = septa.viewer;
        if (labelVersion !== before) frames += 1;
        const seen = frames > 1 && !labels.active && !labels.wanted.length;
        if (seen) requestAnimationFrame(() => resolve(performance.now() - begun));
        else requestAnimationFrame(look);
    };
    ACTION
    look();
})"""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="model that finds the objects")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    program = find_chromium()
    if program is None:
        sys.exit("error: no Chromium is installed. Run apt-get install chromium.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        draw_folder(folder, arguments.model)
        with start_app(folder) as app, Browser(program, Path(name) / "profile") as browser:
            rows = measure(browser, f"http://127.0.0.1:{app.port}/", arguments.rounds)
    table = Table("what", "ms")
    for what, milliseconds in rows.items():
        table.add_row(what, f"{milliseconds:.1f}")
    Console(width=100).print(table)


def measure(browser: Browser, address: str, rounds: int) -> dict[str, float]:
    """Return the times, milliseconds."""
    begun = time.perf_counter()
    browser.open(address)
    usable = time.perf_counter() - begun
    paint = browser.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN")
    browser.press("s", "KeyS")
    browser.wait("septa.jobs.last?.state === 'done' && septa.state.labels.count > 0", 300)
    first = time.perf_counter() - begun
    found = {"first paint": paint, "page can be used": 1000 * usable, "first result, 512 x 512": 1000 * first}
    browser.wait("septa.state.labels.version === septa.state.labels.saved_version")
    slider = "const s = document.getElementById('foreground'); s.value = VALUE; s.dispatchEvent(new Event('input'));"
    moved = [
        browser.evaluate(SHOWN.replace("ACTION", slider.replace("VALUE", str(0.3 + 0.05 * place))))
        for place in range(rounds)
    ]
    found["moved slider to new objects"] = median(moved)
    browser.press("b", "KeyB")
    stroke = """const v = septa.viewer, t = septa.toolbox, y = 40 + 9 * PLACE;
        septa.state.selected = 0; document.getElementById('over').checked = true;
        t.down([100, y]); for (let x = 102; x < 160; x += 2) t.move([x, y]); t.up();"""
    drawn = [browser.evaluate(SHOWN.replace("ACTION", stroke.replace("PLACE", str(place)))) for place in range(rounds)]
    found["end of a stroke to its labels"] = median(drawn)
    button = "[...document.querySelectorAll('#images button')].find((one) => one.innerText.includes('pyramid'))"
    browser.evaluate(f"{button}.click()")
    browser.wait("septa.state.picture?.name === 'pyramid.tif'")
    for text, scale in (("1:1", 1.0), ("1:8", 0.125)):
        browser.evaluate(f"septa.viewer.setScale({scale}); septa.viewer.moveTo([4000, 4000])")
        time.sleep(1)
        frames, work = browser.evaluate(PAN)
        found[f"time between frames, panning at {text}"] = median(frames)
        found[f"work of a frame, panning at {text}"] = median(work)
    return found


if __name__ == "__main__":
    main()
