"""Files of tables, written piece by piece: CSV, and Parquet by pyarrow."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.images import Guard, write_atomic
from septa.objects.table import ObjectTable

_PARQUET = (".parquet", ".pq")


def check_table_file(path: Path) -> None:
    """Raise InputError if a package is missing that the type of a table's file needs."""
    if _is_parquet(path):
        _import_pyarrow(path)


class TableWriter:
    """Writer of one table, whose rows are added piece by piece.

    The suffix decides: ``.parquet`` and ``.pq`` give Parquet, all others CSV as of `ObjectTable.to_csv`. Parquet keeps
    the type of each column; NaN is null.

    Parameters
    ----------
    path
        Name of the file.
    stream
        Open binary file.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._stream = stream
        self._arrow = _import_pyarrow(path) if _is_parquet(path) else None
        self._parquet: Any = None
        self._columns: list[str] | None = None

    def add(self, table: ObjectTable) -> None:
        """Append rows; all tables have the same columns."""
        if self._arrow is None:
            text = table.to_csv(header=self._columns is None)
            self._stream.write(text.encode("utf-8", "backslashreplace"))
        else:
            rows = self._arrow.table({name: self._convert(values) for name, values in table.columns.items()})
            if self._parquet is None:
                self._parquet = import_module("pyarrow.parquet").ParquetWriter(self._stream, rows.schema)
            if len(table) or self._columns is None:
                self._parquet.write_table(rows.cast(self._parquet.schema))
        self._columns = list(table.columns)

    def close(self) -> None:
        """Write the end; the stream stays open."""
        if self._arrow is not None and self._parquet is None:
            self.add(ObjectTable({}))
        if self._parquet is not None:
            self._parquet.close()

    def _convert(self, values: npt.NDArray[Any]) -> Any:
        assert self._arrow is not None
        if values.dtype.kind in "UO":
            # Lone surrogates, from file names that could not be decoded, are not valid in Unicode text.
            texts = [str(value).encode("utf-8", "replace").decode() for value in values.tolist()]
            return self._arrow.array(texts, self._arrow.string())
        if values.dtype == np.float16:
            values = values.astype(np.float32)
        return self._arrow.array(np.ascontiguousarray(values), from_pandas=True)


def write_table(path: Path, tables: Iterable[ObjectTable], *, guard: Guard | None = None) -> None:
    """Write tables of the same columns into one file, atomically; see `TableWriter`.

    Raises
    ------
    InputError
        The file cannot be written, ``guard`` refuses, or a package is missing.
    ResourceError
        The disk is full.
    """

    def write(stream: BinaryIO) -> None:
        writer = TableWriter(path, stream)
        for table in tables:
            writer.add(table)
        writer.close()

    write_atomic(path, write, guard=guard)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in _PARQUET


def _import_pyarrow(path: Path) -> Any:
    try:
        return import_module("pyarrow")
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        problem = "a Parquet file needs the package pyarrow, which is not installed"
        raise InputError(path, problem, "Run pip install 'septa[parquet]', or give a name that ends in .csv") from None
