"""Tiny models of several kinds, with batch statistics that differ from those of a new net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def save_model(path: Path, *overrides: str, members: int = 1, **attributes: Any) -> Path:
    """Write an untrained model of width 4 and depth 2."""
    import torch
    from torch import nn

    from septa.images import Normalization
    from septa.labels import LabelMapping
    from septa.model import Model, build_net
    from septa.nets import Ensemble
    from septa.recipe import Recipe
    from septa.tasks import make_task

    channels = attributes.setdefault("channels", 1)
    labels = attributes.setdefault("labels", LabelMapping("binary", ("background", "cell"), (0, 255)))
    attributes.setdefault("normalization", Normalization("dataset", (30.0,) * channels, (50.0,) * channels, clip=10.0))
    recipe = Recipe().with_overrides(["net.width=4", "net.depth=2", *overrides])
    nets = []
    for seed in range(members):
        torch.manual_seed(seed)
        net = build_net(recipe, channels, make_task(recipe, labels).outputs).eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.3, 3)
        nets.append(net)
    net = nets[0] if members == 1 else Ensemble(nets)
    Model(net=net, recipe=recipe, provenance={"train": []}, **attributes).save(path)
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write models of several kinds; not to be changed."""
    from septa.images import Normalization
    from septa.labels import LabelMapping

    folder = tmp_path_factory.mktemp("models")
    objects = LabelMapping("instances", ("background", "round", "long cell"), (0, 1, 2))
    one = ["net.output=sigmoid", "loss.cross_entropy=0", "loss.bce=1"]
    return {
        "plain": save_model(folder / "plain.septa"),
        "single": save_model(folder / "single.septa", *one),
        "ensemble": save_model(folder / "ensemble.septa", members=3),
        "valid": save_model(folder / "valid.septa", "net.padding=valid", "net.norm=none"),
        "objects": save_model(
            folder / "objects.septa",
            "task=instances",
            "instances.encoding=distance",
            labels=objects,
            normalization=Normalization("image", curve=20.0, clip=10.0, invert_light=True),
        ),
        "five": save_model(
            folder / "five.septa",
            "data.resize=[64, 80]",
            channels=5,
            normalization=Normalization(
                "dataset", (1e3, 20.0, 3.0, 4.0, 5e4), (500.0, 2.0, 0.1, 1e-3, -2e4), clip=10.0
            ),
        ),
        "attention": save_model(folder / "attention.septa", "net.attention=true"),
        "nested": save_model(folder / "nested.septa", "net.nested=true", "net.deep_supervision=true"),
        "resnet": save_model(folder / "resnet.septa", "net.encoder=resnet18"),
    }
