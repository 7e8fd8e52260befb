"""Packages for bioimage.io: weights, test tensors, tiling facts, cover and texts in one zip file."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from septa import __version__
from septa.errors import InputError
from septa.images import Normalization, cut_mirrored, draw_overlay, encode_png, to_rgb
from septa.model import Model
from septa.notices import Notices

from .facts import HIGH, LOW, ExportFacts
from .formats import OPERATORS, make_onnx, make_torchscript
from .parity import ParityImages, Run, compute_planes

VERSION = "0.5.3"
"""Version of the specification: the first of 0.5 that is widely read, and whose fields are enough."""
_PAPER = {
    "text": "Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation",
    "doi": "10.1007/978-3-319-24574-4_28",
}
_EPSILON = 1e-12
_SAME = 1e-6
"""Largest difference between septa's constants of an image and those of the package, as a share of the range."""
_COVER = 256
_TIME = (1980, 1, 1, 0, 0, 0)
"""Time of every file in the package, so that equal contents give equal bytes."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PackageText:
    """Texts of a package that septa cannot know.

    Attributes
    ----------
    authors
        Names of the authors.
    licence
        SPDX identifier of the licence; empty for none.
    background
        ``dark`` or ``light``: the images for which the package is made, if the model inverts images with a light
        background. Empty for other models.
    """

    authors: tuple[str, ...] = ()
    licence: str = ""
    background: str = ""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package, not yet written.

    Attributes
    ----------
    parts
        Content of the zip file, by suffix.
    runs
        Function that runs each kind of weights.
    images
        The images that the package normalises as septa does.
    prepare
        Preprocessing of the package, for one image ``(C, Y, X)``.
    about
        Description of the format.
    """

    parts: Mapping[str, bytes]
    runs: Mapping[str, Run]
    images: ParityImages
    prepare: Callable[[NDArray[Any]], Float32]
    about: str


def make_package(
    model: Model, facts: ExportFacts, images: ParityImages, text: PackageText, notices: Notices
) -> Package:
    """Make the package of a model.

    Parameters
    ----------
    model, facts
        Model and its facts.
    images
        Images of which the first gives test tensors and cover.
    text
        Texts that septa cannot know.
    notices
        Receives what is missing, and the images that the package normalises in another way than septa.

    Raises
    ------
    InputError
        The model resizes images, its net is valid, or it inverts images with a light background and
        ``text.background`` is empty; or none of the images is normalised as septa does.
    """
    _check(model, text, notices)
    steps = describe_preprocessing(model.normalization, text.background)

    def prepare(image_cyx: NDArray[Any]) -> Float32:
        return apply_preprocessing(steps, image_cyx)

    images = _select_images(model, images, text, notices)
    weights = {"onnx": make_onnx(model, facts), "torchscript": make_torchscript(model, facts)}
    test_cyx = _cut_test_image(facts, images.images[0][1]).astype(np.float32)
    planes_kyx = compute_planes(model, test_cyx)
    files = {
        "weights.onnx": weights["onnx"].parts[".onnx"],
        "weights.pt": weights["torchscript"].parts[".pt"],
        "test_input.npy": _dump_array(test_cyx[None]),
        "test_output.npy": _dump_array(planes_kyx[None]),
        "cover.png": _draw_cover(test_cyx, model),
        "README.md": _write_readme(facts, text).encode(),
    }
    description = describe_package(facts, text, steps, files)
    files = {"rdf.yaml": yaml.safe_dump(description, sort_keys=False, allow_unicode=True).encode(), **files}
    return Package(
        parts={".zip": _zip_files(files)},
        runs={name: file.run for name, file in weights.items()},
        images=images,
        prepare=prepare,
        about=f"bioimage.io package, specification {VERSION}, weights in ONNX and TorchScript",
    )


def _check(model: Model, text: PackageText, notices: Notices) -> None:
    where = "--format bioimageio"
    if model.recipe.data.resize:
        problem = "the model resizes images, which a package cannot describe"
        raise InputError(where, problem, "Give -o NAME.onnx")
    if model.net.margin:
        problem = "the net reads a mirrored margin around the image, which a package cannot describe"
        raise InputError(where, problem, "Give -o NAME.onnx")
    if model.normalization.invert_light and not text.background:
        problem = "the model inverts images with a light background, which a package can only do for all or none"
        raise InputError(where, problem, "Give --background dark or --background light")
    if text.background and not model.normalization.invert_light:
        raise InputError("--background", "the model inverts no images", "Leave it out")
    if text.licence and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", text.licence):
        problem = f"{text.licence} is not an identifier of SPDX"
        raise InputError("--licence", problem, "Give for example --licence CC-BY-4.0")
    if not text.authors:
        notices.add("rdf.yaml", "the package names no authors", "Give --author NAME before you publish it")
    if not text.licence:
        notices.add("rdf.yaml", "the package has no licence", "Give --licence ID before you publish it")


# Preprocessing -------------------------------------------------------------------------------------------------------


def describe_preprocessing(normalization: Normalization, background: str = "") -> list[dict[str, Any]]:
    """Return the steps before the net, as the specification names them.

    Constants, curve and clipping are in the net. An image that is scaled by its own percentiles needs two steps; for
    images with a light background they give its inverse, as `Normalization.resolve` does.
    """
    steps: list[dict[str, Any]] = [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}]
    if normalization.kind == "dataset":
        return steps
    light = background == "light"
    low, high = (100 - HIGH, 100 - LOW) if light else (LOW, HIGH)
    percentiles = {"min_percentile": round(low, 6), "max_percentile": round(high, 6)}
    steps.append({"id": "scale_range", "kwargs": {"axes": ["y", "x"], **percentiles, "eps": _EPSILON}})
    gain, offset = (-2.0, 2.0) if light else (2.0, 0.0)
    return [*steps, {"id": "scale_linear", "kwargs": {"gain": gain, "offset": offset}}]


def apply_preprocessing(steps: list[dict[str, Any]], image_cyx: NDArray[Any]) -> Float32:
    """Apply the steps of `describe_preprocessing` to an image ``(C, Y, X)`` as the specification defines them."""
    x = image_cyx.astype(np.float32)
    for step in steps:
        settings = step["kwargs"]
        if step["id"] == "scale_range":
            ends = np.percentile(
                x, (settings["min_percentile"], settings["max_percentile"]), axis=(1, 2), keepdims=True
            )
            low, high = ends.astype(np.float32)
            x = (x - low) / (high - low + np.float32(settings["eps"]))
        elif step["id"] == "scale_linear":
            x = x * np.float32(settings["gain"]) + np.float32(settings["offset"])
    return np.ascontiguousarray(x, np.float32)


def _select_images(model: Model, images: ParityImages, text: PackageText, notices: Notices) -> ParityImages:
    """Return the images whose constants septa and the package find alike."""
    norm = model.normalization
    if norm.kind == "dataset":
        return images
    light = text.background == "light"
    low, high = (100 - HIGH, 100 - LOW) if light else (LOW, HIGH)
    kept = []
    for name, image_cyx in images.images:
        own = norm.resolve(image_cyx)
        alike = all((scale < 0) == light for scale in own.scale)
        for plane_yx, offset, scale in zip(image_cyx, own.offset, own.scale):
            ends = np.percentile(plane_yx.astype(np.float64), (low, high))
            dark = ends[1] if light else ends[0]
            range_ = float(ends[1] - ends[0])
            alike &= range_ > 0 and abs(offset - dark) <= _SAME * range_
            alike &= abs(2 * abs(scale) - range_) <= _SAME * range_
        if alike:
            kept.append((name, image_cyx))
        else:
            problem = "the image is not compared, because it has another background, nodata, debris or a blank channel"
            notices.add(name, problem)
    if not kept:
        problem = f"the package would normalise none of the compared images ({images.origin}) as septa does"
        raise InputError("--data", problem, "Give --data with an image of the background of the package")
    return ParityImages(origin=images.origin, images=tuple(kept))


# Files ---------------------------------------------------------------------------------------------------------------


def _find_sizes(facts: ExportFacts) -> tuple[int, int]:
    """Return smallest side and step of the image that the package states, pixels."""
    return 2 * facts.halo + facts.multiple, facts.multiple


def _cut_test_image(facts: ExportFacts, image_cyx: NDArray[Any]) -> NDArray[Any]:
    """Return a part of an image of a size that the package states; a smaller image is mirrored at its edges."""
    least, step = _find_sizes(facts)
    sides = [max(least, least + (side - least) // step * step) for side in image_cyx.shape[1:]]
    return cut_mirrored(image_cyx, (0, 0), (sides[0], sides[1]))


def _dump_array(array: NDArray[Any]) -> bytes:
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    return data.getvalue()


def _draw_cover(image_cyx: NDArray[Any], model: Model) -> bytes:
    """Draw a picture of two squares: the image, and its labels over it."""
    labels_yx = model.task.decode(compute_planes(model, image_cyx, logits=True))
    side = min(_COVER, *labels_yx.shape)
    pictures = (picture[:side, :side] for picture in (to_rgb(image_cyx), draw_overlay(image_cyx, labels_yx)))
    return encode_png(np.concatenate(list(pictures), axis=1))


def _write_readme(facts: ExportFacts, text: PackageText) -> str:
    lines = [f"# {facts.name}", "", f"A U-Net, exported by septa {__version__}.", ""]
    lines += [f"- {line}" for line in facts.lines()]
    if text.background:
        lines += ["", f"This package is for images with a {text.background} background."]
    lines += [
        "",
        "## Validation",
        "",
        "septa compared this package with its own engine before it wrote it: outputs on images differ by at most 1e-4.",
        "Score the model on your own labelled images with `septa evaluate MODEL DATA`.",
        "",
    ]
    return "\n".join(lines)


def _zip_files(files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED)
    return data.getvalue()


# Description ---------------------------------------------------------------------------------------------------------


def describe_package(
    facts: ExportFacts, text: PackageText, steps: list[dict[str, Any]], files: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return the content of ``rdf.yaml``."""
    torch_version = torch.__version__.partition("+")[0]

    def refer(name: str) -> dict[str, str]:
        return {"source": name, "sha256": sha256(files[name]).hexdigest()}

    what = facts.values["task"]
    return {
        "format_version": VERSION,
        "type": "model",
        "name": _make_name(facts.name),
        "description": f"A U-Net that finds {what}: {', '.join(facts.output_names)}. Exported by septa {__version__}.",
        "authors": [{"name": name} for name in text.authors or ("not stated",)],
        "cite": [_PAPER],
        **({"license": text.licence} if text.licence else {}),
        "tags": ["2d", "unet2d", "pytorch", "onnx", "semantic-segmentation", "microscopy", "septa"],
        "documentation": refer("README.md"),
        "covers": [refer("cover.png")],
        "inputs": [_describe_input(facts, steps, refer("test_input.npy"))],
        "outputs": [_describe_output(facts, refer("test_output.npy"))],
        "weights": {
            "torchscript": {**refer("weights.pt"), "pytorch_version": torch_version},
            "onnx": {**refer("weights.onnx"), "opset_version": OPERATORS, "parent": "torchscript"},
        },
        "config": {"septa": facts.to_metadata()},
    }


def _describe_input(facts: ExportFacts, steps: list[dict[str, Any]], test: dict[str, str]) -> dict[str, Any]:
    least, step = _find_sizes(facts)

    def describe_side(axis: str) -> dict[str, Any]:
        return {"type": "space", "id": axis, "size": {"min": least, "step": step}, "concatenable": True}

    return {
        "id": "image",
        "description": "raw values of the image",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": [f"channel{number}" for number in range(facts.channels)]},
            describe_side("y"),
            describe_side("x"),
        ],
        "data": {"type": "float32"},
        "test_tensor": test,
        "preprocessing": steps,
    }


def _describe_output(facts: ExportFacts, test: dict[str, str]) -> dict[str, Any]:
    def describe_side(axis: str) -> dict[str, Any]:
        return {"type": "space", "id": axis, "size": {"tensor_id": "image", "axis_id": axis}, "halo": facts.halo}

    return {
        "id": facts.output,
        "description": f"{facts.output} of {', '.join(facts.output_names)}",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _make_identifiers(facts.output_names)},
            describe_side("y"),
            describe_side("x"),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": test,
    }


def _make_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_+\- ()]", " ", name).strip()[:64]
    return plain if len(plain) >= 5 else f"septa {plain}".strip()


def _make_identifiers(names: tuple[str, ...]) -> list[str]:
    """Return names that are identifiers, and differ from each other.

    Examples
    --------
    >>> _make_identifiers(("background", "cell 1", "cell-1", "2"))
    ['background', 'cell_1', 'cell_1_2', 'class_2']
    """
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_").lower()
        plain = plain if plain[:1].isalpha() else f"class_{plain}".rstrip("_")
        number, unique = 2, plain
        while unique in found:
            unique, number = f"{plain}_{number}", number + 1
        found.append(unique)
    return found
