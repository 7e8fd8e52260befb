"""The raw layout of nnU-Net: ``imagesTr``, ``labelsTr``, and ``dataset.json`` with the names of classes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from septa.data.layouts.folder_layout import FilePair, FolderLayout
from septa.data.listing import PairingNotes, note_ignored, select_images, select_labels
from septa.data.matching import LABELS_WITHOUT_IMAGE, get_stem
from septa.errors import InputError, format_count
from septa.labels import list_folder

_IMAGES, _LABELS, _FACTS = "imagesTr", "labelsTr", "dataset.json"
_CHANNEL = re.compile(r"(.+)_(\d{4})$")
_MOST_BYTES = 1 << 26


def find_nnunet(data: Path, notes: PairingNotes) -> FolderLayout | None:
    """Pair the training images of a folder of nnU-Net; None if it is not one.

    Raises
    ------
    InputError
        The folder of labels is missing, or ``dataset.json`` is damaged.
    """
    if not (data / _IMAGES).is_dir():
        return None
    if not (data / _LABELS).is_dir():
        problem = f"the folder holds {_IMAGES}/ but no {_LABELS}/"
        raise InputError(data, problem, f"Restore {_LABELS}/, or name all files with --images and --labels")
    facts = _read_facts(data / _FACTS)
    channels = facts.get("channel_names", facts.get("modality"))
    count = len(channels) if isinstance(channels, dict) and channels else None
    cases, reasons = _find_cases(data / _IMAGES, count, notes)
    labels = {get_stem(path): path for path in select_labels(list_folder(data / _LABELS), notes, data / _LABELS)}
    reasons |= {path: "the image has no labels" for name, path in cases.items() if name not in labels}
    reasons |= {path: LABELS_WITHOUT_IMAGE for name, path in labels.items() if name not in cases}
    known = {data / _IMAGES, data / _LABELS, data / _FACTS}
    note_ignored(data, [path for path in list_folder(data) if path not in known], notes)
    each = f", {count} channels in files of their own" if count and count > 1 else ""
    return FolderLayout(
        name=f"nnU-Net ({_IMAGES}/ and {_LABELS}/{each})",
        pairs=[FilePair(name=name, image=cases[name], labels=labels[name]) for name in cases if name in labels],
        reasons=reasons,
        settings=_find_classes(data / _FACTS, facts, notes),
    )


def _read_facts(path: Path) -> Mapping[str, Any]:
    """Return the contents of ``dataset.json``; empty if there is none."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= _MOST_BYTES else None
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror})"
        raise InputError(path, problem, "Check its permissions") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(path, "the file is not a description of a dataset of nnU-Net", "Correct it, or move it away")
    return found


def _find_cases(folder: Path, count: int | None, notes: PairingNotes) -> tuple[dict[str, Path], dict[Path, str]]:
    """Return the path of each case, which stands for the files of all its channels; and why files cannot be used."""
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    reasons: dict[Path, str] = {}
    for path in select_images(list_folder(folder), notes, folder):
        match = _CHANNEL.fullmatch(get_stem(path))
        if match is None:
            reasons[path] = "its name does not end in the number of a channel, such as _0000"
        else:
            files[match[1]][int(match[2])] = path
    most = max((number + 1 for channels in files.values() for number in channels), default=1)
    cases: dict[str, Path] = {}
    for name, channels in files.items():
        missing = [number for number in range(count or most) if number not in channels]
        if missing:
            reasons |= dict.fromkeys(channels.values(), f"its channel _{missing[0]:04d} is missing")
        elif len(channels) > (count or most):
            stated = format_count(count or most, "channel")
            reasons |= dict.fromkeys(
                channels.values(), f"it has {len(channels)} channels, but {_FACTS} states {stated}"
            )
        elif not (joined := _join(sorted(channels.values()))):
            reasons |= dict.fromkeys(channels.values(), "its channels are files of different formats")
        else:
            cases[name] = joined
    return cases, reasons


def _join(files: Sequence[Path]) -> Path | None:
    """Return the path that stands for the channels of an image; None if their names differ in more than the number."""
    if len(files) == 1:
        return files[0]
    names = {re.sub(r"_\d{4}(?=\.)", "_{}", path.name, count=1) for path in files}
    words = [match[1] for path in files if (match := re.search(r"_(\d{4})\.", path.name))]
    if len(names) > 1 or len(words) < len(files):
        return None
    return files[0].with_name(names.pop().replace("_{}", f"_{{{','.join(words)}}}"))


def _find_classes(path: Path, facts: Mapping[str, Any], notes: PairingNotes) -> dict[str, Any]:
    """Return the settings for the classes that ``dataset.json`` names, of version 1 or 2."""
    named = facts.get("labels")
    if not isinstance(named, dict) or not named:
        return {}
    if all(str(key).isdecimal() for key in named) and all(isinstance(value, str) for value in named.values()):
        named = {value: int(key) for key, value in named.items()}
    if not all(type(value) is int for value in named.values()):
        notes.notices.add(path, "the classes are regions of several values; septa reads the values in the label images")
        return {}
    ignored = named.get("ignore")
    values = {value: name for name, value in named.items() if name != "ignore"}
    if len(values) < 2 or sorted(values) != list(range(len(values))):
        notes.notices.add(path, "the values of the classes do not count from 0; septa does not use their names")
        return {}
    found: dict[str, Any] = {
        "values": tuple(range(len(values))),
        "class_names": tuple(str(values[k]) for k in range(len(values))),
    }
    return found if ignored is None else found | {"ignore_label": ignored}
