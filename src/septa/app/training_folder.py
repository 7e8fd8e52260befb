"""The folder of checked images and their labels, which ``septa train`` and ``septa check`` read as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from septa.errors import InputError, shorten_list
from septa.images import WrittenFiles, write_bytes
from septa.prediction import find_stem

from .folder import ImageFolder

NAME = "training"
"""Name of the folder inside the opened one."""


@dataclass(frozen=True, kw_only=True)
class TrainingFolder:
    """A folder ``images`` and ``labels`` of the checked images.

    Attributes
    ----------
    path
        The folder.
    images
        Names of the images in it.
    left_out
        Checked images that are not copied, because they are zarr images.
    """

    path: Path
    images: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    def write(cls, folder: ImageFolder) -> TrainingFolder:
        """Copy the checked images and their labels, and remove copies of images that are not checked any more.

        Raises
        ------
        InputError
            No image is checked, a label file is missing, or files would be replaced that septa did not write.
        """
        path = folder.path / NAME
        if not all(folder.contains(part) for part in (path, path / "images", path / "labels")):
            raise InputError(path, "the path is a link that leads out of the opened folder", "Remove the link")
        checked = {name: image for name, image in folder.list_images().items() if folder.get_marks(name).checked}
        left_out = tuple(name for name, image in checked.items() if image.is_dir())
        copied = {name: image for name, image in checked.items() if name not in left_out}
        if not copied:
            raise InputError(folder.path, "no image is marked as checked", "Mark images whose labels are right")
        missing = [name for name, image in copied.items() if folder.find_labels(find_stem(image)) is None]
        if missing:
            raise InputError(shorten_list(missing), "the label file is missing", "Mark the image as checked again")
        written = WrittenFiles()
        targets: dict[Path, str | Path | None] = {}
        for image in copied.values():
            labels = folder.find_labels(find_stem(image))
            assert labels is not None
            targets |= {path / "images" / image.name: image, path / "labels" / labels.name: labels}
        written.check(targets)
        for target, source in targets.items():
            assert isinstance(source, Path)
            write_bytes(target, source.read_bytes(), guard=written.guard(source))
        for part in ("images", "labels"):
            for old in (path / part).iterdir():
                if old not in targets and old.is_file() and not old.name.startswith("."):
                    _remove_copy(old, written, folder)
        return cls(path=path, images=tuple(copied), left_out=left_out)


def _remove_copy(path: Path, written: WrittenFiles, folder: ImageFolder) -> None:
    """Remove a copy that septa wrote; a file of somebody else would be paired too, so it is an error."""
    source = (folder.images if path.parent.name == "images" else folder.labels) / path.name
    if reason := written.explain_refusal(path, source):
        raise InputError(path, f"the file was {reason}, but lies among the copies", "Move it away")
    path.unlink()
