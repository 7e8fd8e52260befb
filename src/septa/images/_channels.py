"""Join the channels of an image that lie in separate files, and the masks of the classes of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from septa.errors import InputError
from septa.images._info import ImageInfo
from septa.images._label_values import RawLabels


def join_infos(path: Path, infos: Sequence[ImageInfo]) -> ImageInfo:
    """Describe the image whose channels are those of several files.

    Parameters
    ----------
    path
        Path that stands for all files; see `septa.images.paths.list_channel_files`.
    infos
        Description of each file.

    Raises
    ------
    InputError
        The files differ in size, or in the axes of their pages.
    """
    first = infos[0]
    for other in infos[1:]:
        for what, expected, found in (
            ("pixels", f"{first.height} x {first.width}", f"{other.height} x {other.width}"),
            ("pages", f"{first.pages} {first.page_axes}".strip(), f"{other.pages} {other.page_axes}".strip()),
        ):
            if expected != found:
                problem = f"the file has {found} {what} and {first.path.name} has {expected}"
                raise InputError(other.path, problem, "Save all channels of an image at one size")
    names = [name for info in infos for name in (info.calibration.channel_names or ("",) * info.channels)]
    return replace(
        first,
        path=path,
        channels=sum(info.channels for info in infos),
        dtype=np.result_type(*(info.dtype for info in infos)),
        axes=f"{first.page_axes}CYX",
        alpha=False,
        palette=False,
        orientation=1,
        color=False,
        image=0,
        images=1,
        notes=(),
        calibration=replace(first.calibration, channel_names=tuple(names) if any(names) else ()),
    )


def join_labels(files: Sequence[Path], parts: Sequence[RawLabels]) -> RawLabels:
    """Return the masks of several classes as planes.

    Raises
    ------
    InputError
        A file has colours or several planes, or the files differ in size.
    """
    for file, part in zip(files, parts, strict=True):
        if part.kind != "index":
            raise InputError(file, "the mask of one class has one channel, but the file has more", "Save it as grey")
        if part.array.shape != parts[0].array.shape:
            sizes = "{} x {} pixels, but {} has {} x {}".format(*part.array.shape, files[0].name, *parts[0].array.shape)
            raise InputError(file, f"the mask has {sizes}", "Save the masks of an image at one size")
    dtype = np.result_type(*(part.array.dtype for part in parts))
    return RawLabels(np.stack([part.array for part in parts]).astype(dtype), "channels", None)
