"""Sources: the test stream, files, directories, live streams, and what cannot be opened."""

from __future__ import annotations

import importlib.util
import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_app.errors import EXIT_SOURCE_LOST, EXIT_SOURCE_UNAVAILABLE, AppError
from edge_app.sources import EndOfSource, Frame, Source, open_source
from edge_app.sources.digits import DigitsStream
from edge_app.sources.files import VideoFile
from edge_app.sources.live import LiveStream, cameras, open_camera, open_url_capture

PATIENCE_S = 30.0
"""Far more than anything here takes: a bound against hanging, not a measurement."""


def read_all(source: Source) -> list[Frame]:
    frames = []
    while True:
        try:
            frame = source.read(1.0)
        except EndOfSource:
            return frames
        assert frame is not None
        frames.append(frame)


def flat(value: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def write_video(path: Path, values: list[int]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (32, 24))
    assert writer.isOpened()
    for value in values:
        writer.write(flat(value))
    writer.release()


# --- the test stream ---------------------------------------------------------------------------


def test_digits_are_the_held_out_split_that_training_leaves_out() -> None:
    from train.data import load_dataset
    from train.recipe import DataRecipe

    expected = load_dataset(DataRecipe(dataset="digits"), "test")
    stream = DigitsStream()
    assert len(stream) == 360
    for image, label in zip(expected.images, expected.labels, strict=True):
        frame = stream.read(0.0)
        assert frame is not None
        assert np.array_equal(frame.image, image)
        assert frame.truth == str(label)
        assert frame.order == "rgb"


def test_the_maker_makes_the_shipped_asset() -> None:
    path = Path(__file__).with_name("make_digits_asset.py")
    spec = importlib.util.spec_from_file_location("make_digits_asset", path)
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    gray, labels = maker.held_out()
    with np.load(maker.ASSET) as shipped:
        assert np.array_equal(shipped["gray"], gray)
        assert np.array_equal(shipped["labels"], labels)
    assert maker.ASSET.stat().st_size < 23_500


def test_digits_start_again_after_the_last() -> None:
    stream = DigitsStream()
    frames = [stream.read(0.0) for _ in range(361)]
    assert frames[0] is not None and frames[360] is not None
    assert np.array_equal(frames[0].image, frames[360].image)
    assert frames[0].truth == frames[360].truth


# --- files -------------------------------------------------------------------------------------


def test_video_gives_every_frame_in_order(tmp_path: Path) -> None:
    values = [10, 60, 110, 160, 210]
    write_video(tmp_path / "clip.avi", values)
    source = open_source(str(tmp_path / "clip.avi"))
    frames = read_all(source)
    source.close()
    assert [round(float(frame.image.mean()) / 50 - 0.2) for frame in frames] == [0, 1, 2, 3, 4]
    assert not source.live
    assert all(frame.order == "bgr" and frame.truth is None for frame in frames)


def test_image_is_one_frame_with_its_colours(tmp_path: Path) -> None:
    image = flat(0)
    image[..., 2] = 200  # red, as OpenCV orders channels
    cv2.imwrite(str(tmp_path / "red.png"), image)
    (frame,) = read_all(open_source(str(tmp_path / "red.png")))
    assert np.array_equal(frame.image, image)


@pytest.mark.parametrize("channels", [1, 4])
def test_gray_and_transparent_images_become_three_channels(tmp_path: Path, channels: int) -> None:
    image = np.full((6, 5, channels), 77, dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    (frame,) = read_all(open_source(str(tmp_path / "image.png")))
    assert frame.image.shape == (6, 5, 3)


def test_directory_is_sorted_and_skips_what_is_no_image(tmp_path: Path) -> None:
    for name, value in (("b.png", 2), ("a.png", 1), ("c.png", 3)):
        cv2.imwrite(str(tmp_path / name), flat(value))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".thumbnails").mkdir()
    cv2.imwrite(str(tmp_path / ".thumbnails" / "a.png"), flat(9))
    source = open_source(str(tmp_path))
    assert source.classes == ()
    frames = read_all(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 3]
    assert [frame.truth for frame in frames] == [None] * 3


def test_class_folders_give_the_truth_and_take_turns(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(3):
            cv2.imwrite(str(tmp_path / label / f"{number}.png"), flat(number))
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog")
    frames = read_all(source)
    assert [frame.truth for frame in frames] == ["cat", "dog"] * 3
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 0, 1, 1, 2, 2]


def test_damaged_image_in_a_directory_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), flat(1))
    (tmp_path / "b.png").write_bytes(b"not a PNG")
    source = open_source(str(tmp_path))
    source.read(1.0)
    with pytest.raises(AppError, match=r"b\.png: not an image") as raised:
        source.read(1.0)
    assert raised.value.exit_code == EXIT_SOURCE_LOST


# --- what cannot be opened ---------------------------------------------------------------------


def test_what_cannot_be_opened_says_so_and_what_to_try(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "broken.png").write_bytes(b"")
    cases = {
        "test:stars": "test:digits",
        "ftp://host/video": "rtsp://",
        str(tmp_path / "empty"): "no images",
        str(tmp_path / "text.mp4"): "neither an image nor a video",
        str(tmp_path / "tex.mp4"): "did you mean .*text.mp4",
        str(tmp_path / "nothing" / "at" / "all"): "no such file",
        "97": "no camera at /dev/video97",
        "/dev/video98": "no camera at /dev/video98",
        "http://127.0.0.1:9/": "cannot be opened",
    }
    for uri, message in cases.items():
        with pytest.raises(AppError, match=message) as raised:
            open_source(uri)
        assert raised.value.exit_code == EXIT_SOURCE_UNAVAILABLE, uri
        assert "\n" not in raised.value.message
    source = open_source(str(tmp_path / "broken.png"))
    with pytest.raises(AppError, match="not an image") as raised:
        source.read(1.0)
    assert raised.value.exit_code == EXIT_SOURCE_UNAVAILABLE


@pytest.mark.skipif(bool(cameras()), reason="this machine has a camera; run where there is none")
def test_no_camera_is_one_line_with_advice() -> None:
    with pytest.raises(AppError, match="^no camera found; plug one in.*--camera FILE") as raised:
        open_camera(None)
    assert raised.value.exit_code == EXIT_SOURCE_UNAVAILABLE


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


# --- live --------------------------------------------------------------------------------------


class Driver:
    """A capture handle whose pictures come when the test sends them; None means a failed read."""

    def __init__(self) -> None:
        self.pictures: queue.Queue[int | None] = queue.Queue()
        self.taken = 0
        self.released = threading.Event()

    def read(self) -> tuple[bool, np.ndarray | None]:
        try:
            value = self.pictures.get(timeout=0.05)
        except queue.Empty:
            return False, None
        self.taken += 1
        return (False, None) if value is None else (True, flat(value))

    def release(self) -> None:
        self.released.set()


def wait_until(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def test_only_the_newest_frame_is_handed_out_and_only_once() -> None:
    driver = Driver()
    stream = LiveStream("camera", driver)
    for value in (1, 2, 3):
        driver.pictures.put(value)
    wait_until(lambda: stream.overwritten == 2)
    frame = stream.read(PATIENCE_S)
    assert frame is not None and int(frame.image[0, 0, 0]) == 3
    assert stream.read(0.0) is None
    driver.pictures.put(4)
    frame = stream.read(PATIENCE_S)
    assert frame is not None and int(frame.image[0, 0, 0]) == 4
    stream.close()
    assert driver.released.wait(PATIENCE_S)


def test_a_few_failed_reads_are_survived() -> None:
    driver = Driver()
    stream = LiveStream("camera", driver)
    for value in (None, None, 9):
        driver.pictures.put(value)
    wait_until(lambda: driver.taken == 3)
    frame = stream.read(PATIENCE_S)
    assert frame is not None and int(frame.image[0, 0, 0]) == 9
    stream.close()


def test_a_source_that_stays_silent_is_lost() -> None:
    stream = LiveStream("camera", Driver(), lost_after_s=0.1)
    with pytest.raises(AppError, match="camera: no frame for") as raised:
        while True:
            assert stream.read(0.05) is None
    assert raised.value.exit_code == EXIT_SOURCE_LOST
    stream.close()


class Pictures(BaseHTTPRequestHandler):
    """Motion JPEG without end, or until the server's ``cut`` is set; and a video file."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, PictureServer)
        self.send_response(200)
        if self.path == "/clip.avi":
            self.send_header("Content-Length", str(len(server.clip)))
            self.end_headers()
            self.wfile.write(server.clip)
            return
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        jpeg = cv2.imencode(".jpg", flat(128))[1].tobytes()
        try:
            while not server.cut.wait(0.01):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:
            pass

    def log_message(self, *args: object) -> None:
        pass


class PictureServer(ThreadingHTTPServer):
    daemon_threads = True
    clip = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Pictures)
        self.cut = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def pictures() -> Iterator[PictureServer]:
    server = PictureServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.cut.set()
    server.shutdown()
    server.server_close()


def test_network_stream_plays_until_the_server_goes_away(pictures: PictureServer) -> None:
    url = f"{pictures.url}/stream.mjpg"
    stream = LiveStream(url, open_url_capture(url, url), lost_after_s=1.0)
    seen = 0
    end = time.monotonic() + PATIENCE_S
    while seen < 5 and time.monotonic() < end:
        frame = stream.read(0.1)
        if frame is not None:
            seen += 1
            assert abs(float(frame.image.mean()) - 128) < 3
    assert seen == 5
    pictures.cut.set()
    with pytest.raises(AppError, match="no frame for") as raised:
        while time.monotonic() < end:
            stream.read(0.1)
    assert raised.value.exit_code == EXIT_SOURCE_LOST
    stream.close()


def test_passwords_do_not_appear_in_names(pictures: PictureServer) -> None:
    secret = pictures.url.replace("http://", "http://viewer:s3cret@")
    stream = open_source(f"{secret}/stream.mjpg")
    assert stream.name == f"{pictures.url.replace('http://', 'http://***@')}/stream.mjpg"
    stream.close()
    with pytest.raises(AppError) as raised:
        open_source("rtsp://viewer:s3cr@t@127.0.0.1:9/live@1")
    assert raised.value.message.startswith("rtsp://***@127.0.0.1:9/live@1: cannot be opened")


def test_address_of_a_stream_and_of_a_recording(pictures: PictureServer, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", [10, 60, 110])
    pictures.clip = (tmp_path / "clip.avi").read_bytes()
    stream = open_source(f"{pictures.url}/stream.mjpg")
    assert isinstance(stream, LiveStream)
    stream.close()
    recording = open_source(f"{pictures.url}/clip.avi")
    assert isinstance(recording, VideoFile)
    assert len(read_all(recording)) == 3
    recording.close()
