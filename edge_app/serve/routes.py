"""What is at which address."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable

from edge_app.serve import page, series
from edge_app.serve.health import health
from edge_app.serve.http import BadRequest, Request, Response
from edge_app.serve.hub import Hub
from edge_app.serve.metrics import CONTENT_TYPE, Metrics
from edge_app.serve.pictures import Pictures
from edge_app.serve.state import marks, state_of
from edge_app.serve.streams import EventStream, Panels, PictureStream, Stream
from edge_app.serve.whatif import WhatIf

WRONG_TOKEN_S = 0.5


Answer = Response | Stream | Awaitable[Response]


class Routes:
    """Answers requests from the hub. Belongs to the server's event loop."""

    def __init__(self, hub: Hub, token: str) -> None:
        self.hub = hub
        self.pictures = Pictures(hub)
        self._token = token
        self._metrics = Metrics(hub)
        self._what_if = WhatIf(hub)
        self._assets = page.assets()
        self._panels = Panels(hub)
        self._pulsed = asyncio.Event()
        self._get: dict[str, Callable[[Request], Answer]] = {
            "/": self._page,
            "/metrics": self._text_metrics,
            "/healthz": self._health,
            "/state.json": self._state,
            "/history.json": self._history,
            "/policy.toml": self._policy,
            "/picture.jpg": self._picture,
            "/picture.mjpg": lambda request: PictureStream(self.pictures),
            "/events": lambda request: EventStream(self.hub, self._panels, self.pulsed),
            "/what-if": self._ask,
        }
        self._post: dict[str, Callable[[Request], Answer]] = {"/-/reload": self._reload}

    def answer(self, request: Request) -> Answer:
        """BadRequest for what is not there or not allowed."""
        name = request.path.removeprefix("/assets/")
        if name != request.path and name in self._assets:
            known = self._only(request, "GET", lambda request: self._asset(name, request))
        elif request.path in self._get:
            known = self._only(request, "GET", self._get[request.path])
        elif request.path in self._post:
            known = self._only(request, "POST", self._post[request.path])
        else:
            raise BadRequest(404, "nothing here; the page is at /")
        return known

    def _only(self, request: Request, method: str, call: Callable[[Request], Answer]) -> Answer:
        if request.method != method and not (request.method == "HEAD" and method == "GET"):
            raise BadRequest(405, f"only {method}")
        return call(request)

    def pulse(self) -> None:
        """Tell those who watch that there may be something new."""
        pulsed, self._pulsed = self._pulsed, asyncio.Event()
        pulsed.set()

    async def pulsed(self) -> None:
        """Wait for the next pulse."""
        await self._pulsed.wait()

    def close(self) -> None:
        self.pictures.close()
        self._what_if.close()

    # --- pages and files

    def _page(self, request: Request) -> Response:
        return Response(200, page.render(self.hub, self._assets), "text/html; charset=utf-8")

    def _asset(self, name: str, request: Request) -> Response:
        asset = self._assets[name]
        headers = {"ETag": asset.tag, "Cache-Control": page.CACHED}
        if request.headers.get("if-none-match") == asset.tag:
            return Response(304, b"", asset.content_type, headers)
        return Response(200, asset.content, asset.content_type, headers)

    def _policy(self, request: Request) -> Response:
        from edge_app.policy.text import render

        return Response.text(200, render(self.hub.about.policy()).rstrip("\n"))

    # --- for programs

    def _text_metrics(self, request: Request) -> Response:
        return Response(200, self._metrics.text(), CONTENT_TYPE)

    def _health(self, request: Request) -> Response:
        good, why = health(self.hub)
        return Response.text(200 if good else 503, why)

    def _state(self, request: Request) -> Response:
        return Response.json(state_of(self.hub))

    def _history(self, request: Request) -> Response:
        hub, span = self.hub, request.query.get("span", "minutes")
        try:
            columns = hub.series.to_json(span, hub.now(), hub.wall())
        except KeyError:
            names = ", ".join(known.name for known in series.SPANS)
            raise BadRequest(400, f"span: must be one of {names}") from None
        return Response.json({**columns, "marks": marks(hub)})

    async def _picture(self, request: Request) -> Response:
        picture = await self.pictures.newest()
        if picture is None:
            return Response.text(503, "no frame yet")
        about = {"X-Frame": picture.about(self.hub.now())}
        return Response(200, picture.jpeg, "image/jpeg", about)

    # --- what costs or changes something

    async def _ask(self, request: Request) -> Response:
        # A page from elsewhere must not be able to keep this machine busy.
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise BadRequest(403, "only the page itself may ask")
        report = await self._what_if.ask(request.query)
        if "text/html" in request.headers.get("accept", ""):
            text = page.plain("What if", report["html"])
            return Response(200, text, "text/html; charset=utf-8")
        return Response.json(report)

    async def _reload(self, request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode())
        if scheme.lower() != "bearer" or not known:
            await asyncio.sleep(WRONG_TOKEN_S)
            answer = Response.text(401, "this needs the token: Authorization: Bearer TOKEN")
            answer.headers["WWW-Authenticate"] = 'Bearer realm="edge-app"'
            return answer
        self.hub.about.reload()
        return Response.text(200, "the policy's files are being read")
