"""Tests of plans and of the prescan: plans survive JSON, and each part of an image is read only as often as needed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from septa.images import sampling
from septa.images.calibration import Calibration
from septa.images.normalize import Normalization
from septa.images.sources.open import open_source
from septa.streaming import StreamInput, StreamRequest, prescan
from septa.streaming.identity import RunIdentity
from septa.streaming.plan import StreamPlan
from septa.streaming.prescan import find_empty_blocks, resolve_normalizations

LENGTH = st.floats(1e-3, 1e3)
SMALL = st.integers(0, 99)
SIDE = st.integers(1, 99)


def normalizations() -> st.SearchStrategy[Normalization]:
    constants = st.lists(st.tuples(LENGTH, LENGTH), min_size=1, max_size=3)
    return st.builds(
        lambda found, curve: Normalization("dataset", *map(tuple, zip(*found)), curve),
        constants,
        st.sampled_from((0.0, 2.5)),
    )


@st.composite
def plans(draw: st.DrawFn) -> StreamPlan:
    channels = draw(st.none() | st.lists(SMALL, max_size=3).map(tuple))
    region = draw(st.none() | st.tuples(SMALL, SMALL, SMALL, SMALL))
    shape = draw(st.tuples(SIDE, SIDE, SIDE, SIDE, SIDE))
    identity = RunIdentity(
        model="abc",
        engine="torch",
        path="/a.tif",
        content="9",
        level=draw(SMALL),
        channels=channels,
        image=draw(SMALL),
        region=region,
        shape=shape,
        dtype="<u2",
        axes="TCZYX",
        name="ä",
        probabilities=draw(st.booleans()),
        skip_empty=draw(st.booleans()),
    )
    return StreamPlan(
        identity=identity,
        input=StreamInput(
            draw(st.text(max_size=9)), level=identity.level, channels=channels, image=identity.image, region=region
        ),
        sample="8",
        block=64,
        margin=32,
        normalizations=draw(st.dictionaries(st.text(max_size=5), normalizations(), max_size=2)),
        skipped=tuple(draw(st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL), max_size=3))),
        calibration=Calibration(
            pixel_size_um=draw(st.none() | st.tuples(LENGTH, LENGTH)),
            z_step_um=draw(st.none() | LENGTH),
            origin_um=draw(st.tuples(LENGTH, LENGTH, LENGTH)),
            channel_names=draw(st.sampled_from(((), ("a", "b")))),
        ),
    )


@given(plans())
def test_a_plan_survives_json(plan: StreamPlan) -> None:
    again = StreamPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest == plan.digest
    assert again.identity.digest == plan.identity.digest
    assert not again.identity.differences(plan.identity)


@given(
    plans(),
    st.sampled_from(["asked", "input", "block", "constants", "skipped", "calibration", "sample", "version", "margin"]),
)
def test_an_incomplete_plan_is_refused(plan: StreamPlan, name: str) -> None:
    values = plan.to_json()
    del values[name]
    with pytest.raises(ValueError, match=name):
        StreamPlan.from_json(values)
    junk: Any
    sound = plan.to_json()
    for junk in (
        [],
        "plan",
        None,
        *({**sound, **part} for part in ({"asked": 3}, {"more": 1}, {"constants": {"": 7}})),
    ):
        with pytest.raises(ValueError, match="Error"):
            StreamPlan.from_json(junk)


@pytest.mark.parametrize("sampled", [700, 10**6])
@pytest.mark.parametrize("region", [None, (7, 3, 205, 160)])
def test_the_normalisation_is_that_of_the_whole_image(
    kit: SimpleNamespace, tmp_path: Path, sampled: int, region: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_SAMPLED", sampled)
    monkeypatch.setattr(prescan, "_BAND", 40)
    model = kit.make("softmax", channels=2, per_image=True)
    image_cyx = kit.texture((2, 211, 170))
    path = kit.write_image(tmp_path / "a.ome.zarr", image_cyx, "CYX")
    with StreamInput(str(path), region=region).open() as source:
        found = resolve_normalizations(model, source)
    top, left, bottom, right = region or (0, 0, 211, 170)
    expected = Normalization("image").resolve(image_cyx[:, top:bottom, left:right])
    assert found == {"0,0": expected}


@pytest.mark.parametrize("noise", [True, False])
def test_noise_is_flattened_as_in_memory(
    kit: SimpleNamespace, tmp_path: Path, noise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = kit.make("softmax", channels=1, per_image=True)
    model = replace(model, normalization=replace(model.normalization, flatten_noise=True))
    image_cyx = np.random.default_rng(0).normal(90, 5, (1, 211, 170)).astype(np.uint8)
    image_cyx[:, 20:60, 30:80] += np.uint8(0 if noise else 60)
    path = kit.write_image(tmp_path / "a.ome.zarr", image_cyx, "CYX")
    with StreamInput(str(path)).open() as source:
        found = resolve_normalizations(model, source)
    assert found == {"0,0": model.normalization.resolve(image_cyx)}
    assert (found["0,0"] != Normalization("image").resolve(image_cyx)) == noise


def test_blocks_do_not_parse_the_normalisation(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the model's own normalisation is parsed, when the model is loaded."""
    kit.make("softmax", per_image=True).save(tmp_path / "m.septa")
    path = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((100, 90)), "YX")
    parse = Normalization.from_json
    parsed = []
    monkeypatch.setattr(Normalization, "from_json", lambda values: parsed.append(values) or parse(values))
    kit.run(StreamRequest(model=tmp_path / "m.septa", input=StreamInput(str(path)), output=tmp_path / "o.ome.zarr"))
    assert len(parsed) == 1


def test_empty_blocks_are_those_of_the_chosen_image(tmp_path: Path) -> None:
    """The thumbnail is a level of the same image of the file, not of its first image."""
    images_yx = [np.zeros((128, 128), np.uint8), np.zeros((128, 128), np.uint8)]
    images_yx[0][8:56, 8:56] = 200
    images_yx[1][72:120, 72:120] = 200
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for image_yx in images_yx:
            writer.write(image_yx, subifds=1, tile=(16, 16))
            writer.write(image_yx[::2, ::2], subfiletype=1, tile=(16, 16))
    corners = [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 0, 1, 1)]
    for number, busy in ((0, corners[0]), (1, corners[3])):
        with StreamInput(str(tmp_path / "a.ome.tif"), image=number).open() as source:
            assert len(source.levels) == 2
            skipped, _ = find_empty_blocks(source, 64)
        assert set(skipped) == {*corners} - {busy}


def test_a_block_file_is_read_once_for_the_merge_and_once_for_the_store(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.make("distance").save(tmp_path / "m.septa")
    path = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((100, 90)), "YX")
    counts: Counter[str] = Counter()
    original = Path.read_bytes

    def count(file: Path) -> bytes:
        if file.exists():
            counts[file.name] += 1
        return original(file)

    monkeypatch.setattr(Path, "read_bytes", count)
    kit.run(StreamRequest(model=tmp_path / "m.septa", input=StreamInput(str(path)), output=tmp_path / "o.ome.zarr"))
    assert {name: number for name, number in counts.items() if name.endswith(".block")} == {
        f"{number:08d}.block": 2 for number in range(4)
    }


def test_only_the_needed_windows_of_the_image_are_read(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block's window is read once; it holds the margin and the halo, and no more."""
    model = kit.make("softmax")
    model.save(tmp_path / "m.septa")
    path = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((300, 280)), "YX")
    with open_source(path) as source:
        reader = type(source.reader)
    original = reader.read
    windows = []

    def read(self: Any, t: int, z: int, channels: Any, y: tuple[int, int], x: tuple[int, int]) -> Any:
        windows.append((y[1] - y[0], x[1] - x[0]))
        return original(self, t, z, channels, y, x)

    monkeypatch.setattr(reader, "read", read)
    kit.run(StreamRequest(model=tmp_path / "m.septa", input=StreamInput(str(path)), output=tmp_path / "o.ome.zarr"))
    assert len(windows) == 25
    most = max(64 + 2 * model.net.halo + 2 * model.net.multiple, model.net.steady_side + model.net.multiple)
    assert np.max(windows) <= most
