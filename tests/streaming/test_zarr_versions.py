"""Write OME-Zarr 0.4 and labels into images: zarr-python reads the same values as in a store of 0.5."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaozarrs
import zarr

Septa = Callable[..., tuple[int, str, str]]


@pytest.fixture
def image(kit: SimpleNamespace, tmp_path: Path) -> Path:
    kit.make("softmax").save(tmp_path / "m.septa")
    return kit.write_image(tmp_path / "a.ome.zarr", kit.texture((2, 90, 140)), "ZYX")


def as_version_2(kit: SimpleNamespace, path: Path) -> Path:
    """Write the same image as OME-Zarr 0.4, with labels of another program."""
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.create_array("0", data=kit.texture((2, 90, 140)), chunks=(1, 50, 50))
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    root.create_group("labels").attrs.update({"labels": ["other"], "note": 1})
    root.create_group("labels/other")
    return path


def test_version_0_4(kit: SimpleNamespace, septa: Septa, image: Path, tmp_path: Path) -> None:
    model, options = tmp_path / "m.septa", ("--probabilities", "--name", "cells")
    assert septa("predict", model, image, "-o", tmp_path / "new.ome.zarr", *options)[0] == 0
    assert septa("predict", model, image, "-o", tmp_path / "old.ome.zarr", *options, "--zarr", "0.4")[0] == 0
    assert not list((tmp_path / "old.ome.zarr").rglob("zarr.json"))
    for part in ("", "labels/cells"):
        yaozarrs.validate_ome_object(json.loads((tmp_path / "old.ome.zarr" / part / ".zattrs").read_text()))
        new, old = (zarr.open_group(tmp_path / name / part, mode="r") for name in ("new.ome.zarr", "old.ome.zarr"))
        assert old.metadata.zarr_format == 2
        levels = [level["path"] for level in old.attrs["multiscales"][0]["datasets"]]
        assert len(levels) > 1
        for level in levels:
            assert old[level].chunks[-2:] == (32, 32)
            np.testing.assert_array_equal(np.asarray(old[level][...]), np.asarray(new[level][...]))
    assert zarr.open_group(tmp_path / "old.ome.zarr/labels", mode="r").attrs["labels"] == ["cells"]
    again = septa("predict", model, image, "-o", tmp_path / "old.ome.zarr", *options, "--zarr", "0.4")
    assert "is complete already" in again[1]
    code, _, error = septa("predict", model, image, "-o", tmp_path / "old.ome.zarr", *options)
    assert (code, "with other settings" in error) == (2, True)
    assert not list(tmp_path.glob("*.work"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_labels_into_the_image(
    zarr_format: int, kit: SimpleNamespace, septa: Septa, image: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.septa"
    target = image if zarr_format == 3 else as_version_2(kit, tmp_path / "b.ome.zarr")
    before = kit.files(target)
    assert septa("predict", model, target, "-o", tmp_path / "beside.ome.zarr", "--name", "cells")[0] == 0
    assert septa("predict", model, target, "--into-image", "--name", "cells")[0] == 0
    labels = zarr.open_group(target / "labels", mode="r")
    ome = labels.attrs["ome"] if zarr_format == 3 else labels.attrs
    assert ome["labels"] == (["cells"] if zarr_format == 3 else ["other", "cells"])
    assert labels.metadata.zarr_format == labels["cells"].metadata.zarr_format == zarr_format
    for level in ("0", "1"):
        expected = kit.read(tmp_path / "beside.ome.zarr", "cells", int(level))
        np.testing.assert_array_equal(np.asarray(labels["cells"][level][...]), expected)
    group = "zarr.json" if zarr_format == 3 else ".zattrs"
    found = json.loads((target / "labels/cells" / group).read_text())
    yaozarrs.validate_ome_object(found["attributes"]["ome"] if zarr_format == 3 else found)
    after = kit.files(target)
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {"labels/.zattrs"}
    assert sorted(path.name for path in tmp_path.glob("*.work")) == []
    assert "is complete already" in septa("predict", model, target, "--into-image", "--name", "cells")[1]
    if zarr_format == 2:
        assert labels.attrs["note"] == 1
        code, _, error = septa("predict", model, target, "--into-image", "--name", "other")
        assert (code, "the output exists" in error) == (2, True)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--into-image", "-o", "x"],
            "--into-image: the labels go either into the images or to an output",
        ),
        (["--into-image", "--zarr", "0.4"], "--zarr 0.4: the image is OME-Zarr 0.5, and so must be the labels in it."),
        (["--into-image", "--level", "0", "--region", "0,0,9,9"], "--into-image: only labels of a whole image at its"),
        (["--zarr", "0.4", "-o", "x.ome.tif"], "--zarr 0.4: the output x.ome.tif is not a zarr store."),
        ([], "septa predict: the option --output is missing. Run 'septa predict --help' for its options."),
    ],
)
def test_options_that_do_not_fit(options: list[str], line: str, septa: Septa, image: Path, tmp_path: Path) -> None:
    code, _, error = septa("predict", tmp_path / "m.septa", image, *options)
    assert (code, error.startswith(line)) == (2, True), error
