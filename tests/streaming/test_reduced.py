"""Stores of images whose objects are large: reduced as in memory, with exact blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from numpy.typing import NDArray

from septa.errors import InputError, Interrupted
from septa.model import Model
from septa.streaming import StreamInput, StreamRequest, StreamStarted, StreamStep, stream

Prepared = tuple[Model, Model, NDArray[Any], StreamRequest]


def prepare(kit: SimpleNamespace, folder: Path, *settings: str, **thresholds: float) -> Prepared:
    """Return a model, the same with other settings, an image, and a request that segments its store with the latter."""
    image_yx = kit.texture((48, 56)).repeat(2, 0).repeat(2, 1)
    kit.write_image(folder / "image.ome.zarr", image_yx, "YX")
    plain = kit.make("distance")
    plain = replace(plain, decoding=replace(plain.decoding, **thresholds))
    model = replace(plain, recipe=plain.recipe.with_overrides(settings))
    model.save(folder / "model.septa")
    request = StreamRequest(
        model=folder / "model.septa",
        input=StreamInput(str(folder / "image.ome.zarr")),
        output=folder / "out.ome.zarr",
        device="cpu",
        tile=64,
    )
    return plain, model, image_yx, request


@pytest.mark.filterwarnings("ignore::septa.SeptaWarning")
def test_a_store_of_small_objects_equals_the_whole_image(kit: SimpleNamespace, tmp_path: Path) -> None:
    plain, model, image_yx, request = prepare(kit, tmp_path, "instances.smallest=1000")
    expected_yx = model.segment(image_yx)
    assert (expected_yx != plain.segment(image_yx)).any()
    started = next(stream(request))
    assert isinstance(started, StreamStarted)
    assert started.plan.scale.reduction == 0.5
    kit.run(replace(request, overwrite=True))
    kit.assert_same_objects(kit.read(request.output, "model"), expected_yx)


@pytest.mark.filterwarnings("ignore::septa.SeptaWarning")
def test_a_store_of_objects_with_parts_equals_the_whole_image(kit: SimpleNamespace, tmp_path: Path) -> None:
    plain, model, image_yx, request = prepare(kit, tmp_path, "instances.join_share=8", seed=0.5)
    expected_yx = model.segment(image_yx)
    assert 2 < expected_yx.max() < plain.segment(image_yx).max()
    started = next(stream(request))
    assert isinstance(started, StreamStarted)
    assert started.plan.scale.join_pixels > 0
    assert started.blocks > 1
    assert any("parts that together have less than" in note for note in started.notes)
    kit.run(replace(request, overwrite=True))
    kit.assert_same_objects(kit.read(request.output, "model"), expected_yx)


@pytest.mark.filterwarnings("ignore::septa.SeptaWarning")
def test_a_store_of_large_objects_equals_the_whole_image(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, model, image_yx, request = prepare(kit, tmp_path, "data.largest=1", "instances.least_share=0.2")
    monkeypatch.setattr("septa.labels.sizes.MOST_REDUCED", 2)
    expected_yx = model.segment(image_yx)
    assert 2 < expected_yx.max() < plain.reduce(2).segment(image_yx).max()
    events = stream(request)
    started = next(events)
    assert isinstance(started, StreamStarted)
    assert started.plan.scale.reduction == 2
    assert started.blocks > 1
    assert any("at 1/2 of its size" in note for note in started.notes)
    assert isinstance(next(events), StreamStep)
    with pytest.raises(Interrupted):
        events.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="diameter"):
        kit.run(replace(request, diameter=0.5))
    resumed = next(resumed_events := stream(request))
    assert isinstance(resumed, StreamStarted)
    assert resumed.done > 0
    *_, _last = resumed_events
    kit.assert_same_objects(kit.read(request.output, "model"), expected_yx)
    # A given diameter is not measured.
    kit.run(replace(request, diameter=0.5, overwrite=True))
    kit.assert_same_objects(kit.read(request.output, "model"), plain.segment(image_yx))
