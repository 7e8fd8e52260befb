"""Files that septa did not write stay as they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from septa.errors import InputError
from septa.images.write import write_text
from septa.images.written import RECORD, WrittenFiles


def write(path: Path, text: str, source: Path | None = None, *, overwrite: bool = False) -> None:
    """Write as a new process would, which knows only the records on disk."""
    write_text(path, text, guard=WrittenFiles(overwrite).guard(source))


def test_a_file_of_septa_is_replaced_as_long_as_nobody_changes_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write(path, "1")
    write(path, "2")
    assert path.read_text() == "2"
    path.write_text("2, corrected by hand")
    with pytest.raises(InputError, match=r"a\.csv: the file was changed after septa wrote it\. .*--overwrite"):
        write(path, "3")
    assert path.read_text() == "2, corrected by hand"
    write(path, "3", overwrite=True)
    write(path, "4")  # it is a file of septa again
    assert path.read_text() == "4"
    assert sorted(file.name for file in tmp_path.iterdir()) == [RECORD, "a.csv"]


def test_a_file_of_others_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"a\.csv: the file was not written by septa\. "):
        write(path, "1")
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_a_file_is_kept_for_its_own_image(tmp_path: Path) -> None:
    for folder in ("one", "two", "out"):
        (tmp_path / folder).mkdir()
    path, one, two = tmp_path / "out" / "a.png", tmp_path / "one" / "a.png", tmp_path / "two" / "a.png"
    write(path, "1", one)
    write(path, "2", one)
    with pytest.raises(InputError, match="the file was written by septa for another image"):
        write(path, "3", two)
    moved = tmp_path / "moved"
    moved.mkdir()
    for folder in ("one", "out"):
        shutil.move(tmp_path / folder, moved / folder)
    write(moved / "out" / "a.png", "4", moved / "one" / "a.png")


def test_a_process_that_was_killed_before_the_rename_blocks_nothing(tmp_path: Path) -> None:
    """The record of the new content is written first, so both the old and the new file are known."""
    path, other = tmp_path / "a.csv", tmp_path / "new"
    write(path, "1")
    other.write_text("2")
    WrittenFiles().guard()(path, other)
    write(path, "3")
    other.replace(path)
    write(path, "4")
    assert path.read_text() == "4"


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    image, link = tmp_path / "a.png", tmp_path / "link.png"
    image.write_text("image")
    link.symlink_to(image)
    for name in ("a.png", "link.png", "../" + tmp_path.name + "/a.png"):
        with pytest.raises(InputError, match="the output would overwrite an input"):
            WrittenFiles(overwrite=True, protected=[image]).check({tmp_path / name: None})


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not a regular file"):
            write(pipe, "1", overwrite=overwrite)
    assert pipe.is_fifo()


def test_the_record_of_an_output_folder_covers_its_subfolders(tmp_path: Path) -> None:
    written = WrittenFiles(folder=tmp_path)
    inside, outside = tmp_path / "overlays" / "a.png", tmp_path.parent / f"{tmp_path.name}.csv"
    for path in (inside, outside):
        write_text(path, "1", guard=written.guard())
    assert not (inside.parent / RECORD).exists()
    WrittenFiles(folder=tmp_path).check({inside: None, outside: None})
    inside.write_text("2")
    for name in ("b.png", "c.png"):
        (tmp_path / name).write_text("1")
    with pytest.raises(InputError) as caught:
        WrittenFiles(folder=tmp_path).check({tmp_path / "c.png": None, tmp_path / "b.png": None, inside: None})
    assert str(caught.value) == (
        f"{tmp_path}: 2 files in it were not written by septa (b.png, c.png). Give another folder with -o, or "
        "--overwrite to replace them."
    )


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", "nonsense", '{"name": ["a"], "digest": "", "source": ""}', "[" * 9999]
)
def test_lines_of_a_damaged_record_count_for_nothing(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.csv"
    write(path, "1")
    with (tmp_path / RECORD).open("ab") as record:
        record.write(f"{line}\n".encode() + b"\xff\xfe\n")
    write(path, "2")
    assert path.read_text() == "2"
