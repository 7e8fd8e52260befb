"""The automatic recipe: settings chosen from the dataset's fingerprint and the machine, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from septa.data.fingerprint import Facts, Fingerprint
from septa.data.labels import LabelMapping
from septa.nets import UNet
from septa.recipe import Recipe
from septa.runtime import Machine

_UNEVEN = 0.35
_COMMON = 0.1
_EPOCHS = 150
_DEPTHS = (4, 5)


@dataclass(frozen=True)
class Choice:
    """A recipe and the reason of each setting that was chosen, by its key ``section.name``."""

    recipe: Recipe
    reasons: dict[str, str]


def choose(
    fingerprint: Fingerprint, facts: Sequence[Facts], labels: LabelMapping, machine: Machine, base: Recipe
) -> Choice:
    """Fit ``base`` to a dataset and a machine.

    Parameters
    ----------
    fingerprint, facts
        Of the dataset and of its images.
    labels
        How classes stand for label values.
    machine
        Cores, memory and device.
    base
        Settings that are kept where nothing is chosen here.
    """
    gpu = not machine.device.startswith("cpu")
    depth, why_depth = _depth(fingerprint)
    patch, why_patch = _patch(fingerprint, depth)
    width, why_width = _width(machine, gpu)
    batch, why_batch = _batch(patch, width, gpu, machine)
    steps, why_steps = _steps(fingerprint, patch, batch, gpu)
    values: dict[str, tuple[Any, str]] = {
        "data.encoding": (labels.kind, labels.describe()),
        "data.channels": (fingerprint.channels, f"the images have {fingerprint.channels}"),
        "data.normalization": _normalization(facts),
        "net.depth": (depth, why_depth),
        "net.width": (width, why_width),
        "loss.dice": _dice(fingerprint),
        "sampling.patch": (patch, why_patch),
        "training.batch": (batch, why_batch),
        "training.steps": (steps, why_steps),
        "training.amp": resolve_amp(base.training.amp, machine.device),
        "training.workers": _workers(machine, gpu),
    }
    if labels.kind == "multilabel":
        overlap = "classes overlap, so each has its own sigmoid"
        values |= {"loss.cross_entropy": (0.0, overlap), "loss.bce": (1.0, overlap)}
    settings = base.model_dump(mode="json")
    for key, (value, _) in values.items():
        section, name = key.split(".")
        settings[section][name] = value
    return Choice(Recipe.parse(settings), {key: why for key, (_, why) in values.items()})


def resolve_amp(amp: str, device: str) -> tuple[str, str]:
    """The precision that ``auto`` stands for on a device, and why; others stay."""
    if amp != "auto":
        return amp, "as given"
    if device.startswith("cuda"):
        has = torch.cuda.is_bf16_supported()
        return ("bf16", "the GPU computes bf16") if has else ("fp16", "the GPU has no bf16")
    if device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "bf16", "the CPU has bf16 instructions: about twice as fast"
    return "off", f"{device} has no fast bf16"


def _depth(fingerprint: Fingerprint) -> tuple[int, str]:
    """The least depth that sees an object with its surroundings, if the images are large enough for it."""
    side, diameter = min(fingerprint.sizes[1]), fingerprint.diameter_percentiles[1]
    wanted = next((depth for depth in _DEPTHS if _field(depth) >= 2 * diameter), _DEPTHS[-1])
    fits = max(1, int(math.log2(max(side, 8) / 4)))
    depth = min(wanted, fits)
    return depth, f"sees {_field(depth)} pixels: objects have {diameter:.0f} (median), images {side}"


def _field(depth: int) -> int:
    with torch.device("meta"):
        return UNet(1, 1, depth=depth, width=1).receptive_field


def _width(machine: Machine, gpu: bool) -> tuple[int, str]:
    if gpu:
        return 32, f"a GPU ({machine.device})"
    if machine.cores >= 16:
        return 32, f"{machine.cores} cores"
    return 16, f"{machine.cores} cores: many steps with a narrow net beat few with a wide one"


def _dice(fingerprint: Fingerprint) -> tuple[float, str]:
    rarest = min((share for share in fingerprint.class_shares if share > 0), default=0.0)
    if rarest >= _COMMON:
        return 0.0, f"no class is rare (least share {rarest:.0%}): cross entropy alone keeps probabilities true"
    return 0.5, f"a class is rare (share {rarest:.1%})"


def _patch(fingerprint: Fingerprint, depth: int) -> tuple[tuple[int, int], str]:
    multiple, most = 1 << depth, 384 if depth == _DEPTHS[-1] else 256
    height, width = fingerprint.sizes[1]
    sides = [max(2 * multiple, min(most, math.ceil(length / multiple) * multiple)) for length in (height, width)]
    return (sides[0], sides[1]), f"at most {most}, images are {height} x {width} (median)"


def _batch(patch: tuple[int, int], width: int, gpu: bool, machine: Machine) -> tuple[int, str]:
    pixels = (16 if gpu else 4) * 256 * 256
    # Forward and backward keep about 30 float32 values for each channel of the first level.
    fits = int(machine.memory / 4 / (30 * 4 * width * patch[0] * patch[1])) if not gpu else 64
    batch = max(1, min(round(pixels / (patch[0] * patch[1])), fits, 64))
    return batch, f"{batch * patch[0] * patch[1] / 1e6:.2f} megapixels a step"


def _steps(fingerprint: Fingerprint, patch: tuple[int, int], batch: int, gpu: bool) -> tuple[int, str]:
    height, width = fingerprint.sizes[1]
    patches = max(1.0, height * width / (patch[0] * patch[1]))
    most = 20000 if gpu else 8000
    steps = int(np.clip(round(_EPOCHS * fingerprint.images * patches / batch, -2), 1000, most))
    return steps, f"{fingerprint.images} images of about {patches:.1f} patches, at most {most} steps"


def _normalization(facts: Sequence[Facts]) -> tuple[str, str]:
    spans = [max(high - low, 1e-9) for fact in facts for low, _, high in fact.percentiles if not fact.constant]
    spread = float(np.std(np.log(spans))) if spans else 0.0
    if spread > _UNEVEN:
        return "image", f"the contrast differs between images (log spread {spread:.2f})"
    return "dataset", f"the images have much the same contrast (log spread {spread:.2f})"


def _workers(machine: Machine, gpu: bool) -> tuple[int, str]:
    workers = max(1, min(machine.cores - 1, 12)) if gpu else 1
    return workers, "the net uses the other cores" if not gpu else f"{machine.cores} cores feed the GPU"
