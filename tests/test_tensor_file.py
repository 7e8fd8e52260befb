"""Check the file of tensors: every bit comes back, and any damage is noticed without running code."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from septa.errors import ModelError
from septa.tensor_file import digest_tensors, pack, unpack

KIND = "septa test 1"
HEADER: dict[str, Any] = {"a": [1, 2.5, None, "ü\n"], "b": {"c": True}}
TENSORS = {
    "weight": torch.tensor([[0.1, -0.0, 1e-45], [3e38, 1.0, -2.0]]),
    "half": torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
    "count": torch.tensor(2**40),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "flags": torch.tensor([True, False, True]),
    "none": torch.zeros(0, 3),
}


def same_bytes(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return a.numel() == 0 or torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def forge(metadata: dict[str, str] | None, tensors: dict[str, Any], data: bytes = b"") -> bytes:
    """Build a safetensors file by hand."""
    header = json.dumps({**({} if metadata is None else {"__metadata__": metadata}), **tensors}).encode()
    return struct.pack("<Q", len(header)) + header + data


def build_file_with_header(text: str) -> bytes:
    """Build a file without tensors, with any text as its header and the checksum of that."""
    inner = hashlib.sha256().hexdigest()
    seal = hashlib.sha256(f"{KIND}\n{text}\n{inner}".encode()).hexdigest()
    return forge({"kind": KIND, "header": text, "sha256": seal}, {})


PROBLEMS = (
    "the file is not a septa test",
    "the file is damaged: its tensors cannot be read",
    "the file is damaged: its header is not a JSON object",
    "the file was changed after septa wrote it: its checksum differs",
)
"""All that may be wrong with a file; the messages of safetensors are not among them."""


def refused(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        unpack(data, KIND, "dir/x.septa")
    text = str(caught.value)
    assert text.startswith("dir/x.septa: ")
    assert len(text.splitlines()) == 1
    assert caught.value.problem in PROBLEMS
    return text


def test_round_trip_keeps_every_bit() -> None:
    header, tensors = unpack(pack(KIND, HEADER, TENSORS), KIND, "x")
    assert header == HEADER
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert same_bytes(tensor, tensors[name]), name


def test_memory_layout_and_gradients_do_not_matter() -> None:
    plain = torch.randn(2, 3, 4, 5)
    other = plain.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert digest_tensors({"a": plain}) == digest_tensors({"a": other})
    _, tensors = unpack(pack(KIND, {}, {"a": other}), KIND, "x")
    assert same_bytes(tensors["a"], plain)


def test_digest_changes_with_name_dtype_shape_and_value() -> None:
    zeros = torch.zeros(4)
    variants: list[dict[str, Tensor]] = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.reshape(2, 2)},
        {"a": zeros.int()},
        {"a": -zeros},
        {"a": zeros, "b": zeros},
        {},
    ]
    assert len({digest_tensors(tensors) for tensors in variants}) == len(variants)
    assert digest_tensors({"a": zeros, "b": -zeros}) == digest_tensors({"b": -zeros, "a": zeros})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nothing_non_finite_is_packed(bad: float, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="'w' holds NaN or Inf"):
        pack(KIND, {}, {"v": torch.zeros(2), "w": torch.tensor([0, bad], dtype=dtype)})
    with pytest.raises(ValueError, match="JSON"):
        pack(KIND, {"score": bad}, {})


SEALED = pack(KIND, HEADER, TENSORS)


def test_every_flipped_bit_is_noticed() -> None:
    rng = np.random.default_rng(0)
    for at in range(len(SEALED)):
        damaged = bytearray(SEALED)
        damaged[at] ^= 1 << int(rng.integers(8))
        refused(bytes(damaged))


def test_every_truncation_and_extension_is_noticed() -> None:
    for length in range(len(SEALED)):
        refused(SEALED[:length])
    refused(SEALED + b"\0")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert "the file is not a septa test" in refused(data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.booleans())
def test_random_bytes_in_the_headers_place_are_refused(inner: bytes, brace: bool) -> None:
    inner = b'{"__metadata__":' + inner if brace else inner
    refused(struct.pack("<Q", len(inner)) + inner)


@pytest.mark.parametrize(
    "data",
    [
        safetensors.torch.save({"a": torch.zeros(2)}),
        safetensors.torch.save({"a": torch.zeros(2)}, {"kind": "septa other 1"}),
        pack("septa test 2", HEADER, TENSORS),
        pickle.dumps({"a": 1}),
        b"",
        b"\x80\x04.",
        b"PK\x03\x04" + bytes(100),
        struct.pack("<Q", 2**63) + b"{}",
        forge({"kind": KIND}, {})[:-1],
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    assert refused(data) == "dir/x.septa: the file is not a septa test. Give a file that septa wrote."


@pytest.mark.parametrize("metadata", [{"kind": KIND}, {"kind": KIND, "header": "{}"}, {"kind": KIND, "sha256": ""}])
def test_a_file_without_checksum_is_refused(metadata: dict[str, str]) -> None:
    assert "checksum differs" in refused(forge(metadata, {}))


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3", "F4_X", "C64", "", "F32"])
def test_any_dtype_in_the_file_is_refused_without_another_exception(dtype: str) -> None:
    for size in (1, 3, 4, 8):
        entry = {"dtype": dtype, "shape": [4], "data_offsets": [0, size]}
        refused(forge({"kind": KIND, "header": "{}", "sha256": ""}, {"a": entry}, bytes(size)))


@pytest.mark.parametrize("shape", [[2**40, 2**40], [2**62], [-1], [1.5], "x", None])
def test_any_shape_in_the_file_is_refused_without_another_exception(shape: object) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}
    refused(forge({"kind": KIND, "header": "{}", "sha256": ""}, {"a": entry}, bytes(4)))


@pytest.mark.parametrize("text", ["", "{", "3", "null", "[]", '"a"', "[" * 100_000])
def test_a_header_that_is_not_an_object_is_refused(text: str) -> None:
    assert unpack(build_file_with_header('{"a": 1}'), KIND, "x") == ({"a": 1}, {})
    assert "its header is not a JSON object" in refused(build_file_with_header(text))
