"""Test of the room's docstring."""

from __future__ import annotations

import re
from pathlib import Path

from septa import streaming


def test_the_docstring_lists_every_file() -> None:
    assert streaming.__doc__ is not None
    listed = re.findall(r"^    (\w+)  +\w", streaming.__doc__, re.MULTILINE)
    files = {path.stem for path in Path(streaming.__path__[0]).glob("*.py")} - {"__init__"}
    assert sorted(listed) == sorted(files)
