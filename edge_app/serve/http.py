"""As much of HTTP/1.1 (RFC 9112) as the page needs, with limits on everything that a client sends."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

LARGEST_HEAD = 8192
"""Bytes of a request line with its headers."""
LARGEST_BODY = 1024
HEAD_S = 10.0
"""From a request's first byte to its last; a browser takes milliseconds."""
IDLE_S = 20.0
"""Between two requests of a connection."""

REASONS = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    421: "Misdirected Request",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

SECURITY = {
    # No inline script or style, nothing from elsewhere, and in nobody's frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class BadRequest(Exception):
    """What cannot be answered as asked; ``status`` says why. The connection is closed after it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Request:
    """``headers``: names in lower case. ``query``: the last value of each name."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep: bool


@dataclass
class Response:
    """``body`` with its type; ``headers`` on top of those of ``SECURITY``."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def text(cls, status: int, text: str) -> Response:
        """A line for people."""
        return cls(status, f"{text}\n".encode())

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Response:
        body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return cls(status, body, "application/json")

    def head(self, keep: bool) -> bytes:
        """The status line and the headers."""
        return head(
            self.status,
            {
                "Content-Type": self.content_type,
                "Content-Length": str(len(self.body)),
                "Connection": "keep-alive" if keep else "close",
                **self.headers,
            },
        )


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """A response's first part, with the headers that every response has."""
    every = {"Cache-Control": "no-store", **SECURITY, **headers}
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", *(f"{n}: {v}" for n, v in every.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None if there is none. BadRequest for what is too large,
    too slow, or not HTTP."""
    try:
        first = await asyncio.wait_for(reader.read(1), IDLE_S)
    except (TimeoutError, ConnectionError):
        return None
    if not first:
        return None
    try:
        async with asyncio.timeout(HEAD_S):
            text = first + await reader.readuntil(b"\r\n\r\n")
            request, length = parse(text)
            if length:
                await reader.readexactly(length)
            return request
    except asyncio.LimitOverrunError:
        raise BadRequest(431, f"the request's head has more than {LARGEST_HEAD} bytes") from None
    except TimeoutError:
        raise BadRequest(408, f"the request took more than {HEAD_S:g} s") from None
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def parse(text: bytes) -> tuple[Request, int]:
    """A request's head, and how many bytes of a body follow. BadRequest if it is none."""
    if len(text) > LARGEST_HEAD:
        raise BadRequest(431, f"the request's head has more than {LARGEST_HEAD} bytes")
    line, *rest = text.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(400, "not a request of HTTP/1.1")
    method, target, protocol = parts
    if not target.startswith("/") or not target.isprintable():
        raise BadRequest(400, "the request's target must be a path")
    headers: dict[str, str] = {}
    for entry in rest:
        name, colon, value = entry.partition(":")
        name = name.lower()
        # White space before the colon, or a folded line, is how requests are smuggled.
        if not colon or not name or name != name.strip() or not name.isprintable():
            raise BadRequest(400, "a header without a name")
        if name in headers and name in ("host", "content-length", "authorization"):
            raise BadRequest(400, f"more than one header {name}")
        headers[name] = value.strip()
    if "transfer-encoding" in headers:
        raise BadRequest(501, "a body must have a Content-Length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise BadRequest(400, "Content-Length is not a number")
    if len(length) > 9 or int(length) > LARGEST_BODY:
        raise BadRequest(413, f"a body may have {LARGEST_BODY} bytes")
    url = urlsplit(target)
    kept = headers.get("connection", "").lower()
    keep = "close" not in kept if protocol == "HTTP/1.1" else "keep-alive" in kept
    try:
        query = dict(parse_qsl(url.query, max_num_fields=32, errors="strict"))
        path = unquote(url.path, errors="strict")
    except ValueError:
        raise BadRequest(400, "the request's target is not text") from None
    return Request(method, path, query, headers, keep), int(length)


def is_known_host(value: str | None, names: frozenset[str]) -> bool:
    """Whether a Host header names this machine: one of ``names`` or any literal address.

    A page from elsewhere whose name was made to point here (DNS rebinding) sends its own name. It
    cannot be an address: then the page would be from there.
    """
    if not value:
        return False
    name = urlsplit(f"//{value}")
    try:
        host, _ = name.hostname, name.port
    except ValueError:
        return False
    if not host or name.username is not None or name.path:
        return False
    if host.rstrip(".") in names:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
