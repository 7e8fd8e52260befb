"""The main job with nothing but the package: touching cells are drawn, learned, segmented one by one and scored."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from septa.display import evaluation_table, show_training
from septa.errors import InputError
from septa.evaluation import evaluate_files
from septa.images import write_text
from septa.model import Model
from septa.prediction import Failed, Options, find_images, segment_files
from septa.synthetic import write_dataset
from septa.training import TrainingRequest, train_steps

MARK = "septa-demo.txt"
"""File that tells a folder to be the demo's own."""
COUNT, HELD_OUT, SIZE, SEED = 24, 6, (256, 256), 0
STEPS = 600
"""Most steps of the training."""


def run_demo(console: Console, folder: Path, *, minutes: float, overwrite: bool) -> None:
    """Write data, model, label images and report to ``folder`` and print the scores on the held-out images.

    Raises
    ------
    InputError
        The folder is not empty and ``overwrite`` is not set.
    """
    data, model_path, labels = folder / "data", folder / "cells.septa", folder / "segmented"
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise InputError(folder, "is not empty", "give another folder or --overwrite")
        _clear(folder, data, labels)
    write_text(folder / MARK, "Written by 'septa demo', which may replace data/ and segmented/ here.\n")
    console.print(f"1. drawing {COUNT + HELD_OUT} images of cells: {data}", highlight=False, markup=False)
    write_dataset(data, "cells", COUNT, SIZE, SEED, held_out=HELD_OUT)
    console.print(
        f"2. training, at most {minutes:g} minutes: septa train {data} -o {model_path}", highlight=False, markup=False
    )
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
    console.print(f"3. segmenting {HELD_OUT} images that were held out: {labels}", highlight=False, markup=False)
    options = Options(labels, overlay=True)
    for result in segment_files(Model.load(model_path), find_images([str(held_out / "images")]), options):
        if isinstance(result, Failed):
            raise result.error
    console.print("4. comparing them with the truth", highlight=False)
    evaluation = evaluate_files(labels, held_out / "labels", instances=True)
    console.print(evaluation_table(evaluation))
    there, found = (evaluation.objects[key]["pooled"] for key in ("truth_count", "prediction_count"))
    scores = "F1 of cells at IoU 0.5 {f1_50:.4f}, mean Dice {dice:.4f}".format_map(evaluation.summary)
    console.print(f"held-out images: {there:.0f} cells, {found:.0f} found, {scores}", highlight=False)
    console.print(f"report: {done.report}", highlight=False, markup=False)
    console.print(
        "next, with your own folder of images/ and labels/:  septa train YOUR_FOLDER --minutes 10", highlight=False
    )


def _clear(folder: Path, data: Path, labels: Path) -> None:
    """Remove what an earlier demo wrote, and nothing else."""
    if not (folder / MARK).is_file():
        raise InputError(folder, "was not written by 'septa demo'", "give another folder")
    for path in (data, labels):
        shutil.rmtree(path, ignore_errors=True)
