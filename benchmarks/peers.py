"""Train peers of septa from scratch on a folder of pairs in equal processor time, and score their objects.

Usage: ``python benchmarks/peers.py stardist|cellpose|nnunet --train DIR --held DIR [DIR ...] [--minutes 20]``, with the
Python of an environment that has the peer; septa is imported from ``src`` (``PYTHONPATH=src``) for its scores.

Each folder holds ``images/`` (8-bit grey or RGB) and ``labels/`` (objects) with equal names. Every peer trains with its
own trainer and the settings of its documentation, on one thread. A fifth of the training images validates and tunes.
The held-out images are read after the training.

A short training measures the seconds of a step. From them follows the number of steps, so that the schedule of the
learning rate ends with the time. What counts is processor time of the training steps and of the peer's own validations;
imports, conversion of files, targets computed once, the first step (which compiles), and tuning afterwards do not.

- ``stardist``: the settings of its example with 32 rays and a grid of 2 x 2 pixels, RGB. The patience of its learning
  rate is a tenth of the epochs, as by default. Its two thresholds are optimized on the validation images.
- ``cellpose`` (version 3): nuclei from scratch (diameter 17), grey, settings of its command line (SGD, rate 0.2). An
  epoch is one batch of 8 patches, or of 4 if time is short, so that warm-up and decay fit in. It chooses nothing by
  validation, so it trains on all images. Predictions take the mean diameter of the training images, as its own models
  do without a size model.
- ``nnunet``: 2D, RGB. nnU-Net has no instances; its classes are background, inside and border of objects, and
  connected insides grow into the border. Its planner gets ``--memory`` GB, because the patches and batches it plans
  for a GPU allow few steps on one core.

The script prints one Markdown row for each held-out folder. AP is tp / (tp + fp + fn) at IoU 0.5, pooled over objects;
the mean AP is its mean over IoU 0.5 to 0.95.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

HEADER = "| peer | steps | minutes | held out | AP | mean AP | merged | split | s for 1 megapixel |"
WARM = 2
"""Steps of the short training that are not measured."""
DIAMETER = 17.0
"""Diameter in pixels to which Cellpose scales nuclei."""
NNUNET = "Dataset001_objects"
STEPS = 20
"""Steps of an epoch of nnU-Net; 250 by default, with a fifth as many of validation."""
SMALLEST = 15
"""Pixels of the smallest object that is made from classes of nnU-Net."""


class Pair(NamedTuple):
    """An image, uint8 of shape YXC with three channels, and its objects, int32 of shape YX."""

    name: str
    image_yxc: Array
    labels_yx: Array


class Trained(NamedTuple):
    """A trained peer: its name and version, what it spent, and the function that segments a YXC image."""

    name: str
    steps: int
    seconds: float
    segment: Callable[[Array], Array]


@dataclass
class Clock:
    """Processor seconds of this process after each training step, and those of the last validation."""

    steps: list[float] = field(default_factory=list)
    validation: float = 0.0
    end: float = 0.0

    def tick(self) -> None:
        """Note the end of a step."""
        self.steps.append(time.process_time())
        self.end = self.steps[-1]

    @property
    def step(self) -> float:
        """Median seconds of a step after the first ones."""
        return float(np.median(np.diff(self.steps[WARM:])))

    @property
    def seconds(self) -> float:
        """Seconds from the end of the first step to the end of the training."""
        return self.end - self.steps[0]


def main() -> None:
    """Train a peer and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS, help="tool to train")
    parser.add_argument("--train", type=Path, required=True, help="folder of training pairs")
    parser.add_argument("--held", type=Path, nargs="+", required=True, help="folders of held-out pairs")
    parser.add_argument("--minutes", type=float, default=20.0, help="processor minutes of the training")
    parser.add_argument("--seed", type=int, default=1, help="seed of the choice of validation images")
    parser.add_argument("--memory", type=float, default=1.0, help="GB of GPU memory that nnU-Net plans for")
    parser.add_argument("--work", type=Path, help="folder for what the peer writes; by default a temporary one")
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    pairs = read_pairs(arguments.train)
    order = np.random.default_rng(arguments.seed).permutation(len(pairs))
    count = len(pairs) // 5
    tuning, train = ([pairs[index] for index in part] for part in (order[:count], order[count:]))
    with tempfile.TemporaryDirectory() as temporary:
        arguments.work = arguments.work or Path(temporary)
        arguments.work.mkdir(parents=True, exist_ok=True)
        trained = PEERS[arguments.peer](train, tuning, arguments)
        print(HEADER + "\n" + "|---" * HEADER.count(" | ") + "|---|", flush=True)
        for folder in arguments.held:
            print_row(trained, folder)


def read_pairs(folder: Path) -> list[Pair]:
    """Read the images and labels of a folder in the order of their names."""
    from PIL import Image

    labels = {path.stem: path for path in (folder / "labels").iterdir()}
    return [
        Pair(
            path.stem,
            np.asarray(Image.open(path).convert("RGB")),
            np.asarray(Image.open(labels[path.stem])).astype(np.int32),
        )
        for path in sorted((folder / "images").iterdir())
    ]


def print_row(trained: Trained, folder: Path) -> None:
    """Score a peer on a folder and print a row; the first image is segmented twice, once as a warm-up."""
    pairs = read_pairs(folder)
    trained.segment(pairs[0].image_yxc)
    start = time.process_time()
    predictions = [trained.segment(pair.image_yxc) for pair in pairs]
    speed = (time.process_time() - start) / sum(pair.labels_yx.size for pair in pairs) * 1e6
    scores = pool_scores(pairs, predictions)
    cells = [trained.name, str(trained.steps), f"{trained.seconds / 60:.1f}", folder.name]
    cells += [f"{scores['accuracy_50']:.3f}", f"{scores['mean_accuracy']:.3f}"]
    cells += [str(scores["merges"]), str(scores["splits"]), f"{speed:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def pool_scores(pairs: list[Pair], predictions: list[Array]) -> dict[str, float]:
    """Return AP, mean AP, merges and splits, pooled over the objects of all images."""
    from septa.metrics import score_objects

    scores = [score_objects(pair.labels_yx, prediction) for pair, prediction in zip(pairs, predictions, strict=True)]
    found = np.sum([score.tp for score in scores], axis=0)
    total = sum(score.truth_count + score.prediction_count for score in scores)
    accuracy = found / (total - found)
    return {
        "accuracy_50": float(accuracy[0]),
        "mean_accuracy": float(accuracy.mean()),
        "merges": sum(score.merges for score in scores),
        "splits": sum(score.splits for score in scores),
    }


def report(text: str) -> None:
    """Print progress to standard error, with the processor time."""
    print(f"[{time.process_time():.0f} s] {text}", file=sys.stderr, flush=True)


def train_stardist(train: list[Pair], tuning: list[Pair], arguments: argparse.Namespace) -> Trained:
    """Train StarDist 2D as its example does."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow
    from csbdeep.utils import normalize
    from stardist import fill_label_holes

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)

    def scale(image_yxc: Array) -> Array:
        return np.asarray(normalize(image_yxc, 1, 99.8, axis=(0, 1)))

    parts = [
        ([scale(pair.image_yxc) for pair in part], [fill_label_holes(pair.labels_yx) for pair in part])
        for part in (train, tuning)
    ]
    _, probe = fit_stardist(parts, arguments, epochs=2, steps=15)
    steps = 100
    epochs = max(1, round(arguments.minutes * 60 / (steps * probe.step + probe.validation)))
    report(f"{probe.step:.2f} s for a step, {probe.validation:.1f} s for a validation: {epochs} epochs")
    model, clock = fit_stardist(parts, arguments, epochs=epochs, steps=steps)
    report(f"trained for {clock.seconds:.0f} s")
    report(f"thresholds: {model.optimize_thresholds(*parts[1])}")

    def segment(image_yxc: Array) -> Array:
        return np.asarray(model.predict_instances(scale(image_yxc))[0])

    return Trained(f"StarDist {version('stardist')}", len(clock.steps), clock.seconds, segment)


def fit_stardist(
    parts: list[tuple[list[Array], list[Array]]], arguments: argparse.Namespace, *, epochs: int, steps: int
) -> tuple[Any, Clock]:
    """Train a new StarDist model, and return it with the times of its steps and of its last validation."""
    from csbdeep.utils.tf import keras_import
    from stardist.models import Config2D, StarDist2D

    clock = Clock()

    class Watch(keras_import("callbacks").Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            clock.tick()

        def on_test_end(self, logs: object = None) -> None:
            clock.validation = time.process_time() - clock.steps[-1]

        def on_train_end(self, logs: object = None) -> None:
            clock.end = time.process_time()

    patience = max(1, round(epochs / 10))  # 40 of 400 epochs by default
    config = Config2D(
        axes="YXC",
        n_rays=32,
        grid=(2, 2),
        n_channel_in=3,
        train_tensorboard=False,
        train_epochs=epochs,
        train_steps_per_epoch=steps,
        train_reduce_lr={"factor": 0.5, "patience": patience, "min_delta": 0},
    )
    model = StarDist2D(config, name=f"stardist-{epochs}", basedir=str(arguments.work))
    model.prepare_for_training()
    model.callbacks.append(Watch())
    model.train(*parts[0], validation_data=parts[1], augmenter=augment_stardist, seed=arguments.seed)
    return model, clock


def augment_stardist(image_yxc: Array, labels_yx: Array) -> tuple[Array, Array]:
    """Turn, mirror and brighten at random, and add noise: the augmentation of StarDist's example."""
    turns = np.random.randint(4)  # noqa: NPY002 - StarDist seeds this generator
    image_yxc, labels_yx = np.rot90(image_yxc, turns), np.rot90(labels_yx, turns)
    if np.random.rand() < 0.5:  # noqa: NPY002
        image_yxc, labels_yx = image_yxc[::-1], labels_yx[::-1]
    gain, offset = np.random.uniform(0.6, 2), np.random.uniform(-0.2, 0.2)  # noqa: NPY002
    sigma = 0.02 * np.random.uniform(0, 1)  # noqa: NPY002
    return image_yxc * gain + offset + sigma * np.random.normal(0, 1, image_yxc.shape), labels_yx  # noqa: NPY002


def train_cellpose(train: list[Pair], tuning: list[Pair], arguments: argparse.Namespace) -> Trained:
    """Train Cellpose 3 from scratch with the settings of its command line for nuclei, on all training images."""
    import torch
    from cellpose import dynamics, models

    torch.set_num_threads(1)
    pairs = [*train, *tuning]
    grey = [pair.image_yxc.mean(-1) for pair in pairs]
    flows = dynamics.labels_to_flows([pair.labels_yx.copy() for pair in pairs], device=torch.device("cpu"))
    for batch in (8, 4):  # its schedule lowers the rate only in trainings of more than 100 epochs
        _, probe = fit_cellpose(grey, flows, arguments, steps=7, batch=batch)
        steps = round(arguments.minutes * 60 / probe.step)
        report(f"{probe.step:.2f} s for a step of {batch} patches: {steps} steps")
        if steps > 100:
            break
    path, clock = fit_cellpose(grey, flows, arguments, steps=steps, batch=batch)
    report(f"trained for {clock.seconds:.0f} s")
    model = models.CellposeModel(pretrained_model=path, mkldnn=False)

    def segment(image_yxc: Array) -> Array:
        return np.asarray(model.eval(image_yxc.mean(-1), channels=[0, 0])[0])

    return Trained(f"Cellpose {version('cellpose')}", len(clock.steps), clock.seconds, segment)


def fit_cellpose(
    grey: list[Array], flows: list[Array], arguments: argparse.Namespace, *, steps: int, batch: int
) -> tuple[str, Clock]:
    """Train a new Cellpose net for epochs of one batch, and return its path and the times of its steps."""
    import torch
    from cellpose import models
    from cellpose import train as trainer

    torch.manual_seed(arguments.seed)
    net = models.CellposeModel(pretrained_model=False, diam_mean=DIAMETER, mkldnn=False).net
    clock = Clock()
    # The net runs once in each step, so each run marks the end of the step before.
    hook = net.register_forward_pre_hook(lambda *_: clock.tick())
    path = trainer.train_seg(
        net,
        grey,
        flows,
        channels=[0, 0],
        n_epochs=steps,
        nimg_per_epoch=batch,
        batch_size=batch,
        SGD=True,
        learning_rate=0.2,
        weight_decay=1e-5,
        save_path=arguments.work,
        model_name=f"cellpose-{steps}",
    )[0]
    hook.remove()
    clock.end = time.process_time()
    return str(path), clock


def train_nnunet(train: list[Pair], tuning: list[Pair], arguments: argparse.Namespace) -> Trained:
    """Train nnU-Net 2D on the classes background, inside and border."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(arguments.work / name)
    os.environ.update(nnUNet_n_proc_DA="1")
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)  # noqa: NPY002 - nnU-Net draws from this generator
    plan_nnunet(train, tuning, arguments)
    os.environ.update(nnUNet_n_proc_DA="0")  # prepare batches in this process
    _, probe = fit_nnunet(epochs=1)
    epochs = max(1, round(arguments.minutes * 60 / (STEPS * probe.step + probe.validation)))
    report(f"{probe.step:.2f} s for a step, {probe.validation:.1f} s for a validation: {epochs} epochs")
    folder, clock = fit_nnunet(epochs=epochs)
    report(f"trained for {clock.seconds:.0f} s")
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(folder, use_folds=(0,))

    def segment(image_yxc: Array) -> Array:
        image_czyx = np.moveaxis(image_yxc, -1, 0)[:, None].astype(np.float32)
        return find_objects(predictor.predict_single_npy_array(image_czyx, {"spacing": (999, 1, 1)})[0])

    return Trained(f"nnU-Net {version('nnunetv2')}", len(clock.steps), clock.seconds, segment)


def plan_nnunet(train: list[Pair], tuning: list[Pair], arguments: argparse.Namespace) -> None:
    """Write the data set of nnU-Net, plan and preprocess it, and fix the split."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from PIL import Image

    folder = arguments.work / "raw" / NNUNET
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for pair in (*train, *tuning):
        Image.fromarray(find_classes(pair.labels_yx)).save(folder / "labelsTr" / f"{pair.name}.png")
        for channel in range(3):
            image_yx = np.ascontiguousarray(pair.image_yxc[..., channel])
            Image.fromarray(image_yx).save(folder / "imagesTr" / f"{pair.name}_{channel:04d}.png")
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "inside": 1, "border": 2},
        "numTraining": len(train) + len(tuning),
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    planning.extract_fingerprints([1], num_processes=1)
    plans = planning.plan_experiments([1], gpu_memory_target_in_gb=arguments.memory)
    planning.preprocess([1], plans, configurations=["2d"], num_processes=[1])
    split = [{"train": [pair.name for pair in train], "val": [pair.name for pair in tuning]}]
    (arguments.work / "preprocessed" / NNUNET / "splits_final.json").write_text(json.dumps(split))


def fit_nnunet(*, epochs: int) -> tuple[str, Clock]:
    """Train nnU-Net and return the folder of its model and the times of its steps and of its last validation."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args("1", "2d", 0, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, STEPS
    trainer.num_val_iterations_per_epoch = STEPS // 5
    trainer.initialize()
    report(f"patches {trainer.configuration_manager.patch_size}, batches of {trainer.configuration_manager.batch_size}")
    clock = Clock()
    train_step, end_epoch = trainer.train_step, trainer.on_epoch_end

    def watched_step(batch: dict[str, Any]) -> dict[str, Any]:
        result = train_step(batch)
        clock.tick()
        return dict(result)

    def watched_end() -> None:
        end_epoch()
        clock.end = time.process_time()
        clock.validation = clock.end - clock.steps[-1]

    trainer.train_step, trainer.on_epoch_end = watched_step, watched_end
    trainer.run_training()
    return trainer.output_folder_base, clock


def find_classes(labels_yx: Array) -> Array:
    """Return 0 for background, 1 inside objects and 2 on their border, at most two pixels wide; all have an inside."""
    from scipy import ndimage

    inside_yx = np.zeros(labels_yx.shape, bool)
    for radius in (2, 1, 0):
        disk = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
        equal = ndimage.minimum_filter(labels_yx, footprint=disk) == ndimage.maximum_filter(labels_yx, footprint=disk)
        inside_yx |= equal & ~np.isin(labels_yx, labels_yx[inside_yx]) & (labels_yx > 0)
    return np.where(labels_yx > 0, np.where(inside_yx, 1, 2), 0).astype(np.uint8)


def find_objects(classes_yx: Array) -> Array:
    """Grow the connected insides into the border; borders without an inside are objects too, if not below 15 pixels."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    seeds_yx, count = ndimage.label(classes_yx == 1)
    parts_yx, _ = ndimage.label(classes_yx > 0)
    alone_yx = (parts_yx > 0) & ~np.isin(parts_yx, parts_yx[seeds_yx > 0])
    seeds_yx = np.where(alone_yx, parts_yx + count, seeds_yx)
    depth_yx = ndimage.distance_transform_edt(seeds_yx == 0)
    objects_yx = watershed(depth_yx, seeds_yx, mask=classes_yx > 0)
    return np.where(np.bincount(objects_yx.ravel())[objects_yx] >= SMALLEST, objects_yx, 0)


PEERS: dict[str, Callable[[list[Pair], list[Pair], argparse.Namespace], Trained]] = {
    "stardist": train_stardist,
    "cellpose": train_cellpose,
    "nnunet": train_nnunet,
}

if __name__ == "__main__":
    main()
