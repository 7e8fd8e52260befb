"""Learning from what is checked: trainings, and where to look next."""

from __future__ import annotations

from septa.recipe import Recipe

from .desk import Desk
from .jobs import Job, JobOrder, Kind
from .learning_messages import OrderRequest
from .review import Review
from .trainings import Trainings


class Learning:
    """Everything that learns, or says what is worth learning.

    Parameters
    ----------
    desk
        The workspace.

    Attributes
    ----------
    trainings
        Trainings of the folder.
    review
        Results of the searches for images and for suspect labels.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.trainings = Trainings(desk)
        self.review = Review(desk)

    def train(self, request: OrderRequest) -> int:
        """Order a training on what is checked, and return its number.

        Raises
        ------
        InputError
            Nothing is checked, there is no such model, a setting is wrong, or the name is in use.
        """
        Recipe().with_overrides(request.settings)
        self.save_checked()
        start = "scratch"
        if request.model:
            choice = self._desk.models.find(request.model)
            start = choice.name if choice.origin in ("septa", "folder") else str(choice.path.resolve())
        return self.trainings.add(
            name=request.name.removesuffix(".septa"),
            start=start,
            start_name=request.model or "",
            minutes=request.minutes,
            settings=request.settings,
        )

    def search(self, kind: Kind, model: str) -> Job:
        """Order a search: ``suggest`` for unchecked images to check, ``suspects`` for labels to look at again.

        Raises
        ------
        InputError
            There is no such model, or the search runs already.
        """
        self._desk.models.find(model)
        return self._desk.jobs.add(JobOrder(kind=kind, model=model))

    def save_checked(self) -> None:
        """Wait until everything is saved.

        Raises
        ------
        SeptaError
            Labels that are checked cannot be saved.
        """
        self._desk.saver.flush()
        for name in self._desk.folder.list_ground_truth():
            document = self._desk.find_document(name)
            if document is not None and document.error is not None:
                raise document.error
