"""Run all benchmarks one after the other and write ``benchmarks/RESULTS.md``; this is ``make bench``.

Usage: ``python benchmarks/run_all.py [--only NAME...] [--peers monai=PYTHON]``.

The script runs the commands of `SECTIONS`. Each has a section with its command, the machine, the date and the output. A
section that is not run stays unchanged. If a command needs a MODEL, one is first trained for a few minutes on synthetic
nuclei. Real data are read from ``../shared/data``; a command whose data are missing is skipped. If a command fails, its
section says so and the exit code is 1. The whole takes hours, and the machine should do nothing else meanwhile.
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

from _machine import collect_facts
from septa.images import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
WIDTH = 140
"""Width of the tables, characters."""
MINUTES = 4
"""Length of the training of MODEL, minutes."""
HEAD = f"""# Results of the benchmarks

`make bench` writes this page; `make bench ONLY=inference` runs one benchmark again. The commands use these names:

- FOLDER: a temporary folder. `python benchmarks/slide.py training -o FOLDER/nuclei` draws its training images.
- MODEL: the model that `septa train FOLDER/nuclei -o MODEL --minutes {MINUTES}` trains.
- INT8: the model that `septa quantize` makes from MODEL.
- DATA: the folder of the real data.
"""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    command
        Command as a reader types it, with the placeholders MODEL, INT8, DATA and FOLDER.
    data
        Names of the data sets that it needs.
    peers
        Names that its option ``--peers`` accepts.
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
"""Sections in the order of the page. touching.py is not included because it draws pictures."""


@dataclass
class Places:
    """Paths of MODEL, DATA and FOLDER; the model is trained at its first use."""

    folder: Path
    data: Path = ROOT.parent / "shared" / "data"
    given: Path | None = None
    peers: tuple[str, ...] = ()

    @cached_property
    def model(self) -> Path:
        """Path of the model of all sections."""
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
        """Path of the model that ``septa quantize`` makes from it."""
        path = self.folder / "int8.septa"
        command = ["quantize", str(self.model), "--data", str(self.folder / "nuclei"), "-o", str(path)]
        subprocess.run([sys.executable, "-m", "septa", *command], check=True, stdout=subprocess.DEVNULL)
        return path

    def fill_command(self, section: Section) -> list[str]:
        """Return the command of a section with paths in place of the placeholders."""
        command = section.command
        if self.given is not None:
            # Quantization needs the training images, which are not known for a given model.
            command = command.replace(" --int8 INT8", "")
        parts = shlex.split(command)
        found = {"DATA": self.data, "FOLDER": self.folder}
        if "MODEL" in parts:
            found["MODEL"] = self.model
        if "INT8" in parts:
            found["INT8"] = self.int8
        words = [re.sub("|".join(found), lambda name: str(found[name[0]]), part) for part in parts]
        peers = [peer for peer in self.peers if peer.partition("=")[0] in section.peers]
        return [sys.executable, *words, *(["--peers", *peers] if peers else [])]

    def hide_paths(self, text: str) -> str:
        """Replace the paths of this machine in a text by placeholders."""
        named = {str(self.folder): "FOLDER", str(self.data): "DATA", sys.executable: "python"}
        if "model" in self.__dict__:
            named[str(self.model)] = "MODEL"
        named |= {peer.partition("=")[2]: "PYTHON" for peer in self.peers}
        named |= {f"{ROOT}{os.sep}": "", str(ROOT): ".", str(ROOT.parent): "..", str(Path.home()): "~"}
        for path in sorted(named, key=len, reverse=True):
            text = text.replace(path, named[path]) if len(path) > 1 else text
        return text


def main() -> None:
    """Run the benchmarks and write the page section by section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="NAME", help=f"run only some of {', '.join(SECTIONS)}"
    )
    parser.add_argument("--model", type=Path, help="use this model as MODEL instead of training one")
    parser.add_argument(
        "--peers", nargs="*", default=[], metavar="NAME=PYTHON", help="interpreters that have the other libraries"
    )
    arguments = parser.parse_args()
    known = {name for section in SECTIONS.values() for name in section.peers}
    if unknown := [given for given in arguments.peers if given.partition("=")[0] not in known]:
        choices = " or ".join(f"{name}=PYTHON" for name in sorted(known))
        parser.error(f"--peers does not know {unknown[0]}. Write {choices}.")
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder), given=arguments.model, peers=tuple(arguments.peers))
        names = arguments.only or list(SECTIONS)
        failed = run_all({name: SECTIONS[name] for name in names}, places, RESULTS, list(SECTIONS))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    raise SystemExit(int(bool(failed)))


def run_all(sections: dict[str, Section], places: Places, page: Path, order: Sequence[str]) -> list[str]:
    """Run some sections and replace each in the page once it is done; return the names of those that fail.

    ``order`` is the order of the page. Sections of the page that it does not name come last.
    """
    failed = []
    for name, section in sections.items():
        missing = [one for one in section.data if not (places.data / one).is_dir()]
        if missing:
            print(f"{name}: skipped, because ../shared/data does not contain {', '.join(missing)}", flush=True)
            continue
        print(f"{name}: {section.command}", flush=True)
        body, good = run_section(section, places)
        failed += [] if good else [name]
        kept = read_page(page) | {name: body}
        ordered = [*(one for one in order if one in kept), *(one for one in kept if one not in order)]
        write_text(page, "\n".join([HEAD, *(f"## {one}\n\n{kept[one]}\n" for one in ordered)]))
    return failed


def run_section(section: Section, places: Places) -> tuple[str, bool]:
    """Run a section; return its text, and True if its command succeeded."""
    plain = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    began = time.perf_counter()
    try:
        command = places.fill_command(section)
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment | plain, check=False)
    except subprocess.CalledProcessError as error:
        reason = f"the training of the model ended with exit code {error.returncode}"
        return f"`python {section.command}` **failed**: {reason}.", False
    minutes = (time.perf_counter() - began) / 60
    out, errors = (places.hide_paths(text.decode(errors="replace")).rstrip() for text in (done.stdout, done.stderr))
    shown = section.command + (" --peers NAME=PYTHON" if "--peers" in command else "")
    lines = [f"`python {shown}`, {minutes:.1f} minutes, {datetime.now(UTC).date()}. {describe_machine()}"]
    if done.returncode:
        reason = errors.splitlines()[-1] if errors else "the command printed no error"
        lines += ["", f"**Failed** (exit code {done.returncode}): {reason}"]
        print(errors, file=sys.stderr)
    if out.startswith("| "):
        # The output is a Markdown table.
        lines += ["", out]
    elif out:
        lines += ["", "```text", *(line.rstrip() for line in out.splitlines()), "```"]
    return "\n".join(lines), not done.returncode


def describe_machine() -> str:
    """Return the facts of the machine in one line."""
    known = collect_facts()
    named = {name: known.pop(name) for name in ("processor", "cores", "memory", "system")}
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    return f"{named['processor']}; {named['cores']} cores, {named['memory']}; {named['system']}; {versions}."


def read_page(page: Path) -> dict[str, str]:
    """Read the sections of a page by name; return none if the page does not exist."""
    if not page.is_file():
        return {}
    parts = page.read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.partition("\n")[0].strip(): part.partition("\n")[2].strip() for part in parts}


if __name__ == "__main__":
    main()
