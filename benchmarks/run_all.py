"""All benchmarks, one after the other, into ``benchmarks/RESULTS.md``: ``make bench``.

``python benchmarks/run_all.py [--only NAME...] [--peers monai=PYTHON]`` runs the commands of `SECTIONS`. Each has a
section with its command, the machine, the day and what it printed; a section that is not run stays as it is. Where a
command takes a MODEL, one is trained first, for some minutes on synthetic nuclei; real data are looked for in
``../shared/data``, and what needs data that are not there is passed over. Exit code 1 if a command fails: its section
says so. All of it takes hours on a machine that should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from _machine import facts
from septa.images.write import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
WIDTH = 140
"""Columns of the tables."""
MINUTES = 4
"""Of training for the model."""
HEAD = f"""# Results of the benchmarks

Written by `make bench`; `make bench ONLY=inference` runs one of them again. MODEL stands for what
`septa train FOLDER/nuclei -o MODEL --minutes {MINUTES}` makes of the images that
`python benchmarks/slide.py training -o FOLDER/nuclei` draws, INT8 for what `septa quantize` makes of it, DATA for the
folder of real data, FOLDER for a temporary one.
"""


@dataclass(frozen=True)
class Section:
    """A command as a reader would type it, with MODEL, INT8, DATA and FOLDER in place of what they stand for.

    ``data`` are the data sets that it needs, ``peers`` the names that its ``--peers`` takes.
    """

    command: str
    data: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()


SECTIONS = {
    "startup": Section("benchmarks/startup.py MODEL"),
    "inference": Section("benchmarks/inference.py", peers=("monai", "segmentation_models_pytorch")),
    "engines": Section("benchmarks/engines.py MODEL"),
    "exactness": Section("benchmarks/exactness.py"),
    "tiling": Section(
        "benchmarks/tiling.py MODEL --int8 INT8 --repeats 2 --folder FOLDER", peers=("monai", "nnunetv2")
    ),
    "slide": Section("benchmarks/slide.py draw --size 8192 -o FOLDER/slide.ome.zarr"),
    "streaming": Section("benchmarks/streaming.py MODEL --sizes 8192 16384 --folder FOLDER"),
    "training": Section("benchmarks/training.py"),
    "augmentation": Section("benchmarks/augmentation.py"),
    "border_weights": Section("benchmarks/border_weights.py"),
    "matching": Section("benchmarks/matching.py"),
    "time_to_quality": Section("benchmarks/time_to_quality.py", data=("isbi2012", "dsb2018")),
    "real_data": Section("benchmarks/real_data.py", data=("isbi2012", "glas")),
    "family": Section(
        "benchmarks/family.py DATA/isbi2012 DATA/glas --minutes 2.5 --output FOLDER/family", data=("isbi2012", "glas")
    ),
}
"""In the order of the page. touching.py is not among them: what it makes are pictures."""


@dataclass
class Places:
    """Where MODEL, DATA and FOLDER are; the model is trained when it is first asked for."""

    folder: Path
    data: Path = ROOT.parent / "shared" / "data"
    given: Path | None = None
    peers: tuple[str, ...] = ()

    @cached_property
    def model(self) -> Path:
        """The model of all sections."""
        if self.given is not None:
            return self.given.resolve()
        nuclei, path = self.folder / "nuclei", self.folder / "nuclei.septa"
        train = [sys.executable, "-m", "septa", "train", str(nuclei), "-o", str(path), "--minutes", str(MINUTES)]
        draw = [sys.executable, str(ROOT / "benchmarks" / "slide.py"), "training", "-o", str(nuclei)]
        for command in (draw, train):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return path

    @cached_property
    def int8(self) -> Path:
        """What ``septa quantize`` makes of it."""
        path = self.folder / "int8.septa"
        command = ["quantize", str(self.model), "--data", str(self.folder / "nuclei"), "-o", str(path)]
        subprocess.run([sys.executable, "-m", "septa", *command], check=True, stdout=subprocess.DEVNULL)
        return path

    def filled(self, section: Section) -> list[str]:
        """The command as it is run."""
        command = section.command if self.given is None else section.command.replace(" --int8 INT8", "")
        parts = shlex.split(command)  # what a given model was trained on, and int8 wants, is not known
        found = {"DATA": self.data, "FOLDER": self.folder}
        if "MODEL" in parts:
            found["MODEL"] = self.model
        if "INT8" in parts:
            found["INT8"] = self.int8
        words = [re.sub("|".join(found), lambda name: str(found[name[0]]), part) for part in parts]
        peers = [peer for peer in self.peers if peer.partition("=")[0] in section.peers]
        return [sys.executable, *words, *(["--peers", *peers] if peers else [])]

    def hidden(self, text: str) -> str:
        """A text with nothing of where this machine has its files."""
        named = {str(self.folder): "FOLDER", str(self.data): "DATA", sys.executable: "python"}
        if "model" in self.__dict__:
            named[str(self.model)] = "MODEL"
        named |= {peer.partition("=")[2]: "PYTHON" for peer in self.peers}
        named |= {f"{ROOT}{os.sep}": "", str(ROOT): ".", str(ROOT.parent): "..", str(Path.home()): "~"}
        for path in sorted(named, key=len, reverse=True):
            text = text.replace(path, named[path]) if len(path) > 1 else text
        return text


def main() -> None:
    """Run, write the page section by section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="NAME", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--model", type=Path, help="in place of one that is trained")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON", help="interpreters that have them")
    arguments = parser.parse_args()
    known = {name for section in SECTIONS.values() for name in section.peers}
    if unknown := [given for given in arguments.peers if given.partition("=")[0] not in known]:
        parser.error(f"--peers {unknown[0]}: write {' or '.join(f'{name}=PYTHON' for name in sorted(known))}")
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder), given=arguments.model, peers=tuple(arguments.peers))
        names = arguments.only or list(SECTIONS)
        failed = run_all({name: SECTIONS[name] for name in names}, places, RESULTS, list(SECTIONS))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    raise SystemExit(int(bool(failed)))


def run_all(sections: dict[str, Section], places: Places, page: Path, order: Sequence[str]) -> list[str]:
    """Run some sections and replace them in the page, each as soon as it is done; returns the names of those that fail.

    ``order`` is that of the page; what else stands in it comes last.
    """
    failed = []
    for name, section in sections.items():
        lacking = [one for one in section.data if not (places.data / one).is_dir()]
        if lacking:
            print(f"{name}: not run, {', '.join(lacking)} not in ../shared/data", flush=True)
            continue
        print(f"{name}: {section.command}", flush=True)
        body, good = run(section, places)
        failed += [] if good else [name]
        kept = read_page(page) | {name: body}
        ordered = [*(one for one in order if one in kept), *(one for one in kept if one not in order)]
        write_text(page, "\n".join([HEAD, *(f"## {one}\n\n{kept[one]}\n" for one in ordered)]))
    return failed


def run(section: Section, places: Places) -> tuple[str, bool]:
    """What a section says, and whether its command ended well."""
    plain = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    began = time.perf_counter()
    try:
        command = places.filled(section)
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment | plain, check=False)
    except subprocess.CalledProcessError as error:
        return (
            f"`python {section.command}` **failed**: no model could be trained (exit code {error.returncode}).",
            False,
        )
    minutes = (time.perf_counter() - began) / 60
    out, told = (places.hidden(text.decode(errors="replace")).rstrip() for text in (done.stdout, done.stderr))
    shown = section.command + (" --peers NAME=PYTHON" if "--peers" in command else "")
    lines = [f"`python {shown}`, {minutes:.1f} minutes, {datetime.now(UTC).date()}. {machine()}"]
    if done.returncode:
        reason = told.splitlines()[-1] if told else "it said nothing"
        lines += ["", f"**Failed** (exit code {done.returncode}): {reason}"]
        print(told, file=sys.stderr)
    if out.startswith("| "):  # a table in Markdown
        lines += ["", out]
    elif out:
        lines += ["", "```text", *(line.rstrip() for line in out.splitlines()), "```"]
    return "\n".join(lines), not done.returncode


def machine() -> str:
    """One line of facts."""
    known = facts()
    named = {name: known.pop(name) for name in ("processor", "cores", "memory", "system")}
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    return f"{named['processor']}; {named['cores']} cores, {named['memory']}; {named['system']}; {versions}."


def read_page(page: Path) -> dict[str, str]:
    """The sections of a page by name; none where there is no page."""
    if not page.is_file():
        return {}
    parts = page.read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.partition("\n")[0].strip(): part.partition("\n")[2].strip() for part in parts}


if __name__ == "__main__":
    main()
