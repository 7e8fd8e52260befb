"""What the napari widget does, without napari and Qt: windows of layers, labels with features, jobs, training pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from septa.errors import InputError
from septa.images import read_image, read_labels
from septa.model import Model
from septa.napari.background import BackgroundWork
from septa.napari.pairs import save_pair
from septa.napari.segmentation import LayerImage, SegmentSettings, find_window, segment_layer

FILES = Path(__file__).parents[1] / "files" / "v0.1"
MODEL = FILES / "instances.septa"
SETTINGS = SegmentSettings(model=str(MODEL))


@pytest.fixture(scope="module")
def image_yx():
    return read_image(FILES / "data" / "images" / "0.png")[0]


def ignore(share, text):
    pass


def test_the_labels_of_a_plane_are_those_of_the_model(image_yx):
    image = LayerImage(name="cells", channels=[image_yx], scale=(0.5, 0.5), units=("micrometer", "micrometer"))
    steps = []
    window = find_window(image, "current plane", (), None)
    found = segment_layer(image, window, SETTINGS, lambda *step: steps.append(step))
    np.testing.assert_array_equal(found.labels, Model.load(MODEL).segment(image_yx))
    assert found.features["index"].tolist() == np.unique(found.labels)[1:].tolist()
    assert found.features["area_um2"].tolist() == (found.features["area"] / 4).tolist()
    assert ((found.features["confidence"] >= 0) & (found.features["confidence"] <= 1)).all()
    assert (found.name, found.begin) == ("cells instances", (0, 0))
    assert [share for share, _ in steps] == sorted(share for share, _ in steps)
    assert steps[-1] == (1.0, f"{len(found.features['index'])} objects")


def test_the_visible_part_is_cut_and_placed(image_yx):
    stack = np.stack([np.zeros_like(image_yx), image_yx])
    image = LayerImage(name="s", channels=[stack])
    window = find_window(image, "visible part", (1,), np.array([[0, 10, -5], [1, 49, 29]]))
    found = segment_layer(image, window, SETTINGS, ignore)
    assert found.begin == (1, 10, 0)
    np.testing.assert_array_equal(found.labels[0], Model.load(MODEL).segment(image_yx[10:50, :30]))
    with pytest.raises(InputError, match="nothing of the image is visible"):
        find_window(image, "visible part", (1,), np.array([[0, -9, -9], [1, -2, 30]]))


def test_objects_of_all_planes_have_numbers_of_their_own(image_yx):
    image = LayerImage(name="s", channels=[np.stack([image_yx, np.zeros_like(image_yx), image_yx[::-1]])])
    found = segment_layer(image, find_window(image, "all planes", (0,), None), SETTINGS, ignore)
    assert found.labels.shape == image.shape
    assert found.features["index"].tolist() == np.unique(found.labels)[1:].tolist()
    first, second = (set(np.unique(found.labels[plane]).tolist()) - {0} for plane in (0, 2))
    assert not first & second
    assert max(first) + 1 == min(second)


def test_a_job_reports_cancels_and_fails(image_yx):
    image = LayerImage(name="cells", channels=[image_yx])
    window = find_window(image, "current plane", (), None)

    def run(work, stop=False):
        job = BackgroundWork()
        if stop:
            job.cancel()
        job.start(work)
        job.wait(60)
        assert not job.running
        return job

    done = run(lambda report: segment_layer(image, window, SETTINGS, report))
    assert done.result is not None
    assert done.share == 1
    stopped = run(lambda report: segment_layer(image, window, SETTINGS, report), stop=True)
    assert stopped.cancelled
    assert stopped.result is None
    failed = run(lambda report: segment_layer(image, window, SegmentSettings(model="absent.septa"), report))
    assert failed.error.startswith("absent.septa: ")
    two = LayerImage(name="cells", channels=[image_yx, image_yx])
    failed = run(lambda report: segment_layer(two, window, SETTINGS, report))
    assert failed.error.startswith("cells: the image has 2 channels, but the model was trained on 1")


def test_a_training_pair_holds_the_part_that_has_labels(image_yx, tmp_path):
    image = LayerImage(
        name="A/1 of 2", channels=[np.stack([image_yx, image_yx + 1])], scale=(1, 0.5, 0.25), units=("", "um", "um")
    )
    labels = np.arange(20 * 30, dtype=np.int32).reshape(1, 20, 30)
    files = save_pair(tmp_path, image, labels, (1, 5, 6), (1,))
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [
        "images/A_1_of_2_0001_y5_x6.tif",
        "labels/A_1_of_2_0001_y5_x6.tif",
    ]
    np.testing.assert_array_equal(read_image(files[0])[0], image_yx[5:25, 6:36] + 1)
    np.testing.assert_array_equal(read_labels(files[1]).array, labels[0])
    save_pair(tmp_path, image, labels + 1, (1, 5, 6), (1,))
    np.testing.assert_array_equal(read_labels(files[1]).array, labels[0] + 1)
    files[1].write_bytes(b"mine")
    with pytest.raises(InputError, match="changed after septa wrote it"):
        save_pair(tmp_path, image, labels, (1, 5, 6), (1,))
    with pytest.raises(InputError, match="the labels have no such plane"):
        save_pair(tmp_path, image, labels, (1, 5, 6), (0,))
    with pytest.raises(InputError, match="the labels do not lie within the image"):
        save_pair(tmp_path, image, labels, (1, 5, 60), (1,))


def test_colours_become_channels(image_yx):
    image = LayerImage(name="c", channels=[np.stack([image_yx, image_yx + 1, image_yx + 2, image_yx], -1)], rgb=True)
    assert image.shape == image_yx.shape
    found = image.read((), (2, 9), (3, 8))
    np.testing.assert_array_equal(found, [image_yx[2:9, 3:8] + k for k in range(3)])
