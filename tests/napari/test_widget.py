"""The widget in napari, without a screen."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from septa.images import read_image
from septa.model import Model

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
reason = "napari and a Qt binding are not installed (pip install 'septa[napari]' pyside6)"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # napari and its packages warn of their own parts
    pytest.importorskip("napari", reason=reason)
    try:
        from napari.components import ViewerModel
        from qtpy.QtWidgets import QApplication

        from septa.napari import SegmentWidget
    except Exception:  # qtpy has its own error for a missing binding
        pytest.skip(reason, allow_module_level=True)

FILES = Path(__file__).parents[1] / "files" / "v0.1"
MODEL = FILES / "instances.septa"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def viewer():
    application = QApplication.instance() or QApplication([])
    yield ViewerModel()
    application.processEvents()


@pytest.fixture
def widget(viewer, monkeypatch):
    from septa.napari import results

    monkeypatch.setattr(results, "chosen_models", [])
    found = SegmentWidget(viewer)
    found.own_model.value = str(MODEL)
    yield found
    found.native.deleteLater()


def finish(widget):
    for _ in range(600):
        QApplication.processEvents()
        widget.poll()
        if widget._job is None:
            return
        time.sleep(0.05)
    raise AssertionError("the job has not ended")


@pytest.fixture(scope="module")
def image_yx():
    return read_image(FILES / "data" / "images" / "0.png")[0]


def test_the_current_plane_becomes_a_labels_layer_with_features(viewer, widget, image_yx, tmp_path):
    viewer.add_image(np.stack([image_yx[::-1], image_yx]), name="cells", scale=(3, 0.5, 0.5), translate=(1, 2, 4))
    viewer.dims.set_point(0, 4)
    widget.part.value = "current plane"
    widget.segment()
    assert not widget.start.enabled
    finish(widget)
    layer = viewer.layers["cells instances"]
    np.testing.assert_array_equal(layer.data[0], Model.load(MODEL).segment(image_yx))
    assert layer.translate.tolist() == [4, 2, 4]
    assert layer.scale.tolist() == [3, 0.5, 0.5]
    assert layer.features["index"].tolist() == np.unique(layer.data)[1:].tolist()
    assert "confidence" in layer.features
    assert widget.start.enabled
    assert widget.message.value.startswith(f"{len(layer.features)} objects")
    widget.folder.value = tmp_path
    widget.save_pair()
    assert "are written" in widget.message.value
    assert (tmp_path / "images" / "cells_0001.tif").is_file()
    assert (tmp_path / "labels" / "cells_0001.tif").is_file()


def test_a_segmentation_can_be_cancelled(viewer, widget, image_yx):
    viewer.add_image(np.stack([image_yx] * 50))
    widget.part.value = "all planes"
    widget.segment()
    widget.cancel()
    finish(widget)
    assert widget.message.value == "cancelled"
    assert len(viewer.layers) == 1


def test_mistakes_are_one_line_in_the_widget(viewer, widget):
    widget.segment()
    assert widget.message.value == "no image is open. Open an image, and select its layer."
    viewer.add_image(np.zeros((2, 40, 40)))
    viewer.add_image(np.zeros((2, 40, 41)))
    viewer.layers.selection = set(viewer.layers)
    widget.part.value = "current plane"
    widget.segment()
    finish(widget)
    assert "the selected layers differ in size" in widget.message.value
    widget.save_pair()
    assert widget.message.value == "a labels layer and a training folder are needed. Choose both."


def test_the_manifest_is_valid_for_npe2():
    from npe2 import PluginManifest
    from npe2.manifest.utils import import_python_name

    import septa.napari

    manifest = PluginManifest.from_file(Path(septa.napari.__file__).parent / "napari.yaml")
    assert manifest.name == "septa"
    for command in manifest.contributions.commands or ():
        assert callable(import_python_name(command.python_name))
