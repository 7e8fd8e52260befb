"""Pages are read and written in parallel with the net, which does not change any result."""

from __future__ import annotations

import csv
import gc
import json
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from scipy import ndimage

from septa.errors import InputError, ResourceError
from septa.images.normalize import Normalization
from septa.images.read import read_image
from septa.images.write import write_image, write_labels
from septa.images.written import RECORD
from septa.inference.protocol import SingleImageEngine
from septa.labels.mapping import LabelMapping
from septa.model import Model, build_net
from septa.objects.files import ObjectFiles, ObjectOptions
from septa.prediction import FailedFile, Options, SegmentedFile, segment_files
from septa.prediction import output as output_module
from septa.prediction import pipeline as pipeline_module
from septa.prediction.find import as_images
from septa.prediction.pages import ComputedPage, FailedPage, FileState
from septa.prediction.pipeline import Pipeline
from septa.prediction.targets import Targets
from septa.recipe import Recipe
from septa.tasks.instances import Instances

WAIT_S = 30
PAGES = ["a", "b_0000", "b_0001", "b_0002", "c", "d", "e"]
"""Pages of `paths`, in their order."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five images of blobs, which differ in size; the second is a stack of three pages."""
    found = []
    for number, name in enumerate("abcde"):
        rng = np.random.default_rng(number)
        shape = (3 if name == "b" else 1, 40 + 4 * number, 52)
        pages = ndimage.gaussian_filter(rng.normal(size=shape), (0, 3, 3))
        found.append(tmp_path / "in" / f"{name}.tif")
        image = (128 + 100 * pages / np.abs(pages).max()).astype(np.uint8)
        if name == "b":
            tifffile.imwrite(found[-1], image, photometric="minisblack", metadata={"axes": "ZYX"})
        else:
            write_image(found[-1], image)
    return found


def make_model(task: str = "instances") -> Model:
    recipe = Recipe.parse({"task": task, "net": {"width": 2, "depth": 1}})
    torch.manual_seed(0)
    net = build_net(recipe, 1, 2).eval().requires_grad_(False)
    names = ("background", "object")
    labels = LabelMapping("instances", names, (0,)) if task == "instances" else LabelMapping("index", names, (0, 9))
    return Model(
        net=net, channels=1, labels=labels, normalization=Normalization("dataset", (128.0,), (10.0,)), recipe=recipe
    )


def bright(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits of which bright pixels are objects."""
    return np.concatenate([-image_cyx, image_cyx])


def everything(output: Path) -> Options:
    objects = ObjectOptions(output / "o.csv", geojson=True, coco=output / "coco.json", rois=True)
    return Options(output=output, probabilities=True, overlay=True, objects=objects)


def pages_of(path: Path) -> NDArray[Any]:
    array = tifffile.imread(path)
    return array if array.ndim == 3 else array[None]


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != RECORD]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Return a function that replaces the engine of every model."""
    return lambda compute: monkeypatch.setattr(Model, "engine", lambda *_: SingleImageEngine(compute))


@pytest.fixture
def expected(paths: list[Path], tmp_path: Path, use: Callable[..., None]) -> dict[str, bytes]:
    """Files that are written of all images with all options."""
    use(bright)
    list(segment_files(make_model(), paths, everything(tmp_path / "expected")))
    return files_of(tmp_path / "expected")


def check(found: Path, expected: dict[str, bytes]) -> None:
    files = files_of(found)
    assert files.keys() == expected.keys()
    assert [name for name in files if files[name] != expected[name]] == []


@pytest.mark.parametrize("task", ["instances", "semantic"])
@pytest.mark.parametrize("more", [False, True])
def test_many_images_give_what_each_gives_alone(paths: list[Path], tmp_path: Path, task: str, more: bool) -> None:
    """Predict with the real engine, not with a replacement."""
    model, output, one = make_model(task), tmp_path / "out", tmp_path / "one"
    results = list(segment_files(model, paths, Options(output=output, probabilities=more, overlay=more, certify=more)))
    for path, result in zip(paths, results, strict=True):
        (alone,) = segment_files(model, [path], Options(output=one, probabilities=more, overlay=more, certify=more))
        assert isinstance(alone, SegmentedFile)
        assert result == replace(alone, labels=output / path.name)
        images, found = pages_of(path), pages_of(output / path.name)
        for image_yx, labels_yx in zip(images, found, strict=True):
            np.testing.assert_array_equal(labels_yx, model.as_written(model.segment(image_yx)))
    assert files_of(output) == files_of(one)
    assert len(files_of(output)) == len(paths) + 2 * more * len(PAGES)


def test_tables_and_outlines_are_in_the_order_of_the_images(
    paths: list[Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    rows = list(csv.DictReader(expected["o.csv"].decode().splitlines()))
    ids = []
    for path in paths:
        found = pages_of(tmp_path / "expected" / path.name)
        names = [path.stem] if len(found) == 1 else [f"{path.stem}_{page:04d}" for page in range(len(found))]
        ids += [(name, str(k + 1)) for name, yx in zip(names, found, strict=True) for k in range(yx.max())]
    assert [(row["image"], row["label"]) for row in rows] == ids
    assert len(ids) > 20
    files = [image["file_name"] for image in json.loads(expected["coco.json"])["images"]]
    assert files == ["a.tif", "b.tif#0", "b.tif#1", "b.tif#2", "c.tif", "d.tif", "e.tif"]


def test_the_net_runs_while_images_are_read_and_written(
    paths: list[Path],
    expected: dict[str, bytes],
    tmp_path: Path,
    use: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The net finishes no page before the next one is being read; no page is written before the net runs the next."""
    count = len(PAGES)
    reading, scoring = ([threading.Event() for _ in range(count + 1)] for _ in range(2))
    reading[count].set()
    scoring[count].set()
    at = {"read": 0, "score": 0, "write": 0}
    write_one, names = Pipeline._write_decoded, iter(PAGES)

    def read(*given: Any, **more: Any) -> Any:
        assert at["read"] < at["score"] + 2  # one page ahead, not two
        reading[at["read"]].set()
        at["read"] += 1
        assert threading.current_thread() is not threading.main_thread()
        return read_image(*given, **more)

    def score(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        assert threading.current_thread() is threading.main_thread()
        assert at["score"] < at["write"] + 2  # logits of two pages at most
        scoring[at["score"]].set()
        at["score"] += 1
        assert reading[at["score"]].wait(WAIT_S)
        return bright(image_cyx)

    def write(*given: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert scoring[at["write"] + 1].wait(WAIT_S)
        write_one(*given)
        assert (tmp_path / "out" / "overlays" / f"{next(names)}.png").is_file()
        at["write"] += 1

    monkeypatch.setattr(pipeline_module, "read_image", read)
    monkeypatch.setattr(Pipeline, "_write_decoded", write)
    use(score)
    results = segment_files(make_model(), paths, everything(tmp_path / "out"))
    assert [result.path for result in results if isinstance(result, SegmentedFile)] == paths
    check(tmp_path / "out", expected)


@pytest.mark.parametrize("page", [0, 1, 2])
def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    paths: list[Path], tmp_path: Path, use: Callable[..., None], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    def read(path: Path, number: int, **more: Any) -> Any:
        if path == paths[1] and number >= page:
            raise InputError(path, f"page {number} is damaged", "Copy it again")
        return read_image(path, number, **more)

    monkeypatch.setattr(pipeline_module, "read_image", read)
    use(bright)
    model, good = make_model(), [path for path in paths if path != paths[1]]
    results = list(segment_files(model, paths, everything(tmp_path / "out")))
    assert [isinstance(result, FailedFile) for result in results] == [False, True, False, False, False]
    assert isinstance(results[1], FailedFile)
    assert results[1].path == paths[1]
    assert results[1].error.problem == f"page {page} is damaged"
    assert results[1].error.__traceback__ is None  # it would keep arrays as long as the caller keeps the result
    list(segment_files(model, good, everything(tmp_path / "good")))
    found = {name: data for name, data in files_of(tmp_path / "out").items() if "b_0" not in name}
    assert found == files_of(tmp_path / "good")
    left = sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir() if path.name.startswith("b_0"))
    assert left == [f"b_{number:04d}.png" for number in range(page)]  # the pages that could be read


def test_a_full_disk_ends_it_at_once(
    paths: list[Path], tmp_path: Path, use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, *given: Any, **more: Any) -> None:
        if path.name == "c.tif":
            raise ResourceError(path, "the disk or the quota is full", "free some space")
        write_labels(path, *given, **more)

    monkeypatch.setattr(output_module, "write_labels", write)
    use(bright)
    threads, output = threading.active_count(), tmp_path / "out"
    results = segment_files(make_model(), paths, everything(output))
    assert [next(results).path for _ in range(2)] == paths[:2]
    with pytest.raises(ResourceError, match="the disk or the quota is full"):
        next(results)
    assert threading.active_count() == threads
    assert sorted(name for name in files_of(output) if name.endswith(".tif") and "/" not in name) == ["a.tif", "b.tif"]
    assert not list(output.rglob("d.*"))


@pytest.mark.parametrize("step", ["read", "score", "label", "table"])
@pytest.mark.parametrize("again", [False, True])
def test_an_image_out_of_memory_is_segmented_again_alone(
    paths: list[Path],
    expected: dict[str, bytes],
    tmp_path: Path,
    use: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    again: bool,
) -> None:
    """No other thread runs then. If memory is exhausted again, the image fails and the others are segmented."""
    threads, refused, short = threading.active_count(), [0], (56, 52) if step != "table" else (44, 52)

    def refuse(array: NDArray[Any], error: Exception) -> None:
        if array.shape[-2:] != short or (refused[0] and not again):
            return
        assert refused[0] == 0 or threading.active_count() == threads
        refused[0] += 1
        raise error

    def score(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        if step == "score":
            refuse(image_cyx, ResourceError("memory", "there is not enough for a tile", "Give a smaller --tile"))
        return bright(image_cyx)

    def before(owner: Any, name: str, argument: int, error: Exception) -> None:
        function = getattr(owner, name)

        def refusing(*given: Any, **more: Any) -> Any:
            refuse(given[argument], error)
            return function(*given, **more)

        monkeypatch.setattr(owner, name, refusing)

    use(score)
    if step == "read":
        before(
            Model,
            "as_model_input",
            1,
            ResourceError("x.tif", "there is not enough memory to decode it", "split the image"),
        )
    if step == "label":
        before(Instances, "decode", 1, MemoryError())
    if step == "table":  # of the stack, after some of its pages were added
        before(ObjectFiles, "add", 2, MemoryError())
    results = list(segment_files(make_model(), paths, everything(tmp_path / "out")))
    assert [result.path for result in results] == paths
    assert refused == [2 if again else 1]
    failed = [result for result in results if isinstance(result, FailedFile)]
    assert [result.path for result in failed] == ([paths[1 if step == "table" else 4]] if again else [])
    if again:
        assert isinstance(failed[0].error, ResourceError)
        assert failed[0].error.__traceback__ is None
    else:
        check(tmp_path / "out", expected)


def test_large_images_are_segmented_alone(
    paths: list[Path],
    expected: dict[str, bytes],
    tmp_path: Path,
    use: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = threading.active_count()
    seen = []

    def score(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append((image_cyx.shape[1], threading.active_count() == threads))
        return bright(image_cyx)

    use(score)
    # A pixel takes a byte of the image and two logits; the first two images do not exceed the share.
    monkeypatch.setattr(pipeline_module, "find_memory_limit", lambda: 44 * 52 * (1 + 2 * 4) / pipeline_module._SHARE)
    list(segment_files(make_model(), paths, everything(tmp_path / "out")))
    assert seen == [(40, False), (44, False), (44, False), (44, False), (48, True), (52, True), (56, True)]
    check(tmp_path / "out", expected)


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_no_thread_is_left_where_the_caller_stops(
    paths: list[Path], tmp_path: Path, use: Callable[..., None], taken: int
) -> None:
    use(bright)
    threads = threading.active_count()
    results = segment_files(make_model(), paths, Options(output=tmp_path / "out"))
    assert [next(results).path for _ in range(taken)] == paths[:taken]
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
    assert len(list((tmp_path / "out").glob("*.tif"))) == taken


def test_an_interrupt_keeps_written_files_and_leaves_no_thread(
    paths: list[Path], tmp_path: Path, use: Callable[..., None]
) -> None:
    pages = []

    def score(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        pages.append(image_cyx.shape)
        if len(pages) == 6:
            raise KeyboardInterrupt
        return bright(image_cyx)

    use(score)
    threads = threading.active_count()
    results = segment_files(make_model(), paths, Options(output=tmp_path / "out"))
    with pytest.raises(KeyboardInterrupt):
        list(results)
    assert threading.active_count() == threads
    assert sorted(files_of(tmp_path / "out")) == ["a.tif", "b.tif", "c.tif"]


@pytest.mark.parametrize("task", ["instances", "semantic"])
def test_each_page_is_adapted_to_the_model_once(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    adapted, original = [], Model.as_model_input

    def count(model: Model, image_cyx: NDArray[Any], where: Path, *more: Any) -> NDArray[Any]:
        adapted.append(where)
        return original(model, image_cyx, where, *more)

    monkeypatch.setattr(Model, "as_model_input", count)
    list(segment_files(make_model(task), paths, Options(output=tmp_path / "out", overlay=True, certify=True)))
    assert adapted == [paths[0], paths[1], paths[1], paths[1], *paths[2:]]


def test_classes_are_decoded_tile_by_tile(
    paths: list[Path], tmp_path: Path, use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits of a whole image are not kept unless an option needs them."""

    def refuse(*given: Any, **more: Any) -> None:
        raise AssertionError("logits of a whole image")

    use(bright)
    model = make_model("semantic")
    labels = [model.as_written(model.segment(path)) for path in paths if path.stem != "b"]
    monkeypatch.setattr(Model, "compute_logits", refuse)
    list(segment_files(model, paths, Options(output=tmp_path / "out", overlay=True)))
    for path, labels_yx in zip((path for path in paths if path.stem != "b"), labels, strict=True):
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / path.name), labels_yx)


def test_a_fault_of_the_engine_ends_it_at_once(paths: list[Path], tmp_path: Path, use: Callable[..., None]) -> None:
    def broken(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        raise InputError("--engine", "is broken", "give another")

    use(broken)
    with pytest.raises(InputError, match="is broken"):
        list(segment_files(make_model(), paths, Options(output=tmp_path / "out")))


def test_an_error_holds_no_array_while_the_file_is_segmented_again(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(pipeline: Any, page: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Pipeline, "_write", fail)
    options = Options(output=tmp_path / "out")
    model = make_model()
    pipeline: Any = Pipeline(
        model=model,
        options=options,
        files=None,
        engine=SingleImageEngine(bright),
        targets=Targets(model, as_images(paths), options),
    )  # type: ignore[arg-type]
    page = pipeline.run_net(next(pipeline.read_pages(as_images(paths[:1]))))
    assert isinstance(page, ComputedPage)
    image = weakref.ref(page.page.image_cyx)
    gc.disable()
    try:
        result = pipeline.write_page(page)
        del page
        assert image() is None
    finally:
        gc.enable()
    assert isinstance(result.error, ResourceError)


def test_a_file_ends_written_or_failed(paths: list[Path], tmp_path: Path) -> None:
    """After a failure, no later step works on the other pages of the file."""
    model, options = make_model("semantic"), Options(output=tmp_path / "out")
    targets = Targets(model, as_images(paths), options)
    files = ObjectFiles(options.objects, options.output, (), targets.written)
    pipeline = Pipeline(model=model, options=options, files=files, engine=model.engine("cpu"), targets=targets)
    first, second, *_ = pages = list(pipeline.read_pages(as_images(paths[1:2])))
    file = first.file
    assert all(page.file is file for page in pages)
    assert [pipeline.write_page(pipeline.run_net(page)) is None for page in pages] == [True, True, False]
    assert file.state is FileState.WRITTEN

    first, second, *_ = pipeline.read_pages(as_images(paths[1:2]))
    file = first.file
    assert file.state is FileState.OPEN
    failure = FailedPage(file, InputError(file.path, "the page is damaged", "Copy it again"))
    assert isinstance(pipeline.write_page(failure), FailedFile)
    assert file.state is FileState.FAILED
    assert pipeline.run_net(second) is second
    assert pipeline.write_page(second) is None
