"""The exceptions that septa raises on purpose, each with the exit code of the command line.

::

    SeptaError                    one line: "where: what is wrong. What to do."
     ├── InputError        2      data, files, arguments or settings that cannot be used
     │    ├── RecipeError         a recipe or an override that is not valid
     │    └── ModelError          a file that is not a septa model, is damaged, or does not fit the input
     ├── PartialFailure    3      some files failed, the others are done
     ├── ResourceError     4      the disk is full, or memory is exhausted
     │    └── OutOfMemory         an engine ran out of memory for a tile; a smaller tile may fit
     └── Interrupted     130/143  SIGINT or SIGTERM, after the state was saved

    SeptaWarning                  a Python warning: the result may be wrong
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike

_OUT_OF_MEMORY = re.compile(
    r"out of memory|(not enough|insufficient) memory|bad_alloc|bad allocation|alloc_failed|can't start new thread|"
    r"(can't|cannot|could not|failed to|unable to) (allocate|create a memory|mmap)|"
    r"could not (create|execute) a primitive(?! descriptor)",
    re.IGNORECASE,
)


def escape_controls(text: str) -> str:
    r"""Replace control characters, such as line breaks and terminal sequences, by backslash escapes.

    Lone surrogates, which stand for undecodable bytes in file names, are escaped too.

    Examples
    --------
    >>> print(escape_controls("a\nb\x1b[2J.png"))
    a\nb\x1b[2J.png
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )


def shorten_list(names: Iterable[str], most: int = 5) -> str:
    """Join names by commas; only the number of those after the first ``most`` is given.

    Examples
    --------
    >>> shorten_list(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    >>> shorten_list(["a", "b"])
    'a, b'
    """
    every = list(names)
    more = len(every) - most
    return ", ".join(every[:most]) + (f" and {more} more" if more > 0 else "")


def format_count(count: int, noun: str) -> str:
    """Format a count with its noun.

    Examples
    --------
    >>> format_count(1, "image"), format_count(0, "image")
    ('1 image', '0 images')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception of another package says that memory is exhausted; False for septa's own errors.

    PyTorch (with oneDNN and CUDA), OpenVINO, ONNX Runtime, OpenCV and C++ code raise exceptions of other types than
    MemoryError, which are recognised by their text.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("could not create a primitive")), is_out_of_memory(ValueError("a bug"))
    (True, False)
    """
    if isinstance(error, SeptaError):
        return False
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, Exception) and bool(_OUT_OF_MEMORY.search(str(error)))


@contextmanager
def unify_out_of_memory() -> Iterator[None]:
    """Convert exhausted memory, however a package reports it, to MemoryError; errors of septa stay as they are."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or not is_out_of_memory(error):
            raise
        raise MemoryError from error


class SeptaError(Exception):
    """An expected failure, as one line of two sentences.

    The line is ``where: problem. Remedy.``; the command line adds ``error:`` and a space at the start. Control
    characters are escaped, so that the message stays one line for any file name.

    Parameters
    ----------
    where
        Path, option or setting that the message is about. Empty if the problem names its subjects itself, such as two
        options that exclude each other.
    problem
        Description of the given and the expected: a clause with a subject and a verb, without a closing full stop.
    remedy
        Advice to the user: an imperative sentence with a capital, without a closing full stop. It may be empty.

    Examples
    --------
    >>> str(InputError("a/x.png", "the file ends after 12 bytes", "Copy it again"))
    'a/x.png: the file ends after 12 bytes. Copy it again.'
    >>> str(InputError("", "--workers and --cluster cannot be combined", "Give one of them"))
    '--workers and --cluster cannot be combined. Give one of them.'
    """

    exit_code = 2

    def __init__(self, where: str | PathLike[str], problem: str, remedy: str = "") -> None:
        self.where = str(where)
        self.problem = problem
        self.remedy = remedy
        text = f"{self.where}: {problem}." if self.where else f"{problem}."
        super().__init__(escape_controls(f"{text} {remedy}." if remedy else text))


class SeptaWarning(UserWarning):
    """A Python warning of septa's functions: a result may be wrong, or an input was adapted."""


class InputError(SeptaError):
    """Data, files, arguments or settings that cannot be used."""


class RecipeError(InputError):
    """A recipe, or an override of one setting, that is not valid."""


class ModelError(InputError):
    """A file that is not a septa model, a damaged model, or one that does not fit the input."""


class PartialFailure(SeptaError):
    """Some files failed and were named; the others are done."""

    exit_code = 3


class ResourceError(SeptaError):
    """The disk is full, or memory is exhausted."""

    exit_code = 4


class OutOfMemory(ResourceError):
    """An engine ran out of memory for a tile; a smaller tile may fit."""


class Interrupted(SeptaError):
    """The work was stopped by a signal after its state was saved.

    ``exit_code`` is 128 plus the signal's number: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, where: str | PathLike[str], problem: str, remedy: str, signal_number: int) -> None:
        super().__init__(where, problem, remedy)
        self.exit_code = 128 + signal_number
