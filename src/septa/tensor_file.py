"""Tensors with a JSON header in one safetensors file, sealed by a checksum over both. Reading one executes nothing."""

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

_COPY_AGAIN = "copy it again from where it was written"


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes of tensors, in the order of their names.

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
    """Bytes of a sealed file.

    Parameters
    ----------
    kind
        What the file is, with its version; `unpack` asks for the same.
    header
        JSON values, no NaN or Inf.
    tensors
        Any dtypes and devices.

    Raises
    ------
    ValueError
        The header, or a floating-point tensor, holds NaN or Inf: nothing non-finite is ever written.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"'{name}' holds NaN or Inf")
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    packed: bytes = safetensors.torch.save(
        plain, {"kind": kind, "header": text, "sha256": _seal(kind, text, digest_tensors(plain))}
    )
    return packed


def unpack(data: bytes, kind: str, where: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a sealed file's bytes.

    Raises
    ------
    ModelError
        The bytes are of another kind, damaged, or were changed after they were written.
    """
    metadata = _metadata(data)
    if metadata is None or metadata.get("kind") != kind:
        raise ModelError(where, f"is no {kind.rsplit(' ', 1)[0]}", "give a file that septa wrote")
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a dtype that torch lacks
        raise ModelError(where, f"is damaged ({' '.join(str(error).split())})", _COPY_AGAIN) from None
    text = metadata.get("header", "")
    if _seal(kind, text, digest_tensors(tensors)) != metadata.get("sha256"):
        raise ModelError(where, "was changed after septa wrote it: its checksum differs", _COPY_AGAIN)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(where, "is damaged (its header is no JSON object)", _COPY_AGAIN)
    return header, tensors


def _seal(kind: str, header: str, tensors_digest: str) -> str:
    return hashlib.sha256(f"{kind}\n{header}\n{tensors_digest}".encode()).hexdigest()


def _metadata(data: bytes) -> dict[str, str] | None:
    """The text entries of a safetensors header, or None if the bytes are no such file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or length > len(data) - 8:
        return None
    try:
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        return {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
