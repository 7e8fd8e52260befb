"""Tests of resuming: however a run ends, the same command resumes it and writes the same bytes."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from septa.errors import InputError, Interrupted
from septa.images.sources.open import open_source
from septa.images.store import ome_zarr as store
from septa.streaming import StreamFinished, StreamInput, StreamRequest, StreamStarted, StreamStep, executor, run, stream
from septa.streaming.block_worker import BlockWorker
from septa.streaming.blocks import ScoredBlock, label_block

OLD = Path(__file__).parents[1] / "files" / "v0.1"
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Killed(BaseException):
    """A kill, which no code catches."""


class Disk:
    """A disk that counts flushed files, and on which flushing fails after a given number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flushed = 0
        self.most = 10**9
        self.error = BaseException()
        monkeypatch.setattr(os, "fsync", self.flush)

    def flush(self, handle: int) -> None:
        self.flushed += 1
        if self.flushed > self.most:
            raise self.error

    def fail_after(self, count: int, error: BaseException) -> None:
        self.flushed = 0
        self.most = count
        self.error = error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def request_(kit: SimpleNamespace, tmp_path: Path) -> StreamRequest:
    """Make a request with four blocks and probabilities."""
    kit.make("distance").save(tmp_path / "m.septa")
    image = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((100, 90)), "YX")
    return StreamRequest(
        model=tmp_path / "m.septa", input=StreamInput(str(image)), output=tmp_path / "o.ome.zarr", probabilities=True
    )


@pytest.fixture
def expected(kit: SimpleNamespace, request_: StreamRequest, disk: Disk) -> dict[str, bytes]:
    """Return the files of a store that was written without interruption."""
    other = replace(request_, output=request_.output.with_name("expected.ome.zarr"))
    kit.run(other)
    return dict(kit.files(other.output))


def block_times(request: StreamRequest) -> dict[str, int]:
    """Return the time at which each block was written."""
    return {file.name: file.stat().st_mtime_ns for file in run.work_folder(request.output).rglob("*.block")}


def command(request: StreamRequest) -> tuple[str, ...]:
    more = ("--probabilities",) if request.probabilities else ()
    return ("predict", str(request.model), request.input.path, "-o", str(request.output), *more)


def finish(kit: SimpleNamespace, request: StreamRequest, expected: dict[str, bytes]) -> None:
    kit.run(request)
    assert kit.files(request.output) == expected
    assert not run.work_folder(request.output).exists()


def test_a_run_that_is_killed_after_each_write_is_resumed(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], disk: Disk
) -> None:
    total = disk.flushed
    runs = 0
    assert total > 50
    for runs in range(100):
        done = {}
        kept = block_times(request_)
        disk.fail_after(runs, Killed())
        try:
            for event in stream(request_):
                if isinstance(event, StreamStarted):
                    done = kept
                    assert event.done == len(kept)
                    assert len(kept) == 4 or not request_.output.exists()
        except Killed:
            assert done.items() <= block_times(request_).items()  # no block is written again
            continue
        break
    assert 5 < runs < 40
    assert kit.files(request_.output) == expected
    *_, last = stream(request_)
    assert isinstance(last, StreamFinished)
    assert last.already_complete


def test_a_full_disk_is_reported_and_the_run_is_resumed(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], disk: Disk, septa: Callable[..., Any]
) -> None:
    for count in (0, 5, 24):  # while the plan, the blocks and the store are written
        disk.fail_after(count, FULL)
        code, _, err = septa(*command(request_))
        assert code == 4
        assert err.count("\n") == 1
        assert "the disk or the quota is full. Free some space" in err
        assert not request_.output.exists() or not store.is_store_complete(request_.output)
        assert not list(request_.output.parent.rglob("*.tmp"))
    disk.fail_after(10**9, FULL)
    finish(kit, request_, expected)


def test_a_full_disk_is_reported_by_the_list_of_written_blocks(
    request_: StreamRequest, septa: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def fail(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name == "digests.jsonl":
            raise FULL
        flush(handle)

    monkeypatch.setattr(os, "fsync", fail)
    code, _, err = septa(*command(request_))
    assert (code, err.count("\n")) == (4, 1)
    assert "digests.jsonl: the disk or the quota is full" in err


def end_while(request: StreamRequest, stage: str, count: int) -> None:
    """Stop a run in a stage."""
    for number, event in enumerate(event for event in stream(request) if isinstance(event, StreamStep)):
        if event.stage == stage and number >= count:
            return
    raise AssertionError(stage)


def damage_one_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_one_bit, Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-9])])
def test_damaged_blocks_and_shards_are_done_again(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], damage: Callable[[Path], Any]
) -> None:
    end_while(request_, "writing", 11)
    folder = run.work_folder(request_.output)
    block = sorted(folder.rglob("*.block"))[2]
    damage(block)
    shards = [request_.output / name for name in ("labels/m/0/c/0/1", "0/c/0/0/0", "labels/m/1/c/0/0")]
    for shard in shards:
        damage(shard)
    with (folder / "digests.jsonl").open("a") as lines:
        lines.write("[0, 0, 0")  # a line that a kill has cut short
    before = block_times(request_)
    for event in stream(request_):
        if isinstance(event, StreamStarted):
            assert (event.done, event.blocks) == (3, 4)
            assert event.notes == ("an interrupted run is resumed",)
        if isinstance(event, StreamStep) and event.stage == "writing":
            changed = {name for name, then in block_times(request_).items() if then != before.get(name)}
            assert changed == {block.name}
    assert kit.files(request_.output) == expected


def test_an_unfinished_store_cannot_be_opened(request_: StreamRequest) -> None:
    end_while(request_, "writing", 8)
    with pytest.raises(InputError, match=r"the store is not complete\. Run the command"):
        open_source(request_.output)
    for file in request_.output.rglob("zarr.json"):
        assert "ome" not in json.loads(file.read_text()).get("attributes", {})


def test_an_unfinished_store_without_work_folder_is_completed(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes]
) -> None:
    end_while(request_, "writing", 8)
    shutil.rmtree(run.work_folder(request_.output))
    finish(kit, request_, expected)


@pytest.mark.parametrize("ending", ["ome.zarr", "ome.tif"])
def test_a_run_that_was_killed_while_cleaning_up_is_complete(
    kit: SimpleNamespace, request_: StreamRequest, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = replace(request_, output=request_.output.with_name(f"p.{ending}"), probabilities=False)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
        kit.run(given)
    written = kit.files(given.output)
    assert run.work_folder(given.output).exists()
    assert kit.run(given).already_complete
    assert not run.work_folder(given.output).exists()
    assert kit.files(given.output) == written


def test_resuming_with_other_settings_is_refused(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], septa: Callable[..., Any]
) -> None:
    end_while(request_, "segmenting", 1)
    image = Path(request_.input.path)
    kit.make("distance", seed=1).save(other := image.with_name("other.septa"))
    moved = Path(image.rename(image.with_name("b.ome.zarr")))
    changes: dict[str, StreamRequest] = {
        "path": replace(request_, input=StreamInput(str(moved))),
        "region, shape": replace(request_, input=StreamInput(str(moved), region=(0, 0, 64, 70))),
        "model": replace(request_, model=other, input=StreamInput(str(moved))),
        "name": replace(request_, name="nuclei", input=StreamInput(str(moved))),
        "probabilities, skip_empty": replace(
            request_, probabilities=False, skip_empty=True, input=StreamInput(str(moved))
        ),
    }
    for named, changed in changes.items():
        with pytest.raises(InputError, match="an unfinished run of another image or with other settings") as caught:
            list(stream(changed))
        assert named in caught.value.problem
    moved.rename(image)
    finish(kit, request_, expected)
    code, out, _ = septa(*command(request_))
    assert code == 0
    assert "is complete already, nothing was done" in out
    for changed in (replace(request_, probabilities=False), replace(request_, name="nuclei")):
        with pytest.raises(InputError, match=r"the output exists and was written .* other settings\. Give --overwrite"):
            list(stream(changed))


def test_a_damaged_plan_is_refused_and_can_be_overwritten(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes]
) -> None:
    end_while(request_, "segmenting", 1)
    (run.work_folder(request_.output) / "plan.json").write_text('{"block": 64')
    with pytest.raises(InputError) as caught:
        list(stream(request_))
    problem = "the plan of the unfinished run in this folder cannot be read"
    remedy = "Give --overwrite to start again, or remove the folder"
    assert str(caught.value) == f"{run.work_folder(request_.output)}: {problem}. {remedy}."
    finish(kit, replace(request_, overwrite=True), expected)


def change_pixels(path: Path) -> None:
    """Write other pixels in place, as `zarr.open_array(..., "r+")` does."""
    array = zarr.open_array(path / "0", mode="r+")
    array[...] = np.asarray(array[...])[::-1]


@pytest.mark.parametrize("ending", ["ome.zarr", "ome.tif"])
def test_an_output_of_other_pixels_is_not_complete(
    kit: SimpleNamespace, request_: StreamRequest, septa: Callable[..., Any], ending: str
) -> None:
    given = replace(request_, output=request_.output.with_name(f"p.{ending}"), probabilities=False)
    kit.run(given)
    before = kit.files(given.output)
    assert kit.run(given).already_complete
    change_pixels(Path(given.input.path))
    code, _, err = septa(*command(given))
    assert code == 2
    changed = " and was written from another image or region, or before the image was changed"
    reason = changed if "zarr" in ending else ""
    assert err == (
        f"{given.output}: the output exists{reason}. Give --overwrite to replace it, or give -o another name.\n"
    )
    assert kit.files(given.output) == before
    assert septa(*command(given), "--overwrite")[0] == 0
    assert kit.files(given.output) != before
    assert kit.run(given).already_complete


def test_an_image_of_the_same_name_in_another_folder_is_another_image(
    kit: SimpleNamespace, request_: StreamRequest, tmp_path: Path
) -> None:
    """Fields of a plate all have the same name, and their metadata is equal."""
    fields = [tmp_path / "plate" / well / "0" for well in "AB"]
    for seed, field in enumerate(fields):
        kit.write_image(field, kit.texture((100, 90), seed=seed), "YX")
        for file in field.rglob("*"):
            os.utime(file, (1, 1))
    first, second = (replace(request_, input=StreamInput(str(field))) for field in fields)
    kit.run(first)
    with pytest.raises(InputError, match="the output exists and was written from another"):
        list(stream(second))
    end_while(replace(first, overwrite=True), "segmenting", 1)
    with pytest.raises(InputError, match=r"an unfinished run of another image or with other settings \(path"):
        list(stream(second))
    assert not kit.run(replace(second, overwrite=True)).already_complete


def test_an_interrupted_run_is_not_resumed_with_other_pixels(kit: SimpleNamespace, request_: StreamRequest) -> None:
    end_while(request_, "segmenting", 1)
    change_pixels(Path(request_.input.path))
    with pytest.raises(InputError, match=r"another image or with other settings \(content\)\. Give"):
        list(stream(request_))
    assert not kit.run(replace(request_, overwrite=True)).already_complete


def test_an_image_that_changes_during_the_run_is_an_error(kit: SimpleNamespace, request_: StreamRequest) -> None:
    events = stream(request_)
    assert isinstance(next(events), StreamStarted)
    change_pixels(Path(request_.input.path))
    with pytest.raises(InputError, match=r"the image was changed while it was segmented\. Run .* --overwrite"):
        list(events)
    assert not request_.output.exists()
    with pytest.raises(InputError, match="content"):
        list(stream(request_))


STEPS = {
    "an empty output": lambda output: output.mkdir(),
    "a temporary file in the output": lambda output: (output.mkdir(), (output / f".zarr.json.{'0' * 16}.tmp").touch()),
    "an empty work folder": lambda output: run.work_folder(output).mkdir(),
    "an old output in the work folder": lambda output: (run.work_folder(output) / "replaced" / "0").mkdir(parents=True),
    "a lock of a process that has ended": lambda output: output.with_name(f".septa-{0:020d}-0.lock").write_text(
        json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "names": [output.name]})
    ),
}
"""What a kill can leave behind before the first block is done."""


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_was_killed_at_its_start_is_resumed(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], step: str
) -> None:
    STEPS[step](request_.output)
    finish(kit, request_, expected)
    assert not list(request_.output.parent.glob(".septa-*"))


@pytest.mark.parametrize("name", ["rename", "rmtree", "mkdir"])
def test_an_overwrite_that_is_killed_while_removing_is_done_again(
    kit: SimpleNamespace,
    request_: StreamRequest,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    kit.run(replace(request_, name="nuclei"))
    again = replace(request_, overwrite=True)
    owner = shutil if name == "rmtree" else Path
    original = getattr(owner, name)

    def kill(path: Path, *given: Any, **more: Any) -> Any:
        if name == "rmtree":
            next(file for file in Path(path).rglob("zarr.json")).unlink()  # a half of the old output is removed
        elif path.name.startswith(".septa-") or (path.suffix != ".work" and name == "mkdir"):
            return original(path, *given, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill)
        with pytest.raises(Killed):
            list(stream(again))
    finish(kit, again, expected)


def test_two_runs_with_one_output_are_refused(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes], septa: Callable[..., Any]
) -> None:
    events = stream(request_)
    next(events)
    for more in ((), ("--overwrite",)):
        code, _, err = septa(*command(request_), *more)
        assert code == 2
        holder = f"process {os.getpid()} on {socket.gethostname()} is writing this output"
        assert err == f"{request_.output}: {holder}. Wait until it has ended, or give -o another name.\n"
    list(events)
    assert kit.files(request_.output) == expected


@pytest.mark.parametrize("inside", ["x.ome.zarr", "labels/x.ome.zarr", "0/x.ome.tif", "labels/x"])
def test_an_output_inside_the_input_is_refused(
    kit: SimpleNamespace, request_: StreamRequest, septa: Callable[..., Any], inside: str
) -> None:
    image = Path(request_.input.path)
    before = kit.files(image)
    code, _, err = septa(*command(replace(request_, output=image / inside, probabilities=False)), "--overwrite")
    assert code == 2
    assert "the output lies inside the zarr folder" in err
    assert err.endswith("which septa does not change. Give -o a name outside it.\n")
    assert kit.files(image) == before


def test_overwrite_starts_again(kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes]) -> None:
    """Both an unfinished run with other settings and a complete store are replaced."""
    other = replace(request_, name="nuclei", probabilities=False)
    end_while(other, "writing", 8)
    again = replace(request_, overwrite=True)
    finish(kit, again, expected)
    *_, last = stream(again)
    assert isinstance(last, StreamFinished)
    assert not last.already_complete
    assert last.segmented > 0
    assert kit.files(request_.output) == expected


def test_overwrite_keeps_the_old_output_until_the_run_can_start(
    kit: SimpleNamespace, request_: StreamRequest, septa: Callable[..., Any]
) -> None:
    kit.run(request_)
    written = kit.files(request_.output)
    assert septa(*command(request_), "--overwrite", "--memory", "1MB")[0] == 4
    assert kit.files(request_.output) == written


def test_overwrite_removes_only_stores(kit: SimpleNamespace, request_: StreamRequest) -> None:
    again = replace(request_, overwrite=True)
    image = kit.write_image(request_.output, kit.texture((20, 20)), "YX")
    with pytest.raises(InputError, match="was not written by septa"):
        list(stream(again))
    for output in (Path(request_.input.path), Path(request_.input.path).parent):
        with pytest.raises(InputError, match="the output is the input image, or a folder that holds it"):
            list(stream(replace(again, output=output)))
    assert kit.files(image)
    assert kit.files(Path(request_.input.path))


def test_an_interrupted_tiff_is_resumed(kit: SimpleNamespace, request_: StreamRequest) -> None:
    given = replace(request_, output=request_.output.with_name("o.ome.tif"), probabilities=False)
    end_while(given, "writing", 6)
    assert not given.output.exists()
    kit.run(given)
    other = replace(given, output=request_.output.with_name("p.ome.tif"))
    kit.run(other)
    assert tifffile.imread(given.output).tobytes() == tifffile.imread(other.output).tobytes()


def test_an_interrupt_is_reported_in_one_line(
    kit: SimpleNamespace,
    request_: StreamRequest,
    expected: dict[str, bytes],
    septa: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = threading.active_count()

    def interrupt(worker: BlockWorker, scored: ScoredBlock) -> bool:
        done = label_block(worker, scored)
        if scored.index[2:] == (0, 1):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(executor, "label_block", interrupt)
        code, _, err = septa(*command(request_))
    assert code == 130
    assert err.count("\n") == 1
    assert (
        f"{request_.output}: the run was interrupted, and its finished blocks are kept in {request_.output}.work. Run"
        in err
    )
    assert threading.active_count() == threads
    assert len(block_times(request_)) == 2
    code, out, _ = septa(*command(request_))
    assert code == 0
    assert "2 of 4 blocks are done already" in out
    assert kit.files(request_.output) == expected
    monkeypatch.setattr(executor, "label_block", interrupt)
    with pytest.raises(Interrupted):
        list(stream(replace(request_, output=request_.output.with_name("q.ome.zarr"))))


SMALL = (
    "from septa.streaming import budget, plan; from septa.cli import main; "
    "budget.BLOCKS = (64,); budget.CHUNK = plan.CHUNK = 32; main()"
)


def test_a_command_that_is_killed_at_random_moments_is_resumed(
    kit: SimpleNamespace, request_: StreamRequest, expected: dict[str, bytes]
) -> None:
    moments = random.Random(1)
    folder = run.work_folder(request_.output)

    def late(count: int) -> bool:
        return request_.output.exists() if count else any(folder.rglob("*.block"))

    for number in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SMALL, *command(request_)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not late(number):
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.wait()
    finish(kit, request_, expected)


def test_an_interrupted_run_of_version_0_1_is_refused(tmp_path: Path, septa: Callable[..., Any]) -> None:
    """Version 0.1 knew an image by its name, size and time only, which may be those of another one."""
    shutil.copy(OLD / "data" / "images" / "0.png", image := tmp_path / "image.png")
    output = tmp_path / "labels.ome.zarr"
    shutil.copytree(OLD / "interrupted-stream", run.work_folder(output))
    given = ("predict", OLD / "instances.septa", image, "-o", output, "--engine", "torch", "--probabilities")
    code, _, err = septa(*given)
    assert (code, err.count("\n")) == (2, 1)
    assert "the unfinished run in this folder is of another version of septa, so its image cannot be checked" in err
    assert "Give --overwrite to start again" in err
    assert septa(*given, "--overwrite")[0] == 0
    assert store.is_store_complete(output)
    assert not run.work_folder(output).exists()
