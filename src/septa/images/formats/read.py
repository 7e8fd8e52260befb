"""Describe and read the files of all formats that optional packages read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from septa.errors import InputError, shorten_list
from septa.images._info import ImageInfo, check_image, check_page, check_size, translate_decoder_errors
from septa.images._photometric import Decoded, Photometric
from septa.images.formats.container import Container, Scene, quiet

_NOTE_INVERTED = "white is stored as 0, so the values are inverted"


@dataclass(frozen=True)
class ContainerFormat:
    """A format: its file and the class there, and the suffixes by which folders are searched."""

    file: str
    name: str
    suffixes: tuple[str, ...]

    @property
    def open(self) -> Callable[[Path, str], Container]:
        """Class of open files."""
        found: Callable[[Path, str], Container] = getattr(import_module(f"septa.images.formats.{self.file}"), self.name)
        return found


CONTAINER_FORMATS = {
    "czi": ContainerFormat("czi", "CziContainer", (".czi",)),
    "nd2": ContainerFormat("nd2", "Nd2Container", (".nd2",)),
    "lif": ContainerFormat("lif", "LifContainer", (".lif", ".lof")),
    "nrrd": ContainerFormat("nrrd", "NrrdContainer", (".nrrd", ".nhdr")),
    "nifti": ContainerFormat("nifti", "NiftiContainer", (".nii",)),
    "dicom": ContainerFormat("dicom", "DicomContainer", (".dcm",)),
    "hdf5": ContainerFormat("hdf5", "Hdf5Container", (".h5", ".hdf5")),
}
"""Formats by the name that messages give them, in lower case."""
CONTAINER_SUFFIXES = tuple(suffix for one in CONTAINER_FORMATS.values() for suffix in one.suffixes)
"""Suffixes of all formats, in lower case."""


@contextmanager
def _open(path: Path, dataset: str, file_format: str) -> Iterator[Container]:
    """Open a file; whatever a package raises or prints becomes an error of one line."""
    with translate_decoder_errors(path, file_format):
        with quiet():
            container = CONTAINER_FORMATS[file_format].open(path, dataset)
        try:
            yield container
        finally:
            container.close()


def count_scenes(path: Path, dataset: str, file_format: str) -> int:
    """Return the number of images in a file; errors are those of `read_container_info`."""
    with _open(path, dataset, file_format) as container:
        return len(container.scenes)


def read_container_info(
    where: Path, path: Path, dataset: str, file_format: str, max_pixels: int, image: int | None
) -> ImageInfo:
    """Describe an image of a file.

    Parameters
    ----------
    where
        Path that the user gave, such as ``a.h5:/raw``.
    path, dataset
        File and dataset inside it; see `septa.images.paths.split_dataset`.
    file_format
        Key of `CONTAINER_FORMATS`.
    max_pixels, image
        See `septa.images.read.read_info`.
    """
    with _open(path, dataset, file_format) as container:
        return _describe(where, file_format, container, max_pixels, image)


def read_container_page(
    where: Path, path: Path, dataset: str, file_format: str, page: int, max_pixels: int, image: int | None
) -> tuple[ImageInfo, Decoded]:
    """Read a page of an image; parameters are those of `read_container_info`."""
    with _open(path, dataset, file_format) as container:
        info = _describe(where, file_format, container, max_pixels, image)
        check_page(where, page, info.pages)
        number, inner = (image, page) if image is not None else divmod(page, container.scenes[0].pages)
        scene = container.scenes[number]
        array_cyx = container.read(number, inner)
        inverted = scene.inverted_top > 0
        return info, Decoded(
            array_cyx=array_cyx,
            alpha_yx=None,
            photometric=Photometric(
                "inverted" if inverted else "stored",
                scene.color,
                top=scene.inverted_top,
                note=_NOTE_INVERTED if inverted else "",
            ),
            color=scene.color,
            lossy=scene.lossy,
        )


def _describe(where: Path, file_format: str, container: Container, max_pixels: int, image: int | None) -> ImageInfo:
    scenes = container.scenes
    if image is not None or len(scenes) == 1:
        check_image(where, image or 0, len(scenes))
        image = image or 0
    scene = scenes[image or 0]
    axes, shape = scene.page_axes, scene.page_shape
    if image is None:
        _refuse_different(where, scenes)
        axes, shape = f"I{axes}", (len(scenes), *shape)
    samples = max(scene.height * scene.width * scene.channels, scene.decoded_samples)
    check_size(where, scene.height, scene.width, samples, max_pixels)
    pages = scene.pages * (len(scenes) if image is None else 1)
    return ImageInfo(
        path=where,
        format=file_format,
        pages=pages,
        channels=scene.channels,
        height=scene.height,
        width=scene.width,
        dtype=scene.dtype,
        axes=axes + ("C" if scene.channels > 1 else "") + "YX",
        alpha=False,
        palette=False,
        orientation=1,
        color=scene.color,
        page_axes=axes,
        page_shape=shape,
        image=image,
        images=len(scenes),
        notes=scene.notes,
        calibration=scene.calibration,
    )


def _refuse_different(where: Path, scenes: Any) -> None:
    """Refuse several images whose pages cannot be counted together."""
    kinds = {(one.height, one.width, one.channels, one.page_axes, one.page_shape, one.dtype) for one in scenes}
    if len(kinds) > 1:
        sizes = shorten_list(f"{_name(number, one)}: {one.height} x {one.width}" for number, one in enumerate(scenes))
        problem = f"the file holds {len(scenes)} images that are not alike ({sizes})"
        raise InputError(where, problem, "Choose one of them, or save each in a file of its own")


def _name(number: int, scene: Scene) -> str:
    return f"{number} {scene.name}".strip()
