"""The file of a model: its bytes, and the check of everything that its header claims."""

from __future__ import annotations

import os
import stat
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from septa import tensor_file
from septa.errors import InputError, ModelError, SeptaWarning
from septa.images import Normalization, Sketch, TrainingValues
from septa.inference import Int8, TrainingFeatures
from septa.labels import LabelMapping
from septa.nets import MOST_MEMBERS, Ensemble, UNet, count_statistics, list_members
from septa.notices import Notices
from septa.objects import ConfidenceCurve
from septa.pretrained import describe_names, locate_model
from septa.recipe import Recipe
from septa.tasks import Decoding, make_task

from .half import restore_kernels
from .net import build_net
from .precision import Bf16Difference

KIND = "septa model 1"


def read_model_bytes(path: str | PathLike[str]) -> bytes:
    """Return the bytes of a model file, or of the shipped model of this name; ModelError if it cannot be read.

    A `SeptaWarning` is issued if a file or folder has the name of a shipped model.
    """
    remedy = "Give a .septa file written by 'septa train'"
    notices = Notices()
    try:
        file = locate_model(path, notices)
        for line in notices.lines():
            warnings.warn(line, SeptaWarning, stacklevel=4)
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe or a device could be endless
            raise ModelError(path, "the path is not a regular file", remedy)
        return file.read_bytes()
    except OSError as error:
        problem = f"the file cannot be read ({(error.strerror or 'an error').lower()})"
        if isinstance(error, FileNotFoundError):
            is_name = not {".", "/", os.sep} & set(os.fspath(path))
            problem = "there is neither a file nor a shipped model with this name" if is_name else problem
            names = describe_names(Path(path).stem)
            remedy += f", or choose one of {names}" if names else ""
        raise ModelError(path, problem, remedy) from None
    except ValueError:
        raise ModelError(path, "the file cannot be read (its path contains a null character)", remedy) from None


def unpack_model(data: bytes, path: str | PathLike[str]) -> dict[str, Any]:
    """Return the attributes of the model in the bytes of a file, all checked.

    Raises
    ------
    ModelError
        The bytes are not a septa model, are damaged, or do not fit this version of septa; it names ``path``.
    """
    header, tensors = tensor_file.unpack(data, KIND, path)
    problem = "the model does not fit this version of septa"
    try:
        return _read_attributes(header, tensors)
    except InputError as error:  # the recipe or the weights, in septa's words
        raise ModelError(path, f"{problem}: {error.problem}", "Update septa") from None
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError):
        raise ModelError(path, problem, "Update septa") from None


def _read_attributes(header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    recipe = Recipe.parse(header["recipe"])
    labels = LabelMapping.from_json(header["labels"])
    channels = header["channels"]
    if type(channels) is not int:
        raise TypeError(f"channels must be an integer, got {channels!r}")
    members = header.get("members", 1)
    if type(members) is not int or not 1 <= members <= MOST_MEMBERS:
        raise TypeError(f"members must be an integer from 1 to {MOST_MEMBERS}, got {members!r}")
    outputs = make_task(recipe, labels).outputs
    with torch.device("meta"):  # no memory is taken before the sizes are compared with the tensors
        nets = [build_net(recipe, channels, outputs) for _ in range(members)]
    net = nets[0] if members == 1 else Ensemble(nets)
    int8 = Int8.from_tensors(header["int8"], tensors) if "int8" in header else None
    if (stored := header.get("weights", "float32")) not in ("float32", "float16"):
        raise InputError("weights", f"the weights are stored as {stored}")
    if stored == "float16":
        tensors = restore_kernels(tensors, net.state_dict())
    _check_weights(net, tensors)
    normalization = Normalization.from_json(header["normalization"])
    if normalization.kind == "dataset" and len(normalization.offset) != channels:
        problem = f"the normalisation is for {len(normalization.offset)} channels, not {channels}"
        raise InputError("normalization", problem)
    values = TrainingValues.from_json(header["training_values"]) if "training_values" in header else None
    if values is not None and values.channels != channels:
        problem = f"the training values are for {values.channels} channels, not {channels}"
        raise InputError("training_values", problem)
    features = TrainingFeatures.from_json(header["training_features"]) if "training_features" in header else None
    expected = count_statistics(list_members(net)[0].encoder.channels)
    if features is not None and features.centre.size != expected:
        problem = f"the training features have {features.centre.size} values, not {expected}"
        raise InputError("training_features", problem)
    _check_provenance(header["provenance"])
    net.load_state_dict(tensors, strict=True, assign=True)
    return {
        "net": net.eval().requires_grad_(False),
        "channels": channels,
        "labels": labels,
        "normalization": normalization,
        "recipe": recipe,
        "provenance": header["provenance"],
        "decoding": Decoding.from_json(header["decoding"]) if "decoding" in header else Decoding(),
        "int8": int8,
        "training_values": values,
        "bf16": Bf16Difference.from_json(header["bf16"]) if "bf16" in header else None,
        "training_features": features,
        "confidence_curve": ConfidenceCurve.from_json(header["confidence_curve"])
        if "confidence_curve" in header
        else ConfidenceCurve(),
    }


def _check_weights(net: UNet | Ensemble, tensors: dict[str, Tensor]) -> None:
    """Check that tensors have the names, shapes and dtypes of a net's weights; InputError if they differ."""
    expected = net.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise InputError("weights", f"the weight '{missing[0]}' is missing")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise InputError("weights", f"the weight '{unknown[0]}' does not belong to the net")
    for name, tensor in tensors.items():
        shape, dtype = expected[name].shape, expected[name].dtype
        if tensor.shape != shape:
            raise InputError("weights", f"the shape of '{name}' is {tuple(tensor.shape)}, not {tuple(shape)}")
        if tensor.dtype != dtype:
            raise InputError("weights", f"the weight '{name}' is {tensor.dtype}, not {dtype}")
        if dtype.is_floating_point and not torch.isfinite(tensor).all():
            raise InputError("weights", f"the weight '{name}' holds NaN or Inf")
        if name.endswith("running_var") and (tensor < 0).any():
            raise InputError("weights", f"the variance '{name}' is negative")


def _check_provenance(provenance: Any) -> None:
    """Check the types of the facts that septa itself reads, of all generations; InputError if they differ."""
    while True:
        if not isinstance(provenance, dict):
            raise InputError("provenance", "the provenance is not a JSON object")
        _check_images(provenance)
        if "parent" not in provenance:
            return
        provenance = provenance["parent"]


def _check_images(provenance: dict[str, Any]) -> None:
    """Check the types of the facts about training and validation images; InputError if they differ."""
    for key in ("train", "validation"):
        images = provenance.get(key, [])
        if not isinstance(images, list) or not all(_is_named_digest(entry) for entry in images):
            raise InputError("provenance", f"the {key} images of the provenance are not pairs of a name and a digest")
    sketches = provenance.get("sketches", [])
    if not isinstance(sketches, list) or not all(_is_named_digest(entry) for entry in sketches):
        raise InputError("provenance", "the sketches of the provenance are not pairs of a name and a text")
    try:
        for _, text in sketches:
            Sketch.from_text(text)
    except ValueError as error:
        raise InputError("provenance", str(error)) from None
    parts = provenance.get("parts", [])
    if not isinstance(parts, list) or not all(_is_cut_image(entry) for entry in parts):
        raise InputError("provenance", "the parts of the provenance are not a digest and two windows each")


def _is_cut_image(entry: Any) -> bool:
    def is_window(window: Any) -> bool:
        numbers = isinstance(window, list | tuple) and len(window) == 4 and all(type(end) is int for end in window)
        return numbers and 0 <= window[0] < window[2] and 0 <= window[1] < window[3]

    one_each = isinstance(entry, list | tuple) and len(entry) == 3 and isinstance(entry[0], str)
    return one_each and all(map(is_window, entry[1:]))


def _is_named_digest(entry: Any) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(part, str) for part in entry)
