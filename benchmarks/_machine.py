"""The machine that a benchmark runs on: what it is, how fast it multiplies matrices, what a process holds."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("septa", "torch", "numpy", "openvino", "nncf", "onnxruntime", "numba", "opencv-python-headless")


def facts() -> dict[str, str]:
    """What figures depend on: processor, cores, memory, system and versions. No names, no paths."""
    from septa.runtime import count_cores, find_memory_limit

    told = {
        "processor": processor(),
        "cores": str(count_cores()),
        "memory": f"{find_memory_limit() / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            told[package] = "not installed"
    return told


def processor() -> str:
    """Its name, and of its vector instructions the widest that it knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", told.get("Features", "")).split()
    known = {"avx512_vnni": "AVX-512 with VNNI", "avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
    widest = next((name for flag, name in known.items() if flag in flags), "")
    return ", ".join(part for part in (told.get("model name", platform.machine()), widest) if part)


def matrix_peak(seconds: float = 0.5) -> tuple[float, str]:
    """GFLOP/s of the fastest product of two float32 matrices with torch's number of threads, and whose it was.

    Of 1024 x 1024 and 2048 x 2048 values, by PyTorch, NumPy, and oneDNN with matrices in its own layout: which of them
    knows a processor best differs, and convolutions are oneDNN's. Each product is repeated for so many seconds.
    """
    rates = [
        (2 * side**3 / fastest(product, seconds) / 1e9, name)
        for side in (1024, 2048)
        for name, product in _products(side).items()
    ]
    return max(rates)


def _products(side: int) -> dict[str, Callable[[], Any]]:
    import numpy as np
    import torch

    a, b = torch.rand(side, side), torch.rand(side, side)
    products: dict[str, Callable[[], Any]] = {"PyTorch": partial(torch.mm, a, b)}
    products["NumPy"] = partial(np.matmul, a.numpy(), b.numpy())
    if torch._C._has_mkldnn:
        products["oneDNN"] = partial(torch.ops.aten.mkldnn_linear.default, a.to_mkldnn(), b.to_mkldnn())
    return products


def fastest(work: Callable[[], Any], seconds: float) -> float:
    """Least seconds of one call among those that fit into a time, behind one that warms up."""
    work()
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - began)
    return least


def held(peak: bool = False) -> int:
    """Resident memory of this process in bytes, or the most since `forget_peak`; Linux alone."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def forget_peak() -> int:
    """Let the peak of `held` begin anew; returns what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return held()
