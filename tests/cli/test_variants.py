"""`--tta` and `--prune` for models that do not take them: one line, exit code 2, nothing written."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (
            ["predict", "plain.septa", "x.png", "-o", "out", "--prune", "1"],
            "--prune 1: only a net with nested=true, deep_supervision=true and encoder=plain can be pruned. ",
        ),
        (["predict", "nested.septa", "x.png", "-o", "out", "--prune", "3"], "--prune 3: depth must be 1 to 2, got 3. "),
        (
            ["evaluate", "found", "true", "--tta", "2"],
            "--tta: this option does not apply to label images such as found. ",
        ),
        (
            ["evaluate", "plain.septa", "true", "--task", "instances"],
            "--task: this option does not apply to a model such as ",
        ),
        (
            ["evaluate", "found", "true", "--task", "dogs"],
            "--task: the value must be semantic or instances, got dogs. ",
        ),
    ],
    ids=["plain net", "too deep", "tta of labels", "task of a model", "unknown task"],
)
def test_options_that_do_not_fit_are_refused(fault, untrained, arguments, start):
    assert fault(*arguments, cwd=untrained).startswith(start)
    assert not (untrained / "out").exists()
