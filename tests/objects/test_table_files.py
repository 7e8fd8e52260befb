"""Tables as files: CSV and Parquet, written piece by piece."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from septa.errors import InputError
from septa.objects import ObjectTable, TableWriter, check_table_file, write_table

PARTS = [
    ObjectTable(
        {
            "image": np.array(["a"] * len(rows), np.str_),
            "label": np.array(rows, np.int64),
            "edge": np.array(rows) > 2,
            "mean": np.array([np.nan if row == 3 else row / 2 for row in rows]),
        }
    )
    for rows in ([1, 2], [], [3])
]


def test_pieces_of_csv_are_one_table(tmp_path):
    write_table(tmp_path / "t.csv", PARTS)
    columns = {name: np.concatenate([part.columns[name] for part in PARTS]) for name in PARTS[0].columns}
    assert (tmp_path / "t.csv").read_bytes() == ObjectTable(columns).to_csv().encode()


def test_parquet_keeps_types(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (pip install 'septa[parquet]')")
    write_table(tmp_path / "t.parquet", PARTS)
    found = parquet.read_table(tmp_path / "t.parquet")
    assert found.to_pydict() == {
        "image": ["a"] * 3,
        "label": [1, 2, 3],
        "edge": [False, False, True],
        "mean": [0.5, 1.0, None],
    }
    assert [str(field.type) for field in found.schema] == ["string", "int64", "bool", "double"]
    write_table(tmp_path / "empty.parquet", PARTS[1:2])
    empty = parquet.read_table(tmp_path / "empty.parquet")
    assert (empty.num_rows, empty.column_names) == (0, found.column_names)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_table_file(Path("t.csv"))
    for use in (check_table_file, lambda path: TableWriter(path, io.BytesIO())):
        with pytest.raises(InputError) as error:
            use(Path("t.parquet"))
        expected = "t.parquet: a Parquet file needs the package pyarrow, which is not installed. Run pip install"
        assert str(error.value).startswith(expected)
