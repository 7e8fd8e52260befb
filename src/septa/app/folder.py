"""The images of a folder, the label files beside them, and the marks that the app keeps about them."""

from __future__ import annotations

import glob
import json
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from septa.errors import InputError, shorten_list
from septa.images import sort_entries, write_text
from septa.labels import CLASS_FOLDERS, CLASSES, IMAGE_FOLDERS, LABEL_FOLDERS, find_subfolders, list_folder
from septa.prediction import find_stem

MARKS = ".septa-app.json"
"""File in the folder that keeps the marks."""
Area = tuple[int, int, int, int]
_LABEL_SUFFIXES = (".png", ".tif", ".tiff")
_MODEL_SUFFIX = ".septa"


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Marks of an image.

    Attributes
    ----------
    checked
        True if a person says that its labels are ground truth.
    areas
        Rectangles whose labels are ground truth although those of the whole image are not: first row and column, and
        the ones after the last.
    corrections
        Number of corrections since the labels were last found by a model.
    model
        Name of the model that found them; empty if none did.
    classes
        Value and name of each class, the background first; empty if labels have no classes.
    pixels
        True if the labels are classes of pixels; False if they are objects, which may have classes.
    """

    checked: bool = False
    areas: tuple[Area, ...] = ()
    corrections: int = 0
    model: str = ""
    classes: tuple[tuple[int, str], ...] = ()
    pixels: bool = False

    @property
    def is_ground_truth(self) -> bool:
        """True if the labels of the image, or of an area of it, are ground truth."""
        return self.checked or bool(self.areas)


class ImageFolder:
    """A folder that is open in the app.

    Images are those of the folder itself, or of its subfolder ``images`` if it has one. Their labels are in the
    subfolder ``labels``, or in the one of another name that septa knows. Nothing outside the folder is listed, read or
    written, also through links.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    InputError
        It is not a folder, or has several subfolders of images or labels.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(path, "there is no such folder", "Give a folder of images")
        self.path = path.resolve()
        self.images = self._choose(IMAGE_FOLDERS) or self.path
        self.labels = self._choose(LABEL_FOLDERS) or self.path / "labels"
        self.classes = self._choose(CLASS_FOLDERS) or self.path / CLASSES
        self._lock = threading.Lock()
        self._marks = self._read_marks()

    def _choose(self, names: tuple[str, ...]) -> Path | None:
        found = find_subfolders(self.path, names)
        if len(found) > 1:
            shown = shorten_list(path.name for path in found)
            raise InputError(self.path, f"the folder has several of one kind ({shown})", "Keep one of them")
        return found[0] if found else None

    def contains(self, path: Path) -> bool:
        """Return True if a path lies in the folder after all links are followed."""
        return path.resolve().is_relative_to(self.path)

    def list_images(self) -> dict[str, Path]:
        """Return the images by their names; links that lead out of the folder are passed over."""
        entries = sort_entries(list_folder(self.images))
        chosen = [path for path in (*entries.files, *entries.stores) if self.contains(path) and path.name.isprintable()]
        return {path.name: path for path in sorted(chosen)}

    def list_models(self) -> dict[str, Path]:
        """Return the model files in the folder by their names."""
        found = [path for path in list_folder(self.path) if path.suffix == _MODEL_SUFFIX and path.is_file()]
        return {path.name: path for path in found if self.contains(path) and path.name.isprintable()}

    def find_image(self, name: str) -> Path:
        """Return the image of a name.

        Raises
        ------
        InputError
            The folder has no such image, or another image has the same stem.
        """
        images = self.list_images()
        path = images.get(name)
        if path is None:
            raise InputError(name, "the folder has no such image", "Reload the page")
        first = next(other for other in images.values() if find_stem(other) == find_stem(path))
        if first != path:
            problem = f"its labels would have the same name as those of {first.name}"
            raise InputError(name, problem, "Rename one of the two images")
        return path

    def find_labels(self, stem: str) -> Path | None:
        """Return the existing label file of an image, by its stem."""
        for suffix in _LABEL_SUFFIXES:
            path = self.labels / f"{stem}{suffix}"
            if path.is_file():
                return path
        return None

    def has_labels(self, image: Path) -> bool:
        """Return True if an image, or one of the images in its file, has a label file."""
        stem = find_stem(image)
        return self.find_labels(stem) is not None or any(self.labels.glob(f"{glob.escape(stem)}_image[0-9]*"))

    def name_labels(self, image: Path, stem: str, *, stack: bool = False) -> Path:
        """Return the label file of an image: the existing one, else a TIFF for a stack, a TIFF or a zarr image, or PNG.

        Raises
        ------
        InputError
            The folder of labels, or the file, is a link that leads out of the folder.
        """
        is_tiff = stack or image.is_dir() or image.suffix.lower() in (".tif", ".tiff", ".svs", ".lsm", ".btf")
        path = self.find_labels(stem) or self.labels / f"{stem}{'.tif' if is_tiff else '.png'}"
        if self.labels == self.images:
            raise InputError(self.images, "the images lie in a folder of labels", "Open the folder above it")
        self.check_inside(self.labels, path)
        return path

    def name_classes(self, labels: Path) -> Path:
        """Return the image of classes that belongs to a label file; errors as for `name_labels`."""
        path = self.classes / labels.name
        self.check_inside(self.classes, path)
        return path

    def check_inside(self, *paths: Path) -> None:
        """Raise InputError if a path leads out of the folder."""
        for path in paths:
            if not self.contains(path):
                raise InputError(path, "the path is a link that leads out of the opened folder", "Remove the link")

    def get_marks(self, name: str) -> Marks:
        """Return the marks of an image."""
        return self._marks.get(name, Marks())

    def list_pages(self, name: str) -> list[str]:
        """Return the names of the pages of a file that have marks, or that of the file."""
        with self._lock:
            return [own for own in self._marks if own == name or own.startswith(f"{name}#")]

    def list_ground_truth(self) -> list[str]:
        """Return the names of all pages whose labels, or those of an area, are ground truth."""
        with self._lock:
            return sorted(name for name, marks in self._marks.items() if marks.is_ground_truth)

    def set_marks(self, name: str, **values: Any) -> Marks:
        """Change marks of a page, and save all marks if any differs."""
        return self.restore_marks(name, replace(self.get_marks(name), **values))

    def restore_marks(self, name: str, new: Marks) -> Marks:
        """Set all marks of a page, and save all marks if any differs."""
        with self._lock:
            if new != self._marks.get(name, Marks()):
                self._marks[name] = new
                content = {"version": 1, "images": {key: asdict(value) for key, value in self._marks.items()}}
                write_text(self.path / MARKS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return new

    def _read_marks(self) -> dict[str, Marks]:
        """Read the marks; a damaged file is an error, because it would be replaced."""
        path = self.path / MARKS
        if not path.exists():
            return {}
        self.check_inside(path)
        try:
            images = json.loads(path.read_text(encoding="utf-8"))["images"]
            return {
                str(name): Marks(
                    checked=values.get("checked") is True,
                    areas=tuple(_read_area(area) for area in values.get("areas", ())),
                    corrections=int(values.get("corrections", 0)),
                    model=str(values.get("model", "")),
                    classes=tuple((int(value), str(text)) for value, text in values.get("classes", ())),
                    pixels=values.get("pixels") is True,
                )
                for name, values in images.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(path, "the file is not one that septa app wrote", "Move it away") from None


def _read_area(values: list[int]) -> Area:
    """Read an area; ValueError if it has not four numbers."""
    top, left, bottom, right = (int(value) for value in values)
    return top, left, bottom, right
