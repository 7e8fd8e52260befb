"""Tests of exactness: a store equals the segmentation of the whole image in memory, except for ids of objects.

septa promises that tiles and blocks change no value, so these tests compare floats for equality.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from septa.images.sources.open import open_source
from septa.inference.tiling import smallest_tile_for
from septa.nets import UNet
from septa.streaming import StreamInput, StreamRequest
from septa.tasks.decoding import find_objects
from septa.tasks.instances import Instances

KINDS = ("seam", "border", "distance", "softmax", "sigmoid", "multilabel", "walls")


@dataclass(frozen=True)
class Case:
    """An image, a model, and a division into blocks."""

    kind: str
    size: tuple[int, int]
    block: int
    chunk: int
    extra: int
    margin: int
    padding: str
    channels: int
    per_image: bool
    dtype: str
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    block = draw(st.sampled_from((32, 64, 96)))
    return Case(
        kind=draw(st.sampled_from(KINDS)),
        size=(draw(st.integers(1, 150)), draw(st.integers(1, 150))),
        block=block,
        chunk=block // draw(st.sampled_from((1, 2))),
        extra=draw(st.integers(0, 60)),
        margin=draw(st.sampled_from((1, 4, 17, 32))),
        padding=draw(st.sampled_from(("same", "valid"))),
        channels=draw(st.integers(1, 3)),
        per_image=draw(st.booleans()),
        dtype=draw(st.sampled_from(("uint8", "uint16", "float32"))),
        seed=draw(st.integers(0, 3)),
    )


def check(kit: SimpleNamespace, case: Case, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kit.set_blocks(patch, case.block, case.chunk)
        patch.setattr(Instances, "block_margin", property(lambda task: case.margin))
        model = kit.make(case.kind, case.padding, case.channels, case.per_image, case.dtype)
        image_cyx = kit.texture((case.channels, *case.size), case.dtype, case.seed)
        model.save(folder / "m.septa")
        kit.write_image(folder / "a.ome.zarr", image_cyx, "CYX")
        tile = smallest_tile_for(model.net) + case.extra
        request = StreamRequest(
            model=folder / "m.septa",
            input=StreamInput(str(folder / "a.ome.zarr")),
            output=folder / "o.ome.zarr",
            tile=tile,
            probabilities=True,
        )
        finished = kit.run(request)
    labels_yx = model.segment(image_cyx)
    output = request.output
    probabilities_kyx = model.probabilities(image_cyx)
    np.testing.assert_array_equal(kit.read(output), probabilities_kyx.astype(np.float16))
    if isinstance(model.task, Instances):
        kit.assert_same_objects(kit.read(output, "m"), labels_yx)
        assert finished.objects == labels_yx.max()
    elif case.kind == "multilabel":
        for number in range(3):
            np.testing.assert_array_equal(kit.read(output, f"m_{number}"), labels_yx >> number & 1)
    else:
        written = kit.read(output, "m")
        np.testing.assert_array_equal(written, model.as_written(labels_yx))
        assert written.dtype == model.as_written(labels_yx).dtype
    assert finished.megapixels == pytest.approx(labels_yx.size / 1e6)
    assert not list(folder.glob("*.work"))


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_any_division_into_blocks_gives_the_result_of_the_whole_image(kit: SimpleNamespace, case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(kit, case, Path(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_many_blocks_give_the_result_of_the_whole_image(kit: SimpleNamespace, kind: str, tmp_path: Path) -> None:
    """Each kind of model gets a case with objects that cross several blocks, and with a margin that is too narrow."""
    number = KINDS.index(kind)
    padding = ("same", "valid")[number % 2]
    dtype = ("uint8", "uint16", "float32")[number % 3]
    check(
        kit,
        Case(
            kind=kind,
            size=(150, 135),
            block=64,
            chunk=32,
            extra=4,
            margin=2,
            padding=padding,
            channels=1 + number % 3,
            per_image=number % 2 == 0,
            dtype=dtype,
            seed=1,
        ),
        tmp_path,
    )


def test_a_smaller_halo_would_change_the_result(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nets of the tests above use their whole halo, else these tests would prove nothing."""
    case = Case(
        kind="softmax",
        size=(100, 70),
        block=64,
        chunk=32,
        extra=0,
        margin=4,
        padding="same",
        channels=1,
        per_image=False,
        dtype="uint16",
        seed=1,
    )
    monkeypatch.setattr(UNet, "steady_side", property(lambda net: 0))
    halo = kit.make("softmax").net.halo
    monkeypatch.setattr(UNet, "halo", property(lambda net: halo - 12))
    with pytest.raises(AssertionError, match="not equal"):
        check(kit, case, tmp_path)


# --- planes, channels, levels, regions --------------------------------------------------------------------------------


def save(kit: SimpleNamespace, folder: Path, kind: str = "distance", **options: Any) -> Any:
    model = kit.make(kind, **options)
    model.save(folder / "m.septa")
    return model


def test_each_plane_is_segmented_as_a_separate_image(kit: SimpleNamespace, tmp_path: Path) -> None:
    model = save(kit, tmp_path, per_image=True)
    image = kit.texture((2, 2, 2, 80, 70))
    image[1, :, 1] //= 7  # a different brightness
    path = kit.write_image(tmp_path / "a.ome.zarr", image, "TCZYX")
    request = StreamRequest(
        model=tmp_path / "m.septa",
        input=StreamInput(str(path), channels=(1,)),
        output=tmp_path / "o.ome.zarr",
        probabilities=True,
    )
    finished = kit.run(request)
    found = kit.read(request.output, "m")
    soft = kit.read(request.output)
    total = 0
    assert found.shape == (2, 2, 80, 70)
    assert soft.shape == (2, 2, 2, 80, 70)
    for t in range(2):
        for z in range(2):
            expected_yx = model.segment(image[t, 1:, z])
            kit.assert_same_objects(found[t, z], expected_yx)
            np.testing.assert_array_equal(soft[t, :, z], model.probabilities(image[t, 1:, z]).astype(np.float16))
            total += expected_yx.max()
    assert finished.objects == total


@pytest.mark.parametrize("channels", [(2, 0), (1, 2)])
def test_channels_are_used_in_the_given_order(kit: SimpleNamespace, tmp_path: Path, channels: tuple[int, ...]) -> None:
    model = save(kit, tmp_path, "softmax", channels=2)
    image_cyx = kit.texture((3, 90, 70))
    path = kit.write_image(tmp_path / "a.ome.zarr", image_cyx, "CYX")
    kit.run(
        StreamRequest(
            model=tmp_path / "m.septa", input=StreamInput(str(path), channels=channels), output=tmp_path / "o.ome.zarr"
        )
    )
    expected = model.as_written(model.segment(image_cyx[list(channels)]))
    np.testing.assert_array_equal(kit.read(tmp_path / "o.ome.zarr", "m"), expected)


def test_a_pyramid_level_is_an_image_with_larger_pixels(kit: SimpleNamespace, tmp_path: Path) -> None:
    model = save(kit, tmp_path)
    image_cyx = kit.texture((1, 240, 250))
    path = kit.write_image(tmp_path / "a.ome.zarr", image_cyx, "CYX", pixel=0.25, origin=3.0, levels=2)
    kit.run(
        StreamRequest(model=tmp_path / "m.septa", input=StreamInput(str(path), level=1), output=tmp_path / "o.ome.zarr")
    )
    kit.assert_same_objects(kit.read(tmp_path / "o.ome.zarr", "m"), model.segment(image_cyx[:, ::2, ::2]))
    with open_source(tmp_path / "o.ome.zarr") as result:
        assert result.pixel_size_um == (0.5, 0.5)
        assert result.origin_um == (3.0, 3.0)


@pytest.mark.parametrize("ending", ["ome.zarr", "ome.tif"])
def test_a_region_is_segmented_like_a_cropped_image(kit: SimpleNamespace, tmp_path: Path, ending: str) -> None:
    model = save(kit, tmp_path)
    image_cyx = kit.texture((1, 260, 250))
    path = kit.write_image(tmp_path / "a.ome.zarr", image_cyx, "CYX", pixel=0.5, origin=3.0)
    top, left, bottom, right = region = (13, 31, 190, 249)
    output = tmp_path / f"o.{ending}"
    kit.run(StreamRequest(model=tmp_path / "m.septa", input=StreamInput(str(path), region=region), output=output))
    expected_yx = model.segment(np.ascontiguousarray(image_cyx[:, top:bottom, left:right]))
    if ending == "ome.tif":
        kit.assert_same_objects(tifffile.imread(output), expected_yx)
        return
    kit.assert_same_objects(kit.read(output, "m"), expected_yx)
    with open_source(output) as result:
        assert result.pixel_size_um == (0.5, 0.5)
        assert result.origin_um == (3.0 + 0.5 * top, 3.0 + 0.5 * left)


@pytest.mark.parametrize("ending", ["ome.zarr", "ome.tif"])
def test_axes_steps_and_positions_are_those_of_the_image(kit: SimpleNamespace, tmp_path: Path, ending: str) -> None:
    model = save(kit, tmp_path, "softmax")
    path = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((2, 3, 90, 70)), "TZYX")
    metadata = json.loads((path / "zarr.json").read_text())
    [multiscale] = metadata["attributes"]["ome"]["multiscales"]
    for axis, unit in zip(multiscale["axes"], ("minute", "nanometer", "millimeter", "millimeter")):
        axis["unit"] = unit
    multiscale["datasets"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [0.5, 800.0, 0.0005, 0.00025]},
        {"type": "translation", "translation": [1.0, 4000.0, 0.01, 0.02]},
    ]
    (path / "zarr.json").write_text(json.dumps(metadata))
    output = tmp_path / f"o.{ending}"
    is_zarr = ending == "ome.zarr"
    given = StreamInput(str(path), region=(20, 10, 80, 70))
    kit.run(StreamRequest(model=tmp_path / "m.septa", input=given, output=output, probabilities=is_zarr))
    for place, names in ((output, model.labels.class_names), (output / "labels" / "m", ())):
        if place.exists():
            with open_source(place) as result:
                assert result.axes == ("TCZYX" if names and is_zarr else "TZYX")
                found = result.calibration
            assert found.pixel_size_um == pytest.approx((0.5, 0.25))
            assert found.z_step_um == pytest.approx(0.8)
            assert found.time_step_s == pytest.approx(30.0)
            if is_zarr:
                assert found.origin_um == pytest.approx((4.0, 20.0, 22.5))
                assert found.time_origin_s == pytest.approx(60.0)
                assert found.channel_names == names
            else:
                with tifffile.TiffFile(place) as file:
                    text = file.ome_metadata or ""
                assert re.findall(r'Position[XYZ]="([^"]*)"', text)[:3] == ["22.5", "20.0", "4.0"]


@pytest.mark.parametrize("planes", [(), (2,), (2, 3)])
def test_the_output_can_be_a_pyramidal_tiff(kit: SimpleNamespace, tmp_path: Path, planes: tuple[int, ...]) -> None:
    model = save(kit, tmp_path)
    image = kit.texture((*planes, 150, 140))
    path = kit.write_image(tmp_path / "a.ome.zarr", image, "TZYX"[2 - len(planes) :], pixel=0.5)
    kit.run(StreamRequest(model=tmp_path / "m.septa", input=StreamInput(str(path)), output=tmp_path / "o.ome.tif"))
    with tifffile.TiffFile(tmp_path / "o.ome.tif") as file:
        assert file.is_ome
        assert file.is_bigtiff
        series = file.series[0]
        assert len(series.levels) == 4
        found = series.asarray()
        np.testing.assert_array_equal(series.levels[1].asarray(), found[..., ::2, ::2])
    assert found.shape == image.shape
    for index in np.ndindex(planes):
        kit.assert_same_objects(found[index], model.segment(image[index][None]))
    with open_source(tmp_path / "o.ome.tif") as result:
        assert result.pixel_size_um == (0.5, 0.5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ome.zarr", "m.septa", "o.ome.tif"]


def test_the_input_can_be_a_plain_tiff(kit: SimpleNamespace, tmp_path: Path) -> None:
    model = save(kit, tmp_path)
    image_yx = kit.texture((130, 110))
    tifffile.imwrite(tmp_path / "a.tif", image_yx, rowsperstrip=7)
    kit.run(
        StreamRequest(
            model=tmp_path / "m.septa", input=StreamInput(str(tmp_path / "a.tif")), output=tmp_path / "o.ome.zarr"
        )
    )
    kit.assert_same_objects(kit.read(tmp_path / "o.ome.zarr", "m"), model.segment(image_yx))


# --- empty blocks --------------------------------------------------------------------------------


def write_islands(kit: SimpleNamespace, levels: int, folder: Path) -> tuple[Any, Path]:
    """Write an image that is flat except for two places, one of which just crosses the border of a block."""
    image_yx = np.full((300, 320), 500, np.uint16)
    image_yx[10:90, 20:130] = kit.texture((80, 110), seed=4)  # reaches 2 columns into block 2
    image_yx[200:250, 260:300] = kit.texture((50, 40), seed=5)
    return image_yx, kit.write_image(folder / "a.ome.zarr", image_yx, "YX", levels=levels)


@pytest.mark.parametrize(("kind", "levels"), [("distance", 1), ("softmax", 3), ("multilabel", 3)])
def test_empty_blocks_are_background(kit: SimpleNamespace, kind: str, levels: int, tmp_path: Path) -> None:
    """The other blocks hold the result for maps that are background in the empty blocks."""
    model = save(kit, tmp_path, kind)
    image_yx, path = write_islands(kit, levels, tmp_path)
    busy_yx = np.zeros((5, 5), bool)
    for y, x in zip(*np.nonzero(image_yx != 500)):
        busy_yx[y // 64, x // 64] = True
    request = StreamRequest(
        model=tmp_path / "m.septa",
        input=StreamInput(str(path)),
        output=tmp_path / "o.ome.zarr",
        skip_empty=True,
        probabilities=True,
    )
    finished = kit.run(request)
    soft_kyx = kit.read(request.output)
    names = ["m_0", "m_1", "m_2"] if kind == "multilabel" else ["m"]
    found = {name: kit.read(request.output, name) for name in names}
    kept_yx = np.ones(image_yx.shape, bool)
    skipped = 0
    for row in range(5):
        for column in range(5):
            part = (slice(64 * row, 64 * row + 64), slice(64 * column, 64 * column + 64))
            certain_k = np.array([0, 0, 0] if kind == "multilabel" else [1, 0, 0][: len(soft_kyx)])
            if (soft_kyx[(slice(None), *part)] == certain_k[:, None, None]).all():
                assert not busy_yx[row, column]
                kept_yx[part] = False
                skipped += 1
                for name in names:
                    assert not found[name][part].any()
    assert 8 <= skipped < 25
    assert kept_yx[:64, 128:192].all()  # two columns are enough
    assert finished.skipped == pytest.approx(1 - kept_yx.mean())
    logits_kyx = model.logits(image_yx)
    if kind == "distance":
        foreground_yx, inner_yx = model.task.compute_maps(logits_kyx)
        expected_yx = find_objects(foreground_yx * kept_yx, inner_yx, model.decoding)
        kit.assert_same_objects(found["m"], expected_yx)
        assert finished.objects == expected_yx.max()
    else:
        written = model.as_written(np.where(kept_yx, model.task.decode(logits_kyx), 0))
        for name, plane_yx in zip(names, written if written.ndim == 3 else written[None]):
            np.testing.assert_array_equal(found[name], plane_yx)
    soft_kyx[:, ~kept_yx] = model.probabilities(image_yx).astype(np.float16)[:, ~kept_yx]
    np.testing.assert_array_equal(soft_kyx, model.probabilities(image_yx).astype(np.float16))


def test_a_blank_image_has_no_objects(kit: SimpleNamespace, tmp_path: Path) -> None:
    save(kit, tmp_path)
    path = kit.write_image(tmp_path / "a.ome.zarr", np.full((150, 100), 9, np.uint8), "YX")
    finished = kit.run(
        StreamRequest(
            model=tmp_path / "m.septa", input=StreamInput(str(path)), output=tmp_path / "o.ome.zarr", skip_empty=True
        )
    )
    assert (finished.objects, finished.skipped, finished.segmented) == (0, 1.0, 0.0)
    assert not kit.read(tmp_path / "o.ome.zarr", "m").any()


def test_an_object_may_be_wider_than_several_blocks(kit: SimpleNamespace, tmp_path: Path) -> None:
    """A foreground region without a seed is one object, at any size."""
    model = replace(kit.make("distance"), decoding=replace(kit.make("distance").decoding, foreground=1e-4, seed=0.9999))
    model.save(tmp_path / "m.septa")
    image_yx = kit.texture((200, 190))
    path = kit.write_image(tmp_path / "a.ome.zarr", image_yx, "YX")
    kit.run(StreamRequest(model=tmp_path / "m.septa", input=StreamInput(str(path)), output=tmp_path / "o.ome.zarr"))
    expected_yx = model.segment(image_yx)
    assert np.bincount(expected_yx.ravel())[1:].max() > 30_000
    kit.assert_same_objects(kit.read(tmp_path / "o.ome.zarr", "m"), expected_yx)
