"""`UNetConfig`: its checks, and nets that are rebuilt from it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import pytest
import torch

from septa.nets import UNet, UNetConfig
from septa.recipe import NetSettings

CHANGES: dict[str, Any] = {
    "depth": 2,
    "width": 8,
    "padding": "valid",
    "norm": "group",
    "up": "bilinear",
    "dropout": 0.25,
    "widths": (64, 8, 16, 8, 8),
    "decoder_widths": (8, 4, 8, 16),
    "bias": True,
    "head_kernel": 3,
    "odd_sizes": "crop",
    "reduction": 2,
    "magnification": 2,
    "block": "residual",
    "squeeze": True,
    "attention": True,
    "aspp": True,
    "nested": True,
    "deep_supervision": True,
    "encoder": "resnet18",
}


def test_every_setting_has_a_test_value() -> None:
    assert {"in_channels", "out_channels", *CHANGES} == {field.name for field in fields(UNetConfig)}


@pytest.mark.parametrize("name", CHANGES)
def test_a_net_keeps_the_settings_that_it_was_given(name: str) -> None:
    with torch.device("meta"):
        net = UNet(3, 2, **{name: CHANGES[name]})
    assert net.config == replace(UNetConfig(in_channels=3, out_channels=2), **{name: CHANGES[name]})
    assert net.config != UNetConfig(in_channels=3, out_channels=2)


@pytest.mark.parametrize("name", CHANGES)
def test_a_net_is_rebuilt_from_its_config(name: str) -> None:
    """The layers, their order and their random weights are those of the keyword constructor."""
    small = {} if "widths" in name else {"depth": 1, "width": 4}  # widths fit the default depth and width
    settings = {**small, name: CHANGES[name]}
    torch.manual_seed(0)
    net = UNet(1, 2, **settings)
    torch.manual_seed(0)
    again = UNet.from_config(UNetConfig(in_channels=1, out_channels=2, **settings))
    assert again.config == net.config
    weights, others = net.state_dict(), again.state_dict()
    assert list(weights) == list(others)
    # Exact: both draw the same numbers in the same order.
    assert all(torch.equal(weights[key], others[key]) for key in weights)


def test_a_subclass_is_rebuilt_as_itself() -> None:
    class Special(UNet):
        pass

    config = UNetConfig(in_channels=1, out_channels=2, depth=1, width=2)
    assert type(Special.from_config(config)) is Special


def test_a_pruned_net_has_a_config_of_its_own() -> None:
    net = UNet(1, 2, depth=3, width=2, nested=True, deep_supervision=True, aspp=True)
    small = net.prune(2)
    assert small.config == replace(net.config, depth=2, deep_supervision=False, aspp=False)
    assert net.prune(3).config == replace(net.config, deep_supervision=False)


def test_a_config_cannot_be_changed() -> None:
    config = UNetConfig(in_channels=1, out_channels=2)
    with pytest.raises(FrozenInstanceError):
        config.depth = 3  # type: ignore[misc]


def test_the_recipe_has_the_settings_of_the_config() -> None:
    """Defaults may differ (a recipe's net is narrower), names and valid values may not."""
    expected = {field.name for field in fields(UNetConfig)} - {"in_channels", "out_channels"}
    assert expected == set(NetSettings.model_fields) - {"output", "pretrained"}
    settings = NetSettings().model_dump(exclude={"output", "pretrained"})
    assert asdict(UNetConfig(in_channels=1, out_channels=2, **settings)) == {
        "in_channels": 1,
        "out_channels": 2,
        **settings,
    }


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="'dept'"):
        UNet(1, 2, dept=3)
    with pytest.raises(TypeError):
        UNetConfig(1, 2)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"in_channels": 0}, "in_channels, out_channels, depth and width must be at least 1, got 0, 2, 4, 64"),
        ({"depth": 0}, "in_channels, out_channels, depth and width must be at least 1, got 1, 2, 0, 64"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
        ({"padding": "no"}, "padding must be same or valid, got 'no'"),
        ({"norm": "layer"}, "norm must be batch, group, instance or none, got 'layer'"),
        ({"up": "nearest"}, "up must be transpose, bilinear or aligned, got 'nearest'"),
        ({"block": "dense"}, "block must be plain or residual, got 'dense'"),
        ({"reduction": 3}, "reduction must be 1, 2, 4 or 8, got 3"),
        ({"encoder": "vgg"}, "encoder must be plain, resnet18, resnet34, resnet50 or timm:NAME, got 'vgg'"),
        (
            {"padding": "valid", "aspp": True},
            "padding=valid and aspp=true exclude each other; set padding=same or aspp=false",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        UNetConfig(**{"in_channels": 1, "out_channels": 2, **settings})
    assert str(caught.value) == problem
