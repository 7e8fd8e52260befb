"""The shipped models: names, files, and the facts at the head of their cards."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from septa.errors import ModelError

if TYPE_CHECKING:
    from rich.table import Table

FOLDER = Path(__file__).parent
"""Folder of the models and their cards."""

_FACTS = ("summary", "channels", "objects", "licence")


@dataclass(frozen=True, kw_only=True)
class ShippedModel:
    """A model that ships with septa.

    Attributes
    ----------
    name
        Name, which every command takes in place of a model file.
    path
        Model file.
    card
        Card in Markdown: training data, licences, counts, scores on held-out images, failures, and the command that
        made the model. It begins with the other facts, as YAML between two lines of ``---``.
    summary
        What the model segments, in one line.
    channels
        Channels of the images.
    objects
        Size of the objects.
    licence
        Licences of the training data.
    """

    name: str
    path: Path
    card: Path
    summary: str
    channels: str
    objects: str
    licence: str

    @property
    def megabytes(self) -> float:
        """Size of the model file, 10^6 bytes."""
        return self.path.stat().st_size / 1e6

    @property
    def examples(self) -> Path | None:
        """Folder of images and labels to show the model on, which its training did not see; None if there is none."""
        folder = self.path.parent / "examples" / self.name
        return folder if folder.is_dir() else None


def list_shipped() -> tuple[ShippedModel, ...]:
    """List the models that ship with septa, sorted by name.

    Raises
    ------
    ModelError
        The card of a model is missing, or lacks a fact.
    """
    return tuple(get_shipped(name) for name in _list_names())


def find_shipped(name: str) -> Path | None:
    """Find the file of a shipped model; None if no shipped model has this name.

    Examples
    --------
    >>> find_shipped("cells.septa") is None
    True
    """
    return FOLDER / f"{name}.septa" if name in _list_names() else None


def find_example_images() -> list[Path]:
    """Return the images on which the shipped models are shown, sorted; their licence is CC0."""
    return sorted(FOLDER.glob("examples/*/images/*.png"))


def get_shipped(name: str) -> ShippedModel:
    """Return the shipped model of a name.

    Raises
    ------
    ModelError
        No shipped model has this name, or its card is missing or lacks a fact.
    """
    path = find_shipped(name)
    if path is None:
        names = describe_names(name)
        remedy = f"Choose one of {names}" if names else "Train a model with 'septa train'"
        raise ModelError(name, "there is no shipped model with this name", remedy)
    card = path.with_suffix(".md")
    facts = _read_facts(card)
    return ShippedModel(name=name, path=path, card=card, **{key: facts[key] for key in _FACTS})


def describe_names(name: str = "") -> str:
    """Return the names of the shipped models, and the nearest to a given one; empty if there are none."""
    known = _list_names()
    near = difflib.get_close_matches(name.lower(), known, n=1) if name else []
    return ", ".join(known) + (f"; the nearest is {near[0]}" if near else "")


def make_models_table() -> Table:
    """Make a table of all shipped models."""
    from rich.table import Table

    table = Table()
    for title in ("Model", "Segments", "Channels", "Objects", "MB", "Licence of the data"):
        table.add_column(title, no_wrap=title == "Model", justify="right" if title == "MB" else "left")
    for one in list_shipped():
        table.add_row(one.name, one.summary, one.channels, one.objects, f"{one.megabytes:.1f}", one.licence)
    return table


def _list_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.septa")))


def _read_facts(card: Path) -> dict[str, str]:
    """Read the facts at the head of a card."""
    import yaml

    remedy = "Install septa again"
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ModelError(card, "the card of this shipped model cannot be read", remedy) from None
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        facts = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError:
        facts = {}
    found = {key: str(facts[key]) for key in _FACTS if isinstance(facts, dict) and facts.get(key)}
    if missing := [key for key in _FACTS if key not in found]:
        raise ModelError(card, f"the card does not begin with the facts {', '.join(missing)}", remedy)
    return found
