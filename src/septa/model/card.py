"""A model in one line, and as a card in notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from septa.errors import format_count
from septa.images import draw_overlay, read_image, read_labels, shrink_picture
from septa.metrics import OBJECT_METRICS
from septa.nets import list_members
from septa.pretrained import ShippedModel, list_shipped
from septa.report import format_number, render_fragment, render_picture

from .protocol import TrainedModel

_PICTURE = 280
"""Longest side of the picture, pixels."""


def describe_model(model: TrainedModel) -> str:
    """Return a model as one line, such as ``Model(nuclei: instances, 1 channel, U-Net width 32 depth 4)``."""
    net = model.recipe.net
    name = f"{Path(model.source).stem}: " if model.source else ""
    parts = [
        model.recipe.task,
        model.describe_input(),
        f"{_name_net(model)} of width {net.width}, depth {model.net.depth}",
    ]
    if model.members > 1:
        parts.append(f"{model.members} nets")
    scores = list_scores(model)
    if scores:
        title, value = scores[0]
        parts.append(f"{title} {value:.3f}")
    return f"Model({name}{', '.join(parts)})"


def list_scores(model: TrainedModel) -> list[tuple[str, float]]:
    """Return the scores of the validation images, objects first: name and mean."""
    scores = model.provenance.get("scores") or {}
    objects: dict[str, Any] = scores.get("objects") or {}
    found = [
        (title, float(objects[key]["mean"]))
        for key, title in OBJECT_METRICS.items()
        if isinstance(objects.get(key), dict) and "mean" in objects[key]
    ]
    summary = scores.get("summary", scores)
    names = {"dice": "Dice", "iou": "IoU", "pixel_accuracy": "pixel accuracy"}
    return found + [(names[key], float(summary[key])) for key in names if isinstance(summary.get(key), int | float)]


def render_model(model: TrainedModel) -> str:
    """Return a model as a card of HTML, with its picture if it ships with septa."""
    shipped = _find_shipped(model)
    parameters = sum(weight.numel() for net in list_members(model.net) for weight in net.parameters())
    facts = {
        "task": model.recipe.task,
        "classes": ", ".join(model.labels.class_names),
        "images": model.describe_input(),
        "net": f"{_name_net(model)}, width {model.recipe.net.width}, depth {model.net.depth}",
        "parameters": format_number(parameters),
        "receptive field": f"{model.net.receptive_field} pixels",
    }
    if model.members > 1:
        facts["nets"] = model.describe_members()
    if "images" in (counts := model.provenance.get("training", {})):
        facts["training images"] = format_count(counts["images"], "image")
    return render_fragment(
        "model.html",
        title=Path(model.source).stem or "model",
        summary=shipped.summary if shipped else "",
        facts=facts,
        scores=[(title, f"{value:.3f}") for title, value in list_scores(model)[:4]],
        picture=_draw_example(shipped) if shipped else "",
    )


def _name_net(model: TrainedModel) -> str:
    net = model.recipe.net
    return f"U-Net on {net.encoder}" if net.encoder != "plain" else "U-Net++" if net.nested else "U-Net"


def _find_shipped(model: TrainedModel) -> ShippedModel | None:
    return next((one for one in list_shipped() if model.source in (one.name, str(one.path))), None)


def _draw_example(shipped: ShippedModel) -> str:
    """Return the first example image of a shipped model with its labels as HTML; empty if there is none."""
    folder = shipped.examples
    images = [] if folder is None else sorted((folder / "images").iterdir())
    if not images or folder is None:
        return ""
    image_cyx = read_image(images[0])
    labels = folder / "labels" / images[0].name
    labels_yx = read_labels(labels).array if labels.is_file() else 0 * image_cyx[0].astype("int32")
    picture = shrink_picture(draw_overlay(image_cyx, labels_yx), _PICTURE)
    return render_picture(picture, f"{shipped.name}: an image with its labels")
