"""The model that a training starts from: the settings, weights and facts that the new model takes from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from septa.data import ImageFacts, KnownImages, Pair
from septa.errors import ModelError, RecipeError, format_count
from septa.model import Model
from septa.nets import UNet, copy_weights, list_members
from septa.notices import Notices
from septa.recipe import Recipe
from septa.tasks import Decoding, Task

_FREE = ("net.output", "net.dropout")
"""Settings of the net that may differ from those of the parent: no weight but those of the outputs depends on them."""
# On five images of the parent's source, 100 steps with fixed statistics from the first one scored 0.05 lower in mean
# accuracy than with those of the batches, in both draws that were tried; so the automatic share is kept.
SCHEDULE = {
    "training.lr": (5e-4, "the weights are good already"),
    "training.warmup": (0.02, "the weights are good already"),
}
"""Settings of a training that starts from trained weights, each with the reason."""
_TAKEN = ("data.normalization", "data.invert_light", "data.resize")
_TAKEN_FOR_OBJECTS = ("data.largest",)
_MOST_COMPARED = 24
_PROVENANCE = ("train", "validation", "parts", "sketches", "parent")
"""Parts of the parent's provenance from which its training images are recognised."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A model that a training starts from.

    Attributes
    ----------
    start
        Setting ``training.start`` that names it: a path or the name of a shipped model.
    model
        The model.
    sha256
        SHA-256 (hex) of its file.
    """

    start: str
    model: Model
    sha256: str

    @property
    def name(self) -> str:
        """Name without folders, for messages and the provenance."""
        return Path(self.start).name


def load_parent(start: str, file: Path | None = None) -> Parent:
    """Load the model that a training starts from.

    Parameters
    ----------
    start
        Setting ``training.start``: a path or the name of a shipped model.
    file
        File of the model, if it is known; else it is found by ``start``.

    Raises
    ------
    ModelError
        There is no such model, or it was quantised.
    """
    data = Model.read(start if file is None else file)
    model = Model.from_bytes(data, start)
    if model.int8 is not None:
        problem = "the model was quantised to 8-bit integers, which cannot be trained further"
        raise ModelError(start, problem, "Give the model that it was made from")
    return Parent(start=start, model=model, sha256=hashlib.sha256(data).hexdigest())


# Settings ------------------------------------------------------------------------------------------------------------


def inherit_settings(
    recipe: Recipe, parent: Parent, *, given: Mapping[str, str], objects: bool, diameters: Sequence[float]
) -> tuple[Recipe, dict[str, str]]:
    """Take the settings from the parent without which its weights would be worth less.

    These are the net, the normalisation and size of images, and, if the outputs mean objects in both models, the
    encoding of objects.

    Parameters
    ----------
    recipe
        Recipe of the new training.
    parent
        Model that the training starts from.
    given
        Keys ``section.key`` that the user gave a value, each with its assignment, which is empty for those of a recipe
        file. They are kept where the weights allow it.
    objects
        True if the new task finds objects.
    diameters
        5, 50 and 95 percentiles of the diameters of the labelled objects, pixels; zeros if there are none.

    Returns
    -------
    Recipe
        Recipe with these settings.
    reasons
        Reason of each of them, by its key.

    Raises
    ------
    RecipeError
        A given setting contradicts the weights.
    """
    own = parent.model.recipe
    same = parent.model.task.finds_objects == objects
    values, wanted = recipe.model_dump(mode="json"), own.model_dump(mode="json")
    wanted["net"]["pretrained"] = None
    keys = [f"net.{key}" for key in wanted["net"] if same or key != "output"]
    keys += [*_TAKEN, *(_TAKEN_FOR_OBJECTS if same and objects else ())]
    keys += [f"instances.{key}" for key in wanted["instances"] if same and objects]
    reasons: dict[str, str] = {}
    for key in keys:
        section, name = key.split(".")
        new, old = values[section][name], wanted[section][name]
        if key == "data.invert_light" and values["data"]["normalization"] != wanted["data"]["normalization"]:
            continue  # a given normalisation may not invert images
        if key not in given:
            values[section][name] = old
            reasons[key] = f"as in {parent.name}"
            if key == "instances.least_share" and diameters[0] ** 2 < old * diameters[2] ** 2:
                values[section][name], reasons[key] = 0.0, "the labelled objects differ as much in size"
        elif section == "net" and key not in _FREE and new != old:
            _refuse(key, new, old, given[key], parent)
    return Recipe.parse(values), reasons


def _refuse(key: str, new: object, old: object, assignment: str, parent: Parent) -> None:
    here = f"--set {assignment}" if assignment else "recipe"
    if key == "net.pretrained":
        problem = f"the weights are those of {parent.name}"
    else:
        problem = f"{key} is {old} in {parent.name}, whose weights the training starts from, not {new}"
    remedy = "Leave it out" if assignment else f"Remove {key} from the recipe"
    raise RecipeError(here, problem, f"{remedy}, or give --from scratch")


# Weights -------------------------------------------------------------------------------------------------------------


def match_outputs(parent: Parent, task: Task) -> tuple[int | None, ...]:
    """Return for each output of a task the output of the parent that means the same; None if there is none."""
    known = {meaning: index for index, meaning in enumerate(parent.model.task.output_meanings)}
    return tuple(known.get(meaning) for meaning in task.output_meanings)


def inherit_weights(parent: Parent, net: UNet, task: Task) -> None:
    """Copy the weights of the parent, of several nets the first, into a new net; see `septa.nets.copy_weights`."""
    copy_weights(list_members(parent.model.net)[0], net, match_outputs(parent, task))


def inherit_decoding(parent: Parent, task: Task, own: Decoding) -> Decoding:
    """Return the thresholds of the parent if its outputs for objects are kept, with the sizes of the new objects.

    Parameters
    ----------
    parent
        Model that the training starts from.
    task
        New task.
    own
        Thresholds that a training from scratch would begin with.
    """
    outputs = match_outputs(parent, task)
    if not task.has_thresholds or outputs[0] is None:
        return own
    tuned = parent.model.decoding
    return Decoding.from_json({**own.to_json(), "foreground": tuned.foreground, "seed": tuned.seed})


# Facts ---------------------------------------------------------------------------------------------------------------


def collect_facts(parent: Parent, task: Task, seen: Sequence[str]) -> dict[str, Any]:
    """Return the facts of the parent for the provenance of the new model, as JSON values.

    They have a ``reach`` if the thresholds for objects are inherited, see `inherit_decoding`.

    Parameters
    ----------
    parent
        Model that the training starts from.
    task
        New task.
    seen
        Names of the validation images that the parent was trained on.
    """
    provenance = parent.model.provenance
    outputs = match_outputs(parent, task)
    return {
        "name": parent.name,
        "sha256": parent.sha256,
        "weights_sha256": parent.model.weights_sha256,
        "outputs_kept": sum(index is not None for index in outputs),
        "outputs": len(outputs),
        **({"reach": parent.model.decoding.reach} if task.finds_objects and outputs[0] is not None else {}),
        "saw_validation": list(seen),
        **{key: provenance[key] for key in _PROVENANCE if key in provenance},
    }


def find_seen(parent: Parent, pairs: Sequence[Pair], facts: Mapping[str, ImageFacts]) -> list[str]:
    """Return the names of the pairs whose images, or changed copies of them, the parent was trained on.

    Equal images are found among all pairs, changed copies among 24 of them, evenly chosen, since this takes longer.

    Parameters
    ----------
    parent
        Model that the training starts from.
    pairs
        Pairs, which may be parts of images.
    facts
        Facts of each image, by the name of the pair.
    """
    model = parent.model
    known = KnownImages(model.provenance, channels=model.channels, every=False, notices=Notices())
    pairs = [pair for pair in pairs if pair.name in facts]
    compared = {pair.name for pair in pairs[:: -(-len(pairs) // _MOST_COMPARED) or 1]}
    return [pair.name for pair in pairs if known.knows(facts[pair.name], pair.window, copies=pair.name in compared)]


def describe_parent(parent: Parent, task: Task, channels: int) -> str:
    """Return a printable clause about what the new model takes from the parent."""
    own = parent.model.recipe.net
    one = "the net" if parent.model.members == 1 else f"the first of its {parent.model.members} nets"
    parts = [f"{one} of depth {own.depth} and width {own.width} and its weights are kept"]
    if channels != parent.model.channels:
        counts = f"from {format_count(parent.model.channels, 'channel')} to {channels}"
        parts.append(f"its first convolution is adapted {counts}")
    outputs = match_outputs(parent, task)
    new = sum(index is None for index in outputs)
    if new:
        parts.append("its outputs are new" if new == len(outputs) else f"{new} of {len(outputs)} outputs are new")
        if task.finds_objects != parent.model.task.finds_objects and parent.model.task.finds_objects:
            parts.append("since the labels are classes of pixels; --task instances keeps its outputs")
    return f"{parent.name} (sha256 {parent.sha256[:12]}): {', '.join(parts)}"
