"""The machine that a benchmark runs on: its hardware, its matrix speed and the memory of a process."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("septa", "torch", "numpy", "openvino", "nncf", "onnxruntime", "numba", "opencv-python-headless")


def collect_facts() -> dict[str, str]:
    """Return what the figures depend on: processor, cores, memory, system and versions.

    The facts hold no host name, user name or path.
    """
    from septa.runtime import count_cores, find_memory_limit

    facts = {
        "processor": name_processor(),
        "cores": str(count_cores()),
        "memory": f"{find_memory_limit() / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def name_processor() -> str:
    """Return the name of the processor and its widest vector instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", "")).split()
    known = {"avx512_vnni": "AVX-512 with VNNI", "avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
    widest = next((name for flag, name in known.items() if flag in flags), "")
    return ", ".join(part for part in (fields.get("model name", platform.machine()), widest) if part)


def measure_matrix_peak(seconds: float = 0.5) -> tuple[float, str]:
    """Return the GFLOP/s of the fastest float32 matrix product, and the name of the library that computed it.

    The matrices have 1024 x 1024 and 2048 x 2048 values. They are multiplied by PyTorch, by NumPy, and by oneDNN with
    matrices in its own layout, all with torch's number of threads. The fastest of the three depends on the processor;
    convolutions run in oneDNN. Each product is repeated for ``seconds``.
    """
    rates = [
        (2 * side**3 / time_fastest(product, seconds) / 1e9, name)
        for side in (1024, 2048)
        for name, product in _make_products(side).items()
    ]
    return max(rates)


def _make_products(side: int) -> dict[str, Callable[[], Any]]:
    import numpy as np
    import torch

    a, b = torch.rand(side, side), torch.rand(side, side)
    products: dict[str, Callable[[], Any]] = {"PyTorch": partial(torch.mm, a, b)}
    products["NumPy"] = partial(np.matmul, a.numpy(), b.numpy())
    if torch._C._has_mkldnn:
        products["oneDNN"] = partial(torch.ops.aten.mkldnn_linear.default, a.to_mkldnn(), b.to_mkldnn())
    return products


def time_fastest(work: Callable[[], Any], seconds: float) -> float:
    """Return the seconds of the fastest call, after a warm-up call; calls are repeated for ``seconds``."""
    work()
    least = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - began)
    return least


def read_memory(peak: bool = False) -> int:
    """Return the resident memory of this process in bytes, or its peak since `reset_peak_memory`; Linux only."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def reset_peak_memory() -> int:
    """Reset the peak of `read_memory`; return the memory of this process now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_memory()
