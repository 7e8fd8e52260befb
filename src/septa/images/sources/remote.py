"""Read zarr images from web servers and S3 storage: anonymous, with limits of size and time, and tried again.

fsspec brings the connections: aiohttp for ``https://`` and ``http://``, and s3fs for ``s3://``. A request that fails,
takes too long or ends early is repeated. A file that the server says does not exist is a missing chunk; everything else
that goes wrong is an error.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from septa.errors import InputError, is_out_of_memory
from septa.images.sources.addresses import ForbiddenError, check_address

CONNECT_S = 10.0
"""Longest time to connect, seconds."""
READ_S = 30.0
"""Longest time without a byte, seconds."""
PAUSES_S = (0.25, 1.0, 4.0)
"""Pauses before a failed request is tried again, seconds."""
_THREADS = 8
_KEPT_BYTES = 2**26
_PACKAGES = {"http": ("fsspec", "aiohttp"), "https": ("fsspec", "aiohttp"), "s3": ("fsspec", "s3fs")}
_REMEDY = "Check the address and the connection, and run the same command again"
_BUSY = (408, 425, 429)
_FORBIDDEN = "the server does not let everyone read it"
_SAFE = "/%:@!$&'()*+,;=~"


def open_address(address: str) -> RemotePlace:
    """Return the place of an address; nothing is requested yet.

    Raises
    ------
    InputError
        If the address is not valid, or packages are not installed.
    """
    check_address(address)
    protocol, rest = address.split("://", 1)
    protocol = protocol.lower()
    missing = [name for name in _PACKAGES[protocol] if find_spec(name) is None]
    if missing:
        problem = f"{protocol}:// needs {' and '.join(missing)}, which septa does not install by itself"
        raise InputError(address, problem, "Run pip install 'septa[remote]'")
    server, _, path = rest.partition("/")
    return RemotePlace(_Server(protocol, server), quote(path.strip("/"), safe=_SAFE))


class RemotePlace:
    """A file or folder at an address."""

    threads = _THREADS

    def __init__(self, server: _Server, key: str) -> None:
        self._server = server
        self._key = key

    @property
    def location(self) -> str:
        """The address."""
        return f"{self._server.protocol}://{self._server.name}/{self._key}"

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self._key.rpartition("/")[2]

    @property
    def parents(self) -> list[RemotePlace]:
        """Folders around the place on the same server."""
        parts = self._key.split("/")
        return [RemotePlace(self._server, "/".join(parts[:count])) for count in range(len(parts) - 1, 0, -1)]

    def __truediv__(self, name: str) -> RemotePlace:
        """Return a place inside this folder; names are quoted as an address needs it."""
        return RemotePlace(self._server, f"{self._key}/{quote(name)}".removesuffix("/."))

    def open_file(self) -> _RemoteFile:
        """Return the file; nothing is requested yet."""
        return _RemoteFile(self._server, self._key)

    def list_names(self) -> list[str]:
        """Return no names: web servers do not list folders in any common way."""
        return []

    def list_versions(self, keys: Iterator[str]) -> Iterator[Path]:
        """Yield no files: a request for each chunk would take too long."""
        return iter(())

    def close(self) -> None:
        """Forget what is kept; connections end with the process."""
        self._server.forget()


class _RemoteFile:
    """A file at an address."""

    def __init__(self, server: _Server, key: str) -> None:
        self._server = server
        self._key = key

    def __enter__(self) -> _RemoteFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    @property
    def size(self) -> int:
        return self._server.find_size(self._key)

    def read(self, begin: int, count: int, *, keep: bool = False) -> bytes:
        return self._server.read(self._key, begin, count, keep=keep)


class _Server:
    """A web server or a bucket, and small parts of its files that are read again and again."""

    def __init__(self, protocol: str, name: str) -> None:
        self.protocol = protocol
        self.name = name
        self._sizes: dict[str, int] = {}
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Forget all parts and sizes."""
        with self._lock:
            self._kept.clear()
            self._sizes.clear()

    def read(self, key: str, begin: int, count: int, *, keep: bool) -> bytes:
        """Return a part of a file; see `septa.images.sources.places.ZarrFile.read`."""
        part = key, begin, count
        with self._lock:
            if (found := self._kept.get(part)) is not None:
                self._kept.move_to_end(part)
                return found
        data: bytes = self._repeat(key, lambda: self._fetch(key, begin, count))[0]
        if keep and len(data) <= _KEPT_BYTES // 8:
            with self._lock:
                self._kept[part] = data
                while sum(map(len, self._kept.values())) > _KEPT_BYTES:
                    self._kept.popitem(last=False)
        return data

    def find_size(self, key: str) -> int:
        """Return the size of a file in bytes."""
        if key not in self._sizes:
            size = self._repeat(key, lambda: self._ask_size(key))
            if size is None:
                raise InputError(self._show(key), "the server does not state the size of this file", _REMEDY)
            self._sizes[key] = int(size)
        return self._sizes[key]

    def _ask_size(self, key: str) -> int | None:
        if self.protocol == "s3":
            return int(_connect("s3").call_s3("head_object", Bucket=self.name, Key=unquote(key))["ContentLength"])
        return self._fetch(key, 0, 1)[1]

    def _show(self, key: str) -> str:
        return f"{self.protocol}://{self.name}/{key}"

    def _fetch(self, key: str, begin: int, count: int) -> tuple[bytes, int | None]:
        """Return a part of a file, and the size of the file if the answer states it."""
        files = _connect(self.protocol)
        if self.protocol == "s3":
            return _get_from_s3(files, f"{self.name}/{unquote(key)}", begin, count), None
        from fsspec.asyn import sync

        found: tuple[bytes, int | None] = sync(files.loop, _get, files, self._show(key), begin, count)
        return found

    def _repeat(self, key: str, request: Any) -> Any:
        """Return the answer to a request, which is repeated as long as it fails for a reason that may pass.

        Raises
        ------
        FileNotFoundError
            The server says that there is no such file.
        InputError
            The file cannot be read, also after all attempts.
        """
        for pause in (*PAUSES_S, None):
            try:
                return request()
            except (FileNotFoundError, InputError):
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                reason, may_pass = _explain(error)
                if reason == _FORBIDDEN:
                    raise ForbiddenError(self._show(key), f"the file cannot be read ({reason})", _REMEDY) from error
                if pause is None or not may_pass:
                    times = f", {len(PAUSES_S) + 1} times" if pause is None and may_pass else ""
                    raise InputError(self._show(key), f"the file cannot be read ({reason}{times})", _REMEDY) from error
                time.sleep(pause)
        raise AssertionError


class _ShortAnswerError(OSError):
    """An answer that ends before the length that it states."""


async def _get(files: Any, url: str, begin: int, count: int) -> tuple[bytes, int | None]:
    """Return at most ``count`` bytes of a file from ``begin``, and its size if the server states it.

    Never more bytes are held, whatever the server sends.
    """
    from yarl import URL

    session = await files.set_session()
    headers = {"Range": f"bytes={begin}-{begin + count - 1}", "Accept-Encoding": "identity"}
    async with session.get(URL(url, encoded=True), headers=headers, proxy=_find_proxy(url)) as answer:
        if answer.status == 416:  # the file ends before this part
            return b"", None
        if answer.status in (404, 410):
            raise FileNotFoundError(url)
        answer.raise_for_status()
        is_part = answer.status == 206
        stated = answer.headers.get("Content-Range", "").rpartition("/")[2] if is_part else answer.content_length
        size = int(stated) if str(stated).isdecimal() else None
        # A server that knows no parts sends the whole file.
        skip, data = (0 if is_part else begin), bytearray()
        async for piece in answer.content.iter_chunked(2**18):
            dropped = min(skip, len(piece))
            skip -= dropped
            data += piece[dropped : dropped + count - len(data)]
            if len(data) == count:
                break
    if size is not None and len(data) < min(count, size - begin):
        raise _ShortAnswerError
    return bytes(data), size


def _find_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for an address."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _get_from_s3(files: Any, path: str, begin: int, count: int) -> bytes:
    try:
        return bytes(files.cat_file(path, start=begin, end=begin + count))
    except OSError as error:
        answer = getattr(error.__cause__, "response", {})
        if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:  # the file ends before this part
            return b""
        raise


def _explain(error: Exception) -> tuple[str, bool]:
    """Return the reason of a failed request in septa's words, and True if it may pass."""
    status = getattr(error, "status", None)
    if status is None:
        status = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
    if isinstance(error, PermissionError) or status in (401, 403):
        return _FORBIDDEN, False
    if isinstance(status, int) and 300 <= status < 600:
        return f"the server answers with status {status}", status >= 500 or status in _BUSY
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "TimeoutError" in kinds:
        return "the server does not answer in time", True
    if kinds & {"ClientPayloadError", "_ShortAnswerError", "ServerDisconnectedError", "ConnectionResetError"}:
        return "the connection ends early", True
    return "there is no connection to the server", True


@cache
def _connect(protocol: str) -> Any:
    """Return the file system of fsspec for a protocol, which keeps its connections."""
    import fsspec

    options = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol == "s3":
        limits = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": {"max_attempts": 1}}
        return fsspec.filesystem("s3", anon=True, config_kwargs=limits, **options)
    import aiohttp

    limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
    return fsspec.filesystem(protocol, client_kwargs={"timeout": limit}, **options)
