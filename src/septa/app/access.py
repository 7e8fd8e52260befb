"""Which requests the server answers: checks of host, origin and tokens, and the headers of every answer."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .uploads import MOST_BYTES as MOST_UPLOAD

TOKEN_HEADER = "X-Septa-Token"
"""Header of requests that change something; only pages of this server can read its value."""
COOKIE = "septa"
MOST_BYTES = 2_000_000
"""Largest body of a request, other than a file."""
UPLOAD = "/api/files/"
"""Beginning of the addresses that receive a file."""
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_ANY = ("0.0.0.0", "::", "[::]")

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """The rules of access to the server.

    Attributes
    ----------
    hosts
        Values of the header ``Host`` that are answered, each ``NAME:PORT``; None for all, which needs a token.
    token
        Token that a browser must show once; None for none.
    page_token
        Value of `TOKEN_HEADER`.
    """

    hosts: frozenset[str] | None
    token: str | None = None
    page_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @classmethod
    def make(cls, host: str, port: int, token: str | None) -> Access:
        """Return the access of a server that is bound to a host and a port."""
        name = f"[{host}]" if ":" in host and not host.startswith("[") else host
        if name in _ANY:
            return cls(hosts=None, token=token)
        names = {*_LOCAL, name} if name in _LOCAL else {name}
        return cls(hosts=frozenset(f"{each}:{port}".lower() for each in names), token=token)

    def is_known(self, given: str | None) -> bool:
        """Compare a token in constant time; True if none is needed."""
        return self.token is None or (given is not None and _equal(given, self.token))


class Gate:
    """A layer before the application that refuses requests of strangers.

    Parameters
    ----------
    app
        The application.
    access
        Who may use it.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    own[name] = value
                own.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refuse(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send_safely)
            return
        limit = MOST_UPLOAD if scope["path"].startswith(UPLOAD) else MOST_BYTES
        await self._app(scope, _limit(receive, limit), send_safely)

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the answer to a request that is refused, or that shows the token; None for all others."""
        hosts, host = headers.getlist("host"), headers.get("host", "").lower()
        if len(hosts) != 1 or (self._access.hosts is not None and host not in self._access.hosts):
            return _deny(421, "the address is not one of this server", "Open the address that septa app has printed")
        origins = headers.getlist("origin")
        if any(origin.lower() != f"http://{host}" for origin in origins):
            return _deny(403, "the request comes from another site", "Use the page of septa app")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            is_visit = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
            if not is_visit:
                return _deny(403, "the request comes from another site", "Use the page of septa app")
        if self._access.token is not None and (answer := self._ask_token(scope, headers)) is not None:
            return answer
        if scope["method"] not in ("GET", "HEAD") and not _equal(
            headers.get(TOKEN_HEADER, ""), self._access.page_token
        ):
            problem = f"the header {TOKEN_HEADER} is missing or out of date"
            return _deny(403, problem, "Reload the page")
        length = headers.get("content-length", "0")
        if scope["path"].startswith(UPLOAD):
            if not length.isdecimal() or int(length) > MOST_UPLOAD:
                return _deny(413, f"the file is larger than {MOST_UPLOAD} bytes", "Copy it into the folder instead")
        elif not length.isdecimal() or int(length) > MOST_BYTES:
            return _deny(413, f"the request is larger than {MOST_BYTES} bytes", "Send less")
        return None

    def _ask_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Check the token of a cookie or of ``Authorization``; take one from the address of the page."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = _read_cookie(headers.get("cookie", ""))
        if self._access.is_known(cookie) or (scheme.lower() == "bearer" and self._access.is_known(bearer)):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[0]
        if scope["method"] == "GET" and scope["path"] == "/" and given and self._access.is_known(given):
            answer = RedirectResponse("/", 303)
            assert self._access.token is not None
            answer.set_cookie(COOKIE, self._access.token, httponly=True, samesite="strict", path="/")
            return answer
        return _deny(401, "the token is missing or wrong", "Open http://HOST:PORT/?token=TOKEN once in this browser")


def _read_cookie(text: str) -> str | None:
    try:
        found = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


def _equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode("utf-8"))


def _deny(status: int, problem: str, remedy: str) -> Response:
    return JSONResponse({"error": f"{problem}. {remedy}."}, status)


def _limit(receive: Receive, most: int) -> Receive:
    """Return a receiver that ends a body that is too large, also if its length was not declared."""
    seen = 0

    async def take() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            return {"type": "http.disconnect"}
        return message

    return take
