"""Pruning of U-Net++ to fewer levels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from septa.nets.config import UNetConfig


def prune_config(config: UNetConfig, depth: int) -> UNetConfig:
    """Return the config of the net of the first ``depth`` levels; ValueError as of `septa.nets.UNet.prune`."""
    if not (config.nested and config.deep_supervision and config.encoder == "plain"):
        raise ValueError("only a net with nested=true, deep_supervision=true and encoder=plain can be pruned")
    if not 1 <= depth <= config.depth:
        raise ValueError(f"depth must be 1 to {config.depth}, got {depth}")
    return replace(config, depth=depth, deep_supervision=False, aspp=config.aspp and depth == config.depth)


def share_layers(net: Any, small: Any) -> None:
    """Put the layers of a `septa.nets.UNet` into the net of its `prune_config`."""
    for level in range(small.depth + 1):
        small.encoder.add_module(str(level), net.encoder.get_submodule(str(level)))
    for name in ("up", "decoder", "gate"):
        mine, its = getattr(net, name), getattr(small, name)
        its.update({key: mine[key] for key in its})
    if small.aspp is not None:
        small.aspp = net.aspp
    small.dropout = net.dropout
    small.head = net.head if small.depth == net.depth else net.heads[f"0_{small.depth}"]
