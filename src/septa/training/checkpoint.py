"""Checkpoints: the resumable state of a training, in a folder of sealed files.

``step-N-best-M.safetensors`` holds the state after step N, ``best-M.safetensors`` the best weights, found at step M.
``first.safetensors`` holds the weights before the first step of a fine-tuning. A file is written whole or not at all.
The folder keeps the newest two states and the best weights that they name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from septa import tensor_file
from septa.errors import ModelError
from septa.images import write_bytes

KIND = "septa checkpoint 1"
"""Kind and version of the file format."""
_KEPT_STATES = 2
_STATE_NAME = re.compile(r"step-(\d{8})-best-(\d{8}|none)\.safetensors")
_FIRST_NAME = "first.safetensors"
_BEST_NAME = re.compile(r"best-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Checkpoints:
    """The folder of one training's checkpoints."""

    folder: Path

    def list_states(self) -> list[Path]:
        """List the files of the states, oldest first."""
        return [path for path in self._list_files() if _STATE_NAME.fullmatch(path.name)]

    def save_state(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Write the state after step ``header["step"]`` and remove files that are no longer needed.

        Parameters
        ----------
        header
            JSON values. ``best`` is a mapping with the ``step`` of the best weights, or None.
        tensors
            Weights and other tensors by name.

        Raises
        ------
        ValueError
            A value is NaN or Inf; nothing was written.
        ResourceError
            The disk is full; the earlier states are untouched.
        """
        best = "none" if header["best"] is None else f"{header['best']['step']:08d}"
        path = self.folder / f"step-{header['step']:08d}-best-{best}.safetensors"
        write_bytes(path, tensor_file.pack(KIND, header, tensors))
        self._prune()

    def save_best(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Write the best weights so far, found at ``step``; errors as for `save_state`."""
        write_bytes(self._find_best(step), tensor_file.pack(KIND, {"step": step}, tensors))

    def save_first(self, tensors: dict[str, Tensor]) -> None:
        """Write the weights before the first step; errors as for `save_state`."""
        write_bytes(self.folder / _FIRST_NAME, tensor_file.pack(KIND, {"step": 0}, tensors))

    def load_first(self) -> dict[str, Tensor] | None:
        """Load the weights of `save_first`; None if there are none, and ModelError if they cannot be read."""
        path = self.folder / _FIRST_NAME
        return self._load(path)[1] if path.exists() else None

    def load_newest(self) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """Load the newest readable state.

        Returns
        -------
        header, tensors
            Arguments of `save_state`.
        refused
            One line about each newer state that could not be used.

        Raises
        ------
        ModelError
            No state is readable.
        """
        refused: list[str] = []
        for path in reversed(self.list_states()):
            try:
                header, tensors = self._load(path)
                if header["best"] is not None:
                    self.load_best(header["best"]["step"])
            except ModelError as error:
                refused.append(str(error))
                continue
            return header, tensors, refused
        problem = "no checkpoint in this folder can be used"
        reasons = "".join(f"; {reason.removesuffix('.')}" for reason in refused)
        raise ModelError(self.folder, problem + reasons, "Start again with --overwrite")

    def load_best(self, step: int) -> dict[str, Tensor]:
        """Load the weights written by `save_best` at ``step``; raise ModelError if they cannot be read."""
        return self._load(self._find_best(step))[1]

    def clear(self) -> None:
        """Remove every checkpoint, and the folder if it is then empty."""
        for path in self._list_files():
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _prune(self) -> None:
        states = self.list_states()
        for path in states[:-_KEPT_STATES]:
            path.unlink(missing_ok=True)
        named = {match[2] for path in states[-_KEPT_STATES:] if (match := _STATE_NAME.fullmatch(path.name))}
        for path in self._list_files():
            match = _BEST_NAME.fullmatch(path.name)
            if match and match[1] not in named:
                path.unlink(missing_ok=True)

    def _load(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = error.strerror or "unknown error"
            raise ModelError(path, f"the file cannot be read ({reason})") from None
        return tensor_file.unpack(data, KIND, path)

    def _find_best(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}.safetensors"

    def _list_files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(
            path
            for path in self.folder.iterdir()
            if _STATE_NAME.fullmatch(path.name) or _BEST_NAME.fullmatch(path.name) or path.name == _FIRST_NAME
        )
