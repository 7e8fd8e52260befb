"""Models on lists, stacks and lazy arrays against one call for each image, and results in one object."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import zarr

from septa import Prediction, ProgressEvent
from septa.errors import InputError
from septa.images import read_image, write_image
from septa.model import Model, lazy
from septa.model.pages import find_stack_axes
from septa.objects import confidence, measure_objects

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::septa.SeptaWarning"),
]
FILES = Path(__file__).parents[1] / "files" / "v0.1"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(FILES / "instances.septa")


@pytest.fixture(scope="module")
def image_cyx() -> Any:
    return read_image(FILES / "data" / "images" / "0.png")


def test_lists_and_paths_give_lists(model: Model, image_cyx: Any) -> None:
    path = FILES / "data" / "images" / "0.png"
    expected_yx = model.segment(image_cyx)
    assert expected_yx.max() > 1
    for images in ([image_cyx, path], (str(path), image_cyx[0]), (image for image in (path, path))):
        found = model(images)
        assert isinstance(found, list)
        assert [np.array_equal(labels_yx, expected_yx) for labels_yx in found] == [True, True]
    assert model([]) == []
    np.testing.assert_array_equal(model(path), expected_yx)


@pytest.mark.parametrize(("axes", "shape"), [(None, (2, 3)), ("TZCYX", (2, 3)), ("TZYXC", (2, 3)), ("TZYX", (2, 3))])
def test_stacks_keep_their_axes(model: Model, image_cyx: Any, axes: str | None, shape: tuple[int, int]) -> None:
    pages = np.stack([np.roll(image_cyx, at, -1) for at in range(6)]).reshape(2, 3, *image_cyx.shape)
    stack = {"TZYXC": np.moveaxis(pages, 2, -1), "TZYX": pages[:, :, 0]}.get(axes or "", pages)
    found = model(stack, axes=axes)
    assert found.shape == (*shape, *image_cyx.shape[1:])
    np.testing.assert_array_equal(found[1, 2], model.segment(pages[1, 2]))


@pytest.mark.parametrize(
    ("shape", "channels", "axes", "message"),
    [
        ((64, 64, 3), 1, None, "no clear meaning for 1 channel"),
        ((5, 64, 64), 2, None, "no clear meaning for 2 channels"),
        ((64, 64), 1, "CYX", "CYX names 3 axes, but the array has 2"),
        ((64, 64, 3), 3, "YYC", "must have Y and X, and no letter twice"),
    ],
)
def test_unclear_axes_are_refused(shape: tuple[int, ...], channels: int, axes: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_stack_axes(shape, channels, False, axes)


def renumber(labels_yx: Any) -> Any:
    """Return labels whose objects are numbered by their first pixels."""
    ids, first, inverse = np.unique(labels_yx, return_index=True, return_inverse=True)
    order = np.empty(len(ids), int)
    order[np.argsort(np.where(ids == 0, -1, first))] = np.arange(len(ids))
    return order[inverse].reshape(labels_yx.shape)


@pytest.mark.parametrize("kind", ["dask", "zarr"])
@pytest.mark.parametrize("task", ["instances", "semantic"])
def test_lazy_arrays_give_the_labels_of_the_whole_image(
    model: Model, image_cyx: Any, kind: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "BLOCK", 64)
    if task == "semantic":
        recipe = model.recipe.with_overrides(["task=semantic"])
        labels = replace(model.labels, kind="index", values=(0, 1))
        model = replace(model, recipe=recipe, labels=labels)
    big_yx = np.tile(image_cyx[0], (3, 4))[:150, :190]
    images: Any = dask.array.from_array(big_yx, chunks=(70, 90))
    if kind == "zarr":
        images = zarr.create_array({}, data=big_yx, chunks=(64, 64))
    found = model(images)
    assert isinstance(found, dask.array.Array)
    assert (found.shape, found.dtype) == (big_yx.shape, np.int32)
    np.testing.assert_array_equal(renumber(np.asarray(found)), renumber(model.segment(big_yx)))


def test_a_lazy_model_travels_as_the_bytes_of_its_file(model: Model) -> None:
    one = lazy.LazyModel(model, lazy.PredictionOptions())
    data = pickle.dumps(one)
    assert data.count(b"torch") == model.to_bytes().count(b"torch")  # no tensor is pickled
    again = pickle.loads(data)
    assert again.model.weights_sha256 == model.weights_sha256


def test_a_prediction_holds_labels_confidences_and_the_table(model: Model, image_cyx: Any, tmp_path: Path) -> None:
    found = model.predict(image_cyx, measure="full", pixel_size_um=(0.5, 0.5))
    np.testing.assert_array_equal(found.labels, model.segment(image_cyx))
    np.testing.assert_array_equal(found.probabilities, model.probabilities(image_cyx))
    foreground_yx = found.probabilities[1]
    inside = found.labels > 0
    np.testing.assert_allclose(found.confidence[inside], foreground_yx[inside], atol=1e-6)
    np.testing.assert_allclose(found.confidence[~inside], 1 - foreground_yx[~inside], atol=1e-6)
    confidences = model.confidence_curve.apply(confidence(found.labels, foreground_yx))
    expected = measure_objects(
        found.labels, image_cyx, confidences=confidences, measure="full", pixel_size_um=(0.5, 0.5)
    )
    assert found.table is not None
    assert list(found.table.columns) == list(expected.columns)
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found.table.columns[name], values)
    some = model.predict(image_cyx, min_confidence=float(np.median(confidences)))
    assert 0 < len(some.table) < len(found.table)
    assert len(np.unique(some.labels)) == len(some.table) + 1
    found.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_image(tmp_path / "labels.png")[0], found.labels)
    several = model.predict([image_cyx, image_cyx[0]])
    assert [type(one) for one in several] == [Prediction, Prediction]
    with pytest.raises(InputError, match="measure: "):
        model.predict(image_cyx, measure="beauty")


def test_the_confidence_of_classes_is_that_of_the_label(image_cyx: Any) -> None:
    model = Model.load(FILES / "multilabel.septa")
    image = np.zeros((model.channels, 32, 40), np.uint8)
    found = model.predict(image)
    assert found.table is None
    present = found.labels[None] >> np.arange(len(found.probabilities))[:, None, None] & 1
    expected = np.where(present == 1, found.probabilities, 1 - found.probabilities).min(0)
    np.testing.assert_array_equal(found.confidence, expected.astype(np.float32))
    with pytest.raises(InputError, match="classes, not objects"):
        model.predict(image, min_confidence=0.5)


def test_callbacks_follow_tiles_and_images(model: Model, image_cyx: Any) -> None:
    events: list[ProgressEvent] = []
    big_yx = np.tile(image_cyx[0], (4, 4))
    model([big_yx, image_cyx], tile=112, callback=events.append)
    shares = [event.share for event in events]
    assert shares == sorted(shares)
    assert len(events) > 4
    assert (events[-1].done, events[-1].total, events[-1].share) == (2, 2, 1.0)
    assert {event.stage for event in events} == {"predict"}


def test_models_and_predictions_show_themselves(shipped: Path, image_cyx: Any) -> None:
    model = Model.load("nuclei")
    assert repr(model) == "Model(nuclei: instances, 1 channel, uint8, U-Net of width 4, depth 2, Dice 0.587)"
    card = model._repr_html_()
    assert "nuclei in fluorescence" in card
    assert 'src="data:image/png;base64,' in card
    assert "<b>0.587</b>" in card
    hostile = replace(model, source="<script>.septa")
    assert "<script>" not in hostile._repr_html_()
    found = model.predict(image_cyx)
    assert repr(found).startswith(f"Prediction({len(found.table)} objects, 1 x ")
    assert found._repr_html_().count("<tr>") == 6


def test_a_path_that_is_not_an_image_is_named(model: Model, tmp_path: Path) -> None:
    write_image(tmp_path / "two.png", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"none\.png"):
        model([tmp_path / "two.png", tmp_path / "none.png"])
