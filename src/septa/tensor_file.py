"""Pack tensors and a JSON header into one safetensors file, with a checksum over both.

Reading such a file executes no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from septa.errors import ModelError

_COPY_AGAIN = "Copy it again from its origin"


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) over names, dtypes, shapes and bytes of tensors, in the order of their names.

    Memory layout, device and gradients do not change it.

    Examples
    --------
    >>> digest_tensors({"a": torch.zeros(2)}) == digest_tensors({"a": torch.zeros(2)})
    True
    >>> digest_tensors({"a": torch.zeros(2)}) == digest_tensors({"b": torch.zeros(2)})
    False
    """
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return total.hexdigest()


def pack(kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a file that holds a header and tensors.

    Parameters
    ----------
    kind
        Kind of the file and its version, for example "septa model 1"; `unpack` expects the same.
    header
        JSON values without NaN or Inf.
    tensors
        Tensors of any dtype and device.

    Returns
    -------
    bytes
        Content of the file.

    Raises
    ------
    ValueError
        If the header or a floating-point tensor holds NaN or Inf, which are never written.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"'{name}' holds NaN or Inf")
    try:
        text = json.dumps(header, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise ValueError("the header holds NaN or Inf, which JSON cannot hold") from error
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    packed: bytes = safetensors.torch.save(
        plain, {"kind": kind, "header": text, "sha256": _compute_checksum(kind, text, digest_tensors(plain))}
    )
    return packed


def unpack(data: bytes, kind: str, where: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the header and the tensors that `pack` put into a file.

    Parameters
    ----------
    data
        Content of the file.
    kind
        Kind that the file must have.
    where
        Path of the file, which errors name.

    Returns
    -------
    header : dict
        JSON values.
    tensors : dict
        Tensors on the CPU.

    Raises
    ------
    ModelError
        If the bytes are of another kind, damaged, or were changed after they were written.
    """
    metadata = _read_metadata(data)
    if metadata is None or metadata.get("kind") != kind:
        raise ModelError(where, f"the file is not a {kind.rsplit(' ', 1)[0]}", "Give a file that septa wrote")
    try:
        tensors = safetensors.torch.load(data)
    # A KeyError is raised for a dtype that torch lacks.
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(where, "the file is damaged: its tensors cannot be read", _COPY_AGAIN) from error
    text = metadata.get("header", "")
    if _compute_checksum(kind, text, digest_tensors(tensors)) != metadata.get("sha256"):
        raise ModelError(where, "the file was changed after septa wrote it: its checksum differs", _COPY_AGAIN)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(where, "the file is damaged: its header is not a JSON object", _COPY_AGAIN)
    return header, tensors


def _compute_checksum(kind: str, header: str, tensors_digest: str) -> str:
    return hashlib.sha256(f"{kind}\n{header}\n{tensors_digest}".encode()).hexdigest()


def _read_metadata(data: bytes) -> dict[str, str] | None:
    """Return the text entries of a safetensors header, or None if the bytes are not such a file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or length > len(data) - 8:
        return None
    try:
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        return {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
