"""A small driver of Chromium: the DevTools protocol over two pipes, with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of a headless Chromium; use it in a ``with`` statement."""

    def __init__(self, program: str, profile: Path, size: tuple[int, int] = (1280, 800)) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        options = (
            "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --disable-extensions"
        )
        command = [program, *options.split(), f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        command.append(f"--window-size={size[0]},{size[1]}")

        # Chromium reads commands from descriptor 3 and writes to 4; a shell puts the pipes there.
        shell = ["bash", "-c", f'exec 3<&{to_read} 4>&{to_write}; exec "$@"', "bash", *command]
        self._process = subprocess.Popen(
            shell, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._number = 0
        self._rest = b""
        self._session: str | None = None
        self.errors: list[str] = []
        target = next(one for one in self._wait_for_targets() if one["type"] == "page")
        self._tab = target["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=self._tab, flatten=True)["sessionId"]
        self._first = self._session
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def _wait_for_targets(self) -> list[dict[str, Any]]:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            targets = self.call("Target.getTargets")["targetInfos"]
            if any(one["type"] == "page" for one in targets):
                return targets
            time.sleep(0.05)
        raise TimeoutError("Chromium opened no page")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events in between are only searched for errors."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], 60)[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("Chromium has ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.errors.append(event["params"]["entry"]["text"])

    def evaluate(self, code: str) -> Any:
        """Return the value of an expression of the page; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description"))
        return found["result"].get("value")

    def wait(self, code: str, seconds: float = 120) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := self.evaluate(f"Boolean({code})"):
                    return found
            except RuntimeError:  # the page is being loaded
                pass
            time.sleep(0.05)
        shown = self.evaluate("[septa.jobs.jobs, document.querySelector('main').innerText]")
        raise TimeoutError(f"never true: {code}; errors: {self.errors}; {shown}")

    def open(self, address: str) -> None:
        self.call("Page.navigate", url="about:blank")  # a page of the same address would only be told the new part
        self.call("Page.navigate", url=address)
        self.wait("document.body && document.body.dataset.ready")

    def drag(self, *points: tuple[float, float]) -> None:
        """Press the mouse at the first point, move over the others, and release it."""
        for place, (x, y) in enumerate(points):
            kind = "mousePressed" if place == 0 else "mouseMoved"
            self._mouse(kind, x, y)
        self._mouse("mouseReleased", *points[-1])

    def _mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def press(self, key: str, code: str = "", *, shift: bool = False, control: bool = False) -> None:
        values = {"key": key, "code": code or key, "modifiers": 8 * shift + 2 * control}
        self.call("Input.dispatchKeyEvent", type="keyDown", **values)
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def screenshot(self) -> bytes:
        """Return a picture of the page, PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def drop(self, files: Sequence[Path]) -> None:
        """Drop files on the page."""
        listed = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in files]
        self.evaluate(f"""(() => {{
            const data = new DataTransfer();
            for (const [name, content] of {json.dumps(listed)}) {{
                data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
            }}
            document.dispatchEvent(new DragEvent("drop", {{ dataTransfer: data, bubbles: true }}));
        }})()""")

    def choose(self, name: str, value: str) -> None:
        """Choose an entry of a list, or move a slider, by its id."""
        self.evaluate(f"""(() => {{
            const field = document.getElementById("{name}");
            field.value = {json.dumps(value)};
            for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind));
        }})()""")

    def find_point(self, x: float, y: float) -> tuple[float, float]:
        """Return the place in the window of a point of the image that is shown."""
        code = "((p) => { const b = septa.viewer.canvas.getBoundingClientRect(), c = septa.viewer.toCanvas(p);"
        left, top = self.evaluate(f"{code} return [b.left + c[0], b.top + c[1]]; }})([{x}, {y}])")
        return left, top

    def switch_tab(self, tab: str | None = None) -> str:
        """Open another tab, or go to one that is open; return the name of the one before."""
        before = self._session
        assert before is not None
        if tab is None:
            self._session = None
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        else:
            self._session = tab
        self.call("Page.bringToFront")
        return before

    def close_tabs(self) -> None:
        """Leave one tab with an empty page."""
        for one in self.call("Target.getTargets")["targetInfos"]:
            if one["type"] == "page" and one["targetId"] != self._tab:
                self.call("Target.closeTarget", targetId=one["targetId"])
        self._session = self._first
        self.call("Page.navigate", url="about:blank")
