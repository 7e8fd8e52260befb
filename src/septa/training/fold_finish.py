"""The end of a cross-validation: every image is scored by the net that did not see it, and the nets become one model.

Read `finish_folds` from top to bottom.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from septa import runtime
from septa.data import DatasetCheck, Examples, write_sketches
from septa.errors import InputError
from septa.images import write_text
from septa.metrics import Evaluation
from septa.model import Bf16Difference, Model
from septa.nets import Ensemble, list_members
from septa.objects import Judged, fit_curve
from septa.report import Fold, score_fold, write_report
from septa.training.automatic import RecipeChoice
from septa.training.finish import TrainingDone
from septa.training.folds import FoldTraining, remove_fold_models
from septa.training.joining import Joining, apply_joining, choose_joining, inherits_joining, list_labelled
from septa.training.plan import TrainingRequest
from septa.training.scoring import SegmentedExample, collect_judged, score_examples, segment_examples
from septa.training.state import HistoryRow
from septa.training.tuning import FoldTuning, find_prior, tune_folds
from septa.training.verdict import describe_cross_validation, find_verdict

_MEMORY_SHARE = 1 / 16
"""Share of the memory for decoded images of one fold."""


def finish_folds(
    request: TrainingRequest,
    trainings: Sequence[FoldTraining],
    check: DatasetCheck,
    choice: RecipeChoice,
    device: str,
) -> TrainingDone:
    """Score every image by the net of its fold, and write the nets of all folds as one model, with a report.

    Parameters
    ----------
    request
        Request, for the output files and the command line.
    trainings
        Finished trainings of the folds.
    check, choice
        Dataset check and recipe of the whole.
    device
        As for `septa.Model.segment`.

    Returns
    -------
    TrainingDone
        Ensemble that was saved, report, and scores of all images with thresholds that suit the other folds best.
    """
    models = [Model.load(own.request.output) for own in trainings]
    examples = [_open_examples(own.check, model) for own, model in zip(trainings, models, strict=True)]
    tuning = _tune(models, examples, check, device)
    judges, choice, joining = _choose_joining(models, examples, tuning, choice)
    judged: list[Judged] = []
    images = collect_judged(_segment_all(judges, examples, tuning, device), judged)
    evaluation, panels = score_examples(images, models[0].task, models[0].labels)
    histories = {own.number: _read_history(own.request.folder / "log.csv") for own in trainings}
    folds = tuple(
        _describe_fold(own, model, histories[own.number], has_thresholds=bool(tuning.curves))
        for own, model in zip(trainings, models, strict=True)
    )
    model = replace(
        models[0],
        net=Ensemble([net for one in models for net in list_members(one.net)]),
        recipe=choice.recipe,
        decoding=tuning.decoding,
        confidence_curve=fit_curve(judged) if models[0].task.finds_objects else models[0].confidence_curve,
        bf16=_join_differences(models),
        provenance=_collect_provenance(models, check, choice, evaluation, folds),
    )
    model.save(request.output)
    write_text(request.folder / "recipe.yaml", choice.recipe.to_yaml(choice.reasons))
    verdict = find_verdict(evaluation, min(fold.steps for fold in folds), check)
    report = request.folder / "report.html"
    parts = "" if joining is None else joining.describe(models[0].task.tuned_score)
    notes = [line for line in (describe_cross_validation(evaluation, folds), parts) if line]
    write_report(
        report,
        title=request.output.stem,
        command=request.command,
        versions=runtime.collect_versions(),
        recipe_yaml=choice.recipe.to_yaml(choice.reasons),
        fingerprint=check.fingerprint.to_json() if check.fingerprint else {},
        history=[],
        evaluation=evaluation,
        gallery=panels,
        notes=[*notes, *check.notes, *map(str, check.problems)],
        verdict=verdict,
        tuning=tuning.curves,
        chosen=tuning.decoding.to_json(),
        folds=folds,
        fold_histories=histories,
    )
    write_text(request.folder / "scores.csv", _write_scores(evaluation, folds))
    remove_fold_models(request)
    more: dict[str, Any] = {"joining": parts, "verdict": verdict, "folds": folds}
    return TrainingDone(model=model, path=request.output, report=report, evaluation=evaluation, **more)


def _tune(models: Sequence[Model], examples: Sequence[Examples], check: DatasetCheck, device: str) -> FoldTuning:
    assert check.fingerprint is not None
    prior = find_prior(models[0], check.fingerprint, models[0].provenance.get("parent"))
    return tune_folds(models, examples, device, prior)


def _open_examples(check: DatasetCheck, model: Model) -> Examples:
    """Return the images that a fold held out."""
    assert check.pairing is not None
    pairs = {pair.name: pair for pair in check.pairing.pairs}
    return Examples(
        [pairs[name] for name in check.validation],
        labels=model.labels,
        channels=model.channels,
        objects=model.task.finds_objects,
        resize=model.recipe.data.resize,
        largest=model.recipe.data.largest,
        memory=int(_MEMORY_SHARE * runtime.find_memory_limit()),
    )


def _segment_all(
    models: Sequence[Model], examples: Sequence[Examples], tuning: FoldTuning, device: str
) -> Iterator[SegmentedExample]:
    """Segment every image by the net of its fold."""
    for model, own, known in zip(models, examples, tuning.logits, strict=True):
        yield from segment_examples(model, own, device, known)


def _choose_joining(
    models: Sequence[Model], examples: Sequence[Examples], tuning: FoldTuning, choice: RecipeChoice
) -> tuple[list[Model], RecipeChoice, Joining | None]:
    """Choose whether parts are joined: for the scores of a fold by the images of the others, for the whole by all.

    Returns
    -------
    models
        Models that score the images of their folds, with thresholds and joining that the other folds chose.
    choice, joining
        As of `septa.training.joining.choose_joining`, for the whole.
    """
    judges = [apply_joining(replace(model, decoding=own), choice) for model, own in zip(models, tuning.others)]
    if not inherits_joining(choice):
        return judges, choice, None
    labelled = [list(list_labelled(*each)) for each in zip(judges, examples, tuning.logits, strict=True)]
    for at, model in enumerate(judges):
        own, _ = choose_joining(choice, chain(*labelled[:at], *labelled[at + 1 :]))
        judges[at] = apply_joining(model, own)
    return judges, *choose_joining(choice, chain(*labelled))


def _join_differences(models: Sequence[Model]) -> Bf16Difference | None:
    """Return the pixels of all folds that differ in bfloat16; None if they were not compared in each of them.

    The mean of several nets differs less than each of them.
    """
    found = [model.bf16 for model in models if model.bf16 is not None]
    if len(found) < len(models):
        return None
    return Bf16Difference(changed=sum(one.changed for one in found), pixels=sum(one.pixels for one in found))


def _describe_fold(own: FoldTraining, model: Model, history: Sequence[HistoryRow], *, has_thresholds: bool) -> Fold:
    scores = [row["score"] for row in history if "score" in row]
    numbers = {name: value for name, value in model.decoding.to_json().items() if type(value) in (int, float)}
    return Fold(
        number=own.number,
        images=own.check.validation,
        steps=model.provenance["steps"],
        minutes=model.provenance["minutes"],
        best_score=max(scores),
        last_score=scores[-1],
        thresholds=numbers if has_thresholds else {},
    )


def _collect_provenance(
    models: Sequence[Model], check: DatasetCheck, choice: RecipeChoice, evaluation: Evaluation, folds: Sequence[Fold]
) -> dict[str, Any]:
    """Collect the facts of an ensemble: it has seen every image, so none is left for a validation."""
    digests = {item.name: item.image_digest for item in check.facts}
    sketches = {item.name: item.sketch for item in check.facts}
    names = sorted(name for fold in folds for name in fold.images)
    facts = [model.provenance for model in models]
    return {
        "versions": runtime.collect_versions(),
        "data": facts[0]["data"],
        "train": [(name, digests[name]) for name in names],
        "validation": [],
        "parts": [],
        "sketches": write_sketches([(name, sketches[name]) for name in names]),
        "fingerprint": check.fingerprint.to_json() if check.fingerprint else {},
        "scores": evaluation.summary,
        "calibration": evaluation.calibration,
        "steps": sum(fold.steps for fold in folds),
        "best_step": None,
        "minutes": sum(fold.minutes for fold in folds),
        "seed": choice.recipe.seed,
        **({"parent": facts[0]["parent"]} if "parent" in facts[0] else {}),
        "folds": [
            {
                "validation": list(fold.images),
                "scores": score_fold(evaluation, fold.images),
                "decoding": model.decoding.to_json(),
                "weights_sha256": model.weights_sha256,
                **{key: model.provenance[key] for key in ("steps", "best_step", "minutes", "seed")},
            }
            for fold, model in zip(folds, models, strict=True)
        ],
    }


def _read_history(path: Path) -> list[HistoryRow]:
    """Return the rows of the log of a fold.

    Raises
    ------
    InputError
        The log is gone or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)]
    except (OSError, ValueError):
        rows = []
    if not any("score" in row for row in rows):
        raise InputError(path, "the log of this fold is missing or damaged", "Start again with --overwrite")
    return rows


def _write_scores(evaluation: Evaluation, folds: Sequence[Fold]) -> str:
    """Return the scores of each image as a CSV table, with the fold that held it out."""
    fold_of = {name: fold.number for fold in folds for name in fold.images}
    rows = []
    for image in evaluation.images:
        row: dict[str, Any] = {"image": image.name, "fold": fold_of[image.name]}
        if image.objects is not None:
            row |= {"f1_50": image.objects.f1[0], "mean_accuracy": image.objects.mean_accuracy}
            row |= {"true_objects": image.objects.truth_count, "predicted_objects": image.objects.prediction_count}
        row |= {f"dice_{name}": scores["dice"] for name, scores in image.classes.items()}
        rows.append(row | {"pixel_accuracy": image.pixel_accuracy})
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
