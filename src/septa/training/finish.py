"""The end of a training: the best weights become a model, which is tuned, evaluated, saved and reported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from septa import runtime
from septa.data import DatasetCheck, write_sketches
from septa.images import combine_values, write_text
from septa.metrics import Evaluation
from septa.model import Model
from septa.objects import Judged, calibrate, fit_curve
from septa.recipe import Recipe
from septa.report import Fold, Panel, write_report
from septa.training.automatic import RecipeChoice
from septa.training.averaging import load_weights
from septa.training.features import measure_training_features
from septa.training.job import TrainingJob
from septa.training.joining import apply_joining, choose_joining, list_labelled
from septa.training.plan import TrainingRequest
from septa.training.precision import Bf16Comparison, describe_difference
from septa.training.scoring import collect_judged, score_examples, segment_examples
from septa.training.state import TrainingState
from septa.training.tuning import Tuning, find_prior, tune_model
from septa.training.verdict import describe_choice, describe_gain, find_first_score, find_verdict


@dataclass(frozen=True, kw_only=True)
class TrainingDone:
    """The last event of a training.

    Attributes
    ----------
    model
        Trained model.
    path, report
        Files of the model and of the report.
    evaluation
        Scores of the validation images.
    thresholds
        Printable line about the tuned thresholds; empty if the task has none.
    joining
        Printable line about parts that are joined, or not, as in the model that the training started from; else empty.
    verdict
        Why the model is not usable; empty if it may be usable.
    start
        Printable line that compares the model with the one that the training started from; empty for new weights.
    folds
        Folds of a cross-validation, whose nets the model holds; empty without folds.
    """

    model: Model
    path: Path
    report: Path
    evaluation: Evaluation
    thresholds: str = ""
    joining: str = ""
    verdict: str = ""
    start: str = ""
    folds: tuple[Fold, ...] = ()


def finish_training(
    request: TrainingRequest, job: TrainingJob, state: TrainingState, check: DatasetCheck, choice: RecipeChoice
) -> TrainingDone:
    """Make a model of the best weights, evaluate it on the validation images, save it and write the report.

    If the task has thresholds, they are tuned first. Every validation image passes through the net only once, and some
    once more in bfloat16.

    Parameters
    ----------
    request
        Request, for the output files and the command line.
    job, state
        Job and state after the last step.
    check, choice
        Dataset check and recipe, for the report and the provenance.

    Returns
    -------
    TrainingDone
        Model that was saved, report, and scores of the validation images.

    Raises
    ------
    InputError, ResourceError
        As for `Model.save` and `write_report`.
    """
    assert state.best is not None
    averaged = load_weights(job, state)
    state.inference_net.eval().requires_grad_(False)
    model = job.make_model(state)
    tuning = Tuning(job.task.decoding, {})
    if job.task.has_thresholds:
        assert check.fingerprint is not None
        prior = find_prior(model, check.fingerprint, job.parent)
        tuning = tune_model(model, job.validation, str(job.device), prior)
        model = replace(model, decoding=tuning.decoding)
    choice, joining = choose_joining(choice, list_labelled(model, job.validation, tuning.logits))
    model = apply_joining(model, choice)
    model, evaluation, panels = _score_and_calibrate(model, job, tuning)
    values = combine_values([item.value_facts for item in check.facts], model.channels)
    model = replace(model, training_values=values)
    features = measure_training_features(model, (job.sampler.examples, job.validation), str(job.device))
    model = replace(model, training_features=features)
    model = model.with_provenance(**_collect_provenance(job, state, check, evaluation, averaged))
    model.save(request.output)
    write_text(request.folder / "recipe.yaml", choice.recipe.to_yaml(choice.reasons))
    report = request.folder / "report.html"
    verdict = find_verdict(evaluation, state.step, check)
    start = describe_gain(job.parent, state.history, state.best, len(job.validation), averaged)
    chosen = describe_choice(job.task.has_thresholds)
    parts = "" if joining is None else joining.describe(job.task.tuned_score)
    notes = [line for line in (start, parts, chosen) if line] + [*check.notes, *_explain_sizes(job.recipe)]
    notes += [*describe_difference(model.bf16), *map(str, check.problems)]
    write_report(
        report,
        title=request.output.stem,
        command=request.command,
        versions=runtime.collect_versions(),
        recipe_yaml=choice.recipe.to_yaml(choice.reasons),
        fingerprint=check.fingerprint.to_json() if check.fingerprint else {},
        history=state.history,
        evaluation=evaluation,
        gallery=panels,
        notes=notes,
        verdict=verdict,
        tuning=tuning.curves,
        chosen=tuning.decoding.to_json(),
        score=job.task.tuned_score,
    )
    job.checkpoints.clear()
    return TrainingDone(
        model=model,
        path=request.output,
        report=report,
        evaluation=evaluation,
        thresholds=tuning.describe(job.task.tuned_score, job.task.decoding),
        joining=parts,
        verdict=verdict,
        start=start,
    )


def _score_and_calibrate(model: Model, job: TrainingJob, tuning: Tuning) -> tuple[Model, Evaluation, list[Panel]]:
    """Score the validation images, and note in the model what confidences mean and how much bfloat16 changes."""
    comparison = Bf16Comparison(model, str(job.device))
    judged: list[Judged] = []
    images = comparison.follow(segment_examples(model, job.validation, str(job.device), tuning.logits))
    evaluation, panels = score_examples(collect_judged(images, judged), model.task, model.labels)
    model = replace(model, bf16=comparison.difference)
    if not model.task.finds_objects:
        return model, evaluation, panels
    curve = fit_curve(judged)
    calibrated = calibrate((curve.apply(confidences), correct) for confidences, correct in judged)
    return replace(model, confidence_curve=curve), replace(evaluation, calibration=calibrated), panels


def _explain_sizes(recipe: Recipe) -> tuple[str, ...]:
    if recipe.data.largest is not None:
        reduced = "these scores compare labels of images that are reduced because their objects are large"
        return (f"{reduced}; 'septa evaluate' compares labels at each image's own size",)
    if recipe.data.resize is None:
        return ()
    height, width = recipe.data.resize
    sizes = f"these scores compare labels resized to {height} x {width}"
    return (f"{sizes}; 'septa evaluate' compares labels at each image's own size",)


def _collect_provenance(
    job: TrainingJob, state: TrainingState, check: DatasetCheck, evaluation: Evaluation, averaged: float | None
) -> dict[str, Any]:
    digests = {item.name: item.whole_digest or item.image_digest for item in check.facts}
    sketches = {item.name: item.sketch for item in check.facts}
    halves = zip(job.sampler.examples.pairs, job.validation.pairs)  # both sides are sorted by name
    parts = [(digests[one.name], one.window, other.window) for one, other in halves if one.window is not None]
    return {
        "versions": runtime.collect_versions(),
        "data": job.data_digest,
        "train": [(pair.name, digests[pair.name]) for pair in job.sampler.examples.pairs],
        "validation": [(pair.name, digests[pair.name]) for pair in job.validation.pairs],
        "parts": parts,
        "sketches": write_sketches(
            [(pair.name, sketches[pair.name]) for pair in job.sampler.examples.pairs if pair.name in sketches]
        ),
        "fingerprint": check.fingerprint.to_json() if check.fingerprint else {},
        "scores": evaluation.summary,
        "calibration": evaluation.calibration,
        "steps": state.step,
        "best_step": state.best["step"] if state.best else None,
        "best_score": state.best["score"] if state.best else None,
        "minutes": state.elapsed / 60,
        "seed": job.recipe.seed,
        **({} if job.parent is None else {"parent": {**job.parent, "score": find_first_score(state.history)}}),
        **({} if averaged is None else {"averaged_score": averaged}),
    }
