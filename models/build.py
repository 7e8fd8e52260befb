"""Make a shipped model: train it, score it on held-out images, and write its card, pictures and example.

::

    python models/prepare.py nuclei data/nuclei ...
    python models/build.py nuclei data/nuclei --minutes 60

``build/nuclei`` then holds ``nuclei.septa`` (half precision, made from ``nuclei-float32.septa``), ``nuclei.md``,
``examples/nuclei``, ``scores.json`` and ``pictures/``. To ship the model, copy the first three to
``src/septa/pretrained`` and the pictures to ``docs/images``.

A model that is trained on all images (``prepare.py --all``) cannot be scored on them. Train a copy without them first,
and name its folder: ``--copy build/copy``. The card then gives the scores of the copy, and says so.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from card import fill_card
from pictures import Example, draw, write_example
from score import VERSIONS, score

from septa import Model, __version__
from septa.images import write_bytes, write_text

HERE = Path(__file__).parent

EXAMPLES = {
    "nuclei": (
        Example("bbbc039", "bbbc039", 224),
        Example("dsb_bright", "dsb_bright", 128),
        Example("dsb_smear", "dsb_bright", 224, "dsb_ed5be4b63e95"),
    )
}
"""Examples of a model."""

PICTURES = "../../../docs/images"
"""Place of the pictures, as seen from the card."""


def make_command(name: str, data: Path, out: Path, seed: int, minutes: float, changes: Sequence[str]) -> list[str]:
    """Return the command that trains a model."""
    settings = [part for change in changes for part in ("--set", change)]
    recipe = (
        (HERE / f"{name}.yaml").relative_to(Path.cwd()) if HERE.is_relative_to(Path.cwd()) else HERE / f"{name}.yaml"
    )
    return [
        *("septa", "train", str(data / "train"), "-o", str(out / f"{name}-float32.septa"), "--recipe", str(recipe)),
        *("--seed", str(seed), "--minutes", f"{minutes:g}", *settings),
    ]


def train(command: list[str]) -> float:
    """Train, and return the minutes; septa has printed the reason if it fails."""
    started = time.monotonic()
    print(shlex.join(command), flush=True)
    done = subprocess.run([sys.executable, "-m", *command], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return (time.monotonic() - started) / 60


def halve(name: str, data: Path, out: Path) -> str:
    """Store the model in half precision, and return what septa says of the scores of both."""
    options = ["--to", "float16", "--data", str(data / "train"), "-o", str(out / f"{name}.septa"), "--overwrite"]
    command = [sys.executable, "-m", "septa", "quantize", str(out / f"{name}-float32.septa"), *options]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout.strip()


def describe_processor() -> str:
    """Return the model of the processor and the number of its cores that this process may use."""
    import os

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or platform.machine()} ({cores} cores)"


def build(options: argparse.Namespace, out: Path) -> None:
    """Do the whole job; see the top of this file."""
    name, data = options.name, options.data
    path, facts_path = out / f"{name}.septa", out / "training.json"
    if not options.keep:
        command = make_command(name, data, out, options.seed, options.minutes, options.set)
        minutes = train(command)
        facts = {"command": shlex.join(command), "seed": options.seed, "minutes": minutes}
        facts |= {"processor": describe_processor(), "septa": __version__, "parity": halve(name, data, out)}
        write_text(facts_path, json.dumps(facts, indent=1) + "\n")
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    model = Model.load(path)
    scores = score(model, data, versions=list(VERSIONS), limit=options.limit)
    write_text(out / "scores.json", json.dumps(scores, indent=1) + "\n")
    pictures = draw(model, name, data, scores, out / "pictures")
    if options.copy is not None:
        pictures += add_copy(options.copy, scores, out / "pictures")
    for example in EXAMPLES.get(name, ()):
        if example.folder in scores["folders"] and not scores["folders"][example.folder].get("copy"):
            write_example(data, scores, example, out / "examples" / name)
    facts["megabytes"] = path.stat().st_size / 1e6
    write_text(
        out / f"{name}.md", fill_card(name, data, facts, scores, [f"{PICTURES}/{picture.name}" for picture in pictures])
    )
    print(f"{out}: the model, its card, scores and pictures are written")


def add_copy(copy: Path, scores: dict[str, Any], pictures: Path) -> list[Path]:
    """Add the scores of a copy on images that the model has seen, and return its pictures of them."""
    folders = json.loads((copy / "scores.json").read_text(encoding="utf-8"))["folders"]
    added = {name: {**one, "copy": True} for name, one in folders.items() if name not in scores["folders"]}
    scores["folders"].update(added)
    found = [path for path in sorted((copy / "pictures").glob("*.png")) if path.stem.endswith(tuple(added))]
    for path in found:
        write_bytes(pictures / path.name, path.read_bytes())
    return [pictures / path.name for path in found]


def main() -> None:
    """Read the options and build the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in HERE.glob("*.yaml")))
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("--out", type=Path, help="folder to write to; the default is build/NAME")
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the recipe"
    )
    parser.add_argument("--keep", action="store_true", help="score the model of an earlier run; train nothing")
    parser.add_argument("--copy", type=Path, help="folder of a copy that has not seen images which this model has")
    parser.add_argument("--limit", type=int, help="score this many images of each folder, to try the whole chain")
    options = parser.parse_args()
    build(options, options.out or Path("build") / options.name)


if __name__ == "__main__":
    main()
