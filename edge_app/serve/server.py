"""The server: one thread with an event loop for every client.

A client that is slow, or one of hundreds, costs a socket and not a thread, and what it does not
take in time is left out: a stream always goes on with the newest. Answers together may use a share
of one core; beyond that they wait, the pipeline does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.serve.http import (
    LARGEST_HEAD,
    BadRequest,
    Request,
    Response,
    is_known_host,
    read_request,
)
from edge_app.serve.hub import Hub
from edge_app.serve.routes import Routes
from edge_app.serve.streams import Stream

LOOPBACK = "127.0.0.1"
MOST_CONNECTIONS = 256
MOST_STREAMS = 224
"""Of the connections, those that stay open; the rest is for whoever asks once."""
SEND_S = 10.0
"""A client that takes nothing for so long is gone."""
SHARE = 0.15
"""Of one core, for all answers together."""
BURST_S = 0.3
"""Seconds of CPU time that may be used at once."""
PULSE_S = 0.5
LINGER_S, LINGER_READS = 2.0, 64
BUFFER = 1 << 16

log = logging.getLogger(__name__)


class Budget:
    """CPU time for answers: whoever asks for more than there is waits."""

    def __init__(
        self,
        share: float = SHARE,
        burst_s: float = BURST_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._burst_s = burst_s
        self._left_s = burst_s
        self._now = now
        self._at = now()

    def wait_s(self) -> float:
        """Seconds until something may be done again; 0: now."""
        now = self._now()
        self._left_s = min(self._burst_s, self._left_s + (now - self._at) * self._share)
        self._at = now
        return max(0.0, -self._left_s / self._share)

    def use(self, seconds: float) -> None:
        """Something took so much CPU time."""
        self._left_s -= seconds


def parse_address(text: str) -> tuple[str, int]:
    """Host and port from ``HOST:PORT``, ``[ADDRESS]:PORT``, ``:PORT`` or ``PORT``; loopback where no
    host is given. AppError (exit code 2) if it is none of these."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    well_formed = "[" not in host and ("[" in text) == (":" in host)
    if not well_formed or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise AppError(
            f"--serve {text}: must be HOST:PORT, as 127.0.0.1:9188, [::1]:9188, or :9188 for this "
            "machine only",
            EXIT_USAGE,
        )
    return host or LOOPBACK, int(port)


def own_names(host: str) -> frozenset[str]:
    """Names under which this machine may be asked, besides its addresses."""
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, f"{name}.local", name.partition(".")[0], host.lower()})


class Page:
    """The running server. ``url``: where the page is; ``token``: what changes need; ``open``:
    whether other machines can reach it. A random token is made where none is given."""

    def __init__(self, hub: Hub, listener: socket.socket, host: str, token: str | None) -> None:
        self._hub = hub
        self._listener = listener
        self._names = own_names(host)
        self._budget = Budget()
        self._connections: set[asyncio.StreamWriter] = set()
        self._streams = 0
        self._ended: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        address, self.port = listener.getsockname()[:2]
        self.made_token = not token
        self.token = token or secrets.token_urlsafe(12)
        self.open = not ipaddress.ip_address(address).is_loopback
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/"
        self._thread = threading.Thread(target=self._run, name="serve", daemon=True)
        self._thread.start()
        self._ready.wait()

    def greeting(self) -> str:
        """What to print when it runs."""
        lines = [f"page {self.url}"]
        if self.made_token:
            lines[0] += f" | token for changes: {self.token}"
        if self.open:
            lines.append("everybody who can reach this machine sees the picture")
        return "\n".join(lines)

    def close(self) -> None:
        """Close every connection and end the thread. Safe to call twice."""
        if self._loop is not None and self._ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            # The cameras go on without the page; the watchdog and /metrics tell.
            log.exception("the page has stopped")
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        routes = Routes(self._hub, self.token)
        pulse = asyncio.create_task(self._pulse(routes))

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # At the end of the loop: asyncio complains about connections that are cancelled.
            with contextlib.suppress(asyncio.CancelledError):
                await self._client(routes, reader, writer)

        server = await asyncio.start_server(
            client, sock=self._listener, limit=LARGEST_HEAD, backlog=128
        )
        self._ready.set()
        await self._ended.wait()
        pulse.cancel()
        server.close()
        for writer in tuple(self._connections):
            writer.transport.abort()
        routes.close()

    async def _pulse(self, routes: Routes) -> None:
        while True:
            try:
                self._hub.pulse()
                routes.pulse()
            except Exception:
                log.exception("the page's curves have a gap")
            await asyncio.sleep(PULSE_S)

    async def _client(
        self, routes: Routes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection, from its first request to its end."""
        if len(self._connections) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(writer)
        # What waits to be sent is bounded; beyond it `drain` waits for the client.
        writer.transport.set_write_buffer_limits(high=BUFFER)
        try:
            while await self._one(routes, reader, writer):
                pass
        except OSError:
            pass  # the client is gone, or takes nothing in time
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _one(
        self, routes: Routes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether another may follow."""
        request: Request | None = None
        try:
            request = await read_request(reader)
            if request is None:
                return False
            answer = await self._answer(routes, request)
        except BadRequest as error:
            answer = Response.text(error.status, error.text)
            await self._refuse(answer, reader, writer)
            return False
        except Exception:
            log.exception("a request could not be answered")
            await self._refuse(Response.text(500, "this is a bug"), reader, writer)
            return False
        if isinstance(answer, Stream):
            await self._stream(answer, writer)
            return False
        whole = answer.head(request.keep)
        if request.method != "HEAD":
            whole += answer.body
        writer.write(whole)
        await asyncio.wait_for(writer.drain(), SEND_S)
        return request.keep

    async def _refuse(
        self, answer: Response, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send a last answer, and take in for a moment what the client still sends: a connection
        that is closed before would take the answer with it."""
        writer.write(answer.head(False) + answer.body)
        writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                for _ in range(LINGER_READS):
                    if not await reader.read(BUFFER):
                        break

    async def _answer(self, routes: Routes, request: Request) -> Response | Stream:
        if not is_known_host(request.headers.get("host"), self._names):
            raise BadRequest(
                421, "this machine is not called that; ask by its address, or by its own name"
            )
        # Health is cheap, and whoever restarts the program for it must not be kept waiting.
        if request.path != "/healthz":
            await self._afford()
        started = time.thread_time()
        try:
            answer = routes.answer(request)
        finally:
            self._budget.use(time.thread_time() - started)
        return answer if isinstance(answer, Response | Stream) else await answer

    async def _afford(self) -> None:
        """Wait until there is CPU time for another answer."""
        while (wait_s := self._budget.wait_s()) > 0:
            await asyncio.sleep(wait_s)

    async def _stream(self, stream: Stream, writer: asyncio.StreamWriter) -> None:
        """Send a stream until its client goes away."""
        if self._streams >= MOST_STREAMS:
            answer = Response.text(503, f"{MOST_STREAMS} others watch already")
            answer.headers["Retry-After"] = "10"
            writer.write(answer.head(False) + answer.body)
            await asyncio.wait_for(writer.drain(), SEND_S)
            return
        self._streams += 1
        try:
            writer.write(stream.head())
            while not writer.is_closing():
                # Taken only when the client has taken the one before: the newest wins.
                part = await stream.next()
                await self._afford()
                started = time.thread_time()
                writer.write(part)
                self._budget.use(time.thread_time() - started)
                await asyncio.wait_for(writer.drain(), SEND_S)
        finally:
            self._streams -= 1


def open_page(hub: Hub, address: str, token: str | None = None) -> Page:
    """Serve ``hub`` at ``address`` (see ``parse_address``; port 0: any that is free) until ``close``.

    ``token``: what changes need; a random one if it is None or empty. AppError (exit code 2) if
    nobody can listen there.
    """
    host, port = parse_address(address)
    try:
        listener = _listen(host, port)
    except OSError as error:
        advice = "is another edge-app running? Choose another port"
        if error.errno != errno.EADDRINUSE:
            advice = "give an address of this machine, and a port that you may use"
        reason = error.strerror or str(error)
        raise AppError(f"--serve {address}: {reason}; {advice}", EXIT_USAGE) from None
    return Page(hub, listener, host, token)


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What the kernel keeps for a client that does not read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        listener.bind(place)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
