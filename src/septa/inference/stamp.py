"""What is made from the weights of a net, and made again only after a weight has changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from typing import TypeVar

from torch import nn

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
Stamp = tuple[tuple[int, int, int], ...]
"""Identity and version of each weight of a net: it changes when a weight changes."""


def compute_stamp(net: nn.Module) -> Stamp | None:
    """Return the stamp of a net's weights, or None if PyTorch does not count their versions."""
    try:
        tensors = net.state_dict(keep_vars=True).values()
        return tuple((id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors)
    except RuntimeError:  # the weights were made in inference mode
        return None


def reuse(
    known: MutableMapping[_Key, tuple[Hashable, _Value]], key: _Key, stamp: Hashable | None, make: Callable[[], _Value]
) -> _Value:
    """Return the value of a key if it was made under this stamp; otherwise make it, and keep it unless that is None."""
    made = known.get(key)
    if made is not None and stamp is not None and made[0] == stamp:
        return made[1]
    value = make()
    if stamp is not None:
        known[key] = stamp, value
    return value
