"""Check which parts of a TIFF file are images: none is left out in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import Selection, count_images, open_source
from septa.images.read import read_image, read_info, read_labels
from septa.notices import Notices

RNG = np.random.default_rng(3)


def draw(*shape: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 255, shape, dtype=np.uint8)


def write_ome(path: Path, images: list[NDArray[Any]], **options: Any) -> None:
    with tifffile.TiffWriter(path, ome=True) as writer:
        for number, array in enumerate(images):
            sizes = {"PhysicalSizeX": number + 1.0, "PhysicalSizeY": number + 1.0}
            axes = {"axes": "YX" if array.ndim == 2 else "ZYX"}
            writer.write(
                array, photometric="minisblack", metadata=axes | sizes | {"Name": f"field {number}"}, **options
            )


def write_plain(path: Path, pages: list[NDArray[Any]], **options: Any) -> None:
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, metadata=None, **options)


def check_images(path: Path, expected: list[NDArray[Any]]) -> None:
    """Compare every image, read whole and by windows; without a number, several are refused by the source."""
    assert count_images(path) == len(expected)
    for number, array in enumerate(expected):
        info = read_info(path, image=number)
        planes = array.reshape(-1, *array.shape[-2:])
        assert (info.image, info.images, info.pages) == (number, len(expected), len(planes))
        with open_source(path, Selection(image=number)) as source:
            assert source.shape == (1, 1, len(planes), *array.shape[-2:])
            for page, plane in enumerate(planes):
                np.testing.assert_array_equal(read_image(path, page, image=number)[0], plane)
                np.testing.assert_array_equal(source.read(slice(None), slice(None), z=page)[0], plane)
    for call in (read_info, read_image):
        with pytest.raises(InputError, match=f"there is no image {len(expected)}"):
            call(path, image=len(expected))
    if len(expected) > 1:
        with pytest.raises(InputError, match=rf"the file holds {len(expected)} images \(.*--image, from 0 to"):
            open_source(path)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib"}])
def test_images_of_an_ome_tiff(options: dict[str, Any], tmp_path: Path) -> None:
    images = [draw(64, 64), draw(32, 32), draw(3, 40, 30), draw(64, 64)]
    write_ome(tmp_path / "a.ome.tif", images, **options)
    check_images(tmp_path / "a.ome.tif", images)
    for number in range(4):
        assert read_info(tmp_path / "a.ome.tif", image=number).pixel_size_um == (number + 1, number + 1)
    with pytest.raises(InputError, match=r"4 images \(64 x 64.*Save each image in its own file"):
        read_info(tmp_path / "a.ome.tif")


def test_alike_images_are_pages_where_no_image_is_chosen(tmp_path: Path) -> None:
    images = [draw(40, 30) for _ in range(3)]
    write_ome(tmp_path / "a.ome.tif", images)
    check_images(tmp_path / "a.ome.tif", images)
    info = read_info(tmp_path / "a.ome.tif")
    assert (info.pages, info.images, info.image) == (3, 3, None)
    assert [read_info(tmp_path / "a.ome.tif", image=number).image for number in range(3)] == [0, 1, 2]
    for page, image in enumerate(images):
        np.testing.assert_array_equal(read_image(tmp_path / "a.ome.tif", page)[0], image)


@pytest.mark.parametrize("sizes", [((40, 30), (20, 15)), ((40, 30), (33, 18), (40, 30)), ((20, 15), (40, 30))])
def test_pages_of_several_sizes(sizes: tuple[tuple[int, int], ...], tmp_path: Path) -> None:
    pages = [draw(*size) for size in sizes]
    write_plain(tmp_path / "a.tif", pages)
    by_size = [np.stack([page for page in pages if page.shape == size]) for size in dict.fromkeys(sizes)]
    check_images(tmp_path / "a.tif", [stack[0] if len(stack) == 1 else stack for stack in by_size])
    with pytest.raises(InputError, match="Save each image in its own file"):
        read_info(tmp_path / "a.tif")


def test_series_of_tifffile(tmp_path: Path) -> None:
    pages = [draw(40, 30), draw(40, 30), draw(20, 15), draw(40, 30)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, photometric="minisblack")
    check_images(tmp_path / "a.tif", [np.stack([pages[0], pages[1], pages[3]]), pages[2]])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_written_one_by_one_are_one_stack(compression: str | None, tmp_path: Path) -> None:
    stack = draw(5, 40, 30)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in stack:
            writer.write(page, compression=compression)
    check_images(tmp_path / "a.tif", [stack])


def test_reduced_copies_are_no_images(tmp_path: Path) -> None:
    large, small, tiny = draw(64, 64), draw(32, 32), draw(9, 9)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(large, metadata=None)
        for copy in (small, tiny):
            writer.write(copy, metadata=None, subfiletype=1)
    check_images(tmp_path / "a.tif", [large])
    assert not read_info(tmp_path / "a.tif").notes


def test_unmarked_pyramids_are_said(tmp_path: Path) -> None:
    levels = [draw(256, 192), draw(128, 96)]
    write_plain(tmp_path / "a.tif", levels, tile=(32, 32))
    check_images(tmp_path / "a.tif", levels[:1])
    with open_source(tmp_path / "a.tif") as source:
        assert source.levels == ((256, 192), (128, 96))
        assert source.notes == ("its smaller images are read as a pyramid of the largest",)
    assert read_info(tmp_path / "a.tif").notes == source.notes
    for read in (read_image, read_labels):
        notices = Notices()
        read(tmp_path / "a.tif", notices=notices)
        assert notices.notes() == [f"note: {tmp_path / 'a.tif'}: {source.notes[0]}."]


@pytest.mark.parametrize(("width", "copy"), [(94, False), (95, True), (97, True), (98, False)])
def test_only_an_image_of_the_same_proportions_is_a_reduced_copy(width: int, copy: bool, tmp_path: Path) -> None:
    """The smaller image would be 96 pixels wide; either side of a copy may have been rounded up or down."""
    images = [draw(256, 192), draw(128, width)]
    write_plain(tmp_path / "a.tif", images, tile=(32, 32))
    check_images(tmp_path / "a.tif", images[:1] if copy else images)


def make_ome_xml(images: list[list[tuple[str, str]]], uuid: str = "urn:uuid:1") -> str:
    """Return OME-XML of images of 20 x 30 pixels; each plane is in (UUID, file)."""
    parts = []
    for number, planes in enumerate(images):
        data = "".join(
            f'<TiffData IFD="{i}" FirstZ="{i}" FirstC="0" FirstT="0" PlaneCount="1">'
            f"<UUID FileName={quoteattr(name)}>{one}</UUID></TiffData>"
            for i, (one, name) in enumerate(planes)
        )
        parts.append(
            f'<Image ID="Image:{number}" Name="position {number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYZCT" '
            f'Type="uint8" SizeX="30" SizeY="20" SizeZ="{len(planes)}" SizeC="1" SizeT="1" PhysicalSizeX="{number + 1}"'
            f' PhysicalSizeY="{number + 1}"><Channel ID="C:{number}" SamplesPerPixel="1"/>{data}</Pixels></Image>'
        )
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    root = f' UUID="{uuid}"' if uuid else ""
    inside = f'<Instrument ID="Instrument:0"/>{"".join(parts)}'
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{schema}"{root}>{inside}</OME>'


def write_with_xml(path: Path, array: NDArray[Any], xml: str) -> None:
    tifffile.imwrite(path, array, metadata=None, description=xml.encode(), photometric="minisblack")


OWN, OTHER = ("urn:uuid:1", "a.ome.tif"), ("urn:uuid:2", "b.ome.tif")


@pytest.mark.parametrize("planes", [[OWN, OTHER], [OTHER, OTHER]])
def test_planes_in_another_file_are_refused_by_its_name(planes: list[tuple[str, str]], tmp_path: Path) -> None:
    array = draw(2, 20, 30)
    write_with_xml(tmp_path / "a.ome.tif", array[0], make_ome_xml([planes]))
    write_with_xml(tmp_path / "b.ome.tif", array[1], make_ome_xml([planes], "urn:uuid:2"))
    expected = r"planes of the image are in other files \(b\.ome\.tif\)\. Save the image as one OME-TIFF file"
    for call in (read_info, read_image, open_source, count_images):
        with pytest.raises(InputError, match=expected):
            call(tmp_path / "a.ome.tif")


def test_a_part_without_metadata_names_the_file_that_has_it(tmp_path: Path) -> None:
    xml = make_ome_xml([]).replace("</OME>", '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:7"/></OME>')
    write_with_xml(tmp_path / "a.ome.tif", draw(20, 30), xml)
    for call in (read_info, open_source):
        with pytest.raises(InputError, match=r"a part of the image that set\.companion\.ome describes"):
            call(tmp_path / "a.ome.tif")


def test_images_in_other_files_are_left_to_them(tmp_path: Path) -> None:
    array = draw(2, 20, 30)
    write_with_xml(tmp_path / "a.ome.tif", array, make_ome_xml([[OTHER, OTHER], [OWN, OWN]]))
    check_images(tmp_path / "a.ome.tif", [array])
    info = read_info(tmp_path / "a.ome.tif")
    assert (info.page_axes, info.pixel_size_um) == ("Z", (2, 2))


@pytest.mark.parametrize("uuid", ["urn:uuid:1", ""])
@pytest.mark.parametrize("planes", [1, 2])
def test_a_renamed_file_is_read(planes: int, uuid: str, tmp_path: Path) -> None:
    array = draw(planes, 20, 30)
    write_with_xml(tmp_path / "renamed.ome.tif", array, make_ome_xml([[OWN] * planes], uuid))
    check_images(tmp_path / "renamed.ome.tif", [array if planes > 1 else array[0]])
    assert read_info(tmp_path / "renamed.ome.tif").image == 0


def test_missing_planes_are_an_error(tmp_path: Path) -> None:
    write_with_xml(tmp_path / "a.ome.tif", draw(2, 20, 30), make_ome_xml([[OWN, OWN, OWN]]))
    with pytest.raises(InputError, match="plane 2 is missing from the file"):
        read_image(tmp_path / "a.ome.tif", 2)
    with open_source(tmp_path / "a.ome.tif") as source:
        source.read((0, 2), (0, 2), z=1)
        with pytest.raises(InputError, match="plane 2 is missing from the file"):
            source.read((0, 2), (0, 2), z=2)


def test_metadata_that_does_not_fit_is_said(tmp_path: Path) -> None:
    array = draw(20, 31)
    write_with_xml(tmp_path / "a.ome.tif", array, make_ome_xml([[OWN]]))
    check_images(tmp_path / "a.ome.tif", [array])
    assert read_info(tmp_path / "a.ome.tif").notes == (
        "its OME metadata does not fit its pages, which are read without it",
    )
