"""Progress events, and the bar that shows them."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from septa.progress_bar import ProgressEvent, progress, report_counts


def test_counts_become_events() -> None:
    events: list[ProgressEvent] = []
    report = report_counts(events.append, "check")
    assert report is not None
    report(1, 4)
    assert (events[0].stage, events[0].done, events[0].total, events[0].share) == ("check", 1, 4, 0.25)
    assert report_counts(None, "check") is None


def test_nothing_is_printed_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with progress() as show:
        show(ProgressEvent(stage="train", done=1, total=2, share=0.5))
        show(ProgressEvent(stage="train", done=2, total=2, share=1.0))
    assert capfd.readouterr() == ("", "")


def test_a_notebook_shows_one_bar_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    handle = SimpleNamespace(update=shown.append)

    def display(bar: Any, display_id: bool) -> Any:
        shown.append(bar)
        return handle

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    show = progress()
    show(ProgressEvent(stage="<b>", done=1, total=2, share=0.5, values={"loss": 0.25}))
    show(ProgressEvent(stage="train", done=2, total=2, share=1.0))
    assert shown[0] == '<progress max="1" value="0.5000"></progress> &lt;b&gt; 1 of 2: loss 0.25'
    assert shown[1] == '<progress max="1" value="1.0000"></progress> train 2 of 2'
