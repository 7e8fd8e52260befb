"""`--tta`, `--prune` and `--task` where they do not fit: one line, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from septa.images.write import write_image, write_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, a labels folder, and untrained models: ``plain.septa`` and the U-Net++ ``nested.septa``."""
    import torch

    from septa.images.normalize import Normalization
    from septa.labels.mapping import LabelMapping
    from septa.model import Model, build_net
    from septa.recipe import Recipe

    folder = tmp_path_factory.mktemp("variants")
    labels = LabelMapping("binary", ("background", "cell"), (0, 255))
    for name, settings in (("plain", []), ("nested", ["nested=true", "deep_supervision=true"])):
        torch.manual_seed(0)
        recipe = Recipe().with_overrides(["width=2", "depth=2", *settings])
        net = build_net(recipe, 1, 2).eval()
        normalization = Normalization("dataset", (100.0,), (50.0,))
        Model(net, 1, labels, normalization, recipe, {"train": []}).save(folder / f"{name}.septa")
    write_image(folder / "x.png", np.full((1, 30, 40), 7, np.uint8))
    for name in ("found", "true"):
        write_labels(folder / name / "x.png", np.eye(30, 40, dtype=np.uint8))
    return folder


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (
            ["predict", "plain.septa", "x.png", "-o", "out", "--prune", "1"],
            "--prune 1: only a net with nested=true, deep_supervision=true and encoder=plain can be pruned. ",
        ),
        (["predict", "nested.septa", "x.png", "-o", "out", "--prune", "3"], "--prune 3: depth must be 1 to 2, got 3. "),
        (["evaluate", "found", "true", "--tta", "2"], "--tta: has no meaning for label images such as found. "),
        (["evaluate", "plain.septa", "true", "--task", "instances"], "--task: has no meaning for a model such as "),
        (["evaluate", "found", "true", "--task", "dogs"], "--task dogs: is neither semantic nor instances. "),
    ],
    ids=["plain net", "too deep", "tta of labels", "task of a model", "no task"],
)
def test_what_does_not_fit_is_refused(fault, folder, arguments, start):
    assert fault(*arguments, cwd=folder).startswith(start)
    assert not (folder / "out").exists()
