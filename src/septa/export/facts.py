"""What another program must know about an exported model: as metadata of the file, and as printed lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from septa import __version__
from septa.errors import format_count
from septa.images import FLAT, Normalization
from septa.inference import smallest_tile_for
from septa.model import Model
from septa.tasks import OutputGroup

LOW, HIGH = 1.0, 99.8
"""Percentiles of an image that become 0 and 2; those of `Normalization.resolve`."""


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """Facts of an exported model.

    Attributes
    ----------
    name
        Name of the model.
    channels
        Number of channels of the image.
    groups
        Outputs with their activations.
    logits
        True if the activation is left out.
    normalization
        Normalisation of the model.
    halo, multiple, margin, smallest_tile
        Sizes in pixels, as of `septa.nets.UNet`.
    exact_tiles
        True if tiles on the grid equal the whole image.
    values
        All other facts, JSON values by name.
    """

    name: str
    channels: int
    groups: tuple[OutputGroup, ...]
    logits: bool
    normalization: Normalization
    halo: int
    multiple: int
    margin: int
    smallest_tile: int
    exact_tiles: bool
    values: dict[str, Any]

    @property
    def output(self) -> str:
        """Name of the output: ``logits`` or ``probabilities``."""
        return "logits" if self.logits else "probabilities"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each plane of the output."""
        return tuple(name for group in self.groups for name in group.names)

    @property
    def is_raw(self) -> bool:
        """True if the net takes raw values; False if the image must be scaled by its own percentiles first."""
        return self.normalization.kind == "dataset"

    def to_metadata(self) -> dict[str, str]:
        """Return the facts as texts; lists and mappings are JSON."""
        norm = self.normalization
        rule = {"low": LOW, "high": HIGH, "become": [0, 2], "invert_light": norm.invert_light}
        rule |= {"scale_of_noise": 1 / FLAT} if norm.flatten_noise else {}
        facts = {
            "septa": __version__,
            "name": self.name,
            "axes": "BCYX",
            "channels": self.channels,
            "input": "raw values" if self.is_raw else "values scaled by percentiles",
            "normalization_inside": {
                **({"offset": norm.offset, "scale": norm.scale} if self.is_raw else {}),
                "curve": norm.curve,
                "clip": norm.clip,
            },
            "normalization_beside": None if self.is_raw else {"percentiles_of_each_channel": rule},
            "output": self.output,
            "output_names": self.output_names,
            "activation": [[group.activation, len(group.names)] for group in self.groups],
            "activation_inside": not self.logits,
            "halo": self.halo,
            "multiple": self.multiple,
            "margin": self.margin,
            "smallest_tile": self.smallest_tile,
            "exact_tiles": self.exact_tiles,
            **self.values,
        }
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}

    def lines(self) -> list[str]:
        """Return one line about each of input, output, tiles and labels, and about steps that are not included."""
        size = "Y and X of any size" if not self.margin else "Y and X of sizes that a valid net accepts"
        lines = [
            f"input: image (B, {self.channels}, Y, X), float32, {size}: {self._describe_normalization()}",
            f"output: {self.output} (B, {len(self.output_names)}, Y, X), float32: {self._describe_outputs()}",
            f"tiles: {self._describe_tiles()}",
            f"labels: {self.values['labels_from']}",
        ]
        if size_yx := self.values.get("resize"):
            lines.append(f"not included: images are resized to {size_yx[0]} x {size_yx[1]} pixels, and the output back")
        if largest := self.values.get("largest"):
            lines.append(f"not included: septa reduces images whose objects are {largest:g} pixels wide or wider")
        if smallest := self.values.get("smallest"):
            lines.append(f"not included: septa enlarges images whose objects are less than {smallest:g} pixels wide")
        if share := self.values.get("least_share"):
            lines.append(f"not included: septa drops objects of less than {share:g} of the typical area in their image")
        if share := self.values.get("join_share"):
            text = f"parts that have less than {share:g} typical areas together and no deep rim between them"
            lines.append(f"not included: septa joins {text}")
        if versions := self.values.get("tta"):
            lines.append(f"not included: septa averages {versions} rotated and mirrored versions of each image")
        return lines

    def _describe_normalization(self) -> str:
        norm, ends = self.normalization, []
        if norm.curve:
            ends.append(f"compressed by asinh (strength {norm.curve:g})")
        if norm.clip is not None:
            ends.append(f"clipped to -{norm.clip:g} to {norm.clip:g}")
        inside = " and ".join(ends)
        if self.is_raw:
            constants = dict.fromkeys(zip(norm.offset, norm.scale, strict=True))
            shown = ", ".join(f"(value - {offset:.6g}) / {scale:.6g}" for offset, scale in constants)
            shown += " in each channel" if len(constants) == 1 < self.channels else ""
            return f"raw values; the net computes {shown}" + (f", {inside}" if inside else "")
        rule = (
            f"scaled before, so that percentiles {LOW:g} and {HIGH:g} of each channel of the whole image become 0 and 2"
        )
        if norm.invert_light:
            rule += ", and images with a light background are inverted"
        if norm.flatten_noise:
            rule += f", and images that hold only noise are scaled by 1/{FLAT}"
        return rule + (f"; in the net {inside}" if inside else "")

    def _describe_outputs(self) -> str:
        """Return for example ``background, cell (softmax)``."""
        ending = ", not included" if self.logits else ""
        return "; ".join(f"{', '.join(group.names)} ({group.activation}{ending})" for group in self.groups)

    def _describe_tiles(self) -> str:
        if self.margin:
            return (
                f"the output is {self.margin} pixels smaller on each side; sides are {self.values['valid_sizes']}, and "
                f"the image is mirrored beyond its edges; tiles start at multiples of {self.multiple}"
            )
        if not self.exact_tiles:
            return f"layers pool over the image, so tiles differ from the whole image; the halo is {self.halo}"
        return (
            f"equal to the whole image if {self.halo} pixels (the halo) are cropped from each inner side, and tiles "
            f"start at multiples of {self.multiple}; a tile has at least {self.smallest_tile} pixels a side"
        )


def collect_export_facts(model: Model, name: str, *, logits: bool = False) -> ExportFacts:
    """Collect the facts of a model that is exported.

    Parameters
    ----------
    model
        A trained model.
    name
        Its name.
    logits
        True if the activation is left out.
    """
    net, task = model.net, model.task
    values: dict[str, Any] = {
        "task": "objects" if task.finds_objects else "classes of pixels",
        "classes": model.labels.class_names,
        "label_values": model.labels.values,
        "members": model.members,
        "weights_sha256": model.weights_sha256,
        "labels_from": _describe_labels(model),
    }
    if task.has_thresholds:
        values["decoding"] = task.decoding.to_json()
    if net.margin:
        values["valid_sizes"] = f"{net.input_size(1)} + n * {net.multiple}"
    if model.recipe.data.resize:
        values["resize"] = model.recipe.data.resize
    if model.recipe.data.largest is not None:
        values["largest"] = model.recipe.data.largest
    own = model.recipe.instances
    if task.finds_objects and own.smallest is not None:
        values["smallest"] = own.smallest
    if task.finds_objects and own.least_share > 0:
        values["least_share"] = own.least_share
    if task.finds_objects and own.join_share > 0:
        values["join_share"] = own.join_share
    if model.recipe.inference.tta > 1:
        values["tta"] = model.recipe.inference.tta
    return ExportFacts(
        name=name,
        channels=model.channels,
        groups=task.describe_outputs(model.labels),
        logits=logits,
        normalization=model.normalization,
        halo=net.halo,
        multiple=net.multiple,
        margin=net.margin,
        smallest_tile=smallest_tile_for(net),
        exact_tiles=net.exact_tiles,
        values=values,
    )


def _describe_labels(model: Model) -> str:
    task = model.task
    if task.finds_objects:
        at = task.decoding
        least = format_count(at.least_pixels, "pixel")
        thresholds = f"foreground above {at.foreground:g}, seeds above {at.seed:g}, at least {least}"
        return f"septa finds objects by a watershed ({thresholds}), which is not included"
    if task.has_thresholds:
        at = task.decoding
        grown = f" and grows by at most {format_count(at.reach, 'pixel')} to {at.foreground:g}" if at.reach else ""
        return f"class 1 is where its probability is above {at.seed:g}{grown}"
    if task.multilabel or task.outputs == 1:
        return "a class is present where its probability is above 0.5"
    return "the class with the largest probability"
