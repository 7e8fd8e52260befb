"""The choice of the model that a training starts from: the given one, or the shipped one that fits the images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
import torch.distributed as dist

from septa.data import DatasetCheck, Examples, ImageFacts, Pair, combine_facts
from septa.errors import format_count
from septa.model import Model, PredictionOptions, build_net
from septa.pretrained import list_shipped
from septa.recipe import Recipe
from septa.tasks import TASKS, make_task
from septa.training.normalization import choose_normalization, inherit_normalization
from septa.training.parent import Parent, find_seen, inherit_weights, load_parent

AUTO, SCRATCH = "auto", "scratch"
LEAST_SCORE = 0.1
"""Mean accuracy of objects from which on a training starts from a shipped model. A new net finds nothing; a model of
other objects scores about 0.02.
"""
_LEAST_UNSEEN = 5
"""Number of validation images that a model must not have been trained on, if it has been trained on others."""
_MOST_IMAGES = 8
_MOST_SIDE = 1024
"""Images that are scored, and pixels of each side of them."""
_MOST_SHARE = 0.05
"""Share of the minutes that the scores may take."""


@dataclass(frozen=True)
class Start:
    """The start of a training.

    Attributes
    ----------
    parent
        Model whose weights it starts from; None for new weights.
    reason
        Reason of ``training.start``; empty if it is given.
    """

    parent: Parent | None = None
    reason: str = ""


def choose_start(recipe: Recipe, check: DatasetCheck, device: str, *, automatic: bool) -> Start:
    """Choose the model that a training starts from.

    Parameters
    ----------
    recipe
        Recipe with the settings that the user gave.
    check
        Result of a dataset check without errors.
    device
        Name of the device.
    automatic
        True if ``auto`` may mean a shipped model.

    Raises
    ------
    ModelError
        The model that is named does not exist or cannot be trained further.
    """
    start = recipe.training.start
    if start not in (AUTO, SCRATCH):
        return Start(load_parent(start))
    if start == SCRATCH or not automatic:
        return Start()
    assert check.mapping is not None
    task = TASKS[check.mapping.task if recipe.task == "auto" else recipe.task]
    parents = [load_parent(one.name, one.path) for one in list_shipped()] if task.finds_objects else []
    parents = [parent for parent in parents if parent.model.task.finds_objects]
    if not parents:
        return Start()
    index, reason = _agree(lambda: _compare(parents, recipe, check, device))
    return Start(parents[index] if index >= 0 else None, reason)


def _agree(choose: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """Return the choice of the process of rank 0, which the clock may influence; the others get no reason."""
    if not dist.is_initialized():
        return choose()
    index, reason = choose() if dist.get_rank() == 0 else (-1, "")
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([index], device=device)
    dist.broadcast(shared, 0)
    return int(shared.item()), reason


def _compare(parents: Sequence[Parent], recipe: Recipe, check: DatasetCheck, device: str) -> tuple[int, str]:
    """Return the index of the model to start from, -1 for none, and the reason.

    A model is scored on images that it was not trained on. If it was trained on validation images, their scores
    will be too high, so it is left out unless enough others are new to it. The training warns of that.
    """
    began, minutes = time.monotonic(), recipe.training.minutes
    facts = {item.name: item for item in check.facts}
    sides = [[pair for pair in _list_pairs(check) if pair.name in names] for names in (check.validation, check.train)]
    best, chosen, reasons = -1.0, -1, []
    for index, parent in enumerate(parents):
        seen = set(find_seen(parent, sides[0], facts))
        unseen = [pair for pair in sides[0] if pair.name not in seen]
        if seen:
            count = f"{len(seen)} of the {format_count(len(sides[0]), 'validation image')}"
            reasons.append(f"{parent.name} was trained on {count}")
            if len(unseen) < _LEAST_UNSEEN:
                continue
        unknown = (pair for pair in sides[1] if not find_seen(parent, [pair], facts))
        pairs = (_crop_centre(pair, facts[pair.name]) for pair in chain(unseen, unknown))
        until = math.inf if minutes is None else began + (index + 1) / len(parents) * _MOST_SHARE * 60 * minutes
        score, images = _score(_make_model(parent, recipe, check), pairs, device, until)
        if images:
            scored = f"the mean accuracy of objects of {parent.name} is {score:.3f} in {format_count(images, 'image')}"
            reasons.append(scored)
        if score > best:
            best, chosen = score, index
    least = f"at least {LEAST_SCORE} is needed"
    if best < LEAST_SCORE:
        return -1, "; ".join([*reasons, least])
    return chosen, "; ".join([*reasons, least])


def _list_pairs(check: DatasetCheck) -> list[Pair]:
    assert check.pairing is not None
    return sorted(check.pairing.pairs, key=lambda pair: pair.name)


def _crop_centre(pair: Pair, facts: ImageFacts) -> Pair:
    """Return the centre of a pair, so that large images take no longer than others."""
    top, left = (0, 0) if pair.window is None else pair.window[:2]
    height, width = (min(side, _MOST_SIDE) for side in (facts.height, facts.width))
    top, left = top + (facts.height - height) // 2, left + (facts.width - width) // 2
    return replace(pair, window=(top, left, top + height, left + width))


def _make_model(parent: Parent, recipe: Recipe, check: DatasetCheck) -> Model:
    """Return the parent as the training would start from it, with its own thresholds."""
    assert check.mapping is not None
    assert check.fingerprint is not None
    channels = recipe.data.channels or check.fingerprint.channels
    own = parent.model
    task = make_task(own.recipe, check.mapping, own.decoding)
    net = build_net(own.recipe, channels, task.outputs)
    inherit_weights(parent, net, task)
    trained = [item for item in check.facts if item.name in set(check.train)]
    normalization = inherit_normalization(own, own.recipe, trained)
    if normalization is None:
        statistics = getattr(net.encoder, "statistics", None)
        normalization = choose_normalization(own.recipe, combine_facts(trained, channels=channels), statistics, None)
    return Model(
        net=net.eval().requires_grad_(False),
        channels=channels,
        labels=check.mapping,
        normalization=normalization,
        recipe=own.recipe,
        decoding=own.decoding,
    )


def _score(model: Model, pairs: Iterable[Pair], device: str, until: float) -> tuple[float, int]:
    """Return the mean score of some images that hold objects, and their number; at least one is scored."""
    options = PredictionOptions(device=device, engine=model.engine(device, "torch"))
    scores: list[float] = []
    for pair in pairs:
        if len(scores) == _MOST_IMAGES or (scores and time.monotonic() >= until):
            break
        example = Examples(
            [pair], model.labels, channels=model.channels, memory=0, objects=True, largest=model.recipe.data.largest
        )[0]
        if example.labels_yx.max() > 0:
            predicted_yx = model.compute_labels(example.image_cyx, options)
            scores.append(model.task.score(example.labels_yx, predicted_yx)[0])
    return (float(np.mean(scores)), len(scores)) if scores else (0.0, 0)
