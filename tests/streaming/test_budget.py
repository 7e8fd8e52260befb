"""Tests of the memory budget: blocks and tiles stay within it, and tiles that do not fit are halved."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from septa.errors import OutOfMemory, ResourceError
from septa.inference.protocol import Engine, SingleImageEngine
from septa.inference.tiling import smallest_tile_for
from septa.model import Model
from septa.streaming import StreamInput, StreamRequest, StreamStarted, budget, run, stream
from septa.streaming.block_worker import BlockWorker
from septa.streaming.budget import block_bytes, fit_budget, resident_bytes
from septa.tasks.decoding import Decoding

ALL = (4096, 2048, 1024, 512, 256)


@pytest.fixture
def real_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BLOCKS", ALL)
    monkeypatch.setattr(budget, "resident_bytes", lambda: 300 * 2**20)


@pytest.mark.usefixtures("real_blocks")
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kind", ["distance", "softmax"])
def test_blocks_grow_with_the_memory_and_stay_within_it(kit: SimpleNamespace, kind: str, padding: str) -> None:
    model = kit.make(kind, padding)
    seen = []
    for memory in np.geomspace(0.5e9, 64e9, 25).astype(int).tolist():
        found = fit_budget(model, 2, memory, margin=32)
        assert found.expected <= memory
        assert found.tile >= smallest_tile_for(model.net)
        seen.append(found.block)
        again = fit_budget(model, 2, memory, margin=32, block=256)
        assert again.block == 256
        assert again.expected <= memory
    assert seen == sorted(seen)
    assert {256, 4096} <= {seen[0], seen[-1]} | {256}
    assert block_bytes(model, 2, 512, 32) < block_bytes(model, 2, 1024, 32)


@pytest.mark.usefixtures("real_blocks")
@pytest.mark.parametrize("block", [None, 1024])
def test_the_smallest_budget_is_exact(kit: SimpleNamespace, block: int | None) -> None:
    model = kit.make("distance")
    with pytest.raises(ResourceError, match="this net needs at least") as caught:
        fit_budget(model, 2, 10**6, margin=32, block=block)
    named = re.search(r"Give --memory (\d+)MB or more", str(caught.value))
    assert named is not None
    least = int(named[1]) * 10**6
    assert fit_budget(model, 2, least, margin=32, block=block).expected <= least
    with pytest.raises(ResourceError):
        fit_budget(model, 2, least - 2 * 10**6, margin=32, block=block)


@pytest.mark.usefixtures("real_blocks")
@pytest.mark.parametrize("decoding", [10**6, 900 * 10**6])
def test_the_memory_to_decode_a_chunk_is_counted(kit: SimpleNamespace, decoding: int) -> None:
    model = kit.make("distance")
    with pytest.raises(ResourceError, match="this net needs at least") as plain:
        fit_budget(model, 2, 10**6, margin=32)
    with pytest.raises(ResourceError, match="this net needs at least") as caught:
        fit_budget(model, 2, 10**6, margin=32, decoding=decoding)
    least, more = (int(re.findall(r"--memory (\d+)MB", str(error.value))[0]) for error in (plain, caught))
    assert abs(more - least - decoding / 1e6) <= 1
    is_large = decoding > 10**8
    assert ("and 900 MB to decode a chunk of the image, got 1 MB" in str(caught.value)) == is_large
    assert str(caught.value).endswith("or save the image in tiles.") == is_large
    found = fit_budget(model, 2, more * 10**6, margin=32, decoding=decoding)
    assert found.expected <= more * 10**6


def test_a_run_counts_the_chunks_of_its_image(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, septa: Callable[..., Any]
) -> None:
    kit.make("distance").save(tmp_path / "m.septa")
    tifffile.imwrite(tmp_path / "a.tif", kit.texture((100, 90)), compression="zlib", rowsperstrip=100)
    seen: list[int] = []
    original = run.fit_budget

    def fit(*args: Any, **more: Any) -> Any:
        seen.append(more["decoding"])
        return original(*args, **more)

    monkeypatch.setattr(run, "fit_budget", fit)
    assert septa("predict", tmp_path / "m.septa", tmp_path / "a.tif", "-o", tmp_path / "o.ome.zarr")[0] == 0
    assert 2 * 100 * 90 < seen[0] < 4 * 100 * 90 + 1000


def test_resident_bytes_grow_with_touched_pages() -> None:
    """The test maps pages of its own, because an array may reuse memory that the process holds already."""
    with mmap(-1, 40_000_000) as pages:
        before = resident_bytes()
        for start in range(0, len(pages), 1000):
            pages[start] = 1
        assert 35e6 < resident_bytes() - before < 80e6


def test_too_little_memory_is_refused_before_anything_is_written(
    kit: SimpleNamespace, tmp_path: Path, septa: Callable[..., Any]
) -> None:
    kit.make("distance").save(tmp_path / "m.septa")
    image = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((100, 90)), "YX")
    output = tmp_path / "o.ome.zarr"
    given = ("predict", tmp_path / "m.septa", image, "-o", output)
    code, _, err = septa(*given, "--memory", "20MB")
    assert code == 4
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.zarr", "m.septa"]
    named = re.search(r"Give --memory (\d+)MB or more", err)
    assert named is not None
    assert septa(*given, "--memory", f"{int(named[1]) + 5}MB")[0] == 0
    assert output.exists()


def test_the_tile_option_stays_within_the_budget(kit: SimpleNamespace, tmp_path: Path) -> None:
    model = kit.make("distance")
    model.save(tmp_path / "m.septa")
    image = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((100, 90)), "YX")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            run,
            "fit_budget",
            lambda *args, **more: replace(fit_budget(*args, **more), tile=smallest_tile_for(model.net)),
        )
        made: list[int] = []
        patch.setattr(run, "BlockWorker", lambda **given: made.append(given["tile"]) or BlockWorker(**given))  # type: ignore[func-returns-value]
        kit.run(
            StreamRequest(
                model=tmp_path / "m.septa", input=StreamInput(str(image)), output=tmp_path / "o.ome.zarr", tile=4096
            )
        )
    assert made == [smallest_tile_for(model.net)]


@pytest.mark.parametrize("failure", [OutOfMemory("memory", "a tile does not fit"), MemoryError()])
def test_tiles_that_do_not_fit_are_halved(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """A tile is halved only as often as necessary, and later blocks start with the halved tile."""
    model = kit.make("distance")
    model.save(tmp_path / "m.septa")
    image_yx = kit.texture((330, 100))
    image = kit.write_image(tmp_path / "a.ome.zarr", image_yx, "YX")
    made = Model.engine
    failed = [0]

    def engine(self: Model, *given: str) -> Engine:
        inner = made(self, *given)

        def outer(image_cyx: Any) -> Any:
            if max(image_cyx.shape[1:]) > 112:
                failed[0] += 1
                raise failure
            return inner(image_cyx)

        return SingleImageEngine(outer)

    workers: list[BlockWorker] = []
    with monkeypatch.context() as patch:
        patch.setattr(Model, "engine", engine)
        patch.setattr(run, "BlockWorker", lambda **given: workers.append(BlockWorker(**given)) or workers[-1])  # type: ignore[func-returns-value]
        started, *_ = stream(
            StreamRequest(model=tmp_path / "m.septa", input=StreamInput(str(image)), output=tmp_path / "o.ome.zarr")
        )
    assert isinstance(started, StreamStarted)
    assert smallest_tile_for(model.net) < started.budget.tile // 2 < 112 < started.budget.tile
    assert workers[0].tile == started.budget.tile // 2
    assert 1 <= failed[0] <= 2  # the block itself, and the window that was read before the tile was halved
    kit.assert_same_objects(kit.read(tmp_path / "o.ome.zarr", "m"), model.segment(image_yx))


def test_an_error_reports_that_the_smallest_tile_does_not_fit(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, septa: Callable[..., Any]
) -> None:
    kit.make("distance").save(tmp_path / "m.septa")
    image = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((100, 90)), "YX")

    def fail(image_cyx: Any) -> Any:
        raise OutOfMemory("memory", "a tile does not fit", "Give a smaller --tile")

    monkeypatch.setattr(Model, "engine", lambda self, *given: SingleImageEngine(fail))
    code, _, err = septa("predict", tmp_path / "m.septa", image, "-o", tmp_path / "o.ome.zarr")
    assert (code, err.count("\n")) == (4, 1)
    assert err.startswith("memory: a tile does not fit. Give a smaller --tile")


def test_connected_objects_that_exceed_the_memory_are_refused(
    kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a limited reach, foreground without a seed is uncertain at any margin."""
    model = kit.make("distance")
    replace(model, decoding=Decoding(foreground=1e-6, seed=1 - 1e-6)).save(tmp_path / "m.septa")
    image = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((600, 600)), "YX")
    memory = budget.resident_bytes() + 10**9  # the tests before this one may have left much in the process
    monkeypatch.setattr(
        run, "fit_budget", lambda *args, **more: replace(fit_budget(*args, **more), free=least_bytes(model))
    )
    with pytest.raises(
        ResourceError, match=r"a.ome.zarr: connected objects at rows .* do not fit .* Give --memory \d+MB or more"
    ):
        kit.run(
            StreamRequest(
                model=tmp_path / "m.septa",
                input=StreamInput(str(image)),
                output=tmp_path / "o.ome.zarr",
                memory=memory,
            )
        )
    limited = replace(model, decoding=Decoding(foreground=1e-6, seed=1 - 1e-6, reach=4))
    limited.save(tmp_path / "n.septa")
    kit.run(
        StreamRequest(
            model=tmp_path / "n.septa", input=StreamInput(str(image)), output=tmp_path / "p.ome.zarr", memory=memory
        )
    )


def least_bytes(model: Model) -> int:
    """Return bytes for one block with its first margin and the smallest tile, and little more."""
    side = budget.BLOCKS[-1]
    return int(1.3 * block_bytes(model, 1, side, 32)) + smallest_tile_for(model.net) ** 2 * model.net.bytes_per_pixel


PEAK = (
    "import re, sys, atexit, pathlib; atexit.register(lambda: print('PEAK', re.search(r'VmHWM:\\s+(\\d+)', "
    "pathlib.Path('/proc/self/status').read_text())[1])); from septa.cli import main; main()"
)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize(("kind", "reach"), [("softmax", 0), ("distance", 8)])
def test_the_peak_of_the_command_stays_within_the_budget(
    kit: SimpleNamespace, kind: str, reach: int, tmp_path: Path
) -> None:
    model = kit.make(kind)
    replace(model, decoding=replace(model.decoding, reach=reach)).save(tmp_path / "m.septa")
    image = kit.write_image(tmp_path / "a.ome.zarr", kit.texture((2000, 2000)), "YX", chunk=512)
    given = [sys.executable, "-c", PEAK, "predict", str(tmp_path / "m.septa"), str(image), "-o"]

    def peak(name: str, memory: str) -> tuple[int, str, int]:
        more = [str(tmp_path / name), "--memory", memory, "--probabilities"]
        done = subprocess.run([*given, *more], capture_output=True, text=True, check=False)
        found = re.search(r"PEAK (\d+)", done.stdout)
        assert found is not None, done
        return done.returncode, done.stderr, int(found[1]) * 1024

    code, err, _ = peak("o.ome.zarr", "20MB")
    assert code == 4
    named = re.search(r"Give --memory (\d+)MB or more", err)
    assert named is not None
    memory = int(named[1]) + 20
    code, err, held = peak("o.ome.zarr", f"{memory}MB")
    assert code == 0, err
    assert held <= memory * 10**6, (held, memory)
