"""Check that stores read the channels of an image as folders do, and say the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tifffile

from septa.images import open_source
from septa.streaming import StreamFinished, StreamRequest, StreamStarted, stream
from septa.streaming.identity import StreamInput


def run(kit: SimpleNamespace, folder: Path, image: Path, channels: int) -> tuple[np.ndarray, str]:
    """Segment an image to a store with a model of some channels; return the labels, and the notes."""
    kit.make("softmax", channels=channels).save(folder / "m.septa")
    output = folder / f"{image.stem}_{channels}.ome.zarr"
    notes: list[str] = []
    for event in stream(StreamRequest(input=StreamInput(path=str(image)), output=output, model=folder / "m.septa")):
        if isinstance(event, StreamStarted | StreamFinished):
            notes += event.notes
    with open_source(output) as source:
        return source.read((0, source.shape[3]), (0, source.shape[4])), "\n".join(notes)


def test_alpha_is_read_as_the_model_expects(kit: SimpleNamespace, tmp_path: Path) -> None:
    rgba = np.moveaxis(kit.texture((4, 96, 80), "uint8"), 0, 2)
    for name, image in (("rgba", rgba), ("rgb", rgba[..., :3])):
        options = {"extrasamples": [2]} if name == "rgba" else {}
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="rgb", tile=(32, 32), **options)
    tifffile.imwrite(tmp_path / "four.tif", rgba, photometric="minisblack", planarconfig="contig", tile=(32, 32))
    dropped, notes = run(kit, tmp_path, tmp_path / "rgba.tif", 3)
    assert "warning: " in notes
    assert "the alpha channel is not constant, but it is dropped" in notes
    np.testing.assert_array_equal(dropped, run(kit, tmp_path, tmp_path / "rgb.tif", 3)[0])
    kept, notes = run(kit, tmp_path, tmp_path / "rgba.tif", 4)
    assert "is read as the last channel" in notes
    np.testing.assert_array_equal(kept, run(kit, tmp_path, tmp_path / "four.tif", 4)[0])


def test_a_grey_image_is_repeated_for_colours_with_a_note(kit: SimpleNamespace, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "grey.tif", kit.texture((96, 80), "uint8"), tile=(32, 32))
    assert "the grey image is repeated in red, green and blue" in run(kit, tmp_path, tmp_path / "grey.tif", 3)[1]
