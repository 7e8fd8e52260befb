"""Notices are reported once for each kind, with the files concerned."""

from __future__ import annotations

from septa.notices import Notice, Notices


def test_each_kind_is_one_line_in_the_order_of_its_first_file() -> None:
    notices = Notices()
    notices.add("b.png", "the image is blank", "Leave it out", warning=True)
    notices.add("a.png", "the constant alpha channel is dropped")
    notices.add("c.png", "the image is blank", "Leave it out", warning=True)
    assert notices.lines() == [
        "warning: b.png, c.png: the image is blank. Leave it out.",
        "note: a.png: the constant alpha channel is dropped.",
    ]


def test_a_file_counts_once_and_many_files_are_counted() -> None:
    notices = Notices()
    for number in (0, 0, 1, 2, 3, 4):
        notices.add(f"{number}.png", "the image is blank")
    assert notices.lines() == ["note: 0.png, 1.png, 2.png and 2 more: the image is blank."]
    assert list(notices) == [(Notice("the image is blank"), ("0.png", "1.png", "2.png", "3.png", "4.png"))]


def test_control_characters_are_escaped() -> None:
    notices = Notices()
    notices.add("a\nb.png", "the image is blank")
    assert notices.lines() == ["note: a\\nb.png: the image is blank."]


def test_without_notices_there_is_no_line() -> None:
    assert Notices().lines() == []


def test_amounts_differ_between_the_files_of_one_kind() -> None:
    notices = Notices()
    for name, amount in (("a.png", 2.444), ("b.png", 31.7), ("a.png", 1.0)):
        notices.add(name, "the image is {} times too large", warning=True, amount=amount)
    notices.add("c.png", "the image is {} mm wide", amount=3.0)
    assert notices.lines() == [
        "warning: a.png, b.png: the image is 2.4 to 32 times too large.",
        "note: c.png: the image is 3 mm wide.",
    ]
    assert [notice.text for notice, _ in notices][1] == "the image is 3 mm wide"
