"""What septa assumed or suspects about its input: collected while files are read, reported once for each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike

from septa.errors import escape_controls, shorten_list

_NAMES = 3
"""Files that a line names; the others are only counted."""


@dataclass(frozen=True)
class Notice:
    """One kind of assumption or suspicion.

    Attributes
    ----------
    text
        Clause with a subject and a verb, without a closing full stop and without facts of a single file, so that all
        files of one kind share one line. It may contain ``{}`` for an amount, which differs between the files.
    remedy
        Imperative sentence with a capital, without a closing full stop; it may be empty.
    warning
        True if the result may be wrong; False for a note about what septa did.
    """

    text: str
    remedy: str = ""
    warning: bool = False


class Notices:
    """Notices about files; each kind is reported once, with the files concerned.

    It can be filled from several threads.

    Examples
    --------
    >>> notices = Notices()
    >>> for name in ("a.png", "b.png", "a.png"):
    ...     notices.add(name, "the constant alpha channel is dropped")
    >>> notices.lines()
    ['note: a.png, b.png: the constant alpha channel is dropped.']
    """

    def __init__(self) -> None:
        self._files: dict[Notice, dict[str, float | None]] = {}

    def add(
        self,
        where: str | PathLike[str],
        text: str,
        remedy: str = "",
        *,
        warning: bool = False,
        amount: float | None = None,
    ) -> None:
        """Add a notice about a file; the same notice about the same file counts once, with the largest amount."""
        files = self._files.setdefault(Notice(text, remedy, warning), {})
        known = files.get(str(where))
        files[str(where)] = amount if known is None or (amount is not None and amount > known) else known

    def __iter__(self) -> Iterator[tuple[Notice, tuple[str, ...]]]:
        """Iterate over the kinds, in the order of their first file, each with its files."""
        return iter([(_insert_amounts(notice, files), tuple(files)) for notice, files in list(self._files.items())])

    def lines(self) -> list[str]:
        """Return one printable line for each kind: ``note: FILES: text. Remedy.`` or ``warning: ...``."""
        return [format_notice(notice, files) for notice, files in self]

    def warnings(self) -> list[str]:
        """Return the lines of the notices that are warnings."""
        return [format_notice(notice, files) for notice, files in self if notice.warning]

    def notes(self) -> list[str]:
        """Return the lines of the notices that are not warnings."""
        return [format_notice(notice, files) for notice, files in self if not notice.warning]


def format_notice(notice: Notice, files: tuple[str, ...]) -> str:
    """Return the printable line of a notice about some files."""
    level = "warning" if notice.warning else "note"
    remedy = f" {notice.remedy}." if notice.remedy else ""
    return escape_controls(f"{level}: {name_files(files)}: {notice.text}.{remedy}")


def name_files(files: Sequence[str]) -> str:
    """Return the names of the files of a notice; of many, only the first and the number of the others."""
    return shorten_list(files, _NAMES)


def _insert_amounts(notice: Notice, files: dict[str, float | None]) -> Notice:
    """Return the notice with the amount of its files, or the smallest and the largest, in its text."""
    amounts = [amount for amount in list(files.values()) if amount is not None]
    if not amounts:
        return notice
    shown = dict.fromkeys(
        f"{amount:.2g}" if amount < 10 else f"{amount:.0f}" for amount in (min(amounts), max(amounts))
    )
    return replace(notice, text=notice.text.format(" to ".join(shown)))
