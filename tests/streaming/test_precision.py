"""Tests of the precision of stores: exact in bfloat16 too, part of a run's identity, and equal in all processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from septa.errors import InputError
from septa.images.write import write_image
from septa.model import Bf16Difference
from septa.streaming import StreamInput, StreamRequest, StreamStarted, dask_worker, stream
from septa.streaming.dask_cluster import Cluster

SAME = Bf16Difference(changed=0, pixels=60_000)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that makes this CPU fast or slow in bfloat16; it is fast at first."""

    def set_speed(value: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: value)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: value)

    set_speed(True)
    return set_speed


@pytest.fixture
def request_of(kit: SimpleNamespace, tmp_path: Path) -> Callable[..., StreamRequest]:
    """Return a function that makes a request for a small image and a model of a kind."""

    def make(kind: str = "distance", **settings: Any) -> StreamRequest:
        image = tmp_path / "image.ome.zarr"
        if not image.exists():
            kit.write_image(image, kit.texture((150, 170)), "YX")
        model = tmp_path / f"{kind}.septa"
        if not model.exists():
            replace(kit.make(kind), bf16=SAME).save(model)
        return StreamRequest(
            model=model, input=StreamInput(str(image)), output=tmp_path / "out.ome.zarr", device="cpu", **settings
        )

    return make


@pytest.mark.parametrize("kind", ["distance", "seam", "softmax"])
def test_a_store_in_bf16_equals_the_whole_image(
    kind: str, kit: SimpleNamespace, request_of: Callable[..., StreamRequest]
) -> None:
    request = request_of(kind)
    events = list(stream(request))
    assert isinstance(events[0], StreamStarted)
    assert events[0].plan.identity.engine == "torch+bf16"
    assert any(note.startswith("engine: torch in bf16, ") for note in events[0].notes)
    model = kit.make(kind)
    image = kit.texture((150, 170))
    expected_yx = model.segment(image, device="cpu", precision="bf16", tile=1000)
    found_yx = kit.read(request.output, kind)
    if model.task.finds_objects:
        kit.assert_same_objects(found_yx, expected_yx)
    else:
        np.testing.assert_array_equal(found_yx, model.as_written(expected_yx))
    assert not np.array_equal(model.logits(image, device="cpu"), model.logits(image, device="cpu", precision="bf16"))


def test_float32_switches_it_off(request_of: Callable[..., StreamRequest]) -> None:
    started = next(stream(request_of(precision="float32")))
    assert isinstance(started, StreamStarted)
    assert started.plan.identity.engine == "torch"
    assert not any("bf16" in note for note in started.notes)


def test_a_run_is_not_resumed_in_another_precision(
    request_of: Callable[..., StreamRequest], fast: Callable[[bool], None]
) -> None:
    request = request_of()
    run = stream(request)
    for _ in range(3):
        next(run)
    run.close()  # type: ignore[attr-defined]
    fast(False)  # the same command, on a processor without bfloat16
    with pytest.raises(InputError) as caught:
        list(stream(request))
    assert "with other settings (engine). Give --engine torch+bf16, or --overwrite to start again." in str(caught.value)
    list(stream(replace(request, engine="torch+bf16")))


def test_a_finished_store_of_another_precision_is_not_taken_for_this_one(
    request_of: Callable[..., StreamRequest],
) -> None:
    list(stream(request_of()))
    with pytest.raises(InputError, match="the output exists and was written from another path or with other settings"):
        list(stream(request_of(precision="float32")))


def test_all_workers_decide(request_of: Callable[..., StreamRequest]) -> None:
    for given, engine in ((False, "torch"), (True, "torch+bf16")):
        started = next(stream(request_of(fast_bf16=given, overwrite=True)))
        assert isinstance(started, StreamStarted)
        assert started.plan.identity.engine == engine


class FakeClient:
    """Fake client whose workers answer as given."""

    def __init__(self, *answers: object) -> None:
        self.answers = answers

    def run(self, function: object, device: str, on_error: str) -> dict[str, object]:
        assert (function, device, on_error) == (dask_worker.has_fast_bf16, "auto", "return")
        if not self.answers:
            raise OSError("no connection")
        return {f"tcp://{number}": answer for number, answer in enumerate(self.answers)}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [((True, True), True), ((True, False), False), ((True, AttributeError("an older septa")), False), ((), False)],
)
def test_a_cluster_is_fast_if_every_worker_is(answers: tuple[object, ...], expected: bool) -> None:
    assert Cluster(FakeClient(*answers), "here").has_fast_bf16("auto") is expected


def test_own_processes_are_not_asked(fast: Callable[[bool], None]) -> None:
    cluster = Cluster(FakeClient(), "here", threads=1)
    assert cluster.has_fast_bf16("cpu")
    fast(False)
    assert not cluster.has_fast_bf16("cpu")


def test_the_command_uses_bf16_and_says_so(
    request_of: Callable[..., StreamRequest],
    septa: Callable[..., tuple[int, str, str]],
    kit: SimpleNamespace,
    fast: Callable[[bool], None],
    tmp_path: Path,
) -> None:
    request = request_of()
    command = ("predict", request.model, request.input.path, "--device", "cpu")
    line = "engine: torch in bf16, which changes the labels of 0 % of the validation pixels"
    write_image(tmp_path / "plain.tif", kit.texture((60, 70))[None])
    plain = ("predict", request.model, tmp_path / "plain.tif", "--device", "cpu", "-o", tmp_path / "folder")
    for given in ((*command, "-o", tmp_path / "a.ome.zarr"), plain):
        code, out, _ = septa(*given)
        assert code == 0
        assert line in out
        code, out, _ = septa(*given, "--precision", "float32", "--overwrite")
        assert code == 0
        assert "bf16," not in out
    fast(False)
    code, out, _ = septa(*command, "-o", tmp_path / "b.ome.zarr", "--precision", "bf16")
    assert code == 0
    assert f"{line} (--precision float32 switches it off); the processor has no instructions for it, so" in out
    code, _, error = septa(*command, "-o", tmp_path / "c.ome.zarr", "--precision", "bf16", "--engine", "openvino")
    assert code == 2
    assert error.startswith("--precision bf16: the engine openvino does not compute in bfloat16. Give --engine torch")
