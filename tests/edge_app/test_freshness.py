"""A camera of 30 frames a second and a model of 5: results stay fresh, no frame is run twice, and
every frame is accounted for. The whole program runs, with a model that takes its time."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_app import session
from native_ops import Program

FRAMES = 300
FPS = 30.0
MODEL_S = 0.2
SIDE = 256
CELLS = 4
NUMBER_BITS = 12
MARK = (1, 0, 1, 1)


def picture(number: int) -> bytes:
    """A JPEG with ``number`` in 4 x 4 black and white squares, the first four of them a mark."""
    digits = [number >> bit & 1 for bit in range(NUMBER_BITS)]
    cells = np.array([*MARK, *digits], np.uint8).reshape(CELLS, CELLS) * 255
    image = cells.repeat(SIDE // CELLS, 0).repeat(SIDE // CELLS, 1)
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))[1])


def number_on(image: np.ndarray) -> int | None:
    """What ``picture`` wrote; None if this is no such picture."""
    half = image.shape[0] // CELLS // 2
    digits = [int(value > 127) for value in image[half :: 2 * half, half :: 2 * half, 0].flat]
    if tuple(digits[: len(MARK)]) != MARK:
        return None
    return sum(digit << bit for bit, digit in enumerate(digits[len(MARK) :]))


class Camera(ThreadingHTTPServer):
    """Sends FRAMES numbered pictures to the first who asks, then nothing more. ``sent``: when."""

    daemon_threads = True

    def __init__(self, burst: int = 1) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sent: list[float] = []
        self.burst = burst
        self.done = threading.Event()
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        jpegs = [picture(number) for number in range(FRAMES)]
        due = time.monotonic()
        for first in range(0, FRAMES, self.server.burst):
            together = jpegs[first : first + self.server.burst]
            parts = [b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg for jpeg in together]
            self.server.sent += [time.monotonic()] * len(parts)
            self.wfile.write(b"\r\n".join(parts) + b"\r\n")
            due += len(parts) / FPS
            self.server.ended.wait(max(0.0, due - time.monotonic()))
        self.server.done.set()
        self.server.ended.wait()

    def log_message(self, *args: object) -> None:
        pass


class Slow:
    """The real model, which takes MODEL_S a frame, and notes which pictures it was given."""

    def __init__(self, model: Program) -> None:
        self._model = model
        self.seen: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, bits: int, image: np.ndarray) -> np.ndarray:
        number = number_on(image)
        if number is not None:
            self.seen.append(number)
            time.sleep(MODEL_S)
        return self._model.run(bits, image)


@pytest.fixture
def camera() -> Iterator[Callable[..., Camera]]:
    cameras: list[Camera] = []

    def start(burst: int = 1) -> Camera:
        cameras.append(Camera(burst))
        return cameras[-1]

    yield start
    for each in cameras:
        each.ended.set()
        each.shutdown()
        each.server_close()


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """Put back what a run in this process takes over."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def watch(
    server: Camera, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Slow, list[dict[str, Any]]]:
    """Run the program on ``server`` until all pictures are sent and used; its model and records."""
    models: list[Slow] = []
    open_chosen = session.open_chosen_model

    def open_slow(options: session.RunOptions, uri: str) -> Any:
        model, installed = open_chosen(options, uri)
        models.append(Slow(model))
        return models[-1], installed

    def end_after_the_last() -> None:
        assert server.done.wait(120.0)
        time.sleep(2.0)  # what is on its way arrives
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(session, "open_chosen_model", open_slow)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    threading.Thread(target=end_after_the_last, daemon=True).start()
    records = folder / "out.jsonl"
    # Without a deadline, so that the slow model itself is not a reason to leave frames out.
    options = session.RunOptions(
        camera=f"http://127.0.0.1:{server.server_address[1]}/",
        model="cifar10-resnet20",
        jsonl=str(records),
        state=folder / "state.json",
        settings=("frame.deadline_ms=0", "frame.target_fps=0"),
    )
    assert session.run(options) == 0
    return models[0], [json.loads(line) for line in records.read_text().splitlines()]


def losses(messages: str) -> dict[str, int]:
    """What the summary says about frames that were left out."""
    found = re.search(r"Frames left out: (.*?)\.", messages.replace("\n", " "))
    parts = found[1].split(", ") if found else []
    return {reason: int(count) for reason, count in (part.split(" ") for part in parts)}


@pytest.mark.slow
@pytest.mark.parametrize("burst", [1, 4], ids=["steady", "bursts"])
def test_results_stay_fresh_and_every_frame_is_accounted_for(
    camera: Callable[..., Camera],
    burst: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    usual_signals: None,
) -> None:
    server = camera(burst)
    model, records = watch(server, tmp_path, monkeypatch)
    lost = losses(capsys.readouterr().err)

    assert len(model.seen) == len(set(model.seen)), "no frame twice"
    assert model.seen == sorted(model.seen)
    assert model.seen[-1] == FRAMES - 1, "the newest is always shown in the end"
    assert len(records) == len(model.seen)
    assert len(server.sent) == FRAMES == len(records) + sum(lost.values()), lost

    # From when the camera sent it: more than the program itself can know.
    ages = [
        record["mono_ns"] * 1e-9 - server.sent[number]
        for number, record in zip(model.seen, records, strict=True)
    ]
    own = [record["latency_ms"]["age"] for record in records]
    p50, p95 = np.percentile(ages, [50, 95])
    with capsys.disabled():
        print(
            f"\n{FPS:.0f} fps, in groups of {burst}, model of {MODEL_S * 1e3:.0f} ms: "
            f"{len(records)} results, lost {lost}; age since it was sent: p50 {p50 * 1e3:.0f} ms, "
            f"p95 {p95 * 1e3:.0f} ms; as the records say: p50 {np.percentile(own, 50):.0f} ms, "
            f"p95 {np.percentile(own, 95):.0f} ms"
        )
    # A bound against queues and no measurement: with one the last would be 50 s old.
    assert max(ages) < 2.0
