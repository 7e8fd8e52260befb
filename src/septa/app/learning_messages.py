"""Requests and answers about trainings, suggestions and suspect labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from .messages import Request


class OrderRequest(Request):
    """Train a model on what is checked.

    Attributes
    ----------
    name
        Name of the new model, without its ending.
    model
        Model whose weights it starts from; None for new weights.
    minutes
        Time budget.
    settings
        Assignments ``section.key=value`` that change the recipe, as for ``septa train --set``.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$")]
    model: str | None = None
    minutes: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] = 10
    settings: Annotated[tuple[str, ...], Field(max_length=100)] = ()


class ModelRequest(Request):
    """Search images, or labels, with a model."""

    model: str


class ScoresAnswer(BaseModel):
    """Scores of a model on some images that a training has held out: F1 at an IoU of 0.5 and mean accuracy of objects.

    For classes of pixels these are Dice and IoU.
    """

    training: int
    images: int
    f1: float | None = None
    accuracy: float | None = None
    dice: float | None = None
    iou: float | None = None


class ModelAnswer(BaseModel):
    """A model that can be chosen; ``scores`` are those of the last training that has compared it."""

    name: str
    origin: str
    summary: str
    scores: ScoresAnswer | None = None


class TrainingAnswer(BaseModel):
    """A training: its order and its state; see `septa.app.training_record`.

    Attributes
    ----------
    curve
        Rows of its history: ``step``, ``minutes``, and ``loss`` or ``score``; empty in the list of all trainings.
    previews
        Number of pictures of validation images.
    report
        Report of a finished training, relative to the folder; empty if there is none.
    """

    number: int
    model: str
    start: str
    minutes: float
    images: list[str]
    areas: bool
    state: str
    share: float
    text: str
    error: str
    lines: list[str]
    train: list[str]
    validation: list[str]
    held_out: list[str]
    comparison: str
    scores: dict[str, dict[str, float]]
    curve: list[dict[str, float]] = []
    previews: int = 0
    report: str = ""


class SuggestionAnswer(BaseModel):
    """An unchecked image; see `septa.app.review.Suggestion`."""

    image: str
    doubt: float
    box: tuple[int, int, int, int]
    objects: int
    unlike: bool


class SuggestionsAnswer(BaseModel):
    """Unchecked images, the one of which the model is least sure first; ``skipped`` says what was not looked at."""

    model: str
    images: list[SuggestionAnswer]
    skipped: list[str]


class SuspectAnswer(BaseModel):
    """Labels that a model contradicts; see `septa.objects.Suspect`."""

    image: str
    kind: str
    drawn: list[int]
    predicted: int
    box: tuple[int, int, int, int]
    certainty: float


class SuspectsAnswer(BaseModel):
    """Suspect labels, the most certain first, and the F1 of the model on all labels that were compared."""

    model: str
    images: int
    f1: float | None
    suspects: list[SuspectAnswer]
    skipped: list[str]
