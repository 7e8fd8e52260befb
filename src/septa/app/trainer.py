"""The worker of a training: ``python -m septa.app.trainer RECORD HOME`` trains, compares models, and ends.

It stops when its standard input ends, because the server has closed it or has ended itself. The state is saved then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from septa import runtime
from septa.errors import InputError, Interrupted, ResourceError, SeptaError, format_count, is_out_of_memory
from septa.images import lock_outputs

from .training_record import TrainingOrder, TrainingRecord, TrainingStatus

_PATIENCE_S = 120
"""Seconds to wait for an earlier worker of the same training, which still saves its state."""
_PAUSE_S = 2
"""Least seconds between two writes of the progress."""
_NICENESS = 10
"""Priority of the worker is this much lower, so that the page stays quick."""


def run_worker(arguments: list[str]) -> int:
    """Run the training of a record and return the exit code; see `septa.errors`."""
    record = TrainingRecord(Path(arguments[0]), Path(arguments[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    threading.Thread(target=_watch_input, daemon=True).start()
    runtime.prepare()
    os.chdir(record.home)  # models in it are named without folders
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    try:
        with ExitStack() as stack:
            _lock(record, stack)
            _run(record)
    except Interrupted as error:
        return _end(record, "interrupted", error)
    except SeptaError as error:
        return _end(record, "failed", error)
    except Exception as error:
        if not is_out_of_memory(error):
            problem = f"an unexpected {type(error).__name__} occurred ({' '.join(str(error).split())})"
            _end(record, "failed", SeptaError("training", problem, f"Report the output in {record.output}"))
            raise
        remedy = "Close other programs, or train with the setting training.batch=1"
        return _end(record, "failed", ResourceError("training", "the memory is exhausted", remedy))
    return 0


def _watch_input() -> None:
    """Interrupt the process when the server closes its standard input."""
    with suppress(OSError):
        while os.read(0, 1):  # without the lock of sys.stdin, which the end of the process would wait for
            pass
    signal.raise_signal(signal.SIGTERM)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted("training", "the training was stopped before its first step", "Resume it", number)


def _end(record: TrainingRecord, state: str, error: SeptaError) -> int:
    print(f"error: {error}", file=sys.stderr)
    found = record.read()
    text = "" if state == "failed" else found.text
    values = {"state": state, "error": str(error) if state == "failed" else "", "text": text}
    with suppress(SeptaError):  # the disk is full; the server reads the output instead
        record.write(found.model_copy(update=values))
    return error.exit_code


def _lock(record: TrainingRecord, stack: ExitStack) -> None:
    """Lock the record; an earlier worker of the same training may still save its state."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            stack.enter_context(lock_outputs([record.path / "worker"]))
            return
        except InputError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _run(record: TrainingRecord) -> None:
    """Train, then compare the new model with the one that the training started from."""
    from septa.training import AlreadyTrained, TrainingDone, TrainingPlan, TrainingRequest, train_steps

    order = record.order
    state = TrainingStatus(state="running", text="checking the images")
    record.write(state)
    written = time.monotonic()
    steps = 1
    for event in train_steps(
        TrainingRequest(
            data=record.data,
            output=record.model,
            overrides=_list_overrides(order),
            resume=True,  # from the beginning if nothing is saved
            command="septa app",
            previews=True,
        )
    ):
        if isinstance(event, TrainingPlan):
            steps = event.choice.recipe.training.steps
            state.train, state.validation = ([pair.name for pair in side] for side in (event.train, event.validation))
            state.lines = [*event.choice.warnings, *event.choice.notes]
            state.text = f"{format_count(len(event.train), 'image')} for training, {len(event.validation)} held out"
            record.write(state)
        elif isinstance(event, TrainingDone):
            state.lines += [line for line in (event.verdict, event.start, event.joining) if line]
        elif isinstance(event, dict):
            minutes = event["minutes"]
            state.share = max(state.share, min(0.99, max(event["step"] / steps, minutes / order.minutes)))
            state.text = f"step {event['step']:.0f}, {minutes:.1f} of {order.minutes:g} minutes"
            if time.monotonic() - written >= _PAUSE_S:
                record.write(state)
                written = time.monotonic()
        else:
            assert not isinstance(event, AlreadyTrained) or event.path == record.model
    state.text = "comparing the models"
    record.write(state)
    _compare(record, order, state)
    state.state, state.share, state.text = "done", 1.0, f"saved as {order.model}"
    record.write(state)


def _list_overrides(order: TrainingOrder) -> tuple[str, ...]:
    """Return the assignments that change the recipe; the user's come last but for what the app relies on."""
    fixed: dict[str, Any] = {"training.minutes": order.minutes, "training.start": order.start}
    if order.classes:
        values, names = zip(*order.classes)
        fixed |= {"task": "semantic", "data.encoding": "index", "data.values": values, "data.class_names": names}
    else:
        fixed |= {"task": "instances", "data.encoding": "instances"}
    if order.ignore is not None:
        fixed["data.ignore_label"] = order.ignore
    return (*order.settings, *(f"{key}={json.dumps(value)}" for key, value in fixed.items()))


def _compare(record: TrainingRecord, order: TrainingOrder, state: TrainingStatus) -> None:
    from septa.model import Model

    from .comparison import compare_models

    models = {order.model: Model.load(record.model)}
    if order.start_name:
        try:
            parent = Model.load(order.start)
            if parent.task.finds_objects != bool(order.classes):
                models = {order.start_name: parent, **models}
        except SeptaError as error:
            state.lines.append(str(error))
    try:
        found = compare_models(record.data, models, order.ignore, order.classes)
    except InputError as error:
        state.comparison = f"The models were not compared: {error}"
        return
    state.held_out, state.comparison = list(found.images), found.text
    state.scores = {name: dict(scores) for name, scores in found.scores.items()}


if __name__ == "__main__":
    sys.exit(run_worker(sys.argv[1:]))
