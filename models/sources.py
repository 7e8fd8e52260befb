"""Readers of the public data that the shipped models are trained on; each item is one image with its instance ids."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import measure

from septa.images import read_image

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image of a source.

    Attributes
    ----------
    name
        Name in the training folder, without suffix.
    source, licence
        Short name of the source, and the licence of its images and labels.
    file
        Path inside the source, or the settings of a drawing.
    field
        Well, session, animal or article: images of one field are never on both sides of a split.
    modality
        ``"fluorescence"``, ``"brightfield"``, ``"phase contrast"`` or ``"electron microscopy"``.
    load
        Function that returns the image ``CYX`` and its instance ids, int32 ``YX``, 0 = background.
    """

    name: str
    source: str
    licence: str
    file: str
    field: str
    modality: str
    load: Callable[[], tuple[Array, Labels]]


def number_regions(values_yx: Array, least_pixels: int = 1) -> Labels:
    """Return the 4-connected regions of equal values, numbered from 1; those below a least size become background."""
    parts_yx = measure.label(values_yx, background=0, connectivity=1)  # type: ignore[no-untyped-call]
    areas = np.bincount(parts_yx.ravel())
    kept = areas >= least_pixels
    kept[0] = False
    return np.asarray((np.cumsum(kept) * kept)[parts_yx], np.int32)


def combine_channels(colors_cyx: Array) -> npt.NDArray[np.int64]:
    """Return one number for each color, 0 for black; an alpha channel is left out."""
    numbers_yx = np.zeros(colors_cyx.shape[1:], np.int64)
    for channel_yx in colors_cyx[:3]:
        numbers_yx = numbers_yx * 256 + channel_yx
    return numbers_yx


def is_bright(image_cyx: Array) -> bool:
    """Return True for a colored image or one with a light background: stained brightfield, not fluorescence."""
    grey_yx = image_cyx.mean(0)
    colored = len(image_cyx) > 1 and float(np.abs(image_cyx[0].astype(float) - image_cyx[2]).mean()) > 2
    return colored or float(np.median(grey_yx)) > 100


def read_dsb(folder: Path) -> Iterator[Item]:
    """Read ``images/`` and ``labels/`` of the 2018 Data Science Bowl (BBBC038, stage1_train with community fixes)."""
    labels = {path.stem: path for path in (folder / "labels").iterdir()}
    for path in sorted((folder / "images").iterdir()):
        image_cyx = read_image(path)
        yield Item(
            name=f"dsb_{path.stem}",
            source="dsb2018",
            licence="CC0",
            file=f"images/{path.name}",
            field=path.stem,
            modality="brightfield" if is_bright(image_cyx) else "fluorescence",
            load=partial(_load_dsb, path, labels[path.stem]),
        )


def _load_dsb(image: Path, labels: Path) -> tuple[Array, Labels]:
    return read_image(image), read_image(labels)[0].astype(np.int32)


def read_bbbc039(folder: Path) -> Iterator[Item]:
    """Read ``cell nuclei/images`` and ``cell nuclei/masks`` of a clone of DeepTrackAI/cell_counting_dataset.

    An object is a connected region of equal red value.
    """
    for path in sorted((folder / "cell nuclei" / "images").iterdir()):
        found = re.match(r"IXMtest_([A-P]\d\d)_(s\d)_", path.name)
        if found is None:
            raise ValueError(f"{path.name} does not name a well")
        mask = folder / "cell nuclei" / "masks" / f"{path.stem}.png"
        yield Item(
            name=f"bbbc039_{found[1]}_{found[2]}",
            source="bbbc039",
            licence="CC0",
            file=f"cell nuclei/images/{path.name}",
            field=found[1],
            modality="fluorescence",
            load=partial(_load_bbbc039, path, mask),
        )


def _load_bbbc039(image: Path, mask: Path) -> tuple[Array, Labels]:
    return read_image(image), number_regions(read_image(mask)[0])


LEAST_NUCLEUS = 10
"""Pixels below which a colored region of a mask of mnfinder is a slip of the pen."""


def read_mnfinder(wheel: Path) -> Iterator[Item]:
    """Read the annotated images in the wheel of mnfinder.

    Objects are nuclei, as connected regions of equal color. Micronuclei, which have masks of their own, are background.
    """
    with zipfile.ZipFile(wheel) as archive, TemporaryDirectory() as temporary:
        root = Path(temporary)
        names = [name for name in archive.namelist() if re.search(r"-data/.*\.(tif|png)$", name)]
        archive.extractall(root, names)
        for mask in sorted(root.glob("mnfinder/*-data/*/nucleus_masks/*.png")):
            image = mask.parents[1] / "images" / f"{mask.stem}.tif"
            part, session = mask.parts[-4].removesuffix("-data"), mask.parts[-3]
            # The archive is gone when the item is loaded, and all images together need little memory.
            image_cyx, labels_yx = read_image(image), _read_colors(mask)
            yield Item(
                name=f"mnfinder_{part}_{session}_{re.sub('[^A-Za-z0-9-]+', '_', mask.stem)}",
                source="mnfinder",
                licence="MIT",
                file=image.relative_to(root).as_posix(),
                field=_name_series(session, mask.stem),
                modality="fluorescence",
                load=partial(_hand_over, image_cyx, labels_yx),
            )


def _read_colors(mask: Path) -> Labels:
    return number_regions(combine_channels(read_image(mask)), LEAST_NUCLEUS)


def _hand_over(image_cyx: Array, labels_yx: Labels) -> tuple[Array, Labels]:
    return image_cyx, labels_yx


def _name_series(session: str, stem: str) -> str:
    """Return what images of one slide share; the images of the session "misc" come from several cell lines."""
    series = re.match(r"HFF|MCC13|MAX_20\d\d[_-]\d+[_-]\d+", stem)
    return f"{session}/{series[0] if series else stem}" if session.endswith("_misc") else session


LEAST_PART = 60
"""Pixels below which a part of a cell that is cut off from the rest is a remnant of the drawn outline."""


def read_usiigaci(folder: Path) -> Iterator[Item]:
    """Read the annotated sets of a clone of oist/Usiigaci: T98G cells in phase contrast, 16 bits.

    Objects are connected regions of equal value of ``instances_ids.png``. Sets have no record of their place, and
    neighbours in number may come from one dish, so runs of 5 sets count as one field.
    """
    for image in sorted((folder / "Mask R-CNN").glob("*/set*/raw.tif"), key=lambda path: int(path.parent.name[3:])):
        number = int(image.parent.name[3:])
        first = (number - 1) // 5 * 5 + 1
        yield Item(
            name=f"usiigaci_{number:02d}",
            source="usiigaci",
            licence="MIT",
            file=image.relative_to(folder).as_posix(),
            field=f"sets {first} to {first + 4}",
            modality="phase contrast",
            load=partial(_load_numbered, image, image.with_name("instances_ids.png"), LEAST_PART),
        )


def read_emps(folder: Path) -> Iterator[Item]:
    """Read a clone of by256/emps: particles in electron micrographs, cut from figures of journal articles.

    The repository has the MIT licence, but all articles are of one publisher, whose rights in the figures the
    repository cannot pass on. Images of one article are one field.
    """
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        articles = {row["filename"]: row["doi"] for row in csv.DictReader(file)}
    for image in sorted((folder / "images").iterdir()):
        yield Item(
            name=f"emps_{image.stem}",
            source="emps",
            licence="unclear",
            file=f"images/{image.name}",
            field=articles[image.name],
            modality="electron microscopy",
            load=partial(_load_numbered, image, folder / "segmaps" / image.name, LEAST_NUCLEUS),
        )


def _load_numbered(image: Path, labels: Path, least_pixels: int) -> tuple[Array, Labels]:
    return read_image(image), number_regions(combine_channels(read_image(labels)), least_pixels)
