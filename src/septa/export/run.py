"""Export of a model: the files are made, compared with septa on images, and written only if they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from septa.errors import InputError
from septa.images import Guard, write_bytes
from septa.model import Model
from septa.notices import Notices

from .facts import ExportFacts, collect_export_facts
from .formats import MAKERS, check_packages, choose_format
from .package import PackageText, make_package
from .parity import LIMIT, Parity, compare_exports, find_parity_images


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An export that was written.

    Attributes
    ----------
    files
        Path of each file.
    about
        Description of the format.
    facts
        Facts that the files hold as metadata.
    parity
        Comparison with septa.
    """

    files: tuple[Path, ...]
    about: str
    facts: ExportFacts
    parity: Parity


def export_model(
    model: str | Path,
    output: str | Path,
    *,
    format: str | None = None,
    data: str | Path | None = None,
    logits: bool = False,
    text: PackageText | None = None,
    notices: Notices | None = None,
    guard: Guard | None = None,
    report: Callable[[Parity], None] = lambda parity: None,
) -> Exported:
    """Export a model to a format that other programs read.

    The files are compared with septa's torch engine on images before they are written.

    Parameters
    ----------
    model
        Model file, or name of a shipped model.
    output
        File to write: ``.onnx``, ``.pt`` (TorchScript), ``.xml`` (OpenVINO, with a ``.bin``) or ``.zip`` (a bioimage.io
        package).
    format
        One of `FORMATS`; that of the suffix if None.
    data
        Image, or folder of images, on which the export is compared; see `find_parity_images`.
    logits
        True to leave the activation out of the net.
    text
        Texts of a bioimage.io package.
    notices
        Receives what septa assumed.
    guard
        Function that decides which files may be replaced; see `septa.images.WrittenFiles`.
    report
        Function that receives the comparison before it is judged.

    Returns
    -------
    Exported
        Files, facts and comparison.

    Raises
    ------
    InputError
        The suffix or an option does not fit, a package is missing, no image fits the model, or an output differs from
        septa's by more than `LIMIT`.
    ModelError
        The model cannot be read.

    Examples
    --------
    >>> exported = export_model("cells.septa", "cells.onnx")  # doctest: +SKIP
    """
    output, notices = Path(output), Notices() if notices is None else notices
    kind = choose_format(output, format)
    check_packages(kind)
    loaded = Model.load(model)
    _check_options(loaded, model, kind, logits, text, notices)
    facts = collect_export_facts(loaded, Path(model).stem, logits=logits)
    images = find_parity_images(loaded, None if data is None else Path(data), notices)
    if kind == "bioimageio":
        package = make_package(loaded, facts, images, text or PackageText(), notices)
        runs, images, prepare = package.runs, package.images, package.prepare
        parts, about = package.parts, package.about
    else:
        made = MAKERS[kind](loaded, facts)
        runs, prepare = {kind: made.run}, None
        parts, about = made.parts, made.about
    parity = compare_exports(loaded, runs, images, logits=logits, prepare=prepare)
    report(parity)
    if not parity.largest <= LIMIT:  # also true for NaN
        problem = (
            f"the export is not written, because it differs from septa by {parity.largest:.1e}, more than {LIMIT:g}"
        )
        raise InputError(output, problem, f"Give -o NAME{'.onnx' if kind == 'torchscript' else '.pt'}")
    files = tuple(output.with_suffix(suffix) for suffix in parts)
    for path, content in zip(files, parts.values(), strict=True):
        write_bytes(path, content, guard=guard)
    return Exported(files=files, about=about, facts=facts, parity=parity)


def _check_options(
    model: Model, path: str | Path, kind: str, logits: bool, text: PackageText | None, notices: Notices
) -> None:
    if logits and model.members > 1:
        problem = (
            f"the model is an ensemble of {model.members} nets, whose probabilities are averaged, not their logits"
        )
        raise InputError("--logits", problem, "Leave it out")
    if logits and kind == "bioimageio":
        raise InputError("--logits", "a bioimage.io package puts out probabilities", "Leave it out")
    if text is not None and kind != "bioimageio":
        raise InputError("--format", f"the texts of a package do not apply to {kind}", "Leave them out")
    if model.int8 is not None:
        notices.add(path, "the float32 net is exported, not the 8-bit integers, which septa runs")
