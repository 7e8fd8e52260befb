"""The automatic recipe: settings chosen from the fingerprint of the dataset and the machine, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from septa.data import CORE, ChannelValues, Fingerprint, ImageFacts, explain_walls, find_range
from septa.errors import InputError, RecipeError, format_count, shorten_list
from septa.images import find_position
from septa.labels import LabelMapping, choose_reduction
from septa.nets import UNet
from septa.recipe import Recipe
from septa.runtime import Machine, has_fast_bf16
from septa.tasks import TASKS
from septa.training.parent import Parent

_UNEVEN_CONTRAST = 0.35
"""Standard deviation of the logarithm of the images' contrasts above which contrast is uneven."""
_DARK = 0.25
"""Position of the background's median in the range of the image below which the background is dark."""
_COMMON_SHARE = 0.1
"""Share of the pixels from which on a class is not rare."""
_FREEZE = (0.5, "in the second half, batch norm computes what it computes in prediction")
_SURELY_DARK, _SURELY_LIGHT = 0.3, 0.6
"""Positions of the median between the 1 and the 99 percentile below and above which the background is one or the other.
Fluorescence has 0 to 0.25, stained nuclei have 0.65 to 0.95, and dense tissue has 0.3 to 0.8.
"""
_BALANCE = 0.5
"""Value of ``sampling.balance`` if some images have a light background and others a dark one."""
_FEW_BACKGROUNDS = 0.03
"""Share of the images from which on those with a light (or a dark) background count."""
_WHOLE_CORES = 0.99
"""Share of the objects that must keep their inside in one piece for wide rims to be chosen."""
_EPOCHS = 150
_MOST_WORKERS = 12
_REDUCED_MEDIAN = 48
"""Diameter in pixels that the median object must keep when the net downsamples its input."""
_REDUCED_SMALL = 8
"""The same for a small object (5th percentile of the diameters)."""
_REDUCED_SIDE = 128
"""The same for the shorter side of the median image."""


@dataclass(frozen=True)
class RecipeChoice:
    """A recipe and the reasons of its settings.

    Attributes
    ----------
    recipe
        Complete recipe.
    reasons
        Reason of each setting that was chosen, by its key ``section.key``.
    notes
        Printable lines about the start of the training, and about settings of a given recipe that were changed.
    parent
        Model that the training starts from; None for new weights.
    seen
        Names of the validation images that this model was trained on.
    """

    recipe: Recipe
    reasons: dict[str, str]
    notes: tuple[str, ...] = ()
    parent: Parent | None = None
    seen: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Printable lines, without ``warning: ``, about scores that will be too high."""
        if self.parent is None or not self.seen:
            return ()
        images = f"{format_count(len(self.seen), 'validation image')} ({shorten_list(self.seen)})"
        problem = f"{self.parent.name} was trained on {images}, so the scores will be too high"
        return (str(InputError("training.start", problem, "Give --from scratch for scores of unknown images")),)


def choose_recipe(
    fingerprint: Fingerprint,
    facts: Sequence[ImageFacts],
    labels: LabelMapping,
    machine: Machine,
    base: Recipe,
    *,
    fixed: Collection[str] = (),
    processes: int = 1,
) -> RecipeChoice:
    """Choose a recipe for a dataset and a machine.

    Parameters
    ----------
    fingerprint, facts
        Facts of the dataset and of each of its images.
    labels
        Meaning of the label values.
    machine
        Cores, memory and device.
    base
        Recipe whose settings are kept where none is chosen here.
    fixed
        Keys ``section.key`` whose values in ``base`` the user gave: they are kept, and the others are chosen to suit
        them.
    processes
        Number of processes that share each batch.
    """
    gpu = not machine.device.startswith("cpu")
    settings = base.model_dump(mode="json")
    reasons: dict[str, str] = {}

    def settle(key: str, chosen: tuple[Any, str]) -> Any:
        """Set ``key`` to the chosen value, unless it is fixed, and return its value."""
        section, name = key.split(".")
        if key not in fixed:
            settings[section][name], reasons[key] = chosen
        return settings[section][name]

    settle("data.encoding", (labels.kind, labels.describe()))
    settle("data.channels", (fingerprint.channels, f"the images have {format_count(fingerprint.channels, 'channel')}"))
    both = _describe_backgrounds(facts)
    kind = settle("data.normalization", _choose_normalization(facts, base, both))
    for key, chosen in _choose_for_mixture(both, kind).items():
        settle(key, chosen)
    objects = TASKS[labels.task if base.task == "auto" else base.task].finds_objects
    fingerprint = fit_fingerprint(fingerprint, base, objects)
    for key, chosen in _choose_target(fingerprint, base, labels, objects).items():
        settle(key, chosen)
    reduction = settle("net.reduction", _choose_reduction(fingerprint, base, objects))
    depth = settle("net.depth", _choose_depth(fingerprint, reduction))
    width = settle("net.width", _choose_width(machine, gpu))
    if labels.kind == "multilabel":
        overlap = "classes overlap, so each has a sigmoid of its own"
        settle("loss.cross_entropy", (0.0, overlap))
        settle("loss.bce", (1.0, overlap))
    elif settings["net"]["output"] == "sigmoid":
        single = "the net has a single sigmoid output"
        settle("loss.cross_entropy", (0.0, single))
        settle("loss.bce", (1.0, single))
    for key, chosen in _choose_object_loss(settings["instances"]["encoding"] if objects else "").items():
        settle(key, chosen)
    entropy = settings["loss"]["cross_entropy"] + settings["loss"]["bce"]
    if not objects or settings["instances"]["encoding"] != "border":
        settle("loss.dice", _choose_dice(fingerprint) if entropy else (1.0, "the loss has no cross entropy"))
    margin = _find_margin(base, depth)
    patch = settle("sampling.patch", _choose_patch(fingerprint, depth, reduction, margin))
    batch, reason = _choose_batch(patch, width, reduction, gpu, machine)
    batch = settle("training.batch", (max(1, batch // processes) * processes, reason))
    settle("training.steps", _choose_steps(fingerprint, patch, batch, gpu))
    if settings["net"]["norm"] == "batch":
        settle("training.freeze_statistics", _FREEZE)
    settle("training.amp", resolve_amp(settings["training"]["amp"], machine.device))
    settle("training.workers", choose_workers(machine))
    settings["training"]["amp"] = resolve_amp(settings["training"]["amp"], machine.device)[0]
    return RecipeChoice(Recipe.parse(settings), reasons)


def resolve_amp(amp: str, device: str) -> tuple[str, str]:
    """Return the precision that ``auto`` means on a device, with the reason; another ``amp`` is returned unchanged."""
    if amp != "auto":
        return amp, "as given"
    if device.startswith("cuda"):
        if has_fast_bf16(device):
            return "bf16", "the GPU has bf16 instructions"
        return "fp16", "the GPU has no bf16 instructions"
    if device == "cpu" and has_fast_bf16():
        return "bf16", "the CPU has bf16 instructions, which are about twice as fast"
    return "off", f"the device {device} has no fast bf16 instructions"


def fit_fingerprint(fingerprint: Fingerprint, base: Recipe, objects: bool) -> Fingerprint:
    """Return the fingerprint of the images in the sizes at which they are trained on."""
    if base.data.resize is not None:
        return _resize_fingerprint(fingerprint, base.data.resize)
    if base.data.largest is None:
        return fingerprint
    if not objects:
        problem = "data.largest needs objects, but the labels are classes"
        raise RecipeError("recipe", problem, "Leave it out, or give --task instances")
    factors = [choose_reduction(each, base.data.largest) for each in fingerprint.diameter_percentiles]
    small, median, large = sorted(np.divide(fingerprint.diameter_percentiles, factors).tolist())
    least, middle, most = ((height // factors[1], width // factors[1]) for height, width in fingerprint.sizes)
    return replace(fingerprint, sizes=(least, middle, most), diameter_percentiles=(small, median, large))


def _resize_fingerprint(fingerprint: Fingerprint, size: tuple[int, int]) -> Fingerprint:
    """Return the fingerprint of the images after resizing to one size."""
    factor = math.sqrt(math.prod(size) / math.prod(fingerprint.sizes[1]))
    small, median, large = (factor * diameter for diameter in fingerprint.diameter_percentiles)
    return replace(fingerprint, sizes=(size, size, size), diameter_percentiles=(small, median, large))


def _find_margin(base: Recipe, depth: int) -> int:
    """Return the number of pixels that a valid net removes at each side; 0 for a padded net."""
    if base.net.padding == "same":
        return 0
    with torch.device("meta"):
        net = base.net
        layers = {"block": net.block, "up": net.up, "head_kernel": net.head_kernel}
        return UNet(1, 1, depth=depth, width=1, padding="valid", **layers).margin


def _choose_reduction(fingerprint: Fingerprint, base: Recipe, objects: bool) -> tuple[int, str]:
    """Choose the largest factor that leaves objects, the gaps between them, and images large enough."""
    if base.net.padding == "valid":
        return 1, "a net without padding does not downsample its input"
    small, median, _ = fingerprint.diameter_percentiles
    side = min(fingerprint.sizes[1])
    factors = (2,) if objects else (2, 4)
    possible = [
        factor
        for factor in factors
        if median >= _REDUCED_MEDIAN * factor and small >= _REDUCED_SMALL * factor and side >= _REDUCED_SIDE * factor
    ]
    sizes = f"{small:.0f} (5th percentile) and {median:.0f} pixels (median)"
    return max(possible, default=1), f"largest factor for object diameters of {sizes}"


def _choose_target(
    fingerprint: Fingerprint, base: Recipe, labels: LabelMapping, objects: bool
) -> dict[str, tuple[Any, str]]:
    """Choose what objects are encoded to, or recognise that classes are cell interiors and their walls."""
    if objects:
        return {
            "instances.encoding": _choose_encoding(base),
            "instances.rim": _choose_rim(fingerprint),
            **_choose_rim_share(fingerprint, base),
        }
    walls = fingerprint.walls
    if walls is None or walls.wall_class != 0:
        return {}
    return {"semantic.walls": (True, explain_walls(walls, labels.class_names))}


def _choose_encoding(base: Recipe) -> tuple[str, str]:
    if base.net.output == "sigmoid":
        return "seam", "the only encoding for a single output"
    return "border", "this encoding found the most nuclei in equal time"


def _choose_rim(fingerprint: Fingerprint) -> tuple[int, str]:
    """Choose a width that leaves enough of the inside, and that the net can still see."""
    median = fingerprint.diameter_percentiles[1]
    rim = int(np.clip(round(median / 12), 1, 8))
    return rim, f"1/12 of the median object diameter ({median:.0f} pixels), at most 8"


def _choose_rim_share(fingerprint: Fingerprint, base: Recipe) -> dict[str, tuple[float, str]]:
    """Choose wide rims where they cut few objects in pieces."""
    whole = fingerprint.whole_cores
    if base.net.output == "sigmoid" or whole is None or whole < _WHOLE_CORES:
        return {}
    reason = f"keeps the insides of touching objects apart; {100 * whole:.1f} % of the objects keep theirs in one piece"
    return {"instances.rim_share": (CORE, reason)}


def _choose_object_loss(encoding: str) -> dict[str, tuple[float, str]]:
    """Choose the loss settings that give weight to the gaps between objects; none for some encodings."""
    if encoding == "seam":
        return {"loss.border_weight": (10.0, "as in the paper, so that the seams between objects have weight")}
    if encoding == "border":
        return {
            "loss.border_weight": (6.0, "fewer objects merge if the gaps between them have more weight"),
            "loss.border_sigma": (4.0, "the gaps between objects are narrow"),
            "loss.dice": (1.0, "Dice and border weights together found the most nuclei"),
        }
    return {}


def _choose_depth(fingerprint: Fingerprint, reduction: int) -> tuple[int, str]:
    """Choose the usual 4, or less for small images."""
    side = min(fingerprint.sizes[1])
    depth = min(4, max(1, int(math.log2(max(side / reduction, 8) / 4))))
    with torch.device("meta"):
        field = UNet(1, 1, depth=depth, width=1, reduction=reduction).receptive_field
    return depth, f"the receptive field is {field} pixels; the shorter side of the images has {side}"


def _choose_width(machine: Machine, gpu: bool) -> tuple[int, str]:
    if gpu:
        return 32, f"the device is a GPU ({machine.device})"
    if machine.cores >= 16:
        return 32, f"the CPU has {machine.cores} cores"
    cores = format_count(machine.cores, "core")
    return 16, f"the CPU has {cores}: many steps of a narrow net learn more than few of a wide one"


def _choose_dice(fingerprint: Fingerprint) -> tuple[float, str]:
    rarest = min((share for share in fingerprint.class_shares if share > 0), default=0.0)
    if rarest >= _COMMON_SHARE:
        common = f"no class is rare (the smallest has {rarest:.0%} of the pixels)"
        return 0.0, f"{common}: cross entropy alone keeps probabilities calibrated"
    return 0.5, f"a class is rare ({rarest:.1%} of the pixels)"


def _choose_patch(fingerprint: Fingerprint, depth: int, reduction: int, margin: int) -> tuple[tuple[int, int], str]:
    multiple = reduction << depth
    most = 256 * reduction
    height, width = fingerprint.sizes[1]
    sides = [max(2 * multiple, min(most, math.ceil(length / multiple) * multiple)) for length in (height, width)]
    reason = f"at most {most} pixels per side; the median image has {height} x {width}"
    if margin:
        reason = f"{reason}; and {margin} more at each side, which the net removes"
    return (sides[0] + 2 * margin, sides[1] + 2 * margin), reason


def _choose_batch(patch: tuple[int, int], width: int, reduction: int, gpu: bool, machine: Machine) -> tuple[int, str]:
    pixels = patch[0] * patch[1] / reduction**2
    # The forward and backward passes keep about 30 float32 values per pixel and channel of the first level.
    fits = int(machine.memory / 4 / (30 * 4 * width * pixels)) if not gpu else 64
    batch = max(1, min(round((16 if gpu else 2) * 256 * 256 / pixels), fits, 64))
    return batch, f"{batch * patch[0] * patch[1] / 1e6:.2f} megapixels per step"


def _choose_steps(fingerprint: Fingerprint, patch: tuple[int, int], batch: int, gpu: bool) -> tuple[int, str]:
    height, width = fingerprint.sizes[1]
    patches = max(1.0, height * width / (patch[0] * patch[1]))
    most = 20000 if gpu else 16000
    steps = int(np.clip(round(_EPOCHS * fingerprint.images * patches / batch, -2), 1000, most))
    images = format_count(fingerprint.images, "image")
    return steps, f"{_EPOCHS} epochs of {images} with about {patches:.1f} patches each; 1000 to {most} steps"


def _choose_for_mixture(both: str, normalization: str) -> dict[str, tuple[Any, str]]:
    """Choose what a dataset needs that mixes backgrounds; ``both`` is the line of `_describe_backgrounds`."""
    if not both:
        return {}
    chosen: dict[str, tuple[Any, str]] = {
        "sampling.balance": (_BALANCE, f"{both}, so those of the rarer style are drawn oftener")
    }
    if normalization in ("image", "asinh"):
        chosen["data.invert_light"] = (True, both)
    return chosen


def _describe_backgrounds(facts: Sequence[ImageFacts]) -> str:
    """Return a printable line if some images have a light background and others a dark one; else an empty string."""
    shown = [item for item in facts if any(own.object_pixels for own in item.values)]
    positions = [item.value_facts.median_position for item in shown]
    dark, light = sum(at < _SURELY_DARK for at in positions), sum(at > _SURELY_LIGHT for at in positions)
    if min(dark, light) < max(1, _FEW_BACKGROUNDS * len(shown)):
        return ""
    return f"of {len(shown)} images, {light} have a light background, and {dark} a dark one"


def _choose_normalization(facts: Sequence[ImageFacts], base: Recipe, both: str) -> tuple[str, str]:
    """Choose by the contrast of each channel in the images that hold objects; an empty image shows only noise.

    ``both`` is the line of `_describe_backgrounds`: if it is not empty, images with a light background are inverted.
    """
    if base.net.pretrained is not None:
        return "imagenet", "published encoders were trained with it"
    facts = [item for item in facts if any(own.object_pixels for own in item.values)] or facts
    channels = max(item.channels for item in facts)
    # A grey image counts in each channel, as its single channel is repeated.
    spread = max(_measure_spread([item.values[k % item.channels] for item in facts]) for k in range(channels))
    if spread > _UNEVEN_CONTRAST and _is_dark(facts, invert_light=bool(both)):
        objects = "dim and bright objects on dark background"
        return "asinh", f"{objects}, and contrast varies between images (log spread {spread:.2f})"
    if spread > _UNEVEN_CONTRAST:
        return "image", f"contrast varies between images (log spread {spread:.2f})"
    if both:
        return "image", both
    return "dataset", f"all images have similar contrast (log spread {spread:.2f})"


def _measure_spread(channel: Sequence[ChannelValues]) -> float:
    """Return the standard deviation of the logarithm of one channel's contrasts."""
    spans = [high - low for low, high in (find_range([item]) for item in channel) if high > low]
    return float(np.std(np.log(spans))) if spans else 0.0


def _is_dark(facts: Sequence[ImageFacts], *, invert_light: bool) -> bool:
    """Return True if objects are brighter than a background in the darkest part of the range, as in fluorescence.

    With ``invert_light``, that is asked of the inverse of an image with a light background.
    """
    dark = []
    for item in facts:
        for own in item.values:
            low, high = find_range([own])
            if not (high > low and own.objects.size and own.background.size):
                continue
            background, objects = (find_position(float(np.median(v)), low, high) for v in (own.background, own.objects))
            if invert_light and item.value_facts.median_position > 0.5:
                background, objects = 1 - background, 1 - objects
            dark.append(background < min(_DARK, objects))
    return bool(dark) and float(np.mean(dark)) > 0.5


def choose_workers(machine: Machine) -> tuple[int, str]:
    """Choose the number of threads that prepare samples, with the reason."""
    if not machine.device.startswith("cpu"):
        workers = max(1, min(machine.cores - 1, _MOST_WORKERS))
        return workers, f"one less than the {machine.cores} cores, at most {_MOST_WORKERS}, to feed the GPU"
    return max(1, min(machine.cores // 8, _MOST_WORKERS)), "the net uses the other cores of the CPU"
