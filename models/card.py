"""Write the card of a model: its template, filled with the facts of the training data, the training and the scores.

A template is ``models/NAME.md``, and the places to fill are ``$data``, ``$scores``, ``$sizes``, ``$versions``,
``$training`` and ``$pictures``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).parent

SOURCES = {
    "bbbc039": "BBBC039v1, U2OS nuclei in a chemical screen (Caicedo et al. 2019, doi 10.1002/cyto.a.23863)",
    "dsb2018": "2018 Data Science Bowl, stage1_train with community fixes (Caicedo et al. 2019, "
    "doi 10.1038/s41592-019-0612-7; BBBC038)",
    "mnfinder": "images in the wheel of mnfinder 1.2.3, copyright 2023 Lucian DiPeso",
    "drawn": "drawn by septa, 6 to 40 pixels, in 6 styles, and empty fields",
    "usiigaci": "Usiigaci, T98G cells (Tsai et al. 2019, doi 10.1016/j.softx.2019.02.007), copyright 2018 Okinawa "
    "Institute of Science & Technology Graduate University",
    "emps": "EMPS, figures of journal articles (Yildirim and Cole 2021, doi 10.1021/acs.jcim.0c01455)",
}
"""Full name of each source."""


def fill_card(
    name: str, data: Path, training: Mapping[str, Any], scores: Mapping[str, Any], pictures: Sequence[str]
) -> str:
    """Return the card of a model as Markdown.

    Parameters
    ----------
    name
        Name of the model; ``models/NAME.md`` is its template.
    data
        Folder that ``prepare.py`` wrote.
    training
        ``command``, ``seed``, ``minutes``, ``processor``, ``septa``, ``megabytes`` and ``parity``.
    scores
        Scores of ``score.py``.
    pictures
        Links to the pictures of ``pictures.py``.
    """
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    folders = scores["folders"]
    template = Template((HERE / f"{name}.md").read_text(encoding="utf-8"))
    return template.substitute(
        data=make_data_table(rows),
        scores=make_score_table(folders),
        sizes=make_size_table(folders),
        versions=make_version_table(folders),
        training=describe_training(training),
        pictures="\n\n".join(f"![worst, median and best images of {Path(link).stem}]({link})" for link in pictures),
    )


def make_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown; the first column is text, the others are numbers or text."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def make_data_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the images and objects of each source that were trained on and held out, and what was left out."""
    table = []
    for source in dict.fromkeys(row["source"] for row in rows):
        for modality in dict.fromkeys(row["modality"] for row in rows if row["source"] == source):
            own = [row for row in rows if (row["source"], row["modality"]) == (source, modality)]
            table.append([SOURCES[source], own[0]["licence"], modality, *count(own, "train"), *count(own, "held/")])
    head = ("Source", "Licence", "Modality", "Images", "Objects", "Held-out images", "Held-out objects")
    left = [row for row in rows if row["role"] == "dropped"]
    reserved = [row for row in rows if row["role"] == "reserved"]
    notes = []
    if left:
        notes.append(f"{len(left)} images are left out because they show the objects of others.")
    if reserved:
        notes.append(
            f"{len(reserved)} images of wells M to P of BBBC039 are reserved: no training and no choice used them."
        )
    return "\n\n".join([make_table(head, table), *([" ".join(notes)] if notes else [])])


def count(rows: Sequence[Mapping[str, str]], role: str) -> tuple[int, int]:
    """Return the number of images and of objects whose role begins so."""
    own = [row for row in rows if row["role"].startswith(role)]
    return len(own), sum(int(row["objects"] or 0) for row in own)


def make_score_table(folders: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the scores of each held-out folder."""
    head = ("Held-out images", "Modality", "Images", "Objects", "AP@0.5", "mean AP", "Precision", "Recall", "Flagged")
    rows = []
    for folder, one in folders.items():
        name = f"{folder} ({one['source']}{'; copy' if one.get('copy') else ''})"
        ratios = [f"{one[key]:.3f}" for key in ("ap50", "mean_ap", "precision", "recall")]
        rows.append([name, one["modality"], one["images"], one["objects"], *ratios, one["flagged"]])
    table = make_table(head, rows)
    if any(one.get("copy") for one in folders.values()):
        table += (
            "\n\nRows marked 'copy' are scores of a model that was trained by the same command without these images; "
            "the shipped one has seen them."
        )
    return table


def make_size_table(folders: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the recall of objects by area."""
    lows = [low for low, _, _ in next(iter(folders.values()))["sizes"]]
    limits = [f"{low} to {high}" for low, high in pairwise(lows)] + [f"from {lows[-1]}"]
    return make_table(
        ("Area in pixels", *limits),
        [
            [folder, *(f"{hits / number:.2f} of {number}" if number else "-" for _, hits, number in one["sizes"])]
            for folder, one in folders.items()
        ],
    )


def make_version_table(folders: Mapping[str, Mapping[str, Any]]) -> str:
    """Return AP@0.5 of converted and resized versions of the images."""
    versions = list(next(iter(folders.values()))["versions"])
    return make_table(
        ("AP@0.5", *versions),
        [[folder, *(f"{one['versions'][version]:.3f}" for version in versions)] for folder, one in folders.items()],
    )


def describe_training(training: Mapping[str, Any]) -> str:
    """Return the command, and the seed, minutes, processor and version of the training."""
    facts = (
        f"Seed {training['seed']}, {training['minutes']:.0f} minutes on {training['processor']}, septa "
        f"{training['septa']}; the model file has {training['megabytes']:.1f} MB."
    )
    parity = f"Half precision beside the trained model:\n\n```\n{training['parity']}\n```"
    return f"```\n{training['command']}\n```\n\n{facts}\n\n{parity}"
