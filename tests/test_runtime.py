from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import septa
from septa import runtime
from septa.errors import InputError
from septa.runtime import (
    Machine,
    collect_versions,
    count_cores,
    find_memory_limit,
    inspect_machine,
    pick_device,
    prepare,
)


def test_preparing_does_not_import_torch() -> None:
    code = (
        "import sys, os; from septa import runtime; assert 'THP_MEM_ALLOC_ENABLE' not in os.environ\n"
        "done = runtime.prepare(); assert 'torch' not in sys.modules\n"
        "assert os.environ.get('THP_MEM_ALLOC_ENABLE') == ('1' if sys.platform.startswith('linux') else None)\n"
        "print(done)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    # In a process of its own, because what it sets stays set.
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() in {"True", "False"}
    assert found.stderr == ""


def test_preparing_keeps_the_choice_of_the_user_and_does_nothing_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _: object())  # a libc without mallopt
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    assert prepare() is False
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    monkeypatch.setattr(runtime.sys, "platform", "darwin")
    assert prepare() is False
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_preparing_asks_glibc_to_keep_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            calls.append((parameter, value))
            return 1

    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _: Library())
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    assert prepare() is True
    # The constants are M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h; a threshold of -1 means: never trim.
    assert calls == [(-4, 0), (-1, -1)]


def test_the_facts_about_the_machine_are_plausible() -> None:
    found = inspect_machine("cpu")
    assert found.device == "cpu"
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert 2**27 < found.memory < 2**50
    assert Machine(2, 3 * 2**29, "cpu").describe() == "2 cores, 1.5 GiB memory, cpu"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be set here")
def test_the_cores_of_the_process_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert count_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cores() == 1


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "1048576\n"}, 2**20),
        ({"memory.max": "max\n"}, None),
        ({"memory.limit_in_bytes": "2097152"}, 2**21),
        ({"memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ({}, None),
    ],
)
def test_the_smaller_limit_of_machine_and_control_group_counts(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], limit: int | None
) -> None:
    def opened(path: str, **_: str) -> io.StringIO:
        name = Path(path).name
        if name not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[name])

    monkeypatch.setattr(runtime, "open", opened, raising=False)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert find_memory_limit() == (limit or physical)


@pytest.mark.parametrize(("cuda", "mps", "picked"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_chooses_the_fastest_device(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, picked: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == pick_device("auto") == torch.device(picked)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "xla", "cuda:x", "CPU", "0"])
def test_invalid_device_names_are_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        pick_device(name)
    got = name or "an empty name"
    problem = f"the device must be auto, cpu, cuda, cuda:N or mps, got {got}"
    assert str(caught.value) == f"--device: {problem}. Give for example --device cpu."


def test_missing_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(
            InputError, match=f"^--device: this machine does not have the device {name}\\. Give --device auto\\.$"
        ):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match="device cuda:2"):
        pick_device("cuda:2")


def test_versions_lists_what_a_result_depends_on() -> None:
    found = collect_versions()
    assert found["septa"] == septa.__version__
    assert found["torch"] == torch.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(found) == {"septa", "torch", "numpy", "python", "platform"}
