"""The page over real sockets: what it answers and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from typing import Any

import numpy as np
import pytest
from governor_samples import make_sample
from serve_rig import TOKEN, WAIT_S, Rig, answer, connect, get, raw, received
from test_sinks import decision

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor import Event
from edge_app.serve import Page, open_page
from edge_app.serve.http import LARGEST_HEAD, BadRequest, is_known_host, parse
from edge_app.serve.server import parse_address
from edge_app.sources import SourceStatus

# --- what there is -------------------------------------------------------------------------------


def test_the_page_has_every_number_without_scripts(page: Page, rig: Rig) -> None:
    rig.journal.add(decision())
    rig.hub._sampled(make_sample(1.0, 71.25, 0.62))
    rig.decide(battery_charge=0.62, battery_end_s=5040.0, until_s=7200.0, forecast_c=80.5)
    got = get(page, "/")
    assert got.status == 200 and got.headers["content-type"] == "text/html; charset=utf-8"
    for shown in (
        "<strong>4</strong> bits",
        'data-cause="thermal"',
        "cpu-thermal 79 °C of 80",
        "80.5\N{NO-BREAK SPACE}°C",
        "71.2 °C",
        "62\N{NO-BREAK SPACE}%",
        "<b>seven</b> (94\N{NO-BREAK SPACE}%) at 8 bits",
        "84 min",
        "36 min too short",
        "0.30",  # milliseconds of inference
        "100\N{NO-BREAK SPACE}ms",
        "control_c = 78.0",
        "8 -&gt; 4 bits (thermal)",
    ):
        assert shown in got.text, shown


def test_what_comes_from_outside_is_escaped(page: Page, rig: Rig) -> None:
    evil = "<script>alert(1)</script>\"'"
    rig.journal.note("notice", evil)
    rig.status = SourceStatus("stalled", 1, evil)
    rig.hub._losses_at = 0.0
    rig.hub.tick()
    rig.decide(why=evil, caps={evil: 4}, reasons={evil: evil}, cause=evil, distrusted=(evil,))
    assert "<script>alert" not in get(page, "/").text


@pytest.mark.parametrize("span", ["minutes", "hour", "day"])
def test_curves_are_columns_of_one_length(page: Page, rig: Rig, span: str) -> None:
    columns = json.loads(get(page, f"/history.json?span={span}").body)
    lists = [value for value in columns.values() if isinstance(value, list)]
    assert len(lists) == 11 and len({len(values) for values in lists}) == 1
    assert columns["marks"]["control_c"] == 78.0


def test_a_span_that_does_not_exist_is_named(page: Page) -> None:
    got = get(page, "/history.json?span=week")
    assert got.status == 400 and "minutes, hour, day" in got.text


def test_the_state_is_that_of_why_with_the_frames(page: Page, rig: Rig) -> None:
    rig.journal.add(decision())
    state = json.loads(get(page, "/state.json").body)
    why = rig.journal.to_json()
    assert {name: state[name] for name in why} == why
    assert state["frames"]["classified"] == 1
    assert state["latency_ms"]["infer"]["p50"] == pytest.approx(0.3)
    assert state["newest"]["label"] == "seven"
    assert state["health"] == {"ok": True, "why": "frames come"}


def test_the_picture_is_the_newest_with_its_answer_and_age(page: Page, rig: Rig) -> None:
    import cv2

    for value in (0, 200):
        rig.frame(seq=value, value=value, label="größer")
        time.sleep(0.15)  # pictures are made ten times a second at most
        got = get(page, "/picture.jpg")
        about = json.loads(got.headers["x-frame"])
        image = cv2.imdecode(np.frombuffer(got.body, np.uint8), cv2.IMREAD_COLOR)
        assert about["seq"] == value and about["label"] == "größer" and about["bits"] == 8
        assert 0.1 < about["age_s"] < 5.0
        assert abs(int(image.mean()) - value) < 4
        assert image.shape[0] * 40 == image.shape[1] * 30 and image.shape[1] >= 192


def test_without_frames_there_is_no_picture() -> None:
    page = open_page(Rig().hub, "127.0.0.1:0", TOKEN)
    try:
        assert get(page, "/picture.jpg").status == 503
        assert get(page, "/").status == 200
        assert get(page, "/metrics").status == 200
        assert json.loads(get(page, "/state.json").body)["newest"] is None
    finally:
        page.close()


def test_files_are_sent_again_only_when_they_have_changed(page: Page) -> None:
    first = get(page, "/assets/dashboard.css")
    assert first.status == 200 and first.headers["content-type"].startswith("text/css")
    again = get(page, "/assets/dashboard.css", If_None_Match=first.headers["etag"])
    assert again.status == 304 and again.body == b""


def test_a_connection_serves_several_requests(page: Page) -> None:
    one = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n".encode()
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with connect(page) as connection:
        connection.sendall(one + one + last)
        assert received(connection).count(b"HTTP/1.1 200 OK") == 3


def test_head_has_no_body(page: Page) -> None:
    got = get(page, "/healthz", "HEAD")
    assert got.status == 200 and got.body == b"" and int(got.headers["content-length"]) > 0


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/assets/../server.py",
        "/assets/%2e%2e/server.py",
        "/assets/..%2fserver.py",
        "/assets//etc/passwd",
        "/assets/%00",
        "/../../etc/passwd",
        "/static/page.html",
        "/assets/",
        "//etc/passwd",
    ],
)
def test_nothing_but_the_page_s_own_files_is_sent(page: Page, target: str) -> None:
    got = get(page, target)
    assert got.status in (400, 404)
    assert b"root:" not in got.body and b"import" not in got.body


@pytest.mark.parametrize(
    "target", ["/", "/nothing", "/metrics", "/picture.jpg", "/assets/icon.svg"]
)
def test_every_answer_forbids_what_does_not_belong_to_the_page(page: Page, target: str) -> None:
    headers = get(page, target).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "*" not in policy and "http:" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


def test_the_page_needs_nothing_that_its_own_policy_forbids(page: Page) -> None:
    text = get(page, "/").text
    assert "style=" not in text and "onclick" not in text and "javascript:" not in text
    for part in text.split("<script")[1:]:
        assert part.split(">")[0].strip().startswith("src=")
    assert "https://" not in text and "http://" not in text


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "evil.example:80@x"]
)
def test_a_name_that_is_not_ours_is_refused(page: Page, host: str) -> None:
    assert get(page, "/state.json", Host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "[::1]:80", "192.168.1.7:9188", "x"])
def test_addresses_and_own_names_are_known(host: str) -> None:
    assert is_known_host(host, frozenset({"localhost", "x"}))
    assert not is_known_host(None, frozenset({"localhost"}))


def test_changes_need_the_token(page: Page, rig: Rig) -> None:
    assert get(page, "/-/reload", "POST").status == 401
    assert get(page, "/-/reload", "POST", Authorization="Bearer wrong").status == 401
    assert get(page, "/-/reload", "POST", Authorization=f"Basic {TOKEN}").status == 401
    assert get(page, "/-/reload?token=" + TOKEN, "POST").status == 401
    assert get(page, "/-/reload", Authorization=f"Bearer {TOKEN}").status == 405
    assert rig.reloads == 0
    assert get(page, "/-/reload", "POST", Authorization=f"Bearer {TOKEN}").status == 200
    assert rig.reloads == 1


def test_a_random_token_is_made_and_told_once(rig: Rig) -> None:
    made, given = (open_page(rig.hub, "127.0.0.1:0", token) for token in (None, TOKEN))
    try:
        assert len(made.token) >= 16 and made.token in made.greeting()
        assert TOKEN not in given.greeting() and not given.open
        assert made.url in made.greeting()
    finally:
        made.close()
        given.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /?" + b"a=1&" * 99 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * LARGEST_HEAD * 4 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * LARGEST_HEAD * 4, 431),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    ],
)
def test_what_is_no_request_is_refused_and_the_next_is_answered(
    page: Page, sent: bytes, status: int
) -> None:
    assert raw(page, sent).status == status
    assert get(page, "/healthz").status == 200


def test_a_head_that_is_cut_anywhere_is_no_request() -> None:
    whole = b"GET /picture.jpg?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request, length = parse(whole)
    assert (request.path, dict(request.query), length) == ("/picture.jpg", {"a": "b"}, 0)
    for end in range(1, len("GET /picture.jpg?a=b HTTP/1.1")):
        with pytest.raises(BadRequest):
            parse(whole[:end])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        (":9188", ("127.0.0.1", 9188)),
        ("9188", ("127.0.0.1", 9188)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:9188", ("::1", 9188)),
        ("camera.local:9188", ("camera.local", 9188)),
    ],
)
def test_where_to_listen_is_loopback_unless_told(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1", "::1:80", "[::1]", "h:70000", "h:-1", "h:"])
def test_an_address_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(AppError, match="HOST:PORT") as caught:
        parse_address(text)
    assert caught.value.exit_code == EXIT_USAGE


def test_a_port_that_is_taken_is_a_usage_error(page: Page, rig: Rig) -> None:
    with pytest.raises(AppError, match="Choose another port") as caught:
        open_page(rig.hub, f"127.0.0.1:{page.port}")
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_address_of_ip_6_is_served(rig: Rig) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("IPv6 is off here; sysctl net.ipv6.conf.lo.disable_ipv6=0 turns it on")
    page = open_page(rig.hub, "[::1]:0", TOKEN)
    try:
        assert page.url == f"http://[::1]:{page.port}/" and not page.open
        with socket.create_connection(("::1", page.port), WAIT_S) as connection:
            sent = f"GET /healthz HTTP/1.1\r\nHost: [::1]:{page.port}\r\nConnection: close\r\n\r\n"
            connection.sendall(sent.encode())
            assert answer(received(connection)).status == 200
    finally:
        page.close()


def test_whoever_opens_it_to_the_network_is_told(rig: Rig) -> None:
    page = open_page(rig.hub, "0.0.0.0:0", TOKEN)
    try:
        assert page.open and "sees the picture" in page.greeting()
    finally:
        page.close()


def test_a_bug_in_an_answer_is_one_answer_only(
    page: Page, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> dict[str, Any]:
        raise ValueError("broken on purpose")

    rig.hub.about = dataclasses.replace(rig.hub.about, journal=broken)
    assert get(page, "/state.json").status == 500
    assert "broken on purpose" in caplog.text
    assert get(page, "/healthz").status == 200


# --- events that the hub hears of ----------------------------------------------------------------


def test_a_refused_policy_is_remembered_until_one_is_accepted(rig: Rig) -> None:
    assert rig.hub.policy_accepted
    rig.hub.notice(Event("policy_rejected", "x"))
    assert not rig.hub.policy_accepted
    rig.hub.notice(Event("source_lost", "x"))
    assert not rig.hub.policy_accepted
    rig.hub.notice(Event("policy_changed", "x"))
    assert rig.hub.policy_accepted
