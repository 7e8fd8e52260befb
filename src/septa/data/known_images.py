"""Images that a model was trained on, and the parts of them that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from septa.data.fingerprint import digest_array
from septa.data.folder import read_pair_image
from septa.data.pairs import Pair
from septa.errors import format_count
from septa.notices import Notices


class KnownImages:
    """The images that a model was trained on, recognised by the digest of their pixels.

    Parameters
    ----------
    provenance
        Provenance of the model.
    channels
        Number of channels of the model.
    every
        True to let every image pass.
    notices
        Receives what is done while images are read.
    """

    def __init__(self, provenance: Mapping[str, Any], *, channels: int, every: bool, notices: Notices) -> None:
        self._every = every
        self._read = partial(read_pair_image, channels=channels, notices=notices)
        self._trained = {digest for _, digest in provenance.get("train", [])}
        self._held_out = {digest: tuple(window) for digest, _, window in provenance.get("parts", [])}
        self._skipped = 0
        self._cut = 0

    def find_unknown(self, pair: Pair) -> tuple[Pair, NDArray[Any]] | None:
        """Return the part of a pair that the model does not know, and its image ``CYX``; None if it knows all of it."""
        image_cyx = self._read(pair)
        digest = "" if self._every else digest_array(image_cyx)
        if digest in self._held_out:
            self._cut += 1
            part = replace(pair, window=self._held_out[digest])
            return part, self._read(part)
        if digest in self._trained:
            self._skipped += 1
            return None
        return pair, image_cyx

    def explain(self, total: int) -> list[str]:
        """Return printable lines about the images that were left out, among ``total``."""
        lines = []
        if self._skipped:
            left_out = f"{self._skipped} of {total} images are left out"
            lines.append(f"{left_out}, because the model was trained on them (--all scores them too)")
        if self._cut:
            images = format_count(self._cut, "image")
            lines.append(f"of {images}, only the part that the training held out is scored (--all scores the whole)")
        return lines
