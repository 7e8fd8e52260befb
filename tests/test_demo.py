from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from septa.demo import run_demo
from septa.errors import InputError


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    mine = tmp_path / "data" / "images" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"is not empty|was not written by"):
        run_demo(Console(file=StringIO()), tmp_path, minutes=1, overwrite=overwrite)
    assert mine.read_bytes() == b"mine"
