"""The actions of learning: each turns a request into a call of `septa.app.learning`, and its result into an answer."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from septa.errors import InputError

from . import learning_messages as messages
from .actions import describe_job
from .jobs import Kind
from .replies import Action, reply_json
from .training_record import TrainingRecord
from .workspace import Workspace


class LearningActions:
    """The actions of trainings, suggestions and suspect labels."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._learning = workspace.learning
        one = "/api/trainings/{number:int}"
        self.reads: dict[str, Action] = {
            "/api/models": self._list_models,
            "/api/trainings": self._list_trainings,
            one: lambda request, _: reply_json(self._describe(self._find(request), with_curve=True)),
            f"{one}/previews/{{place:int}}": self._preview,
            "/api/suggestions": self._suggestions,
            "/api/suspects": self._suspects,
        }
        self.writes: dict[str, Action] = {
            "/api/trainings": self._train,
            f"{one}/stop": self._stop,
            f"{one}/resume": self._resume,
            f"{one}/remove": self._remove,
            "/api/suggestions": lambda _, body: self._search("suggest", body),
            "/api/suspects": lambda _, body: self._search("suspects", body),
        }

    # --- trainings --------------------------------------------------------------------------------------------------

    def _list_models(self, request: HttpRequest, _: bytes) -> Response:
        scores: dict[str, messages.ScoresAnswer] = {}
        for record in self._learning.trainings.list_records():
            state = self._learning.trainings.read(record)
            for name, values in state.scores.items():
                scores[name] = messages.ScoresAnswer(training=record.order.number, images=len(state.held_out), **values)
        return reply_json(
            [
                messages.ModelAnswer(
                    name=one.name, origin=one.origin, summary=one.summary, scores=scores.get(one.name)
                ).model_dump()
                for one in self._workspace.models.list_models()
            ]
        )

    def _list_trainings(self, request: HttpRequest, _: bytes) -> Response:
        records = self._learning.trainings.list_records()
        return reply_json([self._describe(record).model_dump() for record in records])

    def _train(self, request: HttpRequest, body: bytes) -> Response:
        number = self._learning.train(messages.OrderRequest.model_validate_json(body))
        return reply_json(self._describe(self._learning.trainings.get(number)))

    def _stop(self, request: HttpRequest, _: bytes) -> Response:
        self._learning.trainings.stop(_number(request))
        return reply_json(self._describe(self._find(request)))

    def _resume(self, request: HttpRequest, _: bytes) -> Response:
        self._learning.trainings.resume(_number(request))
        return reply_json(self._describe(self._find(request)))

    def _remove(self, request: HttpRequest, _: bytes) -> Response:
        self._learning.trainings.remove(_number(request))
        return self._list_trainings(request, b"")

    def _preview(self, request: HttpRequest, _: bytes) -> Response:
        pictures = self._find(request).list_previews()
        place = int(request.path_params["place"])
        if not 0 <= place < len(pictures) or not self._workspace.folder.contains(pictures[place]):
            raise InputError(f"picture {place}", "there is no such picture", "Reload the page")
        return Response(pictures[place].read_bytes(), media_type="image/png")

    def _find(self, request: HttpRequest) -> TrainingRecord:
        return self._learning.trainings.get(_number(request))

    def _describe(self, record: TrainingRecord, *, with_curve: bool = False) -> messages.TrainingAnswer:
        order, state = record.order, self._learning.trainings.read(record)
        report = record.run / "report.html"
        return messages.TrainingAnswer(
            number=order.number,
            model=order.model,
            start=order.start_name,
            minutes=order.minutes,
            images=list(order.images),
            areas=order.ignore is not None,
            curve=record.read_curve() if with_curve else [],
            previews=len(record.list_previews()),
            report=report.relative_to(record.home).as_posix() if report.is_file() else "",
            **state.model_dump(),
        )

    # --- where to look ----------------------------------------------------------------------------------------------

    def _search(self, kind: Kind, body: bytes) -> Response:
        model = messages.ModelRequest.model_validate_json(body).model
        return reply_json(describe_job(self._workspace, self._learning.search(kind, model)))

    def _suggestions(self, request: HttpRequest, _: bytes) -> Response:
        found = self._learning.review.suggestions
        images = [
            messages.SuggestionAnswer(
                image=one.image, doubt=round(one.doubt, 4), box=one.box, objects=one.objects, unlike=one.unlike
            )
            for one in found.images
        ]
        return reply_json(messages.SuggestionsAnswer(model=found.model, images=images, skipped=list(found.skipped)))

    def _suspects(self, request: HttpRequest, _: bytes) -> Response:
        found = self._learning.review.suspects
        suspects = [
            messages.SuspectAnswer(
                image=image,
                kind=one.kind,
                drawn=list(one.drawn),
                predicted=len(one.predicted),
                box=one.box,
                certainty=round(one.certainty, 4),
            )
            for image, one in found.found
        ]
        return reply_json(
            messages.SuspectsAnswer(
                model=found.model, images=found.images, f1=found.f1, suspects=suspects, skipped=list(found.skipped)
            )
        )


def _number(request: HttpRequest) -> int:
    return int(request.path_params["number"])
