"""Tests of the local executor: it reads, scores and labels blocks at the same time, and the result is the same."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from septa.errors import ResourceError
from septa.streaming import StreamInput, StreamRequest, block_file, budget, executor, run, stream
from septa.streaming.block_worker import BlockWorker
from septa.streaming.blocks import ScoredBlock, label_block, score_block, segment_block, write_output_block
from septa.streaming.budget import trim_heap
from septa.tasks.instances import Instances

WAIT_S = 30


@pytest.fixture
def request_(kit: SimpleNamespace, tmp_path: Path) -> StreamRequest:
    """Make a request with nine blocks, and with objects that never reach beyond the margin."""
    model = kit.make("distance")
    replace(model, decoding=replace(model.decoding, reach=8)).save(tmp_path / "m.septa")
    image = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((150, 170)), "YX")
    return StreamRequest(
        model=tmp_path / "m.septa", input=StreamInput(str(image)), output=tmp_path / "o.ome.zarr", probabilities=True
    )


@pytest.fixture
def expected(kit: SimpleNamespace, request_: StreamRequest) -> dict[str, bytes]:
    other = replace(request_, output=request_.output.with_name("expected.ome.zarr"))
    kit.run(other)
    return dict(kit.files(other.output))


def test_the_next_block_is_scored_while_one_is_labelled(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block's labelling waits until the next block is scored. One after the other, this would never end."""
    scoring = [threading.Event() for _ in range(10)]
    scoring[9].set()
    order = iter(range(9))

    def score(worker: BlockWorker, *given: Any) -> ScoredBlock:
        scoring[next(order)].set()
        return score_block(worker, *given)

    def label(worker: BlockWorker, scored: ScoredBlock) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        assert scoring[worker.plan.number(scored.index) + 1].wait(WAIT_S)
        return label_block(worker, scored)

    monkeypatch.setattr(executor, "score_block", score)
    monkeypatch.setattr(executor, "label_block", label)
    kit.run(request_)
    assert kit.files(request_.output) == expected


def test_at_most_two_blocks_are_in_flight(
    kit: SimpleNamespace, request_: StreamRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget has room for the logits of two blocks."""
    held, most = [0], [0]

    def score(worker: BlockWorker, *given: Any) -> ScoredBlock:
        held[0] += 1
        most[0] = max(most[0], held[0])
        return score_block(worker, *given)

    def label(worker: BlockWorker, scored: ScoredBlock) -> bool:
        try:
            return label_block(worker, scored)
        finally:
            held[0] -= 1

    monkeypatch.setattr(executor, "score_block", score)
    monkeypatch.setattr(executor, "label_block", label)
    kit.run(request_)
    assert (held, most) == ([0], [2])


@pytest.mark.parametrize("refusal", [False, MemoryError()])
def test_a_block_that_cannot_be_labelled_is_done_again_alone(
    kit: SimpleNamespace,
    request_: StreamRequest,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    refusal: bool | MemoryError,
) -> None:
    again: list[tuple[Any, int, int]] = []

    def label(worker: BlockWorker, scored: ScoredBlock) -> bool:
        if scored.index[2:] != (1, 1):
            return label_block(worker, scored)
        if isinstance(refusal, MemoryError):
            raise refusal
        return refusal

    def segment_again(worker: BlockWorker, index: Any, margin: int) -> None:
        again.append((index, margin // worker.plan.margin, len(list(worker.folder.rglob("*.block")))))
        segment_block(worker, index, margin)

    monkeypatch.setattr(executor, "label_block", label)
    monkeypatch.setattr(executor, "segment_block", segment_again)
    kit.run(request_)
    assert again == [((0, 0, 1, 1), 1 if isinstance(refusal, MemoryError) else 2, 8)]
    assert kit.files(request_.output) == expected


def test_an_error_in_labelling_ends_the_run_and_keeps_finished_blocks(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def label(worker: BlockWorker, scored: ScoredBlock) -> bool:
        if scored.index[2:] == (1, 1):
            raise ResourceError(worker.folder, "the disk or the quota is full", "free some space")
        return label_block(worker, scored)

    threads = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(executor, "label_block", label)
        with pytest.raises(ResourceError, match="the disk or the quota is full"):
            list(stream(request_))
    assert threading.active_count() == threads
    assert len(list(run.work_folder(request_.output).rglob("*.block"))) == 4
    kit.run(request_)
    assert kit.files(request_.output) == expected


def test_the_store_is_written_in_several_threads(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blocks wait for each other to start, so that one thread alone would never end."""
    together = threading.Barrier(2)
    done = [0]

    def meet(*given: Any) -> list[str]:
        done[0] += 1
        if done[0] <= 2:
            together.wait(WAIT_S)
        return write_output_block(*given)

    monkeypatch.setattr(executor, "write_output_block", meet)
    # The net keeps its one thread: with two, 1 x 1 convolutions take another path, which may round the last bit.
    monkeypatch.setattr(executor, "torch", SimpleNamespace(get_num_threads=lambda: 2))
    kit.run(request_)
    assert kit.files(request_.output) == expected


def test_the_merge_does_not_decompress_labels(
    kit: SimpleNamespace, request_: StreamRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    unpacked = block_file._unpack

    def count(*given: Any) -> Any:
        found = unpacked(*given)
        sizes.append(found.size)
        return found

    monkeypatch.setattr(block_file, "_unpack", count)
    events = stream(request_)
    while getattr(next(events), "stage", "") != "writing":
        pass
    events.close()  # type: ignore[attr-defined]
    labels = 22 * 42  # pixels of the smallest block
    assert sum(size >= labels for size in sizes) <= 2 * 3  # only for blocks that are written by now
    assert len(sizes) > 9 * 11


def test_the_summary_gives_the_share_of_the_net(
    kit: SimpleNamespace, request_: StreamRequest, septa: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = kit.run(request_)
    assert 0 < finished.net_seconds < finished.seconds
    output = request_.output.with_name("p.ome.zarr")
    code, out, _ = septa("predict", request_.model, request_.input.path, "-o", output)
    assert code == 0
    assert "the net took " in out
    assert out.rstrip().endswith("% of the time")


@pytest.mark.parametrize(("held", "trimmed"), [(89, []), (91, [0])])
def test_freed_memory_is_returned_if_the_next_tile_would_not_fit(
    monkeypatch: pytest.MonkeyPatch, held: int, trimmed: list[int]
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(budget, "resident_bytes", lambda: held)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=calls.append))
    trim_heap(100, 10)
    assert calls == trimmed


def test_a_semantic_block_is_done_again_after_a_lack_of_memory(
    kit: SimpleNamespace, request_: StreamRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A semantic task needs no margin."""
    kit.make("softmax").save(request_.model)
    other = replace(request_, output=request_.output.with_name("expected.ome.zarr"))
    kit.run(other)
    failed: list[Any] = []

    def label(worker: BlockWorker, scored: ScoredBlock) -> bool:
        assert worker.plan.margin == 0
        if not failed:
            failed.append(scored.index)
            raise MemoryError
        return label_block(worker, scored)

    monkeypatch.setattr(executor, "label_block", label)
    kit.run(request_)
    assert len(failed) == 1
    assert kit.files(request_.output) == kit.files(other.output)


@pytest.mark.parametrize("text", ["std::bad_alloc", "OpenCV: error: (-4:Insufficient memory) Failed to allocate"])
def test_a_block_is_done_again_if_a_library_is_out_of_memory(
    kit: SimpleNamespace,
    request_: StreamRequest,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    failed: list[str] = []
    original = Instances.label_block

    def label(self: Instances, *given: Any) -> Any:
        if not failed:
            failed.append(text)
            raise RuntimeError(text)
        return original(self, *given)

    monkeypatch.setattr(Instances, "label_block", label)
    kit.run(request_)
    assert failed
    assert kit.files(request_.output) == expected
