"""``septa export``: Export a model to ONNX, TorchScript, OpenVINO or bioimage.io."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from septa.cli.commands import INPUT, OUTPUT
from septa.cli.options import ModelFile, Overwrite, guard_files, make_console, option, refuse_options
from septa.cli.values import choice, path, word

EXAMPLE = "septa export cells.septa -o cells.onnx"

Output = Annotated[
    Path,
    option(
        "-o",
        "--output",
        heading=OUTPUT,
        kind=path(example="cells.onnx"),
        help="File to write: NAME.onnx, NAME.pt (TorchScript), NAME.xml (OpenVINO) or NAME.zip (bioimage.io).",
    ),
]
Format = Annotated[
    str | None,
    option(
        "--format",
        heading=OUTPUT,
        kind=choice("onnx", "torchscript", "openvino", "bioimageio"),
        help="Format of the file. The default is that of the suffix.",
    ),
]
Logits = Annotated[bool, option("--logits", heading=OUTPUT, help="Leave the activation out: the net puts out logits.")]
Data = Annotated[
    Path | None,
    option(
        "--data",
        heading=INPUT,
        kind=path(example="cells/images"),
        help="Image, or folder of images, on which the export is compared with septa. The default is images that ship "
        "with septa.",
    ),
]
Author = Annotated[
    list[str] | None,
    option(
        "--author",
        heading=OUTPUT,
        kind=word("NAME", "'Ada Lovelace'"),
        help="Author that a bioimage.io package names. May be repeated.",
    ),
]
Licence = Annotated[
    str | None,
    option(
        "--licence",
        heading=OUTPUT,
        kind=word("ID", "CC-BY-4.0"),
        help="Licence of a bioimage.io package, as an identifier of SPDX.",
    ),
]
Background = Annotated[
    str | None,
    option(
        "--background",
        heading=OUTPUT,
        kind=choice("dark", "light"),
        help="Background of the images for a bioimage.io package, if the model inverts images with a light one.",
    ),
]


def export(
    model: ModelFile,
    output: Output,
    format: Format = None,
    data: Data = None,
    logits: Logits = False,
    author: Author = None,
    licence: Licence = None,
    background: Background = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a model to ONNX, TorchScript, OpenVINO or bioimage.io.

    The export is compared with septa on images, and not written if an output differs by more than 1e-4.
    """
    from septa.display import say
    from septa.export import LIMIT, PackageText, Parity, choose_format, export_model
    from septa.notices import Notices
    from septa.pretrained import locate_model

    console, notices = make_console(wide=True), Notices()
    kind = choose_format(output, format)
    if kind != "bioimageio":
        refuse_options({"author": author, "licence": licence, "background": background}, f"the format {kind}")
    text = PackageText(authors=tuple(author or ()), licence=licence or "", background=background or "")
    files = [output, output.with_suffix(".bin")] if kind == "openvino" else [output]
    guard = guard_files(files, overwrite, [locate_model(model)])

    def report(parity: Parity) -> None:
        say(console, f"compared with septa's torch engine in float32 on {parity.origin}:")
        console.print(parity.table())

    done = export_model(
        model,
        output,
        format=kind,
        data=data,
        logits=logits,
        text=text if kind == "bioimageio" else None,
        notices=notices,
        guard=guard,
        report=report,
    )
    for line in (*notices.lines(), *done.facts.lines()):
        say(console, line)
    size = sum(file.stat().st_size for file in done.files) / 1e6
    names = " and ".join(map(str, done.files))
    agrees = f"it differs from septa by at most {done.parity.largest:.1e}, and {LIMIT:g} is allowed"
    say(console, f"written: {names} ({done.about}, {size:.1f} MB); {agrees}")
