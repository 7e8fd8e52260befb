"""Datasets of other programs on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from septa.images import write_image, write_labels

from .conftest import Run

RNG = np.random.default_rng(2)


def make_nnunet(root: Path) -> None:
    """Write 6 images of two channels with two classes, as nnU-Net expects them."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(6):
        labels_yx = np.zeros((48, 48), np.uint8)
        labels_yx[5 + number : 20, 5:20] = 1
        labels_yx[30:40, 20 + number : 40] = 2
        for channel in range(2):
            image_yx = (RNG.integers(0, 60, (48, 48)) + 60 * labels_yx).astype(np.uint8)
            write_image(root / "imagesTr" / f"cell_{number}_{channel:04d}.png", image_yx[None])
        write_labels(root / "labelsTr" / f"cell_{number}.png", labels_yx)
    labels = {"background": 0, "nucleus": 1, "cytoplasm": 2}
    facts = {"channel_names": {"0": "red", "1": "green"}, "labels": labels, "numTraining": 6, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(facts))


def test_nnunet_is_checked_as_it_is(tmp_path: Path, septa: Run) -> None:
    make_nnunet(tmp_path / "cells")
    printed = septa("check", "cells", "--pairs", "0:5", cwd=tmp_path).stdout
    assert "layout: nnU-Net (imagesTr/ and labelsTr/, 2 channels in files of their own)\n" in printed
    assert "pairs: 5 of 6 (data.pairs=0:5: cell_0 to cell_4)\n" in printed
    assert "2 channels, uint8" in printed
    assert "nucleus" in printed
    pattern = ["--images", "imagesTr/*_{0001,0000}.png", "--labels", "labelsTr/*"]
    named = septa("check", "cells", *pattern, cwd=tmp_path).stdout
    assert "pairs: 6\n" in named
    assert "2 channels, uint8" in named
    refused = septa("check", "cells", "--pairs", "5", code=2, cwd=tmp_path).stderr
    expected = "error: --pairs: the value must be a range such as 0:50, got 5. Give for example --pairs 0:50.\n"
    assert refused == expected


def test_a_lone_channel_is_named(tmp_path: Path, septa: Run) -> None:
    make_nnunet(tmp_path / "cells")
    (tmp_path / "cells" / "imagesTr" / "cell_2_0001.png").unlink()
    done = septa("check", "cells", code=2, cwd=tmp_path)
    assert "cells/imagesTr/cell_2_0000.png: its channel _0001 is missing." in done.stdout
