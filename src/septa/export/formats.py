"""The files of an export, as bytes, and the functions that run them for the comparison."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from septa import __version__
from septa.errors import InputError, unify_out_of_memory
from septa.inference import (
    OnnxRuntimeEngine,
    OpenVINOEngine,
    import_openvino,
    use_plain_convolutions,
    write_graph,
)
from septa.model import Model

from .facts import ExportFacts
from .network import build_export_net, make_export_probe

FORMATS = {"onnx": ".onnx", "torchscript": ".pt", "openvino": ".xml", "bioimageio": ".zip"}
"""Suffix of the file of each format."""
OPERATORS = 17
"""Version of ONNX's operators: ONNX Runtime reads it from 1.12 on, and so do the runtimes of other languages."""
_NEEDS = {
    "onnx": ("onnx", ("onnx", "onnxruntime")),
    "torchscript": ("", ()),
    "openvino": ("openvino", ("onnx", "openvino")),
    "bioimageio": ("bioimageio", ("onnx", "onnxruntime")),
}
"""Extra of septa, and packages, that each format needs."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """An exported net, not yet written.

    Attributes
    ----------
    parts
        Content by suffix; the first is the file that is asked for.
    run
        Function from one image ``(C, Y, X)`` to the outputs ``(K, Y, X)``, which runs this content.
    about
        Description of the format.
    """

    parts: Mapping[str, bytes]
    run: Callable[[Float32], Float32]
    about: str


def choose_format(output: Path, name: str | None) -> str:
    """Return the format that an option names, or that the suffix of the output stands for.

    Raises
    ------
    InputError
        The suffix is not that of the format, or of none.
    """
    if name is not None:
        if output.suffix != FORMATS[name]:
            problem = f"a file of the format {name} ends in {FORMATS[name]}"
            raise InputError(output, problem, f"Give -o {output.with_suffix(FORMATS[name]).name}")
        return name
    for known, suffix in FORMATS.items():
        if output.suffix == suffix:
            return known
    raise InputError(
        output,
        "the suffix does not name a format",
        f"Use {', '.join(f'{suffix} ({known})' for known, suffix in FORMATS.items())}",
    )


def check_packages(name: str) -> None:
    """Check that the packages for a format are installed; InputError if one is missing."""
    extra, packages = _NEEDS[name]
    for package in packages:
        if find_spec(package) is None:
            remedy = f"Run pip install 'septa[{extra}]', or give -o NAME.pt"
            raise InputError(f"--format {name}", f"the package {package} is not installed", remedy)


def make_onnx(model: Model, facts: ExportFacts) -> ExportedFile:
    """Make the ONNX file of a model, with its facts as metadata.

    Raises
    ------
    InputError
        PyTorch cannot export the net.
    """
    import onnx

    graph = onnx.load_model_from_string(_trace_onnx(model, facts))
    graph.producer_name, graph.producer_version = "septa", __version__
    graph.doc_string = "\n".join(facts.lines())
    onnx.helper.set_model_props(graph, facts.to_metadata())
    data = graph.SerializeToString()
    engine = OnnxRuntimeEngine(data, torch.get_num_threads())
    return ExportedFile(parts={".onnx": data}, run=engine, about=f"ONNX, operators {OPERATORS}")


def make_torchscript(model: Model, facts: ExportFacts) -> ExportedFile:
    """Make the TorchScript file of a model, with its facts as the extra file ``septa.json``.

    Raises
    ------
    InputError
        PyTorch cannot trace the net.
    """
    plain = use_plain_convolutions(build_export_net(model, logits=facts.logits))
    data = io.BytesIO()
    try:
        with unify_out_of_memory(), warnings.catch_warnings(), torch.no_grad():
            # PyTorch warns that sizes become constants, which the module avoids, and that TorchScript is deprecated.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(plain, make_export_probe(model), check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, data, _extra_files={"septa.json": _dump(facts)})
    except RuntimeError as error:
        problem = "PyTorch cannot convert this net to TorchScript"
        raise InputError("septa export", problem, "Give -o NAME.onnx") from error

    def run(image_cyx: Float32) -> Float32:
        with torch.inference_mode():
            planes: Float32 = traced(torch.from_numpy(image_cyx)[None])[0].numpy()
        return planes

    return ExportedFile(parts={".pt": data.getvalue()}, run=run, about=f"TorchScript of PyTorch {torch.__version__}")


def make_openvino(model: Model, facts: ExportFacts) -> ExportedFile:
    """Make the two files of OpenVINO's format of a model, in float32, with its facts in the section ``septa``."""
    openvino = import_openvino()
    graph = openvino.Core().read_model(_trace_onnx(model, facts))
    for key, value in facts.to_metadata().items():
        graph.set_rt_info(value, ["septa", key])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        parts = {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}
    engine = OpenVINOEngine(parts[".xml"], torch.get_num_threads(), parts[".bin"])
    return ExportedFile(parts=parts, run=engine, about=f"OpenVINO {openvino.get_version().partition('-')[0]}")


def _trace_onnx(model: Model, facts: ExportFacts) -> bytes:
    net = build_export_net(model, logits=facts.logits)
    names = {"image": "BYX", facts.output: "BYX"}
    try:
        return write_graph(net, make_export_probe(model), names, operators=OPERATORS)
    except MemoryError:
        raise
    except Exception as error:
        problem = "PyTorch cannot export this net to ONNX"
        raise InputError("septa export", problem, "Give -o NAME.pt") from error


def _dump(facts: ExportFacts) -> str:
    import json

    return json.dumps(facts.to_metadata(), indent=1)


MAKERS: Mapping[str, Callable[[Model, ExportFacts], ExportedFile]] = {
    "onnx": make_onnx,
    "torchscript": make_torchscript,
    "openvino": make_openvino,
}
"""Function that makes the files of each format of one net."""
