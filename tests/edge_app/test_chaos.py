"""Runs that are stopped, killed, or left without a disk or a camera: what is on disk stays whole."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from stream_servers import PictureServer
from test_store import Publisher

from edge_app.store import Store
from edge_app.why import ask, running

LIMIT_S = 90.0
KILLS = 5
DISK_BYTES = 64 << 10


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def wait_for(condition: Callable[[], Any]) -> Any:
    limit = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)
    return found


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def whole_lines(path: Path) -> int:
    """How many there are; every line but at most the last must be a record."""
    lines = lines_of(path)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    for line in lines:
        assert json.loads(line)["schema"] == "edge-app/frame/1"
    return len(lines)


def pictures_in(video: Path) -> int:
    """How many a player sees; 0 for a file that was killed before its first."""
    if not video.exists() or not video.stat().st_size:
        return 0
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


# --- stopped and killed ------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Store:
    """A store with a model in use, as `edge-app model install` and `use` leave it."""
    if shutil.which("minisign") is None and not os.environ.get("CI"):
        pytest.skip("needs apt-get install minisign")
    publisher = Publisher(tmp_path)
    store = Store(tmp_path / "data/edge-app/models")
    (store.root / "keys.d").mkdir(parents=True)
    shutil.copy(publisher.public, store.root / "keys.d")
    store.install(publisher.bundle(1, name="porch"))
    store.use("porch")
    store.install(publisher.bundle(2, name="porch"))
    return store


@pytest.mark.slow
def test_killed_at_random_moments_everything_stays_whole(
    start_edge_app: Any, edge_app: Any, installed: Store, tmp_path: Path
) -> None:
    records, video, state = (tmp_path / name for name in ("out.jsonl", "out.mkv", "state.json"))
    # At full speed, so that there is always something being written.
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "0.png"), cv2.resize(cv2.imread("docs/run.png"), (64, 48)))
    (tmp_path / "many.txt").write_text(f"{pictures / '0.png'}\n" * 5_000)
    options = ["--model", "porch", "--jsonl", records, "--jsonl-max-mb", "0.05", "--save", video]
    options += ["--state", state, "--save-crops", tmp_path / "crops", "--camera"]
    chance = random.Random(20)
    seen = 0
    for attempt in range(KILLS):
        for old in (records, video):
            old.unlink(missing_ok=True)
        process = start_edge_app("run", *options, tmp_path / "many.txt")
        if attempt:  # the first is killed while it starts
            wait_for(lambda: records.exists() and records.stat().st_size)
        time.sleep(chance.uniform(0.0, 0.6))
        assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGKILL)
        process.wait()
        written = whole_lines(records)
        for number in range(1, 6):
            rotated = tmp_path / f"{records.name}.{number}"
            assert all(line.endswith(b"\n") for line in lines_of(rotated))
            written += whole_lines(rotated)
        # The line is written before the picture: the last one may lack its own.
        assert pictures_in(video) >= whole_lines(records) - 1
        seen += written
        if state.exists():
            assert json.loads(state.read_text())["format"] == "edge-app/governor-state/1"
        for crop in (tmp_path / "crops").glob("*/[!.]*.jpg"):
            assert cv2.imread(str(crop)) is not None
        assert [entry.role for entry in installed.entries()] == ["", "current"]
    assert seen > 0
    done = edge_app("run", *options, tmp_path / "pictures")
    assert done.returncode == 0, done.stderr
    assert whole_lines(records) == 1 and pictures_in(video) == 1
    assert not list(installed.root.glob(".install-*"))


@pytest.mark.slow
def test_a_process_that_was_stopped_goes_on(start_edge_app: Any, tmp_path: Path) -> None:
    server = PictureServer()
    records = tmp_path / "out.jsonl"
    process = start_edge_app(
        "run", "--camera", f"{server.url}/stream.mjpg", "--model", "digits", "--jsonl", records
    )
    chance = random.Random(21)
    try:
        for _ in range(4):
            before = whole_lines(records)
            wait_for(lambda before=before: whole_lines(records) > before)
            time.sleep(chance.uniform(0.0, 0.3))
            process.send_signal(signal.SIGSTOP)
            time.sleep(chance.uniform(0.2, 1.0))
            torn = lines_of(records)[-1]
            assert torn.endswith(b"\n") or len(torn) < 2000
            process.send_signal(signal.SIGCONT)
        # For longer than it takes to call a camera lost.
        process.send_signal(signal.SIGSTOP)
        time.sleep(6.0)
        stopped_ns = time.monotonic_ns()
        process.send_signal(signal.SIGCONT)
        before = whole_lines(records)
        wait_for(lambda: whole_lines(records) > before + 10)
        ages = [
            record["latency_ms"]["age"]
            for record in map(json.loads, lines_of(records)[:-1])
            if record["mono_ns"] > stopped_ns + 1e9
        ]
        assert process.poll() is None
        assert not ages or max(ages) < 6000.0, "old pictures were not used afterwards"
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(timeout=LIMIT_S) == 0
        server.stop()
    whole = lines_of(records)
    assert whole[-1].endswith(b"\n") and whole_lines(records) == len(whole)
    numbers = [json.loads(line)["seq"] for line in whole]
    assert numbers == list(range(len(numbers)))


# --- a disk that is full -----------------------------------------------------------------------


def disk_of_a_namespace(place: Path) -> subprocess.Popen[str]:
    """A process that alone sees a disk of ``DISK_BYTES`` at ``place``; it holds it until its input
    ends. Needs neither root nor a mount that others see."""
    mounting = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && echo ready && exec cat'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounting, str(place)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    with disk_of_a_namespace(place) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            said = holder.communicate()[1].strip()
            if os.environ.get("CI"):
                pytest.fail(f"no disk for this test: {said}")
            pytest.skip(f"needs user namespaces (sysctl user.max_user_namespaces) or root: {said}")
        yield Path(f"/proc/{holder.pid}/root{place}")
        holder.stdin.close()


def test_records_without_room_end_the_run_and_say_so(edge_app: Any) -> None:
    done = edge_app("run", "--max-frames", 50, "--jsonl", "/dev/full")
    assert done.returncode == 1
    assert "/dev/full: cannot write: No space left on device; the run ends here" in done.stderr
    assert "Traceback" not in done.stderr and "changed nothing" in done.stderr, "also the summary"


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_whole_records(edge_app: Any, small_disk: Path) -> None:
    records = small_disk / "out.jsonl"
    done = edge_app("run", "--camera", "test:noise", "--jsonl", records)
    assert done.returncode == 1 and f"{records}: cannot write: No space left" in done.stderr
    assert whole_lines(records) > 40
    # With rotation it would have needed a sixth of it for ever.
    records.unlink()
    done = edge_app("run", "--max-frames", 150, "--jsonl", records, "--jsonl-max-mb", 0.008)
    assert done.returncode == 0, done.stderr
    assert sum(whole_lines(path) for path in small_disk.glob("out.jsonl*")) > 60


@pytest.mark.slow
def test_a_video_on_a_full_disk_plays_up_to_there(edge_app: Any, small_disk: Path) -> None:
    video = small_disk / "out.mkv"
    done = edge_app("run", "--camera", "test:bars", "--save", video, "--duration", 60)
    assert done.returncode == 1 and f"{video}: cannot write: No space left" in done.stderr
    assert pictures_in(video) >= 1


@pytest.mark.slow
def test_a_state_that_cannot_be_kept_is_said_once_and_stops_nothing(
    edge_app: Any, small_disk: Path
) -> None:
    state = small_disk / "state.json"
    kept = {"format": "edge-app/governor-state/1", "governor": {}}
    state.write_text(json.dumps(kept))
    filler = (small_disk / "filler").open("wb")
    with contextlib.suppress(OSError), filler:
        for _ in itertools.count():
            filler.write(bytes(1024))
            filler.flush()
    done = edge_app("run", "--duration", 3, "--state", state)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the governor's state cannot be saved: No space left") == 1
    assert json.loads(state.read_text()) == kept
    assert {path.name for path in small_disk.iterdir()} == {"state.json", "filler"}


# --- a camera that misbehaves ------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_survives_everything_a_camera_does(start_edge_app: Any, tmp_path: Path) -> None:
    server = PictureServer()
    server.interval_s = 1 / 30
    records, video = tmp_path / "out.jsonl", tmp_path / "out.mkv"
    options = ("--model", "digits", "--jsonl", records, "--save", video)
    process = start_edge_app("run", "--camera", f"{server.url}/stream.mjpg", *options)

    def events() -> list[str]:
        if process.pid not in running():
            return []
        return [entry["event"] for entry in ask(process.pid)["history"]]

    def source_events() -> list[str]:
        return [kind for kind in events() if kind.startswith("source_")]

    def goes_on() -> None:
        before = whole_lines(records)
        wait_for(lambda: whole_lines(records) >= before + 5)

    try:
        goes_on()
        for size in ((480, 640), (241, 319), (24, 32)):
            server.size = size
            goes_on()
        server.garbage.set()
        time.sleep(1.0)
        server.garbage.clear()
        goes_on()
        assert source_events() == [], "nothing of this is worth a word"

        server.stall.set()
        wait_for(lambda: source_events() == ["source_lost"])
        server.stall.clear()
        wait_for(lambda: source_events() == ["source_lost", "source_back"])
        goes_on()

        server.reset_after = 1
        wait_for(lambda: len(source_events()) >= 3)
        server.reset_after = None
        wait_for(lambda: source_events()[-1] == "source_back")
        goes_on()

        server.cut.set()
        wait_for(lambda: source_events()[-1] == "source_lost")
        count = len(source_events())
        time.sleep(3.0)  # several attempts, none of which is news
        assert len(source_events()) == count
        server.cut.clear()
        wait_for(lambda: source_events()[-1] == "source_back")
        goes_on()
        found = source_events()
        assert found == ["source_lost", "source_back"] * (len(found) // 2)
    finally:
        process.terminate()
        exit_code = process.wait(timeout=LIMIT_S)
        server.stop()
    assert exit_code == 0
    assert pictures_in(video) >= 10
    sequence = [json.loads(line)["seq"] for line in lines_of(records)]
    assert sequence == list(range(len(sequence)))
