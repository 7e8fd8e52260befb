"""Process set-up for speed, and facts about the machine.

Call `prepare` before torch first allocates memory, as the command line does. No result depends on this module.
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
# -1 means "never": a threshold is an int, so it could not exceed 2 GiB, and trainings use more.
_NEVER = -1


def prepare() -> bool:
    """Ask for huge pages, for waiting threads to sleep, and for glibc to keep large freed blocks.

    Every network pass allocates and frees the same large blocks. By default glibc returns each block to the kernel, and
    the next pass pays a page fault for every 4 KiB of it. Threads that spin while they wait cost nothing on an idle
    machine, but they slow a training down several times when another program needs the same cores. Choices that the
    user's environment makes are kept. ``septa --no-prepare`` leaves the process unchanged.

    Returns
    -------
    bool
        True if glibc keeps freed blocks; False on other systems.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not sys.platform.startswith("linux"):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        # The C library is not glibc.
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


@dataclass(frozen=True)
class Machine:
    """The machine that a recipe is fitted to.

    Attributes
    ----------
    cores
        Number of usable cores.
    memory
        Usable memory in bytes.
    device
        Name of the device, such as ``cpu`` or ``cuda``.
    """

    cores: int
    memory: int
    device: str

    def describe(self) -> str:
        """Return one line of text."""
        return f"{self.cores} cores, {self.memory / 2**30:.1f} GiB memory, {self.device}"


def inspect_machine(device: str = "auto") -> Machine:
    """Describe this machine; imports torch.

    Parameters
    ----------
    device
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    """
    return Machine(count_cores(), find_memory_limit(), str(pick_device(device)))


def count_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_memory_limit() -> int:
    """Return the bytes that this process may use: the smaller of the machine's memory and the control group's limit."""
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
        limits.append(_read_windows_memory())
    return min(limits)


def _read_windows_memory() -> int:
    """Return the memory of a machine with Windows, bytes; 8 GiB if the system does not report it."""
    # MEMORYSTATUSEX: its own size and the load, and 7 numbers of 64 bits, of which the first is the memory.
    status = (ctypes.c_uint64 * 8)(64)
    windows = getattr(ctypes, "windll", None)
    if windows is None or not windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return 8 * 2**30
    return int(status[1])


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of a name; ``auto`` chooses CUDA, then MPS, then the CPU.

    Raises
    ------
    InputError
        The name is not valid, or this machine does not have the device.
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
        problem = f"the device must be auto, cpu, cuda, cuda:N or mps, got {name or 'an empty name'}"
        raise InputError("--device", problem, "Give for example --device cpu")
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InputError("--device", f"this machine does not have the device {name}", "Give --device auto")
    return device


def has_fast_bf16(device: str = "cpu") -> bool:
    """Return True if a device computes faster in bfloat16 than in float32, because it has instructions for that.

    Parameters
    ----------
    device
        Name of a device as `pick_device` takes it. The machine need not have it.
    """
    import torch

    kind = (pick_device() if device == "auto" else torch.device(device)).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def collect_versions() -> dict[str, str]:
    """Return the versions of septa, torch, numpy, Python and the platform."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("septa", "torch", "numpy")}
    return {**packages, "python": platform.python_version(), "platform": platform.platform()}
