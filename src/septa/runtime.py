"""Process set-up for speed, and facts of the machine.

`prepare` is to be called before torch first allocates; the command line does so. Nothing here is needed for correct
results.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
"""Function that long work calls as ``progress(done, total)`` after each item, so that the caller can show it."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1  # an int holds no threshold above 2 GiB, which trainings exceed


def prepare() -> bool:
    """Ask for huge pages, idle threads that sleep, and freed large blocks to be kept; returns whether glibc keeps them.

    Every network pass allocates and frees the same large blocks. By default glibc gives each one back to the kernel,
    and the next pass pays a page fault for every 4 KiB of it. Threads that spin while they wait for each other cost
    nothing on an idle machine, but slow a training down several times as soon as another program wants the same cores.
    ``septa --no-prepare`` leaves the process as it is.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not sys.platform.startswith("linux"):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another libc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


@dataclass(frozen=True)
class Machine:
    """What a recipe is fitted to: usable cores, memory in bytes, device name."""

    cores: int
    memory: int
    device: str

    def describe(self) -> str:
        """One line for people."""
        return f"{self.cores} cores, {self.memory / 2**30:.1f} GiB memory, {self.device}"


def machine(device: str = "auto") -> Machine:
    """Describe this machine; imports torch.

    Parameters
    ----------
    device
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    """
    return Machine(usable_cores(), usable_memory(), str(pick_device(device)))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_memory() -> int:
    """Memory in bytes that this process may use: the machine's or its control group's limit, whichever is less."""
    limits = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 - a kernel file, not data
                limits.append(int(file.read()))
        except (OSError, ValueError):
            continue
    try:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        limits.append(8 * 2**30)
    return min(limits)


def pick_device(name: str = "auto") -> torch.device:
    """The `torch.device` for a name; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    InputError
        The device is not there.
    """
    import torch

    from septa.errors import InputError

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}", "is no device", "use auto, cpu, cuda, cuda:N or mps")
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InputError(f"--device {name}", "this machine has no such device", "use --device auto")
    return device


def versions() -> dict[str, str]:
    """Versions of septa, torch, numpy, Python and the platform."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("septa", "torch", "numpy")}
    return {**packages, "python": platform.python_version(), "platform": platform.platform()}
