"""The images that OME-XML describes: their names, sizes and positions, and the files that hold their planes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from xml.etree import ElementTree

_POSITIONS = ("PositionZ", "PositionY", "PositionX")
Element = ElementTree.Element


@dataclass(frozen=True, kw_only=True)
class OmeImage:
    """One image in OME-XML.

    Attributes
    ----------
    name
        Name; it may be empty.
    pixels
        Attributes of the element ``Pixels``.
    channel_names
        Name of each channel; it may be empty.
    position
        Attributes of the first plane.
    own
        True if at least one plane is in the file itself.
    others
        Names of the other files that hold planes.
    """

    name: str
    pixels: Mapping[str, str]
    channel_names: tuple[str, ...]
    position: Mapping[str, str]
    own: bool
    others: tuple[str, ...]

    def read_number(self, attribute: str) -> float | None:
        """Return a positive number among the attributes of ``Pixels``, or None."""
        return read_positive(self.pixels.get(attribute, ""))


@dataclass(frozen=True)
class OmeMetadata:
    """OME-XML of one file.

    Attributes
    ----------
    images
        Images, in the order of the metadata.
    master
        Name of the file that holds the metadata of this one; empty if it has its own.
    """

    images: tuple[OmeImage, ...]
    master: str = ""


@lru_cache(maxsize=2)
def parse_ome(xml: str, file_name: str) -> OmeMetadata | None:
    """Parse OME-XML; return None if it is not XML.

    Parameters
    ----------
    xml
        The metadata.
    file_name
        Name of the file that holds it. Planes are in this file unless they name another one.
    """
    try:
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError):
        return None
    for element in root:
        if _name(element) == "BinaryOnly":
            return OmeMetadata((), element.get("MetadataFile") or "another file")
    own_ids = {root.get("UUID") or ""}
    every = [image for image in root if _name(image) == "Image"]
    places = [place for image in every for place in image.iter() if _name(place) == "UUID"]
    own_ids |= {_id(place) for place in places if place.get("FileName", "").lower() == file_name.lower()}
    if len({_id(place) for place in places}) == 1 and not root.get("UUID"):
        own_ids.add(_id(places[0]))  # the only file of the image, which was renamed
    return OmeMetadata(tuple(_parse_image(image, own_ids) for image in every))


def keep_own_images(xml: str, metadata: OmeMetadata) -> str:
    """Return OME-XML of the images in the file itself, all of whose planes are there, without the names of files."""
    root = ElementTree.fromstring(xml)
    every = [image for image in root if _name(image) == "Image"]
    for image, facts in zip(every, metadata.images, strict=True):
        if not facts.own:
            root.remove(image)
        for element in image.iter():
            for place in [child for child in element if _name(child) == "UUID"]:
                element.remove(place)
    return ElementTree.tostring(root, encoding="unicode")


def _parse_image(image: Element, own_ids: set[str]) -> OmeImage:
    pixels = next((child for child in image if _name(child) == "Pixels"), ElementTree.Element("Pixels"))
    data = [child for child in pixels if _name(child) == "TiffData"]
    places = [next((place for place in one if _name(place) == "UUID"), None) for one in data]
    others = [place for place in places if place is not None and _id(place) not in own_ids]
    names = [place.get("FileName") or _id(place) for place in others]
    plane = next((child for child in pixels if _name(child) == "Plane"), ElementTree.Element("Plane"))
    return OmeImage(
        name=image.get("Name") or "",
        pixels=dict(pixels.attrib),
        channel_names=tuple(child.get("Name") or "" for child in pixels if _name(child) == "Channel"),
        position={key: value for key, value in plane.attrib.items() if key.startswith(_POSITIONS)},
        own=len(others) < len(places) or not places,
        others=tuple(dict.fromkeys(names)),
    )


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _id(place: Element) -> str:
    return (place.text or "").strip()


def read_positive(text: object) -> float | None:
    """Return a positive, finite number, or None."""
    number = read_finite(text)
    return number if number is not None and number > 0 else None


def read_finite(text: object) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
