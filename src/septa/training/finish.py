"""After the last step: the best weights as a model, tuned, evaluated on the validation images, saved and reported."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa import runtime
from septa.data import DatasetCheck
from septa.metrics import Evaluation, LabelPair, evaluate_labels
from septa.model import Model
from septa.objects import Judged, calibrate, judge
from septa.recipe import Recipe
from septa.report import MAX_PANELS, Panel, write_report
from septa.training.automatic import Choice
from septa.training.loop import TrainingJob
from septa.training.plan import TrainingRequest
from septa.training.state import State
from septa.training.tuning import tune

_Scored = tuple[float, int, NDArray[np.int32]]
"""Score below 0, place among the validation images, prediction."""


def finish_training(
    request: TrainingRequest, job: TrainingJob, state: State, check: DatasetCheck, choice: Choice
) -> tuple[Model, Path, Evaluation]:
    """Make a model of the best weights and save it, evaluate it on the validation images and write the report.

    Every validation image goes through the net once. Of objects, the thresholds are tuned first.

    Returns
    -------
    The model, the report's path, and the scores.

    Raises
    ------
    InputError, ResourceError
        As for `Model.save` and `write_report`.
    """
    assert state.best is not None
    state.kept.load_state_dict(job.checkpoints.best(int(state.best["step"])))
    state.kept.eval().requires_grad_(False)
    model, tuning = job.model(state), None
    if job.task.has_thresholds:
        tuning = tune(model, job.validation, str(job.device))
        model = replace(model, decoding=tuning.decoding)
    evaluation, worst = _evaluate(model, job, {} if tuning is None else tuning.logits)
    model = model.with_provenance(**_provenance(job, state, check, evaluation))
    model.save(request.output)
    report = request.folder / "report.html"
    write_report(
        report,
        title=request.output.stem,
        command=request.command,
        versions=runtime.versions(),
        recipe_yaml=choice.recipe.to_yaml(choice.reasons),
        fingerprint=check.fingerprint.to_json() if check.fingerprint else {},
        history=state.history,
        evaluation=evaluation,
        gallery=[_panel(job, *entry) for entry in worst],
        notes=[*check.notes, *_size_notes(job.recipe), *(str(problem) for problem in check.problems)],
        tuning=tuning.curves if tuning is not None else {},
        chosen=tuning.decoding.to_json() if tuning is not None else {},
    )
    job.checkpoints.clear()
    return model, report, evaluation


def _evaluate(
    model: Model, job: TrainingJob, known: Mapping[int, NDArray[np.float32]]
) -> tuple[Evaluation, list[_Scored]]:
    """Scores of the validation images, and the worst of them. ``known`` are the logits there are, by image."""
    task, engine, examples = model.task, model.engine(str(job.device), "torch"), job.validation
    instances = task.finds_objects
    worst: list[_Scored] = []
    judged: list[Judged] = []

    def segmented() -> Iterator[LabelPair]:
        for index, pair in enumerate(examples.pairs):
            example, class_of_id = examples[index], None
            if instances:
                logits_kyx = known[index] if index in known else model.logits(example.image_cyx, engine=engine)
                predicted_yx = task.decode(logits_kyx)
                class_of_id = task.classify(predicted_yx, logits_kyx)
                judged.append(judge(example.labels_yx, predicted_yx, task.probabilities(logits_kyx)[1]))
            else:
                predicted_yx = model.segment(example.image_cyx, engine=engine)
            score, _ = task.score(example.labels_yx, predicted_yx)
            heapq.heappush(worst, (-score, index, predicted_yx))
            if len(worst) > MAX_PANELS:
                heapq.heappop(worst)
            yield LabelPair(pair.name, example.labels_yx, predicted_yx, example.class_of_id, class_of_id)

    labels = examples.labels
    evaluation = evaluate_labels(
        segmented(),
        labels.pixel_names(instances),
        multilabel=task.multilabel,
        instances=instances,
        object_classes=labels.class_names if task.object_classes > 1 else (),
    )
    return (replace(evaluation, calibration=calibrate(judged)) if instances else evaluation), worst


def _panel(job: TrainingJob, score: float, index: int, predicted_yx: NDArray[np.int32]) -> Panel:
    example, name = job.validation[index], job.validation.pairs[index].name
    shown_yx = job.task.align(example.labels_yx, predicted_yx)
    return Panel(name, example.image_cyx, example.labels_yx, shown_yx, -score)


def _size_notes(recipe: Recipe) -> tuple[str, ...]:
    if recipe.data.resize is None:
        return ()
    height, width = recipe.data.resize
    return (
        f"scores here are of labels resized to {height} x {width}; 'septa evaluate' scores at each image's own size",
    )


def _provenance(job: TrainingJob, state: State, check: DatasetCheck, evaluation: Evaluation) -> dict[str, Any]:
    digests = {item.name: item.image_digest for item in check.facts}
    return {
        "versions": runtime.versions(),
        "data": job.data_digest,
        "train": [(pair.name, digests[pair.name]) for pair in job.sampler.examples.pairs],
        "validation": [(pair.name, digests[pair.name]) for pair in job.validation.pairs],
        "fingerprint": check.fingerprint.to_json() if check.fingerprint else {},
        "scores": evaluation.summary,
        "calibration": evaluation.calibration,
        "steps": state.step,
        "best_step": state.best["step"] if state.best else None,
        "minutes": state.elapsed / 60,
        "seed": job.recipe.seed,
    }
