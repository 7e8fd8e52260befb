"""The whole workflow on synthetic data: draw touching cells, train, segment each cell, and compare."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from septa.display import make_evaluation_table, say, show_training
from septa.errors import InputError
from septa.evaluation import evaluate_files
from septa.images import write_text
from septa.model import Model
from septa.prediction import FailedFile, Options, find_images, segment_files
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


def run_demo(console: Console, folder: Path, *, minutes: float, overwrite: bool) -> None:
    """Write data, model, label images and report to a folder, and print the scores on the held-out images.

    Parameters
    ----------
    console
        Console to print on.
    folder
        Folder to write to.
    minutes
        Time limit of the training.
    overwrite
        True to replace what an earlier demo wrote to the folder.

    Raises
    ------
    InputError
        The folder is not empty and ``overwrite`` is False, or the folder was not written by the demo.
    """
    data, model_path, labels = folder / "data", folder / "cells.septa", folder / "segmented"
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise InputError(folder, "the folder is not empty", "Give another folder or --overwrite")
        _clear(folder, data, labels)
    write_text(folder / MARK, "Written by 'septa demo', which may replace data/ and segmented/ here.\n")
    say(console, f"1. drawing {COUNT + HELD_OUT} images of cells: {data}")
    write_dataset(data, "cells", COUNT, SIZE, SEED, held_out=HELD_OUT)
    say(console, f"2. training for at most {minutes:g} minutes: septa train {data} -o {model_path}")
    request = TrainingRequest(
        data=data,
        output=model_path,
        overrides=(f"training.minutes={minutes}", f"training.steps={STEPS}"),
        overwrite=overwrite,
        command=f"septa demo {folder}",
    )
    done = show_training(console, train_steps(request))
    assert done is not None
    held_out = data / "held_out"
    say(console, f"3. segmenting {HELD_OUT} images that were held out: {labels}")
    options = Options(output=labels, overlay=True)
    for result in segment_files(Model.load(model_path), find_images([str(held_out / "images")]), options):
        if isinstance(result, FailedFile):
            raise result.error
    say(console, "4. comparing them with the ground truth")
    evaluation = evaluate_files(labels, held_out / "labels", instances=True)
    console.print(make_evaluation_table(evaluation))
    true_count, found_count = (evaluation.objects[key]["pooled"] for key in ("truth_count", "prediction_count"))
    scores = "F1 of cells at IoU 0.5 {f1_50:.4f}, mean Dice {dice:.4f}".format_map(evaluation.summary)
    say(console, f"held-out images: {true_count:.0f} cells, {found_count:.0f} found, {scores}")
    say(console, f"report: {done.report}")
    say(console, "next, with your own folder of images/ and labels/:  septa train YOUR_FOLDER --minutes 10")


def _clear(folder: Path, data: Path, labels: Path) -> None:
    """Remove what an earlier demo wrote, and nothing else."""
    if not (folder / MARK).is_file():
        raise InputError(folder, "the folder was not written by 'septa demo'", "Give another folder")
    for path in (data, labels):
        shutil.rmtree(path, ignore_errors=True)
