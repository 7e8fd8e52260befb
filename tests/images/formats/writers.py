"""Small files of microscope formats, written by hand after their specifications."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# --- CZI (Zeiss, ZISRAW 1.0) ---------------------------------------------------------------------

_CZI_TYPES = {"uint8": 0, "uint16": 1, "float32": 2}
_BGR24 = 3


def _segment(name: str, data: bytes) -> bytes:
    size = -(-len(data) // 32) * 32
    return struct.pack("<16sqq", name.encode(), size, len(data)) + data.ljust(size, b"\0")


def _entry(place: dict[str, tuple[int, int, int]], kind: int, position: int) -> bytes:
    head = struct.pack("<2siqiiBB4si", b"DV", kind, position, 0, 0, 0, 0, b"", len(place))
    sizes = [
        struct.pack("<4siifi", axis.encode(), start, size, 0, stored) for axis, (start, size, stored) in place.items()
    ]
    return head + b"".join(sizes)


def write_czi(path: Path, tiles: list[tuple[dict[str, int], Array]], xml: str = "", smaller: bool = False) -> None:
    """Write tiles, each with its place along X, Y and other axes and its pixels ``YX`` or, in colour, ``YXS``."""
    blocks: list[tuple[dict[str, tuple[int, int, int]], int, bytes]] = []
    for place, pixels in tiles:
        height, width = pixels.shape[:2]
        color = pixels.ndim == 3
        kind = _BGR24 if color else _CZI_TYPES[str(pixels.dtype)]
        data = np.ascontiguousarray(pixels[..., ::-1] if color else pixels).tobytes()
        sizes = {"X": (place["X"], width, width), "Y": (place["Y"], height, height)}
        sizes |= {axis: (start, 1, 1) for axis, start in place.items() if axis not in "XY"}
        blocks.append((sizes, kind, data))
        if smaller:
            half = {"X": (place["X"], width, width // 2), "Y": (place["Y"], height, height // 2)}
            blocks.append((sizes | half, kind, np.ascontiguousarray(pixels[::2, ::2]).tobytes()))
    parts, position = [b""], 32 + 512
    places: list[int] = []
    for sizes, kind, data in blocks:
        places.append(position)
        entry = _entry(sizes, kind, position)
        head = struct.pack("<iiq", 0, 0, len(data)) + entry
        parts.append(_segment("ZISRAWSUBBLOCK", head.ljust(max(256, 16 + len(entry)), b"\0") + data))
        position += len(parts[-1])
    directory = position
    entries = b"".join(_entry(sizes, kind, place) for (sizes, kind, _), place in zip(blocks, places, strict=True))
    parts.append(_segment("ZISRAWDIRECTORY", struct.pack("<i124x", len(blocks)) + entries))
    metadata = position + len(parts[-1])
    text = xml.encode()
    parts.append(_segment("ZISRAWMETADATA", struct.pack("<ii248x", len(text), 0) + text))
    header = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, b"", b"", 0, directory, metadata, 0, 0)
    parts[0] = _segment("ZISRAWFILE", header.ljust(512, b"\0"))
    path.write_bytes(b"".join(parts))


CZI_XML = (
    "<ImageDocument><Metadata><Scaling><Items>"
    '<Distance Id="X"><Value>2.5E-07</Value></Distance><Distance Id="Y"><Value>5E-07</Value></Distance>'
    '<Distance Id="Z"><Value>2E-06</Value></Distance></Items></Scaling>'
    '<Information><Image><Dimensions><Channels><Channel Id="0" Name="DAPI"/><Channel Id="1" Name="GFP"/>'
    "</Channels></Dimensions></Image></Information></Metadata></ImageDocument>"
)

# --- LIF (Leica, version 2) ----------------------------------------------------------------------

_LIF_AXES = {"X": 1, "Y": 2, "Z": 3, "T": 4}


def write_lif(path: Path, images: dict[str, tuple[str, Array]], um: float = 0.5) -> None:
    """Write images, each with its axes, the slowest first, such as ``TCYX``, and its pixels."""
    elements, blocks = "", b""
    for number, (name, (axes, pixels)) in enumerate(images.items()):
        channels = pixels.shape[axes.index("C")] if "C" in axes else 1
        strides = dict(zip(axes, pixels.strides, strict=True))
        bits = 8 * pixels.dtype.itemsize
        described = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{bits}" NameOfMeasuredQuantity="" Min="0" '
            f'Max="1" Unit="" LUTName="Gray" IsLUTInverted="0" BytesInc="{k * strides.get("C", 0)}" BitInc="0"/>'
            for k in range(channels)
        )
        sizes = "".join(
            f'<DimensionDescription DimID="{_LIF_AXES[axis]}" NumberOfElements="{size}" Origin="0" '
            f'Length="{(size - 1) * um * 1e-6}" Unit="m" BytesInc="{strides[axis]}" BitInc="0"/>'
            for axis, size in reversed(list(zip(axes, pixels.shape, strict=True)))
            if axis != "C"
        )
        elements += (
            f'<Element Name="{name}" UniqueID="{number}"><Data><Image><ImageDescription>'
            f"<Channels>{described}</Channels><Dimensions>{sizes}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{pixels.nbytes}" MemoryBlockID="MemBlock_{number}"/><Children/></Element>'
        )
        key = f"MemBlock_{number}".encode("utf-16-le")
        blocks += struct.pack("<IIBQBI", 0x70, 14 + len(key), 0x2A, pixels.nbytes, 0x2A, len(key) // 2) + key
        blocks += pixels.tobytes()
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project" UniqueID="p"><Data><Experiment/></Data>'
        f'<Memory Size="0" MemoryBlockID="MemBlock_p"/><Children>{elements}</Children></Element>'
        "</LMSDataContainerHeader>"
    ).encode("utf-16-le")
    path.write_bytes(struct.pack("<IIBI", 0x70, len(xml) + 5, 0x2A, len(xml) // 2) + xml + blocks)


# --- ND2 (Nikon, version 3) ----------------------------------------------------------------------

_MAGIC = 0x0ABECEDA
_TYPES = {bool: (1, "<?"), int: (3, "<I"), float: (6, "<d")}


def _encode_items(values: dict[str, Any]) -> bytes:
    """Encode nested values in the binary form of metadata (``LV``)."""
    parts = []
    for name, value in values.items():
        text = (name + "\0").encode("utf-16-le")
        if isinstance(value, dict):
            inner = _encode_items(value)
            head = struct.pack("<BB", 11, len(name) + 1) + text
            length = len(head) + 12 + len(inner)
            parts.append(head + struct.pack("<IQ", len(value), length) + inner + bytes(8 * len(value)))
        elif isinstance(value, str):
            parts.append(struct.pack("<BB", 8, len(name) + 1) + text + (value + "\0").encode("utf-16-le"))
        else:
            kind, form = _TYPES[type(value)]
            parts.append(struct.pack("<BB", kind, len(name) + 1) + text + struct.pack(form, value))
    return b"".join(parts)


def write_nd2(path: Path, axes: str, pixels: Array, um: float = 0.65) -> None:
    """Write a stack whose loops, such as ``PTZ``, come first, and whose last axes are C, Y and X."""
    loops = dict(zip(axes, pixels.shape, strict=True))
    channels, height, width = pixels.shape[-3:]
    frames = pixels.reshape(-1, channels, height, width)
    kinds = {"T": (1, {"dStart": 0.0, "dPeriod": 1000.0, "dDuration": 1000.0}), "P": (2, {}), "Z": (4, {"dZStep": 2.0})}
    experiment: dict[str, Any] = {}
    for axis in reversed([axis for axis in axes if axis in kinds]):
        kind, more = kinds[axis]
        level: dict[str, Any] = {"eType": kind, "uLoopPars": {"uiCount": loops[axis], **more}}
        if axis == "P":
            level["uLoopPars"]["Points"] = {
                f"i{k}": {"dPosX": 0.0, "dPosY": 0.0, "dPosZ": 0.0} for k in range(loops[axis])
            }
        if experiment:
            level["ppNextLevelEx"] = {"i0": experiment}
            level["uiNextLevelCount"] = 1
        experiment = level
    bits = 8 * pixels.dtype.itemsize
    attributes = {
        "uiWidth": width,
        "uiWidthBytes": width * channels * pixels.dtype.itemsize,
        "uiHeight": height,
        "uiComp": channels,
        "uiBpcInMemory": bits,
        "uiBpcSignificant": bits,
        "uiSequenceCount": len(frames),
        "eCompression": 2,
        "dCompressionParam": 0.0,
        "uiTileWidth": width,
        "uiTileHeight": height,
    }
    planes = {
        f"a{k}": {
            "uiCompCount": 1,
            "uiSampleIndex": 0,
            "sDescription": f"dye {k}",
            "pFluorescentProbe": {"m_sName": "x"},
        }
        for k in range(channels)
    }
    picture = {
        "dCalibration": um,
        "bCalibrated": True,
        "sPicturePlanes": {"uiCount": channels, "uiSampleCount": 1, "uiCompCount": channels, "sPlaneNew": planes},
    }
    chunks: dict[bytes, bytes] = {
        b"ImageAttributesLV!": _encode_items({"SLxImageAttributes": attributes}),
        b"ImageMetadataSeqLV|0!": _encode_items({"SLxPictureMetadata": picture}),
    }
    if experiment:
        chunks[b"ImageMetadataLV!"] = _encode_items({"SLxExperiment": experiment})
    for number, frame_cyx in enumerate(frames):
        inter = np.ascontiguousarray(np.moveaxis(frame_cyx, 0, 2)).tobytes()
        chunks[b"ImageDataSeq|%d!" % number] = struct.pack("<d", 10.0 * number) + inter  # the time, then pixels
    data = struct.pack("<IIQ32s64s", _MAGIC, 32, 64, b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0").ljust(4096, b"\0")
    index = b""
    for name, content in chunks.items():
        index += name + struct.pack("<QQ", len(data), len(content))
        padded = name.ljust(4072, b"\0") if name.startswith(b"ImageDataSeq") else name
        data += struct.pack("<IIQ", _MAGIC, len(padded), len(content)) + padded + content
        data = data.ljust(-(-len(data) // 64) * 64, b"\0")
    place = len(data)
    index += b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", place)
    name = b"ND2 FILEMAP SIGNATURE NAME 0001!"
    path.write_bytes(data + struct.pack("<IIQ", _MAGIC, len(name), len(index)) + name + index)
