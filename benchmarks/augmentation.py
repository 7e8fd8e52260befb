"""Compare the speed of augmentation in septa and in common libraries: milliseconds on one core.

Usage: ``python benchmarks/augmentation.py [--size 512] [--draws 8] [--repeats 15]``.

Every library flips, rotates, scales and elastically deforms one image and its labels. The elastic grid has 3 x 3 nodes
with displacements of 10 pixels, or the closest setting of the library. Labels are resampled by the nearest pixel. Then
every library changes contrast, brightness and gamma, blurs, and adds noise. Every draw applies every change. Libraries
that are not installed are listed and skipped.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from septa import runtime
from septa.data.augment import jitter_patch, warp_patch
from septa.recipe import AugmentSettings
from septa.synthetic.dataset import draw_cells

ROTATE = 180.0
SCALE = (0.8, 1.25)
ELASTIC = 10.0
GRID = 3
BRIGHTNESS = 0.2
CONTRAST = 0.2
GAMMA = (0.8, 1.25)
BLUR = 0.8
NOISE = 0.1

Work = Callable[[np.ndarray, np.ndarray, int], Any]
"""A timed function of an image (1, Y, X), float32, labels (Y, X), int32, and a seed."""


def make_septa() -> tuple[Work, Work]:
    """Make septa's augmentation: one displacement field, applied once with OpenCV."""
    augment = AugmentSettings(
        flip=True,
        turn=False,
        rotate=ROTATE,
        scale=SCALE,
        elastic=ELASTIC,
        elastic_grid=GRID,
        probability=1,
        brightness=BRIGHTNESS,
        contrast=CONTRAST,
        gamma=GAMMA,
        blur=BLUR,
        noise=NOISE,
    )

    def geometry(image_cyx: np.ndarray, labels_yx: np.ndarray, seed: int) -> Any:
        height, width = labels_yx.shape
        rng = np.random.default_rng(seed)
        return warp_patch(image_cyx, labels_yx, (height // 2, width // 2), (height, width), augment, rng), rng

    def everything(image_cyx: np.ndarray, labels_yx: np.ndarray, seed: int) -> Any:
        (patch_cyx, patch_labels_yx), rng = geometry(image_cyx, labels_yx, seed)
        return jitter_patch(patch_cyx, augment, rng), patch_labels_yx

    return geometry, everything


def make_batchgeneratorsv2() -> tuple[Work, Work]:
    """Make nnU-Net's transforms; the elastic noise is smoothed over half the distance of the nodes."""
    from batchgeneratorsv2.transforms.intensity.brightness import BrightnessAdditiveTransform
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

    intensity = [
        ContrastTransform((1 - CONTRAST, 1 + CONTRAST), preserve_range=False, synchronize_channels=False),
        BrightnessAdditiveTransform(0, BRIGHTNESS / 2, synchronize_channels=False),
        GammaTransform(GAMMA, p_invert_image=0, synchronize_channels=False, p_per_channel=1, p_retain_stats=0),
        GaussianBlurTransform((0.01, BLUR), synchronize_channels=True, synchronize_axes=True),
        GaussianNoiseTransform((0, NOISE**2)),
    ]

    def make_spatial(size_hw: tuple[int, int]) -> list[Any]:
        return [
            SpatialTransform(
                size_hw,
                0,
                random_crop=False,
                p_elastic_deform=1,
                elastic_deform_scale=0.5 / (GRID - 1),
                elastic_deform_magnitude=ELASTIC,
                p_rotation=1,
                rotation=(-np.pi, np.pi),
                p_scaling=1,
                scaling=SCALE,
                p_synchronize_scaling_across_axes=1,
                mode_seg="nearest",
                padding_mode_image="reflection",
                border_mode_seg="reflection",
            ),
            MirrorTransform((0, 1)),
        ]

    return make_work(
        lambda size_hw: ComposeTransforms(make_spatial(size_hw)),
        lambda size_hw: ComposeTransforms(make_spatial(size_hw) + intensity),
        lambda transform, image, labels: transform(image=image, segmentation=labels[None]),
    )


def make_monai() -> tuple[Work, Work]:
    """Make MONAI's transforms; Rand2DElasticd rotates and scales by the same displacement field."""
    from monai.transforms import (
        Compose,
        Rand2DElasticd,
        RandAdjustContrastd,
        RandFlipd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityFixedMeand,
        RandShiftIntensityd,
    )

    both = ("image", "labels")
    sigma = (0.01, BLUR)
    intensity = [
        RandScaleIntensityFixedMeand("image", factors=CONTRAST, prob=1),
        RandShiftIntensityd("image", offsets=BRIGHTNESS, prob=1),
        RandAdjustContrastd("image", gamma=GAMMA, prob=1),
        RandGaussianSmoothd("image", sigma_x=sigma, sigma_y=sigma, prob=1),
        RandGaussianNoised("image", std=NOISE, prob=1),
    ]

    def make_spatial(size_hw: tuple[int, int]) -> list[Any]:
        return [
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandFlipd(both, prob=0.5, spatial_axis=1),
            Rand2DElasticd(
                both,
                spacing=(size_hw[0] / (GRID - 1), size_hw[1] / (GRID - 1)),
                magnitude_range=(ELASTIC, ELASTIC),
                prob=1,
                rotate_range=np.pi,
                scale_range=(SCALE[0] - 1, SCALE[1] - 1),
                spatial_size=size_hw,
                mode=("bilinear", "nearest"),
                padding_mode="reflection",
            ),
        ]

    def compose(transforms: list[Any]) -> Any:
        return Compose(transforms).set_random_state(0)

    return make_work(
        lambda size_hw: compose(make_spatial(size_hw)),
        lambda size_hw: compose(make_spatial(size_hw) + intensity),
        lambda transform, image, labels: transform({"image": image, "labels": labels[None]}),
    )


def make_kornia() -> tuple[Work, Work]:
    """Make kornia's flip, affine and elastic transforms, applied in sequence; the elastic kernel is 63 pixels wide."""
    from kornia import augmentation as k

    def build(*more: Any) -> Any:
        return k.AugmentationSequential(
            k.RandomHorizontalFlip(p=0.5),
            k.RandomVerticalFlip(p=0.5),
            k.RandomAffine(degrees=ROTATE, scale=SCALE, padding_mode="reflection", p=1),
            k.RandomElasticTransform(alpha=(ELASTIC, ELASTIC), padding_mode="reflection", p=1),
            *more,
            data_keys=["input", "mask"],
        )

    intensity = (
        k.RandomContrast((1 - CONTRAST, 1 + CONTRAST), clip_output=False),
        k.RandomBrightness((1 - BRIGHTNESS, 1 + BRIGHTNESS), clip_output=False),
        k.RandomGamma(GAMMA),
        k.RandomGaussianBlur(7, (0.01, BLUR), p=1),
        k.RandomGaussianNoise(std=NOISE, p=1),
    )
    return make_work(
        lambda size_hw: build(),
        lambda size_hw: build(*intensity),
        lambda transform, image, labels: transform(image[None], labels[None, None].float()),
    )


LIBRARIES: dict[str, Callable[[], tuple[Work, Work]]] = {
    "septa": make_septa,
    "batchgeneratorsv2": make_batchgeneratorsv2,
    "monai": make_monai,
    "kornia": make_kornia,
}


def make_work(
    geometry: Callable[[tuple[int, int]], Any], everything: Callable[[tuple[int, int]], Any], call: Callable[..., Any]
) -> tuple[Work, Work]:
    """Make the timed functions of a library that transforms torch tensors; each transform is built once per size."""

    def cache(build: Callable[[tuple[int, int]], Any]) -> Work:
        built: dict[tuple[int, ...], Any] = {}

        def work(image_cyx: np.ndarray, labels_yx: np.ndarray, seed: int) -> Any:
            if labels_yx.shape not in built:
                built[labels_yx.shape] = build(labels_yx.shape)
            transform = built[labels_yx.shape]
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002 (these libraries draw from the global state)
            torch.manual_seed(seed)
            return call(transform, torch.from_numpy(image_cyx), torch.from_numpy(labels_yx))

        return work

    return cache(geometry), cache(everything)


def main() -> None:
    """Measure the installed libraries and print a table."""
    # The set-up keeps freed memory blocks, which speeds up every library.
    runtime.prepare()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width of the image, pixels")
    parser.add_argument("--draws", type=int, default=8, help="number of random draws to average over")
    parser.add_argument("--repeats", type=int, default=15, help="runs per draw; the fastest counts")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # The other libraries warn about their own internals.
    warnings.simplefilter("ignore")
    console = Console()
    drawing = draw_cells(arguments.size, arguments.size, seed=0)
    image_cyx = drawing.image_cyx.astype(np.float32)
    image_cyx = (image_cyx - image_cyx.min()) / (image_cyx.max() - image_cyx.min())
    title = f"{arguments.size} x {arguments.size} pixels, one channel, with labels, one core"
    table = Table("library", "geometry, ms", "ratio", "geometry and intensity, ms", "ratio", title=title)
    ours: list[float] = []
    for name, library in LIBRARIES.items():
        try:
            works = library()
        except ImportError as error:
            console.print(f"{name}: skipped ({error}). Run pip install {name}")
            continue
        times = [time_work(work, image_cyx, drawing.labels_yx, arguments.draws, arguments.repeats) for work in works]
        ours = ours or times
        cells = [f"{value:.1f}" for time_ms, own in zip(times, ours) for value in (time_ms, time_ms / own)]
        table.add_row(name, *cells)
    console.print(table)


def time_work(work: Work, image_cyx: np.ndarray, labels_yx: np.ndarray, draws: int, repeats: int) -> float:
    """Return milliseconds of processor time: the fastest run of each draw, averaged over draws.

    Processor time of all threads is used because other programs on the machine hardly change it.
    """
    work(image_cyx, labels_yx, 0)
    best = []
    for seed in range(draws):
        times = []
        for _ in range(repeats):
            start = time.process_time()
            work(image_cyx, labels_yx, seed)
            times.append(time.process_time() - start)
        best.append(min(times))
    return 1e3 * float(np.mean(best))


if __name__ == "__main__":
    main()
