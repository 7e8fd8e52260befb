"""Tables of objects, and their text form."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Spreadsheets read a text as a formula if it starts with one of these characters.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_UNENCODABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """Table with one row per object.

    Attributes
    ----------
    columns
        Name of each column, in order, to its values. All columns have the same length.

    Examples
    --------
    >>> table = ObjectTable({"label": np.array([3, 7]), "area": np.array([1, 2])})
    >>> len(table), table.columns["label"], table.select(table.columns["area"] > 1).columns["label"]
    (2, array([3, 7]), array([7]))
    """

    columns: Mapping[str, Array]

    def __len__(self) -> int:
        """Return the number of objects."""
        return max(map(len, self.columns.values()), default=0)

    def select(self, mask: npt.ArrayLike) -> ObjectTable:
        """Return the rows where ``mask`` is True; or, given indices, those rows in that order."""
        return ObjectTable({name: values[np.asarray(mask)] for name, values in self.columns.items()})

    def to_csv(self, *, header: bool = True) -> str:
        r"""Write the table as comma-separated values (RFC 4180), column names first if ``header`` is True.

        Numbers have the fewest digits that read back as the same number. NaN is an empty cell, and booleans are
        ``true`` or ``false``. A text that a spreadsheet would read as a formula, such as one that starts with ``=``,
        ``+``, ``-`` or ``@``, gets an apostrophe in front. Characters that cannot be encoded become U+FFFD.

        Examples
        --------
        >>> ObjectTable({"label": np.array([7]), "class": np.array(["=1+1"]), "area": np.array([0.5])}).to_csv()
        "label,class,area\r\n7,'=1+1,0.5\r\n"
        """
        sheet = io.StringIO()
        writer = csv.writer(sheet, lineterminator="\r\n")
        if header:
            writer.writerow([_text_cell(name) for name in self.columns])
        writer.writerows(zip(*map(_cells, self.columns.values())))
        return sheet.getvalue()


def _text_cell(text: str) -> str:
    return _UNENCODABLE.sub("\ufffd", f"'{text}" if text.startswith(_FORMULA) else text)


def _cells(values: Array) -> list[str]:
    if values.dtype.kind in "UO":
        return [_text_cell(str(value)) for value in values]
    # numpy writes the shortest text that reads back as the same number.
    texts: list[str] = values.astype(np.str_).tolist()
    return [{"nan": "", "True": "true", "False": "false"}.get(text, text.removesuffix(".0")) for text in texts]
