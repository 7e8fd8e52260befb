"""The trainings of a folder: a queue, of which one runs in a worker process that outlives no server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from septa.errors import InputError, SeptaError
from septa.images import remove_leftovers

from .desk import Desk
from .training_folder import TrainingFolder
from .training_record import State, TrainingOrder, TrainingRecord, TrainingStatus
from .turns import Turns

FOLDER = ".septa-trainings"
"""Folder, inside the opened one, of the records of trainings."""
_GRACE_S = 120
"""Seconds that a worker has to save its state."""
_Running = tuple[TrainingRecord, "subprocess.Popen[bytes]"]
"""A training and its worker."""


class Trainings:
    """The trainings of an opened folder.

    One runs at a time, the others wait. A training that the end of a server has interrupted continues from its
    checkpoint when the folder is opened again. Methods may be called from several threads.

    Parameters
    ----------
    desk
        The workspace.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        folder = self._folder = desk.folder
        self._path = folder.path / FOLDER
        self._turns = Turns("septa-trainings", self._take, self._watch)
        self._worker: subprocess.Popen[bytes] | None = None
        self._active = 0  # number of the training that runs
        self._stopped = 0  # number of the training that the user has stopped
        self._failures: dict[int, str] = {}
        for record in self.list_records():
            if record.read().state in ("running", "interrupted"):
                self._write(record, "waiting", "continues after the restart of septa app")
        if self._find_waiting() is not None:
            self._turns.wake()

    # --- what there is ----------------------------------------------------------------------------------------------

    def list_records(self) -> list[TrainingRecord]:
        """List the records of all trainings, the first one first."""
        if not self._folder.contains(self._path):
            return []
        found = [path for path in self._path.glob("*") if path.name.isdecimal() and (path / "order.json").is_file()]
        return [TrainingRecord(path, self._folder.path) for path in sorted(found, key=lambda path: int(path.name))]

    def get(self, number: int) -> TrainingRecord:
        """Return the record of a training.

        Raises
        ------
        InputError
            There is none of this number.
        """
        record = TrainingRecord(self._path / str(number), self._folder.path)
        if not (record.path / "order.json").is_file():
            raise InputError(f"training {number}", "there is no such training", "Reload the page")
        return record

    def read(self, record: TrainingRecord) -> TrainingStatus:
        """Return the state of a training."""
        number, state = int(record.path.name), record.read()
        if number == self._active and state.state in ("waiting", "interrupted"):
            return state.model_copy(update={"state": "running", "text": "starting"})
        if number in self._failures:  # the disk was full when its state was to be written
            return state.model_copy(update={"state": "failed", "text": "", "error": self._failures[number]})
        return state

    # --- what can be done -------------------------------------------------------------------------------------------

    def add(self, *, name: str, start: str, start_name: str, minutes: float, settings: tuple[str, ...]) -> int:
        """Order a training on what is checked now; it begins when no other one runs.

        Parameters
        ----------
        name
            Name of the new model, without its ending.
        start, start_name, minutes, settings
            As in `TrainingOrder`.

        Returns
        -------
        int
            Its number.

        Raises
        ------
        InputError
            Nothing is checked, or the name is in use.
        """
        with self._turns.change:
            home, model = self._folder.path, f"{name}.septa"
            if not self._folder.contains(self._path):
                raise InputError(
                    self._path, "the path is a link that leads out of the opened folder", "Remove the link"
                )
            taken = {record.order.model for record in self.list_records()}
            if model in taken or (home / model).exists() or (home / f"{name}-run").exists():
                raise InputError(model, "the name is in use", "Give the new model another name")
            numbers = [int(path.name) for path in self._path.glob("*") if path.name.isdecimal()]
            number = max(numbers, default=0) + 1
            path = self._path / str(number)
            try:
                copies = TrainingFolder.write(self._desk, path / "data", alike=True)
                order = TrainingOrder(
                    number=number,
                    model=model,
                    start=start,
                    start_name=start_name,
                    minutes=minutes,
                    settings=settings,
                    ignore=copies.ignore,
                    images=copies.images,
                    classes=copies.classes,
                )
                TrainingRecord.make(path, home, order)
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
            self._turns.wake()
            return number

    def stop(self, number: int) -> None:
        """Stop a training; its state is saved, so that it can be resumed."""
        record = self.get(number)
        with self._turns.change:
            if number == self._active and self._worker is not None:
                self._stopped = number
                _ask_to_end(self._worker)
            elif record.read().state == "waiting":
                self._write(record, "stopped", "stopped before it began")

    def resume(self, number: int) -> None:
        """Let a training that was stopped, or has failed, continue from its newest checkpoint.

        Raises
        ------
        InputError
            It runs, or is finished.
        """
        record = self.get(number)
        with self._turns.change:
            state = self.read(record).state
            if number == self._active or state not in ("stopped", "failed", "interrupted"):
                raise InputError(record.order.model, "the training runs, or is finished", "Reload the page")
            self._failures.pop(number, None)
            self._write(record, "waiting", "waits for its turn")
            self._turns.wake()

    def remove(self, number: int) -> None:
        """Remove the record of a training, and what an unfinished one has written; a finished model stays.

        Raises
        ------
        InputError
            It runs.
        """
        record = self.get(number)
        with self._turns.change:
            if number == self._active:
                raise InputError(record.order.model, "the training runs", "Stop it first")
            if record.read().state != "done" and self._folder.contains(record.run):
                shutil.rmtree(record.run, ignore_errors=True)
                remove_leftovers(record.model)
            shutil.rmtree(record.path, ignore_errors=True)

    def close(self) -> None:
        """Interrupt the training that runs, and wait until its state is saved."""
        self._turns.close(lambda: None if self._worker is None else _ask_to_end(self._worker))

    # --- the queue --------------------------------------------------------------------------------------------------

    def _take(self) -> _Running | None:
        """Start the worker of the first training that waits."""
        while (record := self._find_waiting()) is not None:
            self._active = int(record.path.name)
            try:
                self._worker = _start_worker(record)
                return record, self._worker
            except OSError as error:
                self._finish(record, None, f"the worker process did not start ({error.strerror})")
        return None

    def _watch(self, running: _Running) -> None:
        """Wait for the end of a worker."""
        record, worker = running
        code = _wait(worker, lambda: self._turns.closing or self._stopped == self._active)
        _ask_to_end(worker)  # closes the pipe of one that has ended by itself
        with self._turns.change:
            self._finish(record, code, "")

    def _find_waiting(self) -> TrainingRecord | None:
        waiting = (record for record in self.list_records() if int(record.path.name) not in self._failures)
        return next((record for record in waiting if record.read().state == "waiting"), None)

    def _finish(self, record: TrainingRecord, code: int | None, problem: str) -> None:
        """Set the state of a training whose worker has ended."""
        number, state = self._active, record.read()
        was_stopped = self._stopped == number
        if state.state == "done":
            shutil.rmtree(record.data, ignore_errors=True)
        elif was_stopped or self._turns.closing:
            text = "stopped; its state is saved" if was_stopped else "interrupted; its state is saved"
            self._write(record, "stopped" if was_stopped else "interrupted", text)
        elif state.state != "failed":
            self._write(record, "failed", "", problem or _find_error(record, code))
        self._active, self._stopped, self._worker = 0, 0, None

    def _write(self, record: TrainingRecord, state: State, text: str, error: str = "") -> None:
        """Write a state; on a full disk it is kept in memory."""
        values = {"state": state, "text": text, "error": error}
        try:
            record.write(record.read().model_copy(update=values))
        except SeptaError as failure:
            self._failures[int(record.path.name)] = error or str(failure)


def _start_worker(record: TrainingRecord) -> subprocess.Popen[bytes]:
    """Start the worker in a session of its own, so that Ctrl-C in the terminal reaches only the server."""
    command = [sys.executable, "-P", "-m", "septa.app.trainer", str(record.path), str(record.home)]
    with record.output.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def _ask_to_end(worker: subprocess.Popen[bytes]) -> None:
    """Close the worker's standard input, at which it saves its state and ends."""
    if worker.stdin is not None:
        with suppress(OSError):
            worker.stdin.close()


def _wait(worker: subprocess.Popen[bytes], is_asked: Callable[[], bool]) -> int:
    """Wait for the end of a worker; one that was asked to end and does not is killed."""
    while not is_asked():
        with suppress(subprocess.TimeoutExpired):
            return worker.wait(1)
    try:
        return worker.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


def _find_error(record: TrainingRecord, code: int | None) -> str:
    """Return the error line that a worker has printed, or what is known about its end."""
    with suppress(OSError):
        lines = record.output.read_text(encoding="utf-8", errors="replace").splitlines()
        if code != -9 and lines and lines[-1].startswith("error: "):
            return lines[-1].removeprefix("error: ")
    if code == -9:
        problem = "the system ended the training, perhaps because the memory was exhausted"
        return f"training: {problem}. Close other programs, then resume it."
    return f"training: the worker process ended with code {code}. Resume it, or look at {record.output}."
