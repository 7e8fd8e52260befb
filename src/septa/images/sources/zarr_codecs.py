"""Compressors of zarr chunks: a fixed list, each bounded by the size that the chunk must have."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs

Codec = Callable[[bytes, int], bytes]
"""Takes compressed bytes and the most bytes that they may become, gives them decompressed."""

_LZMA_BYTES = 2**30


def _blosc(data: bytes, size: int) -> bytes:
    # Its header states the sizes; blosc trusts them.
    plain, packed = (int.from_bytes(data[start : start + 4], "little") for start in (4, 12))
    if len(data) < 16 or plain > size or packed > len(data):
        raise ValueError("a blosc chunk is cut short or of another size")
    return bytes(imagecodecs.blosc_decode(data, out=plain))


def _zstd(data: bytes, size: int) -> bytes:
    return bytes(imagecodecs.zstd_decode(data, out=size))


def _lz4(data: bytes, size: int) -> bytes:
    # numcodecs puts the size, 4 bytes, before the block.
    return bytes(imagecodecs.lz4_decode(data[4:], out=size))


def _zlib(data: bytes, size: int) -> bytes:
    # wbits + 32: zlib or gzip, detected from the header of the data.
    return _decompress_bounded(zlib.decompressobj(wbits=32 + zlib.MAX_WBITS), data, size)


def _bz2(data: bytes, size: int) -> bytes:
    return _decompress_bounded(bz2.BZ2Decompressor(), data, size)


def _lzma(data: bytes, size: int) -> bytes:
    return _decompress_bounded(lzma.LZMADecompressor(memlimit=_LZMA_BYTES), data, size)


def _decompress_bounded(stream: Any, data: bytes, size: int) -> bytes:
    plain: bytes = stream.decompress(data, size + 1)
    if not stream.eof:
        raise ValueError("the compressed data end early or are too many")
    return plain


def check_crc32c(data: bytes, size: int = 0) -> bytes:
    """The data without the CRC-32C behind them, which must be theirs."""
    import google_crc32c

    plain, stated = data[:-4], int.from_bytes(data[-4:], "little")
    if google_crc32c.value(plain) != stated:
        raise ValueError("a checksum differs")
    return plain


_V2: dict[str, Codec] = {
    "blosc": _blosc,
    "zstd": _zstd,
    "lz4": _lz4,
    "zlib": _zlib,
    "gzip": _zlib,
    "bz2": _bz2,
    "lzma": _lzma,
}
_V3: dict[str, Codec] = {"blosc": _blosc, "zstd": _zstd, "gzip": _zlib, "crc32c": check_crc32c}


def find_codec_v2(compressor: Any) -> tuple[Codec, ...]:
    """Decoder of a zarr 2 ``compressor``; ValueError for one that is not on the list."""
    if compressor is None:
        return ()
    return (_find_codec(_V2, compressor["id"]),)


def parse_codecs_v3(chain: Any, axes: int) -> tuple[tuple[int, ...], bool, tuple[Codec, ...]]:
    """Order of the stored axes, whether bytes are big-endian, and the decoders of bytes, first to run first."""
    order, big, seen_bytes = tuple(range(axes)), False, False
    decoders: list[Codec] = []
    for codec in chain:
        name, settings = codec["name"], codec.get("configuration") or {}
        if name == "bytes" and not seen_bytes:
            seen_bytes, endian = True, settings.get("endian", "little")
            if endian not in ("little", "big"):
                raise ValueError(f"endian {endian!r:.20} cannot be read")
            big = endian == "big"
        elif name == "transpose" and not seen_bytes:
            turn = settings["order"]
            if not isinstance(turn, list) or sorted(turn) != list(range(axes)):
                raise ValueError(f"order {turn!r:.40} cannot be read")
            order = tuple(order[axis] for axis in turn)
        elif seen_bytes:
            decoders.insert(0, _find_codec(_V3, name))
        else:
            raise ValueError(f"codec {name!r:.40} cannot be read")
    if not seen_bytes:
        raise ValueError("codecs without bytes cannot be read")
    return order, big, tuple(decoders)


def limit_packed_size(size: int) -> int:
    """More bytes than ``size`` bytes can sensibly become by packing."""
    return size + size // 2 + 2**16


def decompress(data: bytes, codecs: tuple[Codec, ...], size: int) -> bytes:
    """Run the decoders; ValueError unless they give exactly ``size`` bytes."""
    for step, codec in enumerate(codecs, 1):
        data = codec(data, size if step == len(codecs) else limit_packed_size(size))
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes in place of {size}")
    return data


def _find_codec(table: dict[str, Codec], name: Any) -> Codec:
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"codec {name!r:.40} cannot be read")
    return table[name]
