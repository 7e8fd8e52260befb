"""A training of the app on disk, which server and worker share: what was ordered, and how far it is."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from septa.errors import InputError
from septa.images import write_text

State = Literal["waiting", "running", "interrupted", "stopped", "failed", "done"]
_MOST_POINTS = 400
"""Points of a curve that are sent."""


class TrainingOrder(BaseModel):
    """A training that was ordered; it never changes.

    Attributes
    ----------
    number
        Number of the training in its folder, from 1.
    model
        File name of the model that is trained.
    start
        Path, or name of a shipped model, whose weights it starts from; ``scratch`` for new ones.
    start_name
        Name of that model in the list of models; empty for new weights.
    minutes
        Time budget.
    settings
        Assignments ``section.key=value`` that change the recipe.
    ignore
        Value of pixels of the labels that do not count; None if all count.
    images
        Names of the checked images when it was ordered.
    classes
        Value and name of each class of pixels, the background first; empty for a model of objects.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: int
    model: str
    start: str
    start_name: str
    minutes: float
    settings: tuple[str, ...] = ()
    ignore: int | None = None
    images: tuple[str, ...] = ()
    classes: tuple[tuple[int, str], ...] = ()


class TrainingStatus(BaseModel):
    """The state of a training.

    Attributes
    ----------
    state
        ``interrupted`` if the server has stopped meanwhile, ``stopped`` if the user has stopped it; both can continue.
    share
        Share of the work that is done, 0 to 1.
    text
        What is done now, or what has come of it.
    error
        Error line, if it has failed.
    lines
        Notes and warnings.
    train, validation
        Names of the images on both sides of the split.
    held_out
        Names of the images that models are compared on.
    comparison
        Sentence about these images.
    scores
        Name of each model to its scores on these images.
    """

    model_config = ConfigDict(extra="ignore")

    state: State = "waiting"
    share: float = 0.0
    text: str = ""
    error: str = ""
    lines: list[str] = []
    train: list[str] = []
    validation: list[str] = []
    held_out: list[str] = []
    comparison: str = ""
    scores: dict[str, dict[str, float]] = {}


class TrainingRecord:
    """The folder of a training inside the opened folder.

    ::

        order.json    the order
        state.json    the state
        data/         copies of the checked images and their labels, until the model is there
        output.txt    what the worker has printed

    The model and its run folder lie in the opened folder itself.

    Parameters
    ----------
    path
        The folder.
    home
        The opened folder.
    """

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        self.home = home
        self.data = path / "data"
        self.output = path / "output.txt"

    @classmethod
    def make(cls, path: Path, home: Path, order: TrainingOrder) -> TrainingRecord:
        """Write the record of a new training."""
        record = cls(path, home)
        record.write(TrainingStatus(text="waits for its turn"))
        write_text(path / "order.json", order.model_dump_json(indent=1) + "\n")
        return record

    @property
    def order(self) -> TrainingOrder:
        """The order.

        Raises
        ------
        InputError
            The file cannot be read.
        """
        path = self.path / "order.json"
        try:
            return TrainingOrder.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            raise InputError(path, "the file is not one that septa app wrote", "Remove its folder") from None

    @property
    def model(self) -> Path:
        """Model file."""
        return self.home / self.order.model

    @property
    def run(self) -> Path:
        """Folder of log, checkpoints and report."""
        return self.model.with_name(f"{self.model.stem}-run")

    def read(self) -> TrainingStatus:
        """Read the state; a damaged one counts as interrupted, since a training can always continue."""
        try:
            return TrainingStatus.model_validate_json((self.path / "state.json").read_bytes())
        except (OSError, ValidationError):
            return TrainingStatus(state="interrupted")

    def write(self, state: TrainingStatus) -> None:
        """Write the state."""
        write_text(self.path / "state.json", state.model_dump_json(indent=1) + "\n")

    def read_curve(self) -> list[dict[str, float]]:
        """Return the history of the training as in its ``log.csv``, of a long one an even selection of the losses."""
        try:
            lines = (self.run / "log.csv").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        rows = []
        for row in csv.DictReader(lines):
            try:
                rows.append({name: float(value) for name, value in row.items() if name is not None and value})
            except ValueError:  # a line that is being written
                continue
        losses = [row for row in rows if "loss" in row]
        step = -(-len(losses) // _MOST_POINTS) or 1
        kept = {id(row) for row in losses[::-1][::step]}
        return [row for row in rows if "score" in row or id(row) in kept]

    def list_previews(self) -> list[Path]:
        """Return the pictures of validation images, in their order."""
        found = [path for path in (self.run / "previews").glob("*.png") if path.stem.isdecimal()]
        return sorted(found, key=lambda path: int(path.stem))
