"""Live sources: the newest frame only, and coming back after stalls, resets, garbage and hangs."""

from __future__ import annotations

import os
import queue
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stream_servers import PictureServer, encoded, flat

from edge_app.errors import EXIT_SOURCE_LOST, AppError
from edge_app.sources import Frame, open_source
from edge_app.sources.cameras import cameras, describe_format, examine
from edge_app.sources.files import VideoFile
from edge_app.sources.live import HANGING_AT_MOST, Capture, LiveStream, Patience

LIMIT_S = 60.0
"""Far more than anything here takes: a bound against hanging, not a measurement."""
QUICK = Patience(stall_s=0.3, open_s=0.5, retry_s=0.01, retry_max_s=0.05, give_up_s=LIMIT_S)


class Driver:
    """A capture whose pictures come when the test sends them; None means a failed read, ``hang`` a
    call that does not return until ``wake`` is set."""

    def __init__(self) -> None:
        self.pictures: queue.Queue[int | str | None] = queue.Queue()
        self.taken = 0
        self.wake = threading.Event()
        self.released = threading.Event()

    def read(self) -> tuple[bool, np.ndarray | None]:
        try:
            value = self.pictures.get(timeout=0.02)
        except queue.Empty:
            return False, None
        self.taken += 1
        if value == "hang":
            self.wake.wait()
            return True, flat(255)
        return (False, None) if value is None else (True, flat(int(value)))

    def release(self) -> None:
        self.released.set()


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def next_frame(stream: LiveStream) -> Frame:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        frame = stream.read(0.05)
        if frame is not None:
            return frame
    raise AssertionError("no frame came")


def value_of(frame: Frame) -> int:
    return int(frame.image[0, 0, 0])


def test_only_the_newest_frame_is_handed_out_and_only_once() -> None:
    driver = Driver()
    stream = LiveStream("camera", lambda: driver)
    for value in (1, 2, 3):
        driver.pictures.put(value)
    wait_until(lambda: stream.losses["stale"] == 2)
    assert value_of(next_frame(stream)) == 3
    assert stream.read(0.0) is None
    driver.pictures.put(4)
    assert value_of(next_frame(stream)) == 4
    stream.close()
    assert driver.released.wait(LIMIT_S)


def test_a_few_failed_reads_are_survived_and_counted() -> None:
    driver = Driver()
    stream = LiveStream("camera", lambda: driver)
    for value in (None, None, 9):
        driver.pictures.put(value)
    assert value_of(next_frame(stream)) == 9
    assert stream.losses["capture"] >= 2
    assert stream.status.state == "up" and stream.status.reconnects == 0
    stream.close()


def test_a_device_that_fails_for_ever_is_opened_again() -> None:
    drivers: list[Driver] = []

    def connect() -> Capture:
        drivers.append(Driver())
        drivers[-1].pictures.put(len(drivers))
        return drivers[-1]

    stream = LiveStream("camera", connect, patience=QUICK)
    assert value_of(next_frame(stream)) == 1
    assert value_of(next_frame(stream)) == 2, "the next connection"
    assert drivers[0].released.is_set() and stream.status.reconnects >= 1
    stream.close()


def test_a_driver_that_hangs_is_left_behind_and_its_late_frame_is_not_used() -> None:
    first, second = Driver(), Driver()
    opened: list[Driver] = []

    def connect() -> Capture:
        opened.append(first if not opened else second)
        return opened[-1]

    stream = LiveStream("camera", connect, patience=QUICK)
    first.pictures.put(1)
    assert value_of(next_frame(stream)) == 1
    first.pictures.put("hang")
    wait_until(lambda: stream.status.state == "reconnecting")
    assert "no frame for" in stream.status.text
    wait_until(lambda: stream.status and len(opened) == 2)
    second.pictures.put(2)
    assert value_of(next_frame(stream)) == 2
    first.wake.set()
    assert first.released.wait(LIMIT_S), "the thread that was left behind lets go of the device"
    second.pictures.put(3)
    assert value_of(next_frame(stream)) == 3
    stream.close()


def test_opening_that_hangs_is_tried_only_so_often() -> None:
    gate = threading.Event()
    calls: list[int] = []

    def connect() -> Capture:
        calls.append(1)
        gate.wait()
        return driver

    driver = Driver()
    patience = Patience(stall_s=0.02, open_s=0.02, retry_s=0.001, retry_max_s=0.001, give_up_s=0)
    stream = LiveStream("camera", connect, patience=patience)
    wait_until(lambda: stream.status.state == "stalled")
    for _ in range(20):
        assert stream.read(0.01) is None
    assert len(calls) == HANGING_AT_MOST
    gate.set()
    for _ in range(200):
        driver.pictures.put(7)
    assert value_of(next_frame(stream)) == 7
    stream.close()


def test_pauses_between_attempts_grow_and_start_afresh() -> None:
    attempts: list[float] = []

    def connect() -> Capture:
        attempts.append(time.monotonic())
        raise OSError("no such device")

    patience = Patience(retry_s=0.05, retry_max_s=0.4, give_up_s=0)
    stream = LiveStream("camera", connect, patience=patience)
    wait_until(lambda: stream.status and len(attempts) >= 7)
    pauses = np.diff(attempts)
    for pause, wanted in zip(pauses, (0.05, 0.1, 0.2, 0.4, 0.4, 0.4), strict=False):
        assert pause >= 0.8 * wanted
    assert "no such device" in stream.status.text
    stream.close()


def test_a_source_that_stays_silent_is_lost_for_good() -> None:
    patience = Patience(stall_s=0.05, retry_s=0.01, retry_max_s=0.01, give_up_s=0.5)
    stream = LiveStream("camera", Driver, patience=patience)
    with pytest.raises(AppError, match="camera: no frame for .*--give-up 0") as raised:
        while True:
            assert stream.read(0.05) is None
    assert raised.value.exit_code == EXIT_SOURCE_LOST
    stream.close()


# --- the network -------------------------------------------------------------------------------


@pytest.fixture
def pictures() -> Iterator[PictureServer]:
    server = PictureServer()
    yield server
    server.stop()


def open_stream(server: PictureServer) -> LiveStream:
    stream = open_source(f"{server.url}/stream.mjpg", QUICK)
    assert isinstance(stream, LiveStream)
    return stream


def test_a_stream_comes_back_when_its_server_does(pictures: PictureServer) -> None:
    stream = open_stream(pictures)
    assert abs(float(next_frame(stream).image.mean()) - 128) < 3
    pictures.cut.set()
    wait_until(lambda: stream.read(0.01) is None and stream.status.state == "reconnecting")
    pictures.cut.clear()
    assert next_frame(stream) is not None
    wait_until(lambda: stream.status.state == "up")
    assert stream.status.reconnects >= 1
    stream.close()


@pytest.mark.parametrize("trouble", ["stall", "garbage"])
def test_a_connection_that_gives_nothing_is_opened_again(
    pictures: PictureServer, trouble: str
) -> None:
    stream = open_stream(pictures)
    next_frame(stream)
    before = pictures.connected
    getattr(pictures, trouble).set()
    wait_until(lambda: stream.read(0.01) is None and pictures.connected > before)
    getattr(pictures, trouble).clear()
    assert next_frame(stream) is not None
    stream.close()


def test_pictures_may_change_their_size(pictures: PictureServer) -> None:
    stream = open_stream(pictures)
    assert next_frame(stream).image.shape == (24, 32, 3)
    pictures.size = (97, 131)
    wait_until(lambda: next_frame(stream).image.shape == (97, 131, 3))
    stream.close()


def test_a_thousand_reconnects_leave_nothing_behind(pictures: PictureServer) -> None:
    pictures.reset_after, pictures.interval_s = 1, 0.0
    patience = Patience(stall_s=1.0, retry_s=0.0, retry_max_s=0.0, give_up_s=LIMIT_S)
    stream = open_source(f"{pictures.url}/stream.mjpg", patience)
    assert isinstance(stream, LiveStream)
    next_frame(stream)
    wait_until(lambda: stream.read(0.0) is not None and stream.status.reconnects >= 20)
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    end = time.monotonic() + 4 * LIMIT_S
    while stream.status.reconnects < 1000:
        stream.read(0.01)
        assert time.monotonic() < end
    stream.close()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 10
    assert threading.active_count() <= threads + 10


def test_passwords_do_not_appear_in_names(pictures: PictureServer) -> None:
    secret = pictures.url.replace("http://", "http://viewer:s3cret@")
    stream = open_source(f"{secret}/stream.mjpg")
    assert stream.name == f"{pictures.url.replace('http://', 'http://***@')}/stream.mjpg"
    stream.close()
    with pytest.raises(AppError) as raised:
        open_source("rtsp://viewer:s3cr@t@127.0.0.1:9/live@1")
    assert raised.value.message.startswith("rtsp://***@127.0.0.1:9/live@1: cannot be opened")


def test_address_of_a_stream_and_of_a_recording(pictures: PictureServer, tmp_path: Path) -> None:
    from test_sources import read_all, write_video

    write_video(tmp_path / "clip.avi", [10, 60, 110])
    pictures.clip = (tmp_path / "clip.avi").read_bytes()
    stream = open_source(f"{pictures.url}/stream.mjpg")
    assert isinstance(stream, LiveStream)
    stream.close()
    recording = open_source(f"{pictures.url}/clip.avi")
    assert isinstance(recording, VideoFile)
    assert len(read_all(recording)) == 3
    recording.close()


needs_gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None and not os.environ.get("CI"),
    reason="needs apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good",
)


@needs_gstreamer
def test_a_gstreamer_pipeline() -> None:
    stream = open_source("gst:videotestsrc pattern=white ! video/x-raw,width=64,height=48", QUICK)
    frame = next_frame(stream)
    assert frame.image.shape == (48, 64, 3) and frame.image.mean() > 230
    stream.close()


RTSP_SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(); server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( videotestsrc is-live=true pattern=white ! video/x-raw,format=I420,width=64,"
                   "height=48,framerate=20/1 ! jpegenc ! rtpjpegpay name=pay0 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory); server.attach(None)
print("ready", flush=True); GLib.MainLoop().run()
"""
SYSTEM_PYTHON = "/usr/bin/python3"


def has_rtsp_server() -> bool:
    check = "import gi; gi.require_version('GstRtspServer', '1.0')"
    try:
        return subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True).returncode == 0
    except OSError:
        return False


def start_rtsp(port: int) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [SYSTEM_PYTHON, "-c", RTSP_SERVER, str(port)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    return server


@pytest.mark.skipif(
    not has_rtsp_server() and not os.environ.get("CI"),
    reason="needs apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good",
)
def test_an_rtsp_camera_that_is_switched_off_and_on() -> None:
    port = 18554
    server = start_rtsp(port)
    try:
        patience = Patience(stall_s=1.0, open_s=10.0, retry_s=0.1, retry_max_s=0.2)
        stream = open_source(f"rtsp://127.0.0.1:{port}/live", patience)
        assert isinstance(stream, LiveStream)
        frame = next_frame(stream)
        assert frame.image.shape == (48, 64, 3) and frame.image.mean() > 200
        server.kill()
        server.wait()
        wait_until(lambda: stream.read(0.05) is None and stream.status.state == "reconnecting")
        server = start_rtsp(port)
        assert next_frame(stream) is not None
        stream.close()
    finally:
        server.kill()
        server.wait()


# --- devices -----------------------------------------------------------------------------------


def test_cameras_are_listed_by_number_with_their_names(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("video10", "video2", "video-codec", "null"):
        (tmp_path / "dev" / name).touch()
    described = tmp_path / "sys/class/video4linux/video2"
    described.mkdir(parents=True)
    (described / "name").write_text("USB camera\n")
    assert cameras(tmp_path) == [
        (tmp_path / "dev/video2", "USB camera"),
        (tmp_path / "dev/video10", "no name"),
    ]


def test_a_camera_says_its_stable_name_and_who_holds_it(tmp_path: Path) -> None:
    device = tmp_path / "dev/video0"
    device.parent.mkdir()
    device.touch()
    link = tmp_path / "dev/v4l/by-id/usb-camera-index0"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../video0")
    holder = subprocess.Popen(
        [sys.executable, "-c", f"f = open({str(device)!r}); print('open', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        (status,) = examine(tmp_path)
        assert status.links == (str(link),)
        assert len(status.holders) == 1 and f"({holder.pid})" in status.holders[0]
        assert status.formats == (), "a plain file captures nothing"
    finally:
        holder.kill()
        holder.communicate()
    assert examine(tmp_path)[0].holders == ()


def test_the_kernels_description_of_a_format() -> None:
    code = struct.unpack("=I", b"YUYV")[0]
    text = b"YUYV 4:2:2".ljust(32, b"\0")
    answer = struct.pack("=III32sIIIII", 0, 1, 0, text, code, 0, 0, 0, 0)
    assert len(answer) == 64, "as in the kernel's ABI"
    assert describe_format(answer) == "YUYV (YUYV 4:2:2)"


def test_the_servers_pictures_are_pictures() -> None:
    assert encoded(128)[:3] == b"\xff\xd8\xff"
