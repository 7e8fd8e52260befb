"""The automatic recipe: settings chosen from the dataset's fingerprint and the machine, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from septa.data import Fingerprint, ImageFacts
from septa.labels import LabelMapping
from septa.nets import UNet
from septa.recipe import Recipe
from septa.runtime import Machine
from septa.tasks import TASKS

_UNEVEN = 0.35
_DARK = 0.25
"""Place of the median between the 0.5 and 99.5 percentiles, below which an image is objects on a dark ground."""
_COMMON = 0.1
_EPOCHS = 150
_MOST_WORKERS = 12
_LARGE, _SMALL, _SIDE = 48, 8, 128
"""Pixels of the median and of the small objects, and of an image, that a reduction must leave."""


@dataclass(frozen=True)
class Choice:
    """A recipe and the reason of each setting that was chosen, by its key ``section.name``."""

    recipe: Recipe
    reasons: dict[str, str]
    notes: tuple[str, ...] = ()
    """What was changed in a given recipe, and why, to be told."""


def choose(
    fingerprint: Fingerprint,
    facts: Sequence[ImageFacts],
    labels: LabelMapping,
    machine: Machine,
    base: Recipe,
    *,
    fixed: Collection[str] = (),
    processes: int = 1,
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
    fixed
        Keys ``section.name`` whose values in ``base`` are given: they stay, and what follows from them is chosen.
    processes
        Among which each batch is divided.
    """
    gpu = not machine.device.startswith("cpu")
    settings, reasons = base.model_dump(mode="json"), {}

    def settle(key: str, chosen: tuple[Any, str]) -> Any:
        section, name = key.split(".")
        if key not in fixed:
            settings[section][name], reasons[key] = chosen
        return settings[section][name]

    settle("data.encoding", (labels.kind, labels.describe()))
    settle("data.channels", (fingerprint.channels, f"the images have {fingerprint.channels}"))
    if base.net.pretrained is None:
        settle("data.normalization", _normalization(facts))
    else:
        settle("data.normalization", ("imagenet", "what published encoders were trained on"))
    if base.data.resize is not None:
        fingerprint = _resized(fingerprint, base.data.resize)
    objects = TASKS[labels.task if base.task == "auto" else base.task].finds_objects
    if objects:
        found_more = ("border", "found more nuclei in equal time")
        settle("instances.encoding", ("seam", "one output") if base.net.output == "sigmoid" else found_more)
        settle("instances.rim", _rim(fingerprint))
    reduction = settle("net.reduction", _reduction(fingerprint, base, objects))
    depth = settle("net.depth", _depth(fingerprint, reduction))
    width = settle("net.width", _width(machine, gpu))
    if labels.kind == "multilabel":
        overlap = "classes overlap, so each has its own sigmoid"
        settle("loss.cross_entropy", (0.0, overlap))
        settle("loss.bce", (1.0, overlap))
    elif settings["net"]["output"] == "sigmoid":
        single = "one output has a sigmoid"
        settle("loss.cross_entropy", (0.0, single))
        settle("loss.bce", (1.0, single))
    for key, chosen in _object_loss(settings["instances"]["encoding"] if objects else "").items():
        settle(key, chosen)
    entropy = settings["loss"]["cross_entropy"] + settings["loss"]["bce"]
    if not objects or settings["instances"]["encoding"] != "border":
        settle("loss.dice", _dice(fingerprint) if entropy else (1.0, "there is no cross entropy"))
    margin = _margin(base, depth)
    patch = settle("sampling.patch", _patch(fingerprint, depth, reduction, margin))
    batch, why_batch = _batch(patch, width, reduction, gpu, machine)
    batch = settle("training.batch", (max(1, batch // processes) * processes, why_batch))
    settle("training.steps", _steps(fingerprint, patch, batch, gpu))
    settle("training.amp", resolve_amp(settings["training"]["amp"], machine.device))
    settle("training.workers", choose_workers(machine))
    if settings["training"]["amp"] == "auto":
        settings["training"]["amp"] = resolve_amp("auto", machine.device)[0]
    return Choice(Recipe.parse(settings), reasons)


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


def _resized(fingerprint: Fingerprint, size: tuple[int, int]) -> Fingerprint:
    """The fingerprint of the images brought to one size."""
    factor = math.sqrt(math.prod(size) / math.prod(fingerprint.sizes[1]))
    small, median, large = (factor * diameter for diameter in fingerprint.diameter_percentiles)
    return replace(fingerprint, sizes=(size, size, size), diameter_percentiles=(small, median, large))


def _margin(base: Recipe, depth: int) -> int:
    """Pixels a side that a valid net takes off."""
    if base.net.padding == "same":
        return 0
    with torch.device("meta"):
        return UNet(1, 1, depth=depth, width=1, padding="valid", block=base.net.block, up=base.net.up).margin


def _reduction(fingerprint: Fingerprint, base: Recipe, objects: bool) -> tuple[int, str]:
    """The largest factor that leaves objects, what lies between them, and the images themselves, large enough."""
    if base.net.padding == "valid":
        return 1, "a net without padding works on the image itself"
    small, median, _ = fingerprint.diameter_percentiles
    side = min(fingerprint.sizes[1])
    factors = (2,) if objects else (2, 4)
    enough = [f for f in factors if median >= _LARGE * f and small >= _SMALL * f and side >= _SIDE * f]
    return max(enough, default=1), f"objects have {small:.0f} (5 %) and {median:.0f} (median) pixels"


def _rim(fingerprint: Fingerprint) -> tuple[int, str]:
    """A twelfth of an object, which leaves enough inside and can be seen."""
    median = fingerprint.diameter_percentiles[1]
    return int(np.clip(round(median / 12), 1, 8)), f"a twelfth of the median object ({median:.0f} pixels), at most 8"


def _object_loss(encoding: str) -> dict[str, tuple[float, str]]:
    """What makes the space between objects count."""
    if encoding == "seam":
        return {"loss.border_weight": (10.0, "the paper's, which makes the seams between objects count")}
    if encoding == "border":
        return {
            "loss.border_weight": (6.0, "fewer objects merge where what lies between them counts more"),
            "loss.border_sigma": (4.0, "the seams between objects are narrow"),
            "loss.dice": (1.0, "with the border weights it found the most nuclei"),
        }
    return {}


def _depth(fingerprint: Fingerprint, reduction: int) -> tuple[int, str]:
    """The usual 4, or what the images are large enough for."""
    side = min(fingerprint.sizes[1])
    depth = min(4, max(1, int(math.log2(max(side / reduction, 8) / 4))))
    with torch.device("meta"):
        field = UNet(1, 1, depth=depth, width=1, reduction=reduction).receptive_field
    return depth, f"sees {field} pixels; the images have {side}"


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


def _patch(fingerprint: Fingerprint, depth: int, reduction: int, margin: int) -> tuple[tuple[int, int], str]:
    multiple, most = reduction << depth, 256 * reduction
    height, width = fingerprint.sizes[1]
    sides = [max(2 * multiple, min(most, math.ceil(length / multiple) * multiple)) for length in (height, width)]
    reason = f"at most {most}, images are {height} x {width} (median)"
    if margin:
        reason = f"{reason}; {margin} more on each side, which the net takes off"
    return (sides[0] + 2 * margin, sides[1] + 2 * margin), reason


def _batch(patch: tuple[int, int], width: int, reduction: int, gpu: bool, machine: Machine) -> tuple[int, str]:
    pixels = patch[0] * patch[1] / reduction**2
    # Forward and backward keep about 30 float32 values for each channel of the first level.
    fits = int(machine.memory / 4 / (30 * 4 * width * pixels)) if not gpu else 64
    batch = max(1, min(round((16 if gpu else 2) * 256 * 256 / pixels), fits, 64))
    return batch, f"{batch * patch[0] * patch[1] / 1e6:.2f} megapixels a step"


def _steps(fingerprint: Fingerprint, patch: tuple[int, int], batch: int, gpu: bool) -> tuple[int, str]:
    height, width = fingerprint.sizes[1]
    patches = max(1.0, height * width / (patch[0] * patch[1]))
    most = 20000 if gpu else 16000
    steps = int(np.clip(round(_EPOCHS * fingerprint.images * patches / batch, -2), 1000, most))
    return steps, f"{fingerprint.images} images of about {patches:.1f} patches, at most {most} steps"


def _normalization(facts: Sequence[ImageFacts]) -> tuple[str, str]:
    spans = [max(high - low, 1e-9) for fact in facts for low, _, high in fact.percentiles if not fact.constant]
    spread = float(np.std(np.log(spans))) if spans else 0.0
    if spread > _UNEVEN and _dark(facts):
        return "asinh", f"dim and bright objects on a dark ground, and uneven contrast (log spread {spread:.2f})"
    if spread > _UNEVEN:
        return "image", f"the contrast differs between images (log spread {spread:.2f})"
    return "dataset", f"the images have much the same contrast (log spread {spread:.2f})"


def _dark(facts: Sequence[ImageFacts]) -> bool:
    """Whether in most images half of the pixels lie in the darkest part of the range, as in fluorescence."""
    parts = [
        (middle - low) / (high - low)
        for fact in facts
        for low, middle, high in fact.percentiles
        if not fact.constant and high > low
    ]
    return bool(parts) and float(np.median(parts)) < _DARK


def choose_workers(machine: Machine) -> tuple[int, str]:
    """Threads that prepare samples, and why."""
    if not machine.device.startswith("cpu"):
        return max(1, min(machine.cores - 1, _MOST_WORKERS)), f"{machine.cores} cores feed the GPU"
    return max(1, min(machine.cores // 8, _MOST_WORKERS)), "the net uses the other cores"
