"""Checkpoints: the resumable state of a training in a folder of sealed files.

``step-N-best-M.safetensors`` holds the state after step N, ``best-M.safetensors`` the weights of the best validation so
far. Each is written whole or not at all; the newest two states are kept with the best weights that their names tell.
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
_KEEP = 2
_STATE = re.compile(r"step-(\d{8})-best-(\d{8}|none)\.safetensors")
_BEST = re.compile(r"best-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Checkpoints:
    """The folder of one training's checkpoints."""

    folder: Path

    def states(self) -> list[Path]:
        """Files of the states, the oldest first."""
        return [path for path in self._files() if _STATE.fullmatch(path.name)]

    def save(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Write the state after step ``header["step"]`` and drop what is no longer needed.

        ``header["best"]`` tells the step of the best weights, or is None.

        Raises
        ------
        ValueError
            A value is NaN or Inf; nothing was written.
        ResourceError
            The disk is full; the states before are untouched.
        """
        best = "none" if header["best"] is None else f"{header['best']['step']:08d}"
        path = self.folder / f"step-{header['step']:08d}-best-{best}.safetensors"
        write_bytes(path, tensor_file.pack(KIND, header, tensors))
        self._prune()

    def save_best(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Write the best weights so far, found at ``step``; errors as for `save`."""
        write_bytes(self._best(step), tensor_file.pack(KIND, {"step": step}, tensors))

    def newest(self) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """The newest readable state, and a line about each newer one that could not be used.

        Raises
        ------
        ModelError
            No state is readable.
        """
        refused: list[str] = []
        for path in reversed(self.states()):
            try:
                header, tensors = self._load(path)
                if header["best"] is not None:
                    self.best(header["best"]["step"])
            except ModelError as error:
                refused.append(str(error))
                continue
            return header, tensors, refused
        why = "holds no usable checkpoint" + "".join(f"; {reason}" for reason in refused)
        raise ModelError(self.folder, why, "begin again with --overwrite")

    def best(self, step: int) -> dict[str, Tensor]:
        """The weights written by `save_best` at ``step``; ModelError if they cannot be read."""
        return self._load(self._best(step))[1]

    def clear(self) -> None:
        """Remove every checkpoint, and the folder if nothing else is in it."""
        for path in self._files():
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _prune(self) -> None:
        states = self.states()
        for path in states[:-_KEEP]:
            path.unlink(missing_ok=True)
        named = {match[2] for path in states[-_KEEP:] if (match := _STATE.fullmatch(path.name))}
        for path in self._files():
            match = _BEST.fullmatch(path.name)
            if match and match[1] not in named:
                path.unlink(missing_ok=True)

    def _load(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(path, f"cannot be read ({(error.strerror or 'an error').lower()})") from None
        return tensor_file.unpack(data, KIND, path)

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}.safetensors"

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(
            path for path in self.folder.iterdir() if _STATE.fullmatch(path.name) or _BEST.fullmatch(path.name)
        )
