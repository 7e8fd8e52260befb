"""What executes a net: arrays in, arrays out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from septa.errors import InputError, SeptaError
from septa.inference._onnxruntime import OnnxRuntimeEngine
from septa.inference._torch import MODES, TYPES, torch_engine
from septa.inference.fold import PARITY
from septa.inference.graph import GridNet, accept_any_size, export_graph
from septa.inference.int8 import Int8
from septa.inference.openvino_engine import OpenVINOEngine
from septa.inference.protocol import Engine, SingleImageEngine

ENGINES = ("auto", "torch", "openvino", "onnxruntime")
_EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}
"""Engines beside torch, the usually faster first, and the extra that brings each."""
_INTEGERS = "openvino"
"""The engine that executes nets in 8-bit integers."""
_NEEDS = ("onnx",)
"""What writes the graph that they read."""
_TRIAL = 256
"""Pixels a side of what ``auto`` tries engines on."""
_GAIN = 1.1
"""How many times as fast as torch an engine has to be for ``auto`` to take it: less is within what timings vary."""


def make_engine(
    net: Any,
    device: torch.device | str = "cpu",
    name: str = "torch",
    *,
    key: str = "",
    int8: Int8 | None = None,
    notify: Callable[[str], None] | None = None,
) -> Engine:
    """What executes ``net``.

    Parameters
    ----------
    net
        A `septa.nets.UNet`.
    device
        Only torch runs elsewhere than on the CPU.
    name
        One of `ENGINES`. ``auto`` tries on the first tile the engines that are installed, and takes the fastest whose
        logits are torch's within `PARITY` of the largest. ``torch+bf16`` and ``torch+fp16`` compute in these types
        where autocast does, ``torch+compile`` by `torch.compile`, ``torch+bf16+compile`` both.
    key
        Tells the net's weights and settings from all others; its graph is then kept in the user's cache folder.
    int8
        The net in 8-bit integers, which ``openvino`` and ``auto`` execute on the CPU instead of the net.
    notify
        Is told which engine ``auto`` takes and why, a line; standard error when not given.

    Raises
    ------
    InputError
        There is no such engine, its package is not installed, it does not run on this device or cannot run this net.
    ResourceError
        By the engine: memory does not suffice for a tile.
    """
    device = torch.device(device)
    modes = parse_modes(name)
    if modes is None and name not in ENGINES:
        known = f"use {', '.join(ENGINES[:-1])} or {ENGINES[-1]}; torch may be followed by +{', +'.join(MODES)}"
        raise InputError(f"--engine {name}", "is not known", known)
    if modes is not None or (name == "auto" and device.type != "cpu"):
        return torch_engine(net, device, modes or ())
    if name == "auto" and (int8 is None or _find_missing(_INTEGERS)):
        return _choose_on_first_tile(net, key, notify or _print_to_stderr)
    if name == "auto":
        (notify or _print_to_stderr)(f"engine: {_INTEGERS}, which executes this model in 8-bit integers")
        name = _INTEGERS
    if device.type != "cpu":
        raise InputError(f"--engine {name}", f"runs on the CPU, not on {device.type}", "give --engine torch")
    if missing := _find_missing(name):
        remedy = f"pip install 'septa[{_EXTRAS[name]}]', or give --engine torch"
        raise InputError(f"--engine {name}", f"{missing} is not installed", remedy)
    if int8 is not None and name == _INTEGERS:
        return int8.engine(net)
    return graph_engine(net, name, export_graph(net, key))


def graph_engine(net: GridNet, name: str, graph: bytes, threads: int | None = None) -> Engine:
    """Return an engine that runs a graph of a net with OpenVINO or ONNX Runtime.

    Parameters
    ----------
    net
        The net, of which only the sizes are used.
    name
        ``openvino`` or ``onnxruntime``.
    graph
        ONNX bytes of the net, from `export_graph`.
    threads
        Number of threads; PyTorch's if None.

    Raises
    ------
    InputError
        The package cannot run this net; raised by the engine where it shows only then.
    """
    make = OpenVINOEngine if name == "openvino" else OnnxRuntimeEngine
    return accept_any_size(net, make(graph, threads or torch.get_num_threads()))


def parse_modes(name: str) -> tuple[str, ...] | None:
    """What follows ``torch`` in the name of an engine, such as ``torch+bf16``; None if that is another's or unknown.

    Examples
    --------
    >>> parse_modes("torch+bf16+compile"), parse_modes("torch"), parse_modes("openvino")
    (('bf16', 'compile'), (), None)
    """
    first, *modes = name.split("+")
    known = (
        first == "torch" and set(modes) <= set(MODES) and len(set(modes)) == len(modes) and not set(TYPES) <= set(modes)
    )
    return tuple(modes) if known else None


# The choice ----------------------------------------------------------------------------------------------------------


def _choose_on_first_tile(net: nn.Module, key: str, notify: Callable[[str], None]) -> Engine:
    chosen: Engine | None = None

    def compute(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal chosen
        if chosen is None:
            chosen, why = _choose(net, key, image_cyx)
            notify(f"engine: {why}")
        return chosen(image_cyx)

    return SingleImageEngine(compute)


def _choose(net: Any, key: str, image_cyx: NDArray[np.float32]) -> tuple[Engine, str]:
    """The fastest engine that agrees with torch on a part of an image, and why it is."""
    own = torch_engine(net)
    names = [name for name in _EXTRAS if not _find_missing(name)]
    if not names:
        return own, f"torch (pip install 'septa[{next(iter(_EXTRAS.values()))}]' may bring a faster one)"
    part_cyx = _cut_part(net, image_cyx)
    expected, usual = _time_passes(own, part_cyx)
    scale = float(np.abs(expected).max()) or 1.0
    best: tuple[float, Engine, str] = (usual / _GAIN, own, f"torch, which none of {', '.join(names)} clearly beats")
    refused = []
    for name in names:
        try:
            engine = graph_engine(net, name, export_graph(net, key))
            logits, seconds = _time_passes(engine, part_cyx)
        except Exception as error:  # torch can run every net
            why = error.problem if isinstance(error, SeptaError) else f"{name} cannot run this net"
            refused.append(why)
            continue
        differs = float(np.abs(logits - expected).max()) / scale
        if not differs <= PARITY:
            refused.append(f"{name} differs from torch by {differs:.1e} of the largest logit")
        elif seconds < best[0]:
            why = f"{name}, {usual / seconds:.1f} times as fast as torch, logits differ by {differs:.0e} of the largest"
            best = seconds, engine, why
    return best[1], "; ".join([best[2], *refused])


def _cut_part(net: Any, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first pixels of an image, as many as a trial takes."""
    height, width = (min(side, net.valid_size(max(_TRIAL, 2 * net.multiple))) for side in image_cyx.shape[1:])
    return np.ascontiguousarray(image_cyx[:, :height, :width])


def _time_passes(engine: Engine, image_cyx: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Logits, and the less of the seconds of two passes behind one that warms up."""
    engine(image_cyx)
    seconds = []
    for _ in range(2):
        began = perf_counter()
        logits_kyx = engine(image_cyx)
        seconds.append(perf_counter() - began)
    return logits_kyx, min(seconds)


def _find_missing(name: str) -> str | None:
    """What of an engine's packages is not installed."""
    return next((package for package in (name, *_NEEDS) if find_spec(package) is None), None)


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
