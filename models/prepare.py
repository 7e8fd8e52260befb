"""Build the folders that the shipped models are trained and scored on from public sources.

Get the sources::

    git clone https://github.com/DeepTrackAI/cell_counting_dataset
    git clone https://github.com/oist/Usiigaci
    git clone https://github.com/by256/emps
    pip download mnfinder==1.2.3 --no-deps

and the images and labels of DSB 2018 (BBBC038, stage1_train with community fixes) as ``dsb2018/images`` and
``dsb2018/labels``. Then::

    python models/prepare.py nuclei OUT --dsb dsb2018 --bbbc039 cell_counting_dataset --mnfinder mnfinder-*.whl
    python models/prepare.py phase OUT --usiigaci Usiigaci
    python models/prepare.py particles OUT --emps emps

``OUT/train`` is the training folder, ``OUT/held/NAME`` are the held-out folders and ``OUT/manifest.csv`` lists every
image of the sources with its role. Images of one field are on one side, and of copies one is kept.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from copies import correlate, find_shared_fields
from drawn import draw_items
from sources import Array, Item, Labels, read_bbbc039, read_dsb, read_emps, read_mnfinder, read_usiigaci

from septa.images import write_image, write_labels

TRAIN = "train"
DROPPED = "dropped"
RESERVED = "reserved"
"""Role of wells M to P of BBBC039, which no model and no choice of a setting may see."""

HELD_ROWS = "KL"
RESERVED_ROWS = "MNOP"

HELD_SERIES = ("2022-05-27_RPE1", "2023-05-31_misc/MCC13", "2023-05-31_misc/MAX_2022-12-29")
HELD_FIELDS = ("mnfinder_test_2022-10-14_U2OS_4", "mnfinder_validation_2022-10-14_U2OS_1")
"""Of mnfinder a session, two slides, and two fields of a session whose other fields are trained on."""

HELD_SETS = ("sets 41 to 45", "sets 46 to 50")
"""Of Usiigaci, its own validation sets and those before them, which may show the same dish."""

SEED = 7


@dataclass
class Plan:
    """Items with arrays in memory, the role of each, and the reason if it is not used."""

    items: dict[str, Item]
    arrays: dict[str, tuple[Array, Labels]]
    roles: dict[str, str]
    notes: dict[str, str] = field(default_factory=dict)

    def drop(self, name: str, note: str) -> None:
        """Leave an item out, with the reason."""
        self.roles[name] = DROPPED
        self.notes[name] = note


def plan_nuclei(items: Iterable[Item], drawings: Iterable[Item], held_stems: set[str] | None, everything: bool) -> Plan:
    """Choose the role of each image; see `main` for the options."""
    plan = load(items)
    images = {name: arrays[0] for name, arrays in plan.arrays.items()}
    shared = find_shared_fields(images)
    if held_stems is None:
        held_stems = set() if everything else choose_dsb_fifth(plan.items, shared)
    for name, item in plan.items.items():
        plan.roles[name] = choose_role(item, held_stems, everything)
    keep_one_of_copies(plan, list(correlate(images)))
    separate_fields(plan, shared)
    for item in drawings:
        plan.items[item.name] = item
        plan.arrays[item.name] = item.load()
        plan.roles[item.name] = TRAIN
    return plan


def load(items: Iterable[Item]) -> Plan:
    """Load the images and labels of a source."""
    chosen = {item.name: item for item in items}
    return Plan(chosen, {name: item.load() for name, item in chosen.items()}, dict.fromkeys(chosen, TRAIN))


def choose_role(item: Item, held_dsb: set[str], everything: bool) -> str:
    """Return the role that an image has if none shows the same objects."""
    if item.source == "bbbc039":
        return RESERVED if item.field[0] in RESERVED_ROWS else "bbbc039" if item.field[0] in HELD_ROWS else TRAIN
    if item.source == "dsb2018" and item.field in held_dsb:
        return "dsb_bright" if item.modality == "brightfield" else "dsb_fluo"
    if item.source == "mnfinder" and (item.field in HELD_SERIES or item.name in HELD_FIELDS) and not everything:
        return "mnfinder"
    return TRAIN


def choose_dsb_fifth(items: Mapping[str, Item], shared: Iterable[list[str]]) -> set[str]:
    """Choose a fifth of the images of DSB 2018 of each size and modality; images of one field stay together."""
    group = {name: min(names) for names in shared for name in names}
    styles: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, item in items.items():
        if item.source == "dsb2018":
            style = item.modality, str(item.load()[0].shape)
            styles.setdefault(style, {}).setdefault(group.get(name, name), []).append(item.field)
    rng = np.random.default_rng(SEED)
    chosen: set[str] = set()
    for _, fields in sorted(styles.items()):
        goal = round(sum(map(len, fields.values())) / 5)
        taken: list[str] = []
        for root in rng.permutation(sorted(fields)):
            if len(taken) + len(fields[root]) <= goal:
                taken += fields[root]
        chosen.update(taken)
    return chosen


def keep_one_of_copies(plan: Plan, pairs: Iterable[tuple[str, str]]) -> None:
    """Keep the original of two copies: that of 16 bits, and never one whose copy is reserved or held out."""
    rank = {RESERVED: 0, TRAIN: 2}
    for pair in pairs:
        if DROPPED in (plan.roles[pair[0]], plan.roles[pair[1]]):
            continue
        kept, other = sorted(
            pair, key=lambda name: (rank.get(plan.roles[name], 1), plan.arrays[name][0].dtype.itemsize < 2, name)
        )
        plan.drop(other, f"copy of {kept}")


def separate_fields(plan: Plan, shared: Iterable[list[str]]) -> None:
    """Drop training images that show objects of held-out or reserved ones, and held-out ones of reserved ones."""
    for names in shared:
        live = [name for name in names if plan.roles[name] != DROPPED]
        reserved = [name for name in names if plan.roles[name] == RESERVED]
        held = [name for name in live if plan.roles[name] not in (TRAIN, RESERVED)]
        for name in live:
            if plan.roles[name] == TRAIN and (reserved or held):
                plan.drop(name, f"shows objects of {(reserved or held)[0]}")
            elif name in held and reserved:
                plan.drop(name, f"shows objects of {reserved[0]}")


def write(plan: Plan, out: Path, reserved: Path | None) -> None:
    """Write the folders and the manifest."""
    rows = []
    for name, item in plan.items.items():
        image_cyx, labels_yx = plan.arrays[name]
        role = plan.roles[name]
        objects = len(np.unique(labels_yx[labels_yx > 0]))
        folder = choose_folder(role, out, reserved)
        if folder is not None:
            suffix = ".png" if image_cyx.dtype == np.uint8 and len(image_cyx) in (1, 3) else ".tif"
            write_image(folder / "images" / f"{name}{suffix}", image_cyx)
            write_labels(folder / "labels" / f"{name}.png", labels_yx)
        # The number of objects of reserved wells would already be something learned from them.
        rows.append(
            {
                "name": name,
                "source": item.source,
                "licence": item.licence,
                "file": item.file,
                "field": item.field,
                "modality": item.modality,
                "role": role if role in (TRAIN, DROPPED, RESERVED) else f"held/{role}",
                "height": image_cyx.shape[1],
                "width": image_cyx.shape[2],
                "channels": len(image_cyx),
                "dtype": image_cyx.dtype.name,
                "objects": "" if role == RESERVED else objects,
                "note": plan.notes.get(name, ""),
            }
        )
    with (out / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def choose_folder(role: str, out: Path, reserved: Path | None) -> Path | None:
    """Return the folder that images of a role are written to, or None."""
    if role == RESERVED:
        return reserved
    return None if role == DROPPED else out / TRAIN if role == TRAIN else out / "held" / role


def report(plan: Plan) -> None:
    """Print images and objects by source and role; of reserved images nothing but their number is learned."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for name, item in plan.items.items():
        sums = counts.setdefault((plan.roles[name], item.source, item.modality), [0, 0])
        sums[0] += 1
        sums[1] += len(np.unique(plan.arrays[name][1])) - 1
    for (role, source, modality), (images, objects) in sorted(counts.items()):
        counted = "" if role == RESERVED else f" {objects:6} objects"
        print(f"{role:12} {source:9} {modality:20} {images:4} images{counted}")


READERS: dict[str, Callable[[Path], Iterator[Item]]] = {
    "bbbc039": read_bbbc039,
    "dsb": read_dsb,
    "mnfinder": read_mnfinder,
    "usiigaci": read_usiigaci,
    "emps": read_emps,
}


def read_sources(options: argparse.Namespace, *names: str) -> list[Item]:
    """Read the sources of these options."""
    return [item for name in names for item in READERS[name](getattr(options, name))]


def prepare_nuclei(options: argparse.Namespace) -> Plan:
    """Plan the folders of the model ``nuclei``."""
    items = read_sources(options, "bbbc039", "dsb", "mnfinder")
    held = None if options.held is None else set(options.held.read_text(encoding="utf-8").split())
    return plan_nuclei(items, draw_items(options.drawn), held, options.all)


def prepare_phase(options: argparse.Namespace) -> Plan:
    """Plan the folders of the model ``phase``."""
    return plan_fields(read_sources(options, "usiigaci"), "usiigaci", set() if options.all else set(HELD_SETS))


def prepare_particles(options: argparse.Namespace) -> Plan:
    """Plan the folders of the model ``particles``: the articles of the source's own test set are held out."""
    items = read_sources(options, "emps")
    test = {f"emps_{stem}" for stem in (options.emps / "test.csv").read_text(encoding="utf-8").split()}
    return plan_fields(items, "emps", set() if options.all else {item.field for item in items if item.name in test})


def plan_fields(items: Iterable[Item], folder: str, held: set[str]) -> Plan:
    """Hold out whole fields, and drop copies and training images that show objects of held-out ones."""
    plan = load(items)
    plan.roles.update({name: folder for name, item in plan.items.items() if item.field in held})
    images = {name: arrays[0] for name, arrays in plan.arrays.items()}
    keep_one_of_copies(plan, list(correlate(images)))
    separate_fields(plan, find_shared_fields(images))
    return plan


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options, which differ between the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = parser.add_subparsers(dest="model", required=True)
    nuclei = models.add_parser("nuclei", help="nuclei in fluorescence and stained brightfield")
    nuclei.set_defaults(prepare=prepare_nuclei)
    nuclei.add_argument("--dsb", type=Path, required=True, help="folder of DSB 2018, with images/ and labels/")
    nuclei.add_argument("--bbbc039", type=Path, required=True, help="clone of DeepTrackAI/cell_counting_dataset")
    nuclei.add_argument("--mnfinder", type=Path, required=True, help="wheel of mnfinder")
    nuclei.add_argument("--drawn", type=int, default=112, help="number of drawn images")
    nuclei.add_argument("--held", type=Path, help="text file with the stems of DSB 2018 to hold out")
    nuclei.add_argument("--reserved", type=Path, help="folder for wells M to P of BBBC039, for a final score only")
    phase = models.add_parser("phase", help="cells in phase contrast")
    phase.set_defaults(prepare=prepare_phase, reserved=None)
    phase.add_argument("--usiigaci", type=Path, required=True, help="clone of oist/Usiigaci")
    particles = models.add_parser("particles", help="particles in electron micrographs")
    particles.set_defaults(prepare=prepare_particles, reserved=None)
    particles.add_argument("--emps", type=Path, required=True, help="clone of by256/emps")
    for one in (nuclei, phase, particles):
        one.add_argument("out", type=Path, help="folder to write to")
        one.add_argument("--all", action="store_true", help="train on held-out images too, save wells K and L")
    return parser


def main() -> None:
    """Read the options, build the folders and print what they hold."""
    options = make_parser().parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        raise SystemExit(f"error: {options.out}: the folder already holds files. Choose an empty folder.")
    plan = options.prepare(options)
    write(plan, options.out, options.reserved)
    report(plan)


if __name__ == "__main__":
    main()
