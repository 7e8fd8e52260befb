"""The demo: shipped models on real images, or the whole workflow of a training on drawn cells."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rich.console import Console

from septa.display import make_evaluation_table, say, show_training
from septa.errors import InputError
from septa.evaluation import evaluate_files
from septa.images import write_bytes, write_text
from septa.model import Model
from septa.prediction import FailedFile, Options, find_images, segment_files
from septa.pretrained import ShippedModel, list_shipped
from septa.synthetic import write_dataset
from septa.training import TrainingRequest, train_steps

MARK = "septa-demo.txt"
"""File that marks a folder as written by the demo."""
COUNT, HELD_OUT = 24, 6
"""Number of images to train on, and of images to segment."""
SIZE = (256, 256)
"""Height and width of each image in pixels."""
SEED = 0
STEPS = 600
"""Largest number of training steps."""
MINUTES = 2.0
"""Default of the time limit of the training."""


def run_demo(console: Console, folder: Path, *, minutes: float | None, overwrite: bool) -> None:
    """Segment example images with the shipped models, or train a model on drawn cells; write all results to a folder.

    Parameters
    ----------
    console
        Console to print on.
    folder
        Folder to write to.
    minutes
        Time limit of the training; None for the shipped models. If none ships, a model is trained all the same.
    overwrite
        True to replace what an earlier demo wrote to the folder.

    Raises
    ------
    InputError
        The folder is not empty and ``overwrite`` is False, or the folder was not written by the demo.
    """
    shown = [one for one in list_shipped() if one.examples is not None] if minutes is None else []
    written = [one.name for one in shown] or ["data", "segmented"]
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise InputError(folder, "the folder is not empty", "Give another folder or --overwrite")
        _clear(folder)
        for name in written:
            _refuse_foreign(folder / name)
    names = " and ".join(f"{name}/" for name in written)
    write_text(folder / MARK, f"Written by 'septa demo', which may replace {names} here.\n")
    for one in shown:
        _show_shipped(console, folder / one.name, one)
    if shown:
        say(console, f"next, with your own images:  septa predict {shown[0].name} YOUR_IMAGES -o segmented --overlay")
        say(console, "to see a training:  septa demo other-folder --train")
    else:
        _train_and_segment(console, folder, minutes or MINUTES, overwrite)
        say(console, "next, with your own folder of images/ and labels/:  septa train YOUR_FOLDER --minutes 10")


def _show_shipped(console: Console, folder: Path, shipped: ShippedModel) -> None:
    """Segment the example images of a shipped model, and compare the result with the ground truth."""
    assert shipped.examples is not None
    for path in shipped.examples.glob("*/*.png"):
        write_bytes(folder / path.relative_to(shipped.examples), path.read_bytes())
    images, truth, found = folder / "images", folder / "labels", folder / "segmented"
    say(console, f"the model {shipped.name} ships with septa: {shipped.summary}")
    say(console, "1. segmenting images that it was not trained on:")
    say(console, f"   septa predict {shipped.name} {images} -o {found} --overlay")
    _segment(Model.load(shipped.path), images, found)
    say(console, f"2. comparing them with the ground truth:  septa evaluate {found} {truth}")
    for image in evaluate_files(found, truth, instances=True).images:
        assert image.objects is not None
        counts = f"{image.objects.truth_count} objects, {image.objects.prediction_count} found"
        say(console, f"   {image.name}: {counts}, F1 at IoU 0.5 {image.objects.f1[0]:.4f}")
    say(console, f"label images: {found}, pictures: {found / 'overlays'}")


def _train_and_segment(console: Console, folder: Path, minutes: float, overwrite: bool) -> None:
    """Draw touching cells, train, segment each cell of other images, and compare the result with the ground truth."""
    data, model_path, labels = folder / "data", folder / "cells.septa", folder / "segmented"
    say(console, f"1. drawing {COUNT + HELD_OUT} images of cells: {data}")
    write_dataset(data, "cells", COUNT, SIZE, SEED, held_out=HELD_OUT)
    say(console, f"2. training for at most {minutes:g} minutes: septa train {data} -o {model_path}")
    request = TrainingRequest(
        data=data,
        output=model_path,
        overrides=(f"training.minutes={minutes}", f"training.steps={STEPS}", "training.start=scratch"),
        overwrite=overwrite,
        command=f"septa demo {folder}",
    )
    done = show_training(console, train_steps(request))
    assert done is not None
    held_out = data / "held_out"
    say(console, f"3. segmenting {HELD_OUT} images that were held out: {labels}")
    _segment(Model.load(model_path), held_out / "images", labels)
    say(console, "4. comparing them with the ground truth")
    evaluation = evaluate_files(labels, held_out / "labels", instances=True)
    console.print(make_evaluation_table(evaluation))
    true_count, found_count = (evaluation.objects[key]["pooled"] for key in ("truth_count", "prediction_count"))
    scores = "F1 of cells at IoU 0.5 {f1_50:.4f}, mean Dice {dice:.4f}".format_map(evaluation.summary)
    say(console, f"held-out images: {true_count:.0f} cells, {found_count:.0f} found, {scores}")
    say(console, f"report: {done.report}")


def _segment(model: Model, images: Path, labels: Path) -> None:
    for result in segment_files(model, find_images([str(images)]), Options(output=labels, overlay=True)):
        if isinstance(result, FailedFile):
            raise result.error


def _clear(folder: Path) -> None:
    """Remove the folders that an earlier demo wrote, and nothing else."""
    mark = folder / MARK
    if not mark.is_file():
        _refuse_foreign(folder)
    for name in re.findall(r"(\w+)/", mark.read_text(encoding="utf-8")):
        shutil.rmtree(folder / name, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    if folder.exists():
        raise InputError(folder, "the folder was not written by 'septa demo'", "Give another folder")
