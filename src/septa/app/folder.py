"""The images of a folder, the label files beside them, and the marks that the app keeps about them."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from septa.errors import InputError, shorten_list
from septa.images import count_images, sort_entries, write_text
from septa.labels import IMAGE_FOLDERS, LABEL_FOLDERS, find_subfolders, list_folder
from septa.prediction import find_stem

MARKS = ".septa-app.json"
"""File in the folder that keeps the marks."""
_LABEL_SUFFIXES = (".png", ".tif", ".tiff")
_MODEL_SUFFIX = ".septa"


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Marks of an image.

    Attributes
    ----------
    checked
        True if a person says that its labels are ground truth.
    corrections
        Number of corrections since the labels were last found by a model.
    model
        Name of the model that found them; empty if none did.
    """

    checked: bool = False
    corrections: int = 0
    model: str = ""


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
            The folder has no such image, the file holds several, or another image has the same stem.
        """
        images = self.list_images()
        path = images.get(name)
        if path is None:
            raise InputError(name, "the folder has no such image", "Reload the page")
        first = next(other for other in images.values() if find_stem(other) == find_stem(path))
        if first != path:
            problem = f"its labels would have the same name as those of {first.name}"
            raise InputError(name, problem, "Rename one of the two images")
        if (count := count_images(path)) > 1:
            problem = f"the file holds {count} images, and the app shows files of one image"
            raise InputError(name, problem, "Segment it with 'septa predict', or save its images one by one")
        return path

    def find_labels(self, image: Path) -> Path | None:
        """Return the existing label file of an image."""
        stem = find_stem(image)
        for suffix in _LABEL_SUFFIXES:
            path = self.labels / f"{stem}{suffix}"
            if path.is_file():
                return path
        return None

    def name_labels(self, image: Path) -> Path:
        """Return the label file of an image: the existing one, else a TIFF for a TIFF or zarr image, or a PNG.

        Raises
        ------
        InputError
            The folder of labels, or the file, is a link that leads out of the folder.
        """
        is_tiff = image.is_dir() or image.suffix.lower() in (".tif", ".tiff", ".svs", ".lsm", ".btf")
        path = self.find_labels(image) or self.labels / f"{find_stem(image)}{'.tif' if is_tiff else '.png'}"
        if not (self.contains(self.labels) and self.contains(path)):
            raise InputError(path, "the path is a link that leads out of the opened folder", "Remove the link")
        if self.labels == self.images:
            raise InputError(self.images, "the images lie in a folder of labels", "Open the folder above it")
        return path

    def get_marks(self, name: str) -> Marks:
        """Return the marks of an image."""
        return self._marks.get(name, Marks())

    def set_marks(self, name: str, **values: bool | int | str) -> Marks:
        """Change marks of an image and save all marks, if any differs."""
        with self._lock:
            old = self._marks.get(name, Marks())
            new = replace(old, **values)  # type: ignore[arg-type]
            if new != old:
                self._marks[name] = new
                content = {"version": 1, "images": {key: asdict(value) for key, value in self._marks.items()}}
                write_text(self.path / MARKS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return new

    def _read_marks(self) -> dict[str, Marks]:
        """Read the marks; a damaged file is an error, because it would be replaced."""
        path = self.path / MARKS
        if not path.exists():
            return {}
        if not self.contains(path):
            raise InputError(path, "the path is a link that leads out of the opened folder", "Remove the link")
        try:
            images = json.loads(path.read_text(encoding="utf-8"))["images"]
            return {
                str(name): Marks(
                    checked=values.get("checked") is True,
                    corrections=int(values.get("corrections", 0)),
                    model=str(values.get("model", "")),
                )
                for name, values in images.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(path, "the file is not one that septa app wrote", "Move it away") from None
