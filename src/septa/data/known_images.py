"""Images that a model was trained on, changed copies of them, and the parts of them that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from septa.data.fingerprint import ImageFacts, digest_array
from septa.data.folder import read_pair_image
from septa.data.overlaps import KnownSketches
from septa.data.pairs import Pair
from septa.data.split import Window
from septa.errors import escape_controls, format_count, shorten_list
from septa.images import SKETCH_POINTS, Sketch, make_sketch
from septa.notices import Notices

_MOST_POINTS = 350 * SKETCH_POINTS
"""Points that a model keeps of all its training images, about 1 MB."""
_FEWEST_POINTS = 12
"""Points that it keeps of each image, at least."""


def write_sketches(sketches: Sequence[tuple[str, Sketch]]) -> list[tuple[str, str]]:
    """Return names and sketches of training images as the provenance of a model keeps them: as text, about 1 MB.

    Of more than 350 images, each keeps fewer points. Of more than 1458, an even selection of images is kept.
    """
    return _thin(sketches, _MOST_POINTS)


def thin_sketches(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance of a model with sketches of a quarter of the size, for itself and for its parents.

    Of more than 87 images each keeps fewer points, and of more than 364 an even selection is kept. Exact copies of all
    training images are still recognised.
    """
    thinned = dict(provenance)
    if "sketches" in thinned:
        sketches = [(name, Sketch.from_text(text)) for name, text in thinned["sketches"]]
        thinned["sketches"] = _thin(sketches, _MOST_POINTS // 4)
    if thinned.get("parent") is not None:
        thinned["parent"] = thin_sketches(thinned["parent"])
    return thinned


def _thin(sketches: Sequence[tuple[str, Sketch]], points: int) -> list[tuple[str, str]]:
    """Return names and sketches as text, with at most this many points."""
    kept = sketches[:: max(1, -(-len(sketches) * _FEWEST_POINTS // points))]
    most = min(SKETCH_POINTS, points // max(1, len(kept)))
    return [(name, sketch.to_text(most)) for name, sketch in kept]


def _list_generations(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the provenance of a model, of the model that its training started from, and so on."""
    facts: Mapping[str, Any] | None = provenance
    while facts is not None:
        yield facts
        facts = facts.get("parent")


def _find_held_out(generations: Sequence[Mapping[str, Any]]) -> dict[str, Window]:
    """Return the window of each image, by its digest, that no generation was trained on."""
    found: dict[str, set[Window | None]] = {}
    for facts in generations:
        windows = {digest: tuple(window) for digest, _, window in facts.get("parts", [])}
        for digest in {digest for _, digest in facts.get("train", [])} | windows.keys():
            found.setdefault(digest, set()).add(windows.get(digest))
    return {digest: one for digest, (one, *others) in found.items() if one is not None and not others}


class KnownImages:
    """The images that a model was trained on, recognised by the digest of their pixels and, if changed, by sketches.

    The images of the model that the training started from, and of those before it, count as well.

    Parameters
    ----------
    provenance
        Provenance of the model; that of an old model has no sketches.
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
        generations = list(_list_generations(provenance))
        self._trained = {digest for facts in generations for _, digest in facts.get("train", [])}
        self._chose = {digest for facts in generations for _, digest in facts.get("validation", [])}
        self._held_out = _find_held_out(generations)
        sketches = [sketch for facts in generations for sketch in facts.get("sketches", [])]
        self._names = [name for name, _ in sketches]
        self._sketches = KnownSketches([Sketch.from_text(text) for _, text in sketches])
        self._passed = 0
        self._scored_twice = 0
        self._skipped = 0
        self._cut = 0
        self._changed: list[str] = []

    def find_unknown(self, pair: Pair) -> tuple[Pair, NDArray[Any]] | None:
        """Return the part of a pair that the model does not know, and its image ``CYX``; None if it knows all of it."""
        image_cyx = self._read(pair)
        digest = digest_array(image_cyx)
        if digest in self._held_out and not self._every:
            self._cut += 1
            pair = replace(pair, window=self._held_out[digest])
            image_cyx = self._read(pair)
        elif digest in self._trained and not self._every:
            self._skipped += 1
            return None
        elif not self._every and (origins := self._sketches.find(make_sketch(image_cyx))):
            names = [self._names[index] for index in origins]
            self._changed.append(f"{pair.name} ({shorten_list(names, 2)})")
            return None
        self._passed += 1
        self._scored_twice += digest in self._chose
        return pair, image_cyx

    def knows(self, facts: ImageFacts, window: Window | None, *, copies: bool = True) -> bool:
        """Return True if the model was trained on an image, on a changed copy of it, or on more than its held-out part.

        Parameters
        ----------
        facts
            Facts of the image, or of a part of it.
        window
            Window of this part; None for the whole image.
        copies
            False to compare the pixels only, which is fast.
        """
        digest = facts.whole_digest or facts.image_digest
        if digest in self._held_out:
            return window != self._held_out[digest]
        return digest in self._trained or (copies and bool(self._sketches.find(facts.sketch)))

    def explain(self, total: int, *, chosen: str = "weights") -> list[str]:
        """Return printable lines about the images that were left out, among ``total``, and about those that were not.

        Parameters
        ----------
        total
            Number of all images.
        chosen
            Parts of the model that its validation images chose, for example ``weights``.
        """
        lines = []
        if self._skipped:
            left_out = f"{self._skipped} of {total} images are left out"
            lines.append(f"{left_out}, because the model was trained on them (--all scores them too)")
        if self._changed:
            left_out = f"{len(self._changed)} of {total} images are left out"
            reason = "because they show the same objects as training images, which are in brackets"
            lines.append(f"{left_out}, {reason}: {shorten_list(self._changed)} (--all scores them too)")
        if self._cut:
            images = format_count(self._cut, "image")
            lines.append(f"of {images}, only the part that the training held out is scored (--all scores the whole)")
        if self._scored_twice:
            scored = f"{self._scored_twice} of {self._passed} scored images also chose the best {chosen} of the model"
            lines.append(f"{scored}: scores on new images may be lower")
        return [escape_controls(line) for line in lines]
