from __future__ import annotations

import errno

import cv2
import pytest
import torch

from septa.errors import InputError, OutOfMemory, is_out_of_memory, unify_out_of_memory

EXHAUSTED = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not execute a primitive"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("can't start new thread"),
    cv2.error("OpenCV(4.9.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes in function"),
]
OTHERS = [
    RuntimeError("could not create a primitive descriptor for a matmul primitive"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    ValueError("the memory of the mesh"),
    OSError(errno.ENOSPC, "No space left on device"),
    InputError("x.png", "there is not enough memory", "Split it"),
]


@pytest.mark.parametrize("error", EXHAUSTED, ids=repr)
def test_exhausted_memory_is_recognised_whoever_reports_it(error: Exception) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(MemoryError), unify_out_of_memory():
        raise error


@pytest.mark.parametrize("error", [*OTHERS, OutOfMemory("memory", "a tile", "Give less")], ids=repr)
def test_other_errors_are_not_taken_for_exhausted_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, unify_out_of_memory():
        raise error
    assert caught.value is error
