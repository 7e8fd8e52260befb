"""The size at which an image is segmented, against images that are reduced and enlarged beforehand."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from septa.errors import InputError
from septa.images import read_image
from septa.inference import Int8, scale_tile, smallest_tile_for
from septa.labels import ImageScale
from septa.model import Model, PredictionOptions, find_scale, measure_diameter
from septa.nets import Ensemble, UNet, reduce_net
from septa.notices import Notices
from septa.tasks import MOST_PIXELS

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::septa.SeptaWarning")]
FILES = Path(__file__).parents[1] / "files" / "v0.1"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(FILES / "instances.septa")


@pytest.fixture(scope="module")
def image_cyx() -> NDArray[Any]:
    return read_image(FILES / "data" / "images" / "0.png").repeat(2, 1).repeat(2, 2)


def set_largest(model: Model, largest: float) -> Model:
    return replace(model, recipe=model.recipe.with_overrides([f"data.largest={largest}"]))


def find_typical(labels_yx: NDArray[np.int32]) -> float:
    """Return the diameter of the object to which the middle pixel belongs, of all in the order of their areas."""
    areas = np.unique(labels_yx[labels_yx > 0], return_counts=True)[1]
    middle = np.sort(np.repeat(areas, areas))[(areas.sum() - 1) // 2]
    return float(2 * np.sqrt(middle / np.pi))


@pytest.mark.parametrize("factor", [2, 4])
def test_a_reduced_net_is_the_net_between_means_and_interpolation(factor: int) -> None:
    torch.manual_seed(0)
    net = UNet(2, 3, depth=2, width=4).eval()
    image = torch.rand(1, 2, 8 * factor, 12 * factor)
    with torch.inference_mode():
        expected = functional.interpolate(
            net(functional.avg_pool2d(image, factor)), scale_factor=factor, mode="bilinear", align_corners=False
        )
        found = reduce_net(net, factor)(image)
        members = reduce_net(Ensemble([net, UNet(2, 3, depth=2, width=4)]), factor)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert [member.reduction for member in members.members] == [factor, factor]  # type: ignore[union-attr]
    assert next(net.parameters()).data_ptr() == next(reduce_net(net, factor).parameters()).data_ptr()


def test_images_are_reduced_as_their_objects_ask(model: Model, image_cyx: NDArray[Any]) -> None:
    typical = find_typical(model.reduce(2).segment(image_cyx))
    for largest, factor in ((1.1 * typical, 1), (0.9 * typical, 2), (0.45 * typical, 4)):
        expected_yx = model.reduce(factor).segment(image_cyx)
        np.testing.assert_array_equal(set_largest(model, largest).segment(image_cyx), expected_yx)
        assumed = set_largest(model, largest).assume_diameter(typical)
        np.testing.assert_array_equal(assumed.segment(image_cyx), expected_yx)
    median = model.provenance["fingerprint"]["diameter_percentiles"][1]
    assert [model.choose_scale(times * median).reduction for times in (1.9, 2.1, 4.1)] == [1, 2, 4]


def test_every_way_to_segment_chooses_the_same_size(
    model: Model, image_cyx: NDArray[Any], caplog: pytest.LogCaptureFixture
) -> None:
    expected_yx = model.reduce(2).segment(image_cyx)
    sized = set_largest(model, find_typical(expected_yx) / 1.5)
    caplog.set_level("INFO", "septa")

    def require_line() -> None:
        (line,) = caplog.messages
        assert re.search(r"objects are \d+ pixels wide, so the image is segmented at 1/2 of its size", line)
        caplog.clear()

    for segment in (sized.segment, sized, lambda image_cyx: sized.predict(image_cyx).labels):
        np.testing.assert_array_equal(segment(image_cyx), expected_yx)
        require_line()
    lazy_yx = sized(dask.array.from_array(image_cyx, chunks=64))
    require_line()
    np.testing.assert_array_equal(lazy_yx.compute() > 0, expected_yx > 0)
    np.testing.assert_array_equal(sized.segment(image_cyx, tile=64), expected_yx)


def test_diameters_are_measured_in_windows(model: Model, image_cyx: NDArray[Any], monkeypatch: Any) -> None:
    whole_cyx = np.tile(image_cyx, (1, 3, 4))
    size = whole_cyx.shape[1], whole_cyx.shape[2]
    normalization = model.normalization.resolve(whole_cyx)
    read: list[tuple[slice, slice]] = []

    def read_window(window: tuple[slice, slice]) -> NDArray[Any]:
        read.append(window)
        return whole_cyx[(slice(None), *window)]

    expected = find_typical(model.reduce(2).segment(whole_cyx))
    monkeypatch.setattr("septa.model.size._SMALL", 0)
    monkeypatch.setattr("septa.model.size._CENTRE", 200)
    monkeypatch.setattr("septa.model.size._SIDE", 160)
    for fewest, windows in ((1, 1), (10**6, 5)):
        monkeypatch.setattr("septa.model.size._FEWEST", fewest)
        read.clear()
        found = measure_diameter(model, read_window, size, normalization, "cpu")
        assert found == pytest.approx(expected, rel=0.15)
        assert len(read) == windows + 1
    monkeypatch.setattr("septa.model.size._SMALL", 1e9)
    monkeypatch.setattr("septa.model.size._FEWEST", 1)
    read.clear()
    found = measure_diameter(model, read_window, size, normalization, "cpu")
    assert found == pytest.approx(find_typical(model.segment(whole_cyx)), rel=0.15)
    assert len(read) == 1
    empty_cyx = np.full_like(whole_cyx, whole_cyx.min())
    assert measure_diameter(model, lambda window: empty_cyx[(slice(None), *window)], size, normalization, "cpu") is None


def test_images_of_small_objects_are_enlarged(
    model: Model, image_cyx: NDArray[Any], caplog: pytest.LogCaptureFixture
) -> None:
    enlarging = replace(model, recipe=model.recipe.with_overrides(["instances.smallest=1000"]))
    expected_yx = model.reduce(0.5).segment(image_cyx)
    assert (expected_yx > 0).any()
    assert (expected_yx != model.segment(image_cyx)).any()
    caplog.set_level("INFO", "septa")
    np.testing.assert_array_equal(enlarging.segment(image_cyx), expected_yx)
    assert "so the image is segmented at 2 times its size" in caplog.text
    np.testing.assert_array_equal(enlarging.segment(image_cyx, tile=64), expected_yx)
    np.testing.assert_array_equal(enlarging.assume_diameter(9).segment(image_cyx), expected_yx)
    lazy_yx = enlarging(dask.array.from_array(image_cyx, chunks=64)).compute()
    np.testing.assert_array_equal(lazy_yx > 0, expected_yx > 0)
    small = model.reduce(0.5)
    assert small.net.multiple * 2 == model.net.multiple
    assert small.reduce(2).net.multiple == model.net.multiple
    with pytest.raises(InputError, match="magnification must be"):
        small.reduce(0.5)


def test_reductions_and_what_is_said_of_them(model: Model) -> None:
    sized = set_largest(model, 24)
    size = (4096, 4096)
    for diameter, factor in ((None, 1), (23.9, 1), (24, 2), (47, 2), (48, 4), (97, 8), (1e6, 8)):
        notices = Notices()
        assert find_scale(sized, diameter, size, "a.tif", notices).reduction == factor
        assert len(notices.lines()) == (factor > 1)
    assert find_scale(model, 1e6, size, "a.tif", Notices()) == ImageScale()
    least = model.reduce(2).net.multiple
    assert find_scale(sized, 97, (least, 4096), "a.tif", Notices()) == ImageScale(2)
    options = PredictionOptions(tile=300)
    image_cyx = read_image(FILES / "data" / "images" / "0.png")
    assert model.fit_size(image_cyx, options, "a.tif", Notices()) == (model, options)


def test_objects_much_smaller_than_the_others_are_left_out(
    model: Model, image_cyx: NDArray[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole_yx = model.segment(image_cyx)
    areas = np.bincount(whole_yx.ravel())
    typical = find_typical(model.reduce(2).segment(image_cyx))
    share = float(np.median(areas[1:]) / (np.pi / 4 * typical**2))
    sharing = replace(model, recipe=model.recipe.with_overrides([f"instances.least_share={share}"]))
    left = areas >= round(share * np.pi / 4 * typical**2)
    left[0] = False
    assert 0 < left.sum() < areas.size - 1
    caplog.set_level("INFO", "septa")
    found_yx = sharing.segment(image_cyx)
    np.testing.assert_array_equal(found_yx > 0, left[whole_yx])
    assert re.search(r"objects of less than \d+ pixels are left out", caplog.text)
    for other_yx in (
        sharing.segment(image_cyx, tile=64),
        sharing(dask.array.from_array(image_cyx, chunks=64)).compute(),
        set_largest(sharing, 1e6).assume_diameter(typical).segment(image_cyx),
    ):
        np.testing.assert_array_equal(other_yx > 0, found_yx > 0)
    sharing.save(tmp_path / "sharing.septa")
    loaded = Model.load(tmp_path / "sharing.septa")
    np.testing.assert_array_equal(loaded.segment(image_cyx), found_yx)
    assert sharing.choose_scale(1e9).least_pixels == MOST_PIXELS


def test_parts_of_one_object_are_joined(
    model: Model, image_cyx: NDArray[Any], caplog: pytest.LogCaptureFixture
) -> None:
    whole_yx = model.segment(image_cyx)
    typical = find_typical(model.reduce(2).segment(image_cyx))
    joining = replace(model, recipe=model.recipe.with_overrides(["instances.join_share=8"]))
    caplog.set_level("INFO", "septa")
    found_yx = joining.segment(image_cyx)
    assert re.search(r"touching parts that together have less than \d+ pixels are joined", caplog.text)
    assert 0 < found_yx.max() < whole_yx.max()
    pairs = np.unique(np.stack([whole_yx, found_yx])[:, whole_yx > 0], axis=1)
    assert pairs.shape[1] == whole_yx.max()  # every part is in one object
    assert pairs.min() > 0
    for other_yx in (
        joining.segment(image_cyx, tile=64),
        joining(dask.array.from_array(image_cyx, chunks=64)).compute(),
        set_largest(joining, 1e6).assume_diameter(typical).segment(image_cyx),
    ):
        pairs = np.unique(np.stack([other_yx.ravel(), found_yx.ravel()]), axis=1)
        assert pairs.shape[1] == found_yx.max() + 1 == other_yx.max() + 1
    assert joining.choose_scale(1e9).join_pixels == MOST_PIXELS
    assumed = joining.assume_diameter(typical)  # a store of it is not measured
    assert assumed.apply_scale(ImageScale()).decoding == assumed.decoding


def test_nets_that_cannot_be_reduced_are_measured_at_full_size(model: Model, image_cyx: NDArray[Any]) -> None:
    reduced = set_largest(model.reduce(8), 10)
    expected_yx = reduced.segment(image_cyx)
    np.testing.assert_array_equal(model.reduce(8).segment(image_cyx), expected_yx)
    assert reduced.choose_scale(1e6).reduction == 1


def test_reductions_that_no_net_can_have_are_refused(model: Model) -> None:
    with pytest.raises(InputError, match="reduction 16"):
        model.reduce(16)
    with pytest.raises(InputError, match="no diameters"):
        replace(model, provenance={}).assume_diameter(30)


def test_a_reduced_net_does_not_run_the_integers_of_the_whole_image(model: Model) -> None:
    quantised = replace(model, int8=Int8(graph=b"", weights=b"", floats=(), layers=1))
    assert quantised.choose_engine("cpu") == "openvino"
    assert quantised.reduce(2).choose_engine("cpu") == model.choose_engine("cpu")


def test_reduced_models_are_made_once(model: Model, image_cyx: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        "septa.model.model.reduce_net", lambda net, factor: (made.append(factor), reduce_net(net, factor))[1]
    )
    sized = set_largest(model, find_typical(model.reduce(4).segment(image_cyx)) / 3)
    made.clear()
    first_yx = sized.segment(image_cyx)
    assert made == [2, 4]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sized)).segment(image_cyx), first_yx)
    assert made == [2, 4, 2, 4]
    np.testing.assert_array_equal(sized.segment(image_cyx), first_yx)
    assert made == [2, 4, 2, 4]


def test_reduced_models_are_made_again_after_a_weight_has_changed(model: Model, image_cyx: NDArray[Any]) -> None:
    own = set_largest(
        replace(model, net=copy.deepcopy(model.net)), find_typical(model.reduce(2).segment(image_cyx)) / 2
    )
    before_yx = own.segment(image_cyx)
    with torch.no_grad():
        for parameter in own.net.parameters():
            parameter.mul_(1.3)
    after_yx = own.segment(image_cyx)
    assert (after_yx != before_yx).any()
    np.testing.assert_array_equal(replace(own).segment(image_cyx), after_yx)


def test_tiles_of_a_scaled_image_have_room_for_a_core(model: Model) -> None:
    for factor in (0.5, 2):
        net = model.reduce(factor).net
        least = smallest_tile_for(net)
        assert scale_tile(net, 1, factor) == least
        assert scale_tile(net, 1001, factor) == int(1001 * factor)
