"""What a terminal shows: lines, tables of scores, and the view of a training."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from septa.display import make_cell, make_evaluation_table, say
from septa.metrics import evaluate_labels

EVIL = "a\x1b[2Jb\n[red]:cat:\udcff"
"""A name with a terminal sequence, a line break, markup of rich, an emoji code and an undecodable byte."""
SHOWN = r"a\x1b[2Jb\n[red]:cat:\udcff"


def print_on(width: int, *, terminal: bool = False) -> tuple[Console, StringIO]:
    """Return a console and what it prints to."""
    stream = StringIO()
    return Console(file=stream, width=width, force_terminal=terminal, soft_wrap=True), stream


def test_a_line_is_printed_as_it_is() -> None:
    console, stream = print_on(20)
    say(console, f"{EVIL}: 3 cells at 0.5")
    assert stream.getvalue() == f"{SHOWN}: 3 cells at 0.5\n"


def test_the_style_applies_to_the_whole_line() -> None:
    console, stream = print_on(80, terminal=True)
    say(console, "page 3 of 4", style="red")
    assert stream.getvalue() == "\x1b[31mpage 3 of 4\x1b[0m\n"


def test_a_cell_is_printed_as_it_is() -> None:
    console, stream = print_on(80)
    table = Table()
    table.add_row(make_cell(EVIL))
    console.print(table)
    assert SHOWN in stream.getvalue()


@pytest.mark.parametrize("instances", [False, True])
def test_names_of_classes_are_escaped_in_tables(instances: bool) -> None:
    labels_yx = np.array([[0, 1, 1, 0, 2, 2]]) if instances else np.array([[0, 1, 1, 0, 1, 0]])
    empty_yx = np.zeros((1, 6), int)
    images = [("x", labels_yx, labels_yx), ("y", empty_yx, empty_yx)]
    console, stream = print_on(120)
    console.print(make_evaluation_table(evaluate_labels(images, ["background", EVIL], instances=instances)))
    printed = stream.getvalue()
    assert "\x1b" not in printed
    assert printed.count(SHOWN) == 2
    assert f"Absent from both: {SHOWN} in 1 of 2 images." in " ".join(printed.split())
