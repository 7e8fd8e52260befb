"""A server of the app in a process of its own, with a folder of drawn images, for the benchmarks of the app."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 16_384
"""Side of the pyramid, pixels."""


@dataclass(frozen=True)
class App:
    """A server that runs: its port, the token of its page, and its process."""

    port: int
    token: str
    process: subprocess.Popen[str]

    def ask(self, method: str, path: str, body: bytes = b"", timeout: float = 120) -> tuple[int, bytes]:
        """Send a request as the page does; return the status and the content."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request(method, path, body, {"X-Septa-Token": self.token})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def read(self, path: str) -> Any:
        """Return the JSON of an address."""
        return json.loads(self.ask("GET", path)[1])

    def measure_memory(self) -> dict[str, float]:
        """Return the peak of resident memory of the server and of the processes that it has started, MiB."""
        found: dict[str, float] = {}
        for pid in [self.process.pid, *_list_children(self.process.pid)]:
            try:
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
            except OSError:
                continue
            peak = re.search(r"VmHWM:\s+(\d+)", status)
            workers = {"decode_worker": "decoder", "predict_worker": "predictor"}
            name = next((own for worker, own in workers.items() if worker in command), "training")
            name = "server" if pid == self.process.pid else name
            found[name] = found.get(name, 0) + (int(peak[1]) / 1024 if peak else 0)
        return found


@contextmanager
def start_app(folder: Path) -> Iterator[App]:
    """Start the app on a folder, and stop it at the end."""
    command = [sys.executable, "-m", "septa", "app", str(folder), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        port = next(int(found[1]) for line in lines if (found := re.search(r"127\.0\.0\.1:(\d+)", line)))
        app = App(port, "", process)
        yield App(port, app.read("/api/session")["X-Septa-Token"], process)
    finally:
        process.terminate()
        process.wait(60)


def draw_folder(folder: Path, model: Path | None = None, *, labels: bool = False) -> None:
    """Draw four images of cells, with labels if wanted, and a pyramid of `SIDE` x `SIDE` pixels; copy a model."""
    import tifffile

    from septa.images import write_image, write_labels
    from septa.synthetic import draw_cells

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        drawing = draw_cells(512, 512, 0, number)
        write_image(folder / f"cells{number}.png", _to_bytes(drawing.image_cyx))
        if labels:
            write_labels(folder / "labels" / f"cells{number}.png", drawing.labels_yx)
    image_yx = np.tile(_to_bytes(draw_cells(1024, 1024, 1).image_cyx)[0], (SIDE // 1024, SIDE // 1024))
    with tifffile.TiffWriter(folder / "pyramid.tif", bigtiff=True) as file:
        file.write(image_yx, tile=(512, 512), subifds=6, photometric="minisblack")
        for _ in range(6):
            height, width = image_yx.shape
            image_yx = image_yx.reshape(height // 2, 2, width // 2, 2).mean((1, 3)).astype(np.uint8)
            file.write(image_yx, tile=(512, 512), subfiletype=1, photometric="minisblack")
    if model is not None:
        (folder / model.name).write_bytes(model.read_bytes())


def _to_bytes(image_yx: Any) -> Any:
    values = np.asarray(image_yx, np.float64)
    low, high = np.percentile(values, (0.1, 99.9))
    return (np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)


def _list_children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text(encoding="ascii").split()):
            found += [child, *_list_children(child)]
    return found
