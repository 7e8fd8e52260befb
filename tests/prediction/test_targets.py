"""No two pages or images share an output name, and nothing of others is replaced."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septa.errors import InputError
from septa.images import ImageInfo
from septa.images.write import write_image, write_labels
from septa.notices import Notices
from septa.objects.files import ObjectFiles, ObjectOptions
from septa.prediction.find import as_images, find_stem
from septa.prediction.options import Options
from septa.prediction.targets import Targets

STEMS = st.from_regex(r"[ab](_p{0,2}[0-9]{4,5}){0,2}", fullmatch=True)


def make_model(multilabel: bool = False, object_classes: int = 1) -> Any:
    return SimpleNamespace(
        task=SimpleNamespace(multilabel=multilabel), labels=SimpleNamespace(object_classes=object_classes)
    )


def make_info(path: Path, pages: int) -> ImageInfo:
    dtype = np.dtype(np.uint8)
    facts: dict[str, Any] = {"channels": 1, "height": 4, "width": 4, "dtype": dtype, "alpha": False, "palette": False}
    return ImageInfo(path=path, format="tiff", pages=pages, axes="", orientation=1, **facts)


@given(st.lists(st.tuples(STEMS, st.sampled_from([1, 2, 3])), min_size=1, max_size=6, unique_by=lambda each: each[0]))
def test_names_are_unique(images: list[tuple[str, int]]) -> None:
    infos = [make_info(Path(f"{stem}.tif"), pages) for stem, pages in images]
    targets = Targets(make_model(), as_images(info.path for info in infos), Options(output=Path("out")))
    names = [targets.name_page(info, page) for info in infos for page in range(info.pages)]
    assert len(set(names)) == len(names)
    assert len({targets.find_labels(info) for info in infos}) == len(infos)


def test_the_number_of_a_page_follows_the_name() -> None:
    stack, other = make_info(Path("a.tif"), 3), make_info(Path("b.tif"), 1)
    targets = Targets(make_model(), as_images([stack.path, other.path]), Options(output=Path("out")))
    assert [targets.name_page(stack, page) for page in range(3)] == ["a_0000", "a_0001", "a_0002"]
    assert targets.name_page(other, 0) == "b"
    targets = Targets(
        make_model(), as_images([stack.path, Path("A_0001.png"), Path("a_p0007.tif")]), Options(output=Path("out"))
    )
    assert targets.name_page(stack, 2) == "a_pp0002"


def check(paths: list[Path], options: Options, notices: Notices | None = None, **more: Any) -> None:
    targets = Targets(make_model(**more), as_images(paths), options)
    files = ObjectFiles(options.objects, options.output, ("background", "object"), targets.written)
    targets.check(files, Notices() if notices is None else notices)


@pytest.mark.parametrize(
    "name",
    ["a.png", "classes/a.png", "overlays/a.png", "probabilities/a.tif", "outlines/a.geojson", "outlines/a_rois.zip"],
)
def test_each_kind_of_file_is_checked_before_any_work(tmp_path: Path, name: str) -> None:
    image, output = tmp_path / "in" / "a.png", tmp_path / "out"
    write_image(image, np.zeros((1, 8, 8), np.uint8))
    objects = ObjectOptions(geojson=True, rois=True)
    options = Options(output=output, probabilities=True, overlay=True, objects=objects)
    check([image], options, object_classes=2)
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("by hand")
    with pytest.raises(InputError, match="the file was not written by septa") as caught:
        check([image], options, object_classes=2)
    assert caught.value.where == str(output / name)
    check(
        [image],
        Options(output=output, probabilities=True, overlay=True, objects=objects, overwrite=True),
        object_classes=2,
    )
    check([tmp_path / "in" / "b.png"], options, object_classes=2)


def test_pages_are_checked(tmp_path: Path) -> None:
    image, output = tmp_path / "a.tif", tmp_path / "out"
    write_labels(image, np.zeros((3, 8, 8), np.uint8), axes="ZYX")
    (output / "overlays").mkdir(parents=True)
    (output / "overlays" / "a_0003.png").write_text("of a longer stack")
    check([image], Options(output=output, overlay=True))
    (output / "overlays" / "a_0002.png").write_text("by hand")
    check([image], Options(output=output))
    with pytest.raises(InputError, match=r"a_0002\.png"):
        check([image], Options(output=output, overlay=True))


def test_common_files_are_checked(tmp_path: Path) -> None:
    for name in ("table", "coco"):
        file = tmp_path / name
        file.write_text("by hand")
        with pytest.raises(InputError, match=f"{name}: the file was not written by septa"):
            check([], Options(output=tmp_path / "out", objects=ObjectOptions(**{name: file})))
    with pytest.raises(InputError, match="given with --table and with --coco"):
        check([], Options(output=tmp_path / "out", objects=ObjectOptions(table=tmp_path / "x", coco=tmp_path / "x")))


def test_names_that_differ_only_in_case_or_form_are_noted(tmp_path: Path) -> None:
    names = ["a.png", "A.tif", "\u00e9.png", "e\u0301.tif", "b.png"]
    assert len({find_stem(Path(name)) for name in names}) == 5
    notices = Notices()
    check([tmp_path / name for name in names], Options(output=tmp_path / "out"), notices)
    assert [[Path(file).name for file in files] for _, files in notices] == [["A.tif"], ["e\u0301.tif"]]
    assert all(line.startswith("warning: ") for line in chain(notices.lines()))
