"""Decompress zarr chunks, with a fixed list of compressors; no chunk becomes larger than its metadata promises."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs

from septa.images._info import DamagedDataError

Codec = Callable[[bytes, int], bytes]
"""Function from compressed bytes, and the most bytes that they may become, to decompressed bytes."""

_LZMA_BYTES = 2**30


class UnsupportedMetadataError(Exception):
    """Zarr metadata that septa does not read; its text names the entry and may be shown to the user."""


def _decode_blosc(data: bytes, size: int) -> bytes:
    # Blosc trusts the sizes in its header, so they are checked first.
    plain, packed = (int.from_bytes(data[start : start + 4], "little") for start in (4, 12))
    if len(data) < 16 or plain > size or packed > len(data):
        raise DamagedDataError("a blosc chunk is cut short or has another size")
    return bytes(imagecodecs.blosc_decode(data, out=plain))


def _decode_zstd(data: bytes, size: int) -> bytes:
    return bytes(imagecodecs.zstd_decode(data, out=size))


def _decode_lz4(data: bytes, size: int) -> bytes:
    # The block follows its size of 4 bytes, as numcodecs writes it.
    return bytes(imagecodecs.lz4_decode(data[4:], out=size))


def _decode_zlib(data: bytes, size: int) -> bytes:
    # wbits + 32: zlib or gzip, detected from the header of the data.
    return _decompress_bounded(zlib.decompressobj(wbits=32 + zlib.MAX_WBITS), data, size)


def _decode_bz2(data: bytes, size: int) -> bytes:
    return _decompress_bounded(bz2.BZ2Decompressor(), data, size)


def _decode_lzma(data: bytes, size: int) -> bytes:
    return _decompress_bounded(lzma.LZMADecompressor(memlimit=_LZMA_BYTES), data, size)


def _decompress_bounded(stream: Any, data: bytes, size: int) -> bytes:
    plain: bytes = stream.decompress(data, size + 1)
    if not stream.eof:
        raise DamagedDataError("the compressed data ends early or is too long")
    return plain


def check_crc32c(data: bytes, size: int = 0) -> bytes:
    """Return data without the CRC-32C that follows it, after comparing the two."""
    import google_crc32c

    plain = data[:-4]
    stated = int.from_bytes(data[-4:], "little")
    if google_crc32c.value(plain) != stated:
        raise DamagedDataError("a checksum does not match")
    return plain


_V2: dict[str, Codec] = {
    "blosc": _decode_blosc,
    "zstd": _decode_zstd,
    "lz4": _decode_lz4,
    "zlib": _decode_zlib,
    "gzip": _decode_zlib,
    "bz2": _decode_bz2,
    "lzma": _decode_lzma,
}
_V3: dict[str, Codec] = {"blosc": _decode_blosc, "zstd": _decode_zstd, "gzip": _decode_zlib, "crc32c": check_crc32c}


def find_codec_v2(compressor: Any) -> tuple[Codec, ...]:
    """Return the decoder of a zarr 2 ``compressor``, as a tuple of none or one.

    Raises
    ------
    UnsupportedMetadataError
        If the compressor is not on the list.
    """
    if compressor is None:
        return ()
    return (_find_codec(_V2, compressor["id"]),)


def parse_codecs_v3(chain: Any, axes: int) -> tuple[tuple[int, ...], bool, tuple[Codec, ...]]:
    """Parse the codecs of a zarr 3 array.

    Returns
    -------
    order
        Order of the stored axes.
    big
        True if bytes are big-endian.
    decoders
        Decoders of bytes, in the order in which they run.

    Raises
    ------
    UnsupportedMetadataError
        If a codec is not on the list.
    """
    order = tuple(range(axes))
    big = False
    seen_bytes = False
    decoders: list[Codec] = []
    for codec in chain:
        name = codec["name"]
        settings = codec.get("configuration") or {}
        if name == "bytes" and not seen_bytes:
            seen_bytes = True
            endian = settings.get("endian", "little")
            if endian not in ("little", "big"):
                raise UnsupportedMetadataError(f"endian {endian!r:.20}")
            big = endian == "big"
        elif name == "transpose" and not seen_bytes:
            turn = settings["order"]
            if not isinstance(turn, list) or sorted(turn) != list(range(axes)):
                raise UnsupportedMetadataError(f"order {turn!r:.40}")
            order = tuple(order[axis] for axis in turn)
        elif seen_bytes:
            decoders.insert(0, _find_codec(_V3, name))
        else:
            raise UnsupportedMetadataError(f"codec {name!r:.40}")
    if not seen_bytes:
        raise UnsupportedMetadataError("codecs without bytes")
    return order, big, tuple(decoders)


def limit_packed_size(size: int) -> int:
    """Return an upper limit of the bytes that ``size`` bytes can become by compression."""
    return size + size // 2 + 2**16


def decompress(data: bytes, codecs: tuple[Codec, ...], size: int) -> bytes:
    """Run the decoders.

    Raises
    ------
    DamagedDataError
        If the result is not exactly ``size`` bytes long; damaged data may raise other exceptions too.
    """
    for step, codec in enumerate(codecs, 1):
        data = codec(data, size if step == len(codecs) else limit_packed_size(size))
    if len(data) != size:
        raise DamagedDataError(f"it has {len(data)} bytes, expected {size}")
    return data


def _find_codec(table: dict[str, Codec], name: Any) -> Codec:
    if not isinstance(name, str) or name not in table:
        raise UnsupportedMetadataError(f"codec {name!r:.40}")
    return table[name]
