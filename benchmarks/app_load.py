"""Measure how `septa app` answers while many clients pan, some upload files, and a training runs.

Usage: ``python benchmarks/app_load.py [--seconds 30] [--clients 50] [--uploads 10] [--train]``.

The server runs as for a user. Each of the clients looks at another place of a pyramid of 16384 x 16384 pixels or of an
image of 512 x 512 pixels, and asks for the nine tiles that it sees; then it pauses for as long as a person drags. The
uploading clients send a file of some megabytes again and again. Meanwhile one more client asks ``/api/health`` every
20 ms. With ``--train``, the drawn labels are marked as checked and a training starts before. All clients run on the
machine of the server. The table has the times of the answers, errors, and the peak of the memory.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from _app import App, draw_folder, start_app

LIMIT = 1.0
"""Limit for the 99th percentile of ``/api/health``, seconds."""


@dataclass
class Answers:
    """The times of the answers to one kind of request, seconds, and the number of answers by status."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def ask(self, app: App, method: str, path: str, body: bytes = b"") -> None:
        """Send a request and note the answer; a connection that fails counts as status 0."""
        begun = time.perf_counter()
        try:
            status, _ = app.ask(method, path, body)
        except OSError:
            status = 0
        self.seconds.append(time.perf_counter() - begun)
        self.statuses[status] = self.statuses.get(status, 0) + 1


def main() -> None:
    """Put load on a server and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=50, help="clients that pan")
    parser.add_argument("--uploads", type=int, default=10, help="clients that upload")
    parser.add_argument("--megabytes", type=float, default=4, help="size of an uploaded file")
    parser.add_argument("--train", action="store_true", help="train meanwhile")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        draw_folder(Path(name), labels=arguments.train)
        with start_app(Path(name)) as app:
            if arguments.train:
                start_training(app)
            found = put_load(app, arguments.seconds, arguments.clients, arguments.uploads, arguments.megabytes)
            print_table(found, app.measure_memory(), arguments)


def start_training(app: App) -> None:
    """Mark the drawn labels as checked, and start a training of some minutes."""
    for number in range(4):
        address = f"/api/images/cells{number}.png/check"
        status, content = app.ask("POST", address, json.dumps({"checked": True}).encode())
        assert status == 200, content
    status, content = app.ask("POST", "/api/trainings", json.dumps({"name": "load", "minutes": 5}).encode())
    assert status == 200, content


def put_load(app: App, seconds: float, clients: int, uploads: int, megabytes: float) -> dict[str, Answers]:
    """Let all clients work for some seconds; return their answers."""
    app.ask("GET", "/api/images/pyramid.tif")
    stop = threading.Event()
    pans = [Answers() for _ in range(clients)]
    sends = [Answers() for _ in range(uploads)]
    health = Answers()
    side = int((megabytes * 1e6) ** 0.5)
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)).save(stream, "png")
    content = stream.getvalue()
    threads = [threading.Thread(target=pan, args=(app, one, stop, number)) for number, one in enumerate(pans)]
    for number, one in enumerate(sends):
        threads.append(threading.Thread(target=send, args=(app, one, stop, content, number)))
    threads.append(threading.Thread(target=watch, args=(app, health, stop)))
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return {"health": health, "tiles": join(pans), "uploads": join(sends)}


def pan(app: App, answers: Answers, stop: threading.Event, number: int) -> None:
    """Look at the nine tiles around places that move on."""
    rng = random.Random(number)
    name, level, count = ("pyramid.tif", rng.choice((0, 1, 2)), 64) if number % 2 else (f"cells{number % 4}.png", 0, 2)
    count = max(2, count >> level)
    row, column = rng.randrange(count), rng.randrange(count)
    while not stop.is_set():
        for y in range(row, min(row + 3, count)):
            for x in range(column, min(column + 3, count)):
                answers.ask(app, "GET", f"/api/images/{name}/tiles/{level}/{y}/{x}")
        row, column = (row + rng.choice((0, 1))) % count, (column + 1) % count
        stop.wait(0.2)


def send(app: App, answers: Answers, stop: threading.Event, content: bytes, number: int) -> None:
    """Upload a file under new names."""
    turn = 0
    while not stop.is_set():
        answers.ask(app, "POST", f"/api/files/upload{number}-{turn}.png", content)
        turn += 1
        stop.wait(0.5)


def watch(app: App, answers: Answers, stop: threading.Event) -> None:
    """Ask whether the server answers."""
    while not stop.is_set():
        answers.ask(app, "GET", "/api/health")
        stop.wait(0.02)


def join(parts: list[Answers]) -> Answers:
    """Return the answers of several clients together."""
    whole = Answers()
    for part in parts:
        whole.seconds += part.seconds
        for status, count in part.statuses.items():
            whole.statuses[status] = whole.statuses.get(status, 0) + count
    return whole


def print_table(found: dict[str, Answers], memory: dict[str, float], arguments: argparse.Namespace) -> None:
    """Print times, errors and memory."""
    title = f"{arguments.clients} panning, {arguments.uploads} uploading{', 1 training' if arguments.train else ''}"
    columns = "request", "answers", "median, ms", "p99, ms", "largest, ms", "limit of p99, ms", "errors"
    table = Table(*columns, title=title)
    for name, answers in found.items():
        if not answers.seconds:
            continue
        cuts = [1000 * float(np.quantile(answers.seconds, share)) for share in (0.5, 0.99, 1)]
        bad = {status: count for status, count in answers.statuses.items() if status == 0 or status >= 400}
        limit = f"{1000 * LIMIT:.0f}" if name == "health" else ""
        table.add_row(name, f"{len(answers.seconds)}", *(f"{cut:.1f}" for cut in cuts), limit, str(bad or 0))
    console = Console(width=110)
    console.print(table)
    parts = ", ".join(f"{name} {peak:.0f} MiB" for name, peak in memory.items())
    console.print(f"peak of resident memory: {parts}")


if __name__ == "__main__":
    main()
