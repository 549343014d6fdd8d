"""What the page sends on its own, by what it is not slowed, and whether it calls the run healthy."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from serve_rig import TOKEN, Clock, Rig, connect, get

from edge_app.serve import Page, open_page
from edge_app.serve import health as health_module
from edge_app.serve.health import health
from edge_app.serve.server import Budget
from edge_app.sources import Frame, SourceStatus

# --- health --------------------------------------------------------------------------------------


def test_health_follows_frames_and_what_is_said_about_their_absence() -> None:
    clock = Clock()
    rig = Rig(clock)
    hub = rig.hub

    def pass_seconds(seconds: float, deciding: bool = True) -> tuple[bool, str]:
        for _ in range(round(seconds)):
            clock.seconds += 1.0
            hub.tick()
            if deciding:
                rig.decide()
        return health(hub)

    assert health(hub)[0]
    clock.seconds += health_module.START_S + 1
    assert not health(hub)[0]
    rig.frame()
    assert pass_seconds(1) == (True, "frames come")
    assert pass_seconds(14)[0]
    good, why = pass_seconds(5)
    assert not good and why.startswith("no frame for 20 s")
    rig.status = SourceStatus("reconnecting", 3, "no frame for 20 s")
    assert pass_seconds(60) == (True, "source reconnecting: no frame for 20 s")
    rig.status = SourceStatus()
    rig.decide(paused=True, why="96 °C")
    clock.seconds += 1.0
    hub.tick()
    assert health(hub) == (True, "paused by the governor: 96 °C")
    rig.frame()
    clock.seconds += health_module.LONGEST_STEP_S + 1
    assert health(hub) == (False, "the pipeline has not moved for 11 s")
    rig.frame()
    good, why = pass_seconds(health_module.GOVERNOR_S + 5, deciding=False)
    assert not good and why.startswith("the governor has been silent")
    hub.close()
    assert health(hub) == (False, "the run has ended")


def test_slow_frame_rates_are_no_fault() -> None:
    clock = Clock()
    rig = Rig(clock)
    rig.hub.about = dataclasses.replace(rig.hub.about, target_fps=0.02)
    rig.frame()
    for _ in range(60):
        clock.seconds += 1.0
        rig.hub.tick()
        rig.decide()
    assert health(rig.hub)[0]


def test_a_probe_sees_the_reason(page: Page, rig: Rig) -> None:
    assert get(page, "/healthz").text == "frames come\n"
    rig.hub.close()
    got = get(page, "/healthz")
    assert (got.status, got.text) == (503, "the run has ended\n")


# --- streams -------------------------------------------------------------------------------------


def events(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """The events that come, as they come."""
    data = b""
    while True:
        more = connection.recv(65536)
        if not more:
            return
        data += more
        *whole, data = data.split(b"\n\n")
        for part in whole:
            if part.startswith(b"data: "):
                yield json.loads(part.removeprefix(b"data: "))


def subscribe(page: Page, target: str = "/events") -> socket.socket:
    connection = connect(page)
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def test_events_bring_what_has_changed_and_only_that(page: Page, rig: Rig) -> None:
    with subscribe(page) as connection:
        coming = events(connection)
        first = next(coming)
        assert "<strong>4</strong>" in first["panels"]["now"] and "caps" in first["panels"]
        rig.decide(bits=2, previous_bits=4, cause="battery")
        began = time.monotonic()
        for event in coming:
            assert "caps" not in event["panels"] or "battery" in event["panels"]["caps"]
            if "<strong>2</strong>" in event["panels"].get("now", ""):
                break
        assert time.monotonic() - began < 2.0
        assert "battery" in event["panels"]["announce"]
        assert "sensors" not in next(coming)["panels"]


def test_the_curve_grows_by_a_point_a_second(page: Page) -> None:
    with subscribe(page) as connection:
        numbers = []
        for event in events(connection):
            if event["point"] is not None:
                numbers.append(event["point"]["number"])
            if len(set(numbers)) == 3:
                break
    assert sorted(set(numbers)) == list(range(min(numbers), min(numbers) + 3))


def test_motion_jpeg_shows_new_pictures_only(page: Page, rig: Rig) -> None:
    with subscribe(page, "/picture.mjpg") as connection:
        data = b""
        for seq in range(1, 4):
            while data.count(b"Content-Length") < seq:
                data += connection.recv(65536)
            rig.frame(seq=seq, value=60 * seq)
        assert b"multipart/x-mixed-replace" in data
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                data += connection.recv(65536)
        assert data.count(b"\xff\xd8\xff") == 4


def test_pictures_are_encoded_once_and_only_while_somebody_watches(
    page: Page, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_app.serve import pictures

    threads = []
    encode = pictures.encode

    def counting(frame: Frame) -> bytes:
        threads.append(threading.current_thread().name)
        return encode(frame)

    monkeypatch.setattr(pictures, "encode", counting)
    for seq in range(50):
        rig.frame(seq=seq)
    assert threads == []
    for _ in range(8):
        assert get(page, "/picture.jpg").status == 200
    assert len(threads) == 1 and threads[0].startswith("picture")


def test_a_client_that_takes_nothing_is_not_waited_for(page: Page, rig: Rig) -> None:
    slow = [subscribe(page, target) for target in ("/events", "/picture.mjpg") for _ in range(5)]
    unfinished = [connect(page) for _ in range(20)]
    for connection in unfinished:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lo")
    with subscribe(page) as connection:
        coming = events(connection)
        next(coming)
        for seq in range(5):
            rig.frame(seq=seq)
            next(coming)
    assert get(page, "/healthz").status == 200
    for connection in slow + unfinished:
        connection.close()


def test_answers_wait_for_cpu_time_that_is_used_up() -> None:
    clock = Clock()
    budget = Budget(share=0.1, burst_s=0.2, now=clock)
    assert budget.wait_s() == 0.0
    budget.use(0.5)
    assert budget.wait_s() == pytest.approx(3.0)
    clock.seconds += 3.0
    assert budget.wait_s() == pytest.approx(0.0, abs=1e-9)
    clock.seconds += 1000.0
    budget.wait_s()
    budget.use(0.2)
    assert budget.wait_s() == pytest.approx(0.0, abs=1e-9), "no more than the burst is saved"


def test_health_is_told_also_when_answers_wait(page: Page) -> None:
    page._budget.use(30.0)
    began = time.monotonic()
    assert get(page, "/healthz").status == 200
    assert time.monotonic() - began < 10.0
    page._budget.use(-30.0)


def test_closing_ends_every_connection(rig: Rig) -> None:
    rig.frame()
    page = open_page(rig.hub, "127.0.0.1:0", TOKEN)
    with subscribe(page) as connection:
        next(events(connection))
        page.close()
        page.close()
        with pytest.raises(ConnectionError):
            while connection.recv(65536):
                pass
            raise ConnectionError("closed")
