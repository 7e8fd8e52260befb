"""The layout of the Cell Tracking Challenge: sequences ``01``, ``02``, with masks of some frames in ``01_GT/SEG``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from septa.data.layouts.folder_layout import FilePair, FolderLayout
from septa.data.listing import PairingNotes, note_ignored, select_images, select_labels
from septa.data.matching import LABELS_WITHOUT_IMAGE, get_stem
from septa.errors import InputError
from septa.images import read_info, read_labels
from septa.labels import list_folder

_SEQUENCE = re.compile(r"\d{2,}")
_FRAME = re.compile(r"t(\d+)")
_MASK = re.compile(r"man_seg_?(\d+)(?:_(\d+))?")
_TRUTHS = {"GT": "ground truth", "ST": "silver truth by programs"}


def find_cell_tracking(data: Path, notes: PairingNotes) -> FolderLayout | None:
    """Pair the labelled frames of all sequences; None if the folder is not one of the Cell Tracking Challenge."""
    masks = {sequence: folders for sequence in _list_sequences(data) if (folders := _list_masks(data, sequence))}
    if not masks:
        return None
    kind = next(kind for kind in _TRUTHS if any(kind in folders for folders in masks.values()))
    pairs: list[FilePair] = []
    reasons: dict[Path, str] = {}
    frames_in_all = 0
    for sequence, folders in masks.items():
        if kind not in folders:
            continue
        files = select_images(list_folder(data / sequence), notes, data / sequence)
        frames = {int(match[1]): path for path in files if (match := _FRAME.fullmatch(get_stem(path)))}
        frames_in_all += len(frames)
        found, unpaired = _pair_frames(
            sequence, frames, select_labels(list_folder(folders[kind]), notes, folders[kind])
        )
        pairs += found
        reasons |= unpaired
        if kind == "GT":
            _warn_unlabelled(data / f"{sequence}_GT" / "TRA", found, notes, silver="ST" in folders)
    used = {data / sequence for sequence in masks} | {data / f"{one}_{kind}" for one in masks for kind in _TRUTHS}
    note_ignored(data, [path for path in list_folder(data) if path not in used], notes)
    labelled = len({pair.image for pair in pairs})
    return FolderLayout(
        name=f"Cell Tracking Challenge, {_TRUTHS[kind]} of {labelled} of {frames_in_all} frames (*_{kind}/SEG)",
        pairs=pairs,
        reasons=reasons,
        settings={"encoding": "instances"},
    )


def _list_sequences(data: Path) -> list[str]:
    return [path.name for path in list_folder(data) if path.is_dir() and _SEQUENCE.fullmatch(path.name)]


def _list_masks(data: Path, sequence: str) -> dict[str, Path]:
    """Return the folders of masks of a sequence that hold any, by the kind of truth."""
    folders = {kind: data / f"{sequence}_{kind}" / "SEG" for kind in _TRUTHS}
    return {
        kind: folder
        for kind, folder in folders.items()
        if folder.is_dir() and any(_MASK.fullmatch(get_stem(path)) for path in list_folder(folder))
    }


def _pair_frames(sequence: str, frames: dict[int, Path], masks: list[Path]) -> tuple[list[FilePair], dict[Path, str]]:
    """Pair masks with frames; a mask whose name has two numbers belongs to one plane of a frame."""
    pairs: list[FilePair] = []
    reasons: dict[Path, str] = {}
    for path in masks:
        match = _MASK.fullmatch(get_stem(path))
        frame = frames.get(int(match[1])) if match else None
        if match is None:
            reasons[path] = "its name is not that of a mask, such as man_seg000"
        elif frame is None:
            reasons[path] = LABELS_WITHOUT_IMAGE
        else:
            plane = None if match[2] is None else int(match[2])
            name = f"{sequence}_{get_stem(frame)}" + ("" if plane is None else f"_z{plane:03d}")
            pairs.append(FilePair(name=name, image=frame, labels=path, page=plane, series=sequence))
    return pairs, reasons


def _warn_unlabelled(markers: Path, pairs: list[FilePair], notes: PairingNotes, *, silver: bool) -> None:
    """Warn of cells that have a marker for tracking but no mask, so that a training would take them for background."""
    remedy = "Label all cells of these frames, or leave the frames out"
    if silver:
        remedy = "Use the silver truth, such as --images '01/*' --labels '01_ST/SEG/*', or label all cells"
    for pair in pairs:
        number = re.sub(r"\D", "", get_stem(pair.image))
        file = markers / f"man_track{number}.tif"
        if pair.page is not None or not isinstance(pair.labels, Path) or not file.is_file():
            continue
        try:
            if read_info(file).pages > 1:
                return
            markers_yx, masks_yx = read_labels(file).array, read_labels(pair.labels).array
        except InputError:
            continue
        if markers_yx.shape == masks_yx.shape:
            cells = np.unique(markers_yx[markers_yx != 0])
            missing = len(cells) - len(np.unique(markers_yx[(markers_yx != 0) & (masks_yx != 0)]))
            if missing:
                text = "cells have a marker in TRA but no mask, and count as background ({} in a frame)"
                notes.notices.add(pair.labels, text, remedy, warning=True, amount=missing)
