"""The choice of an engine by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from septa.errors import InputError, SeptaError
from septa.inference._onnxruntime import OnnxRuntimeEngine
from septa.inference._torch import MODES, TYPES, torch_engine
from septa.inference.ensemble import Averaging, EnsembleEngine
from septa.inference.fold import PARITY
from septa.inference.graph import accept_any_size, export_graph
from septa.inference.int8 import Int8
from septa.inference.openvino_engine import OpenVINOEngine
from septa.inference.protocol import Engine, NetGeometry, SingleImageEngine
from septa.nets import Ensemble

ENGINES = ("auto", "torch", "openvino", "onnxruntime")
_EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}
"""Extra of septa that installs each engine other than torch; the engine that is usually faster comes first."""
_INTEGERS = "openvino"
"""The engine that runs nets in 8-bit integers."""
_NEEDS = ("onnx",)
"""Packages that export the graph for these engines."""
_TRIAL = 256
"""Side, pixels, of the image on which ``auto`` compares engines."""
_GAIN = 1.1
"""Least speed of an engine, as a multiple of torch's, with which ``auto`` chooses it: timings vary by less."""


def make_engine(
    net: Any,
    device: torch.device | str = "cpu",
    name: str = "torch",
    *,
    key: str = "",
    int8: Int8 | None = None,
    averaging: Averaging | None = None,
    notify: Callable[[str], None] | None = None,
) -> Engine:
    """Return an engine that runs a net.

    Parameters
    ----------
    net
        A `septa.nets.UNet`, or a `septa.nets.Ensemble`, all of whose members run in the same way.
    device
        Device that runs it; other engines than torch run on the CPU only.
    name
        One of `ENGINES`, or ``torch`` with modes. ``auto`` compares the installed engines on the first tile and
        chooses the fastest whose logits differ from torch's by at most `PARITY` of the largest. ``torch+bf16`` and
        ``torch+fp16`` compute in these types where autocast does, ``torch+compile`` uses `torch.compile`, and
        ``torch+bf16+compile`` does both.
    key
        Text that identifies the net's weights and settings. Its graph is kept in the user's cache under this key, or
        not at all if it is empty.
    int8
        The net in 8-bit integers, which ``openvino`` and ``auto`` run on the CPU instead of the net.
    averaging
        Functions by which the outputs of the members of an ensemble are averaged; needed for an ensemble only.
    notify
        Function that receives one line: which engine ``auto`` has chosen, and why. It is printed to standard error if
        None.

    Raises
    ------
    InputError
        The engine is not known, its package is not installed, it does not run on this device, or it cannot run this
        net.
    ResourceError
        The engine raises it if the memory does not hold a tile.
    ValueError
        The net is an ensemble, and ``averaging`` is None.
    """
    device = torch.device(device)
    notify = notify or _print_to_stderr
    if isinstance(net, Ensemble):
        return _make_ensemble_engine(net, device, name, key, averaging, notify)
    where = f"--engine {name}"
    modes = parse_modes(name)
    if modes is None and name not in ENGINES:
        remedy = f"Use {', '.join(ENGINES[:-1])} or {ENGINES[-1]}; torch may be followed by +{', +'.join(MODES)}"
        raise InputError(where, "this engine is not known", remedy)
    if modes is not None or (name == "auto" and device.type != "cpu"):
        return torch_engine(net, device, modes or ())
    if name == "auto" and (int8 is None or _find_missing(_INTEGERS)):
        return _choose_on_first_tile(net, key, notify)
    if name == "auto":
        notify(f"engine: {_INTEGERS}, which runs this model in 8-bit integers")
        name = _INTEGERS
    if device.type != "cpu":
        raise InputError(where, f"this engine runs on the CPU, not on {device.type}", "Give --engine torch")
    if missing := _find_missing(name):
        remedy = f"Run pip install 'septa[{_EXTRAS[name]}]', or give --engine torch"
        raise InputError(where, f"the package {missing} is not installed", remedy)
    if int8 is not None and name == _INTEGERS:
        return int8.engine(net)
    return graph_engine(net, name, export_graph(net, key))


def _make_ensemble_engine(
    net: Ensemble,
    device: torch.device,
    name: str,
    key: str,
    averaging: Averaging | None,
    notify: Callable[[str], None],
) -> Engine:
    if averaging is None:
        raise ValueError("the engine of an ensemble needs the functions by which its outputs are averaged")
    keys = [f"{key} member {number}" if key else "" for number in range(len(net.members))]

    def make(name: str) -> Engine:
        members = zip(net.members, keys, strict=True)
        return EnsembleEngine([make_engine(member, device, name, key=own) for member, own in members], averaging)

    if name == "auto" and device.type == "cpu":  # one choice for all members
        return _choose_on_first_tile(net.members[0], keys[0], notify, make)
    return make(name)


def graph_engine(net: NetGeometry, name: str, graph: bytes, threads: int | None = None) -> Engine:
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
        The package cannot run this net. OpenVINO raises it with the first image.
    """
    make = OpenVINOEngine if name == "openvino" else OnnxRuntimeEngine
    return accept_any_size(net, make(graph, threads or torch.get_num_threads()))


def parse_modes(name: str) -> tuple[str, ...] | None:
    """Return the modes that follow ``torch`` in the name of an engine; None for other and for unknown engines.

    Examples
    --------
    >>> parse_modes("torch+bf16+compile"), parse_modes("torch"), parse_modes("openvino")
    (('bf16', 'compile'), (), None)
    """
    first, *modes = name.split("+")
    has_known_modes = set(modes) <= set(MODES) and len(set(modes)) == len(modes) and not set(TYPES) <= set(modes)
    return tuple(modes) if first == "torch" and has_known_modes else None


# The choice of auto --------------------------------------------------------------------------------------------------


def _choose_on_first_tile(
    net: Any, key: str, notify: Callable[[str], None], make: Callable[[str], Engine] | None = None
) -> Engine:
    """Return an engine that is chosen with the first image; ``make`` makes it from the name of the chosen one."""
    chosen: Engine | None = None

    def compute(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal chosen
        if chosen is None:
            name, chosen, reason = _choose(net, key, image_cyx)
            if make is not None:
                chosen = make(name)
            notify(f"engine: {reason}")
        return chosen(image_cyx)

    return SingleImageEngine(compute)


def _choose(net: Any, key: str, image_cyx: NDArray[np.float32]) -> tuple[str, Engine, str]:
    """Return name and engine of the fastest that agrees with torch on a part of an image, and the reason."""
    torch_on_cpu = torch_engine(net)
    names = [name for name in _EXTRAS if not _find_missing(name)]
    if not names:
        reason = f"torch (pip install 'septa[{next(iter(_EXTRAS.values()))}]' may bring a faster one)"
        return "torch", torch_on_cpu, reason
    part_cyx = _cut_part(net, image_cyx)
    expected_kyx, torch_seconds = _time_passes(torch_on_cpu, part_cyx)
    largest = float(np.abs(expected_kyx).max()) or 1.0
    best = ("torch", torch_on_cpu)
    best_seconds = torch_seconds / _GAIN
    reason = f"torch, which none of {', '.join(names)} clearly beats"
    refused = []
    for name in names:
        try:
            engine = graph_engine(net, name, export_graph(net, key))
            logits_kyx, seconds = _time_passes(engine, part_cyx)
        except Exception as error:  # torch can run every net
            refused.append(error.problem if isinstance(error, SeptaError) else f"{name} cannot run this net")
            continue
        difference = float(np.abs(logits_kyx - expected_kyx).max()) / largest
        if not difference <= PARITY:  # also true for NaN
            refused.append(f"{name} differs from torch by {difference:.1e} of the largest logit")
        elif seconds < best_seconds:
            best = (name, engine)
            best_seconds = seconds
            speed = f"{torch_seconds / seconds:.1f} times as fast as torch"
            reason = f"{name}, {speed}, logits differ by {difference:.0e} of the largest"
    return *best, "; ".join([reason, *refused])


def _cut_part(net: NetGeometry, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the top left part of an image, of the size on which engines are compared."""
    height, width = (min(side, net.valid_size(max(_TRIAL, 2 * net.multiple))) for side in image_cyx.shape[1:])
    return np.ascontiguousarray(image_cyx[:, :height, :width])


def _time_passes(engine: Engine, image_cyx: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Return logits, and the seconds of the faster of two runs after a warm-up."""
    engine(image_cyx)
    seconds = []
    for _ in range(2):
        began = perf_counter()
        logits_kyx = engine(image_cyx)
        seconds.append(perf_counter() - began)
    return logits_kyx, min(seconds)


def _find_missing(name: str) -> str | None:
    """Return a package that the engine needs and that is not installed, or None."""
    return next((package for package in (name, *_NEEDS) if find_spec(package) is None), None)


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
