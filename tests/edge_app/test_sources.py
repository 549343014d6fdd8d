"""Sources that end, test streams, and what cannot be opened."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_app.errors import EXIT_SOURCE_LOST, EXIT_SOURCE_UNAVAILABLE, EXIT_USAGE, AppError
from edge_app.sources import EndOfSource, Frame, Source, open_source
from edge_app.sources.cameras import cameras, open_camera
from edge_app.sources.digits import DigitsStream
from edge_app.sources.files import VideoFile
from edge_app.sources.mjpeg import JpegSplitter, MjpegInput
from edge_app.sources.prefetch import Prefetched

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


def test_an_address_that_is_empty_is_not_this_directory() -> None:
    """As of a variable that a shell did not know."""
    with pytest.raises(AppError, match="--camera is empty") as raised:
        open_source("")
    assert raised.value.exit_code == EXIT_USAGE


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
        "test:stars": "test:digits, test:bars",
        "pi:x": "write pi:0",
        "gst: ": "needs",
        str(tmp_path / "*.jpg"): "no image matches",
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


# --- more files --------------------------------------------------------------------------------


def test_a_pattern_and_a_list_name_images(tmp_path: Path) -> None:
    for index, name in enumerate(("b.png", "a.png", "c.jpg")):
        cv2.imwrite(str(tmp_path / name), flat(50 * index))
    (tmp_path / "notes.md").write_text("no image")
    found = read_all(open_source(str(tmp_path / "*.png")))
    assert [int(frame.image[0, 0, 0]) for frame in found] == [50, 0], "sorted by name"
    listing = tmp_path / "list.txt"
    listing.write_text("# what to look at\n\nc.jpg\n" + str(tmp_path / "a.png") + "\n")
    found = read_all(open_source(str(listing)))
    assert [round(float(frame.image.mean())) for frame in found] == [100, 50]
    listing.write_text("a.png\nz.png\n")
    with pytest.raises(AppError, match=r"list.txt:2: no such file: z.png"):
        open_source(str(listing))
    listing.write_text("# nothing\n")
    with pytest.raises(AppError, match="names no image"):
        open_source(str(listing))


@pytest.mark.parametrize("kind", ["bars", "noise"])
def test_test_pictures_move_and_are_the_same_in_every_run(kind: str) -> None:
    first, again = open_source(f"test:{kind}"), open_source(f"test:{kind}")
    assert not first.live and first.nominal_fps == 30.0
    pictures = []
    for _ in range(3):
        frame, same = first.read(1.0), again.read(1.0)
        assert frame is not None and same is not None
        assert frame.image.shape == (480, 640, 3)
        np.testing.assert_array_equal(frame.image, same.image)
        pictures.append(frame.image)
    assert (pictures[0] != pictures[1]).any() and (pictures[1] != pictures[2]).any()


def test_a_video_in_real_time_leaves_out_what_there_is_no_time_for(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", list(range(0, 200, 10)))  # two seconds at 10 a second
    source = VideoFile(str(tmp_path / "clip.avi"), realtime=True)
    started = time.monotonic()
    seen = []
    while True:
        try:
            frame = source.read(0.05)
        except EndOfSource:
            break
        if frame is None:
            continue
        seen.append(round(float(frame.image.mean()) / 10))
        time.sleep(0.35)  # a model that takes three and a half frames
    assert time.monotonic() - started > 1.5
    assert seen == sorted(set(seen)) and len(seen) < 12
    assert len(seen) + source.losses["stale"] == 20, "every frame is accounted for"


def test_what_is_read_ahead_is_all_there_and_in_order(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", list(range(0, 250, 10)))
    direct = read_all(VideoFile(str(tmp_path / "clip.avi")))
    ahead = Prefetched(VideoFile(str(tmp_path / "clip.avi")))
    time.sleep(0.2)
    frames = read_all(ahead)
    assert len(frames) == 25
    for frame, expected in zip(frames, direct, strict=True):
        np.testing.assert_array_equal(frame.image, expected.image)
    ahead.close()


def test_an_error_while_reading_ahead_comes_after_the_frames_before_it(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), flat(9))
    (tmp_path / "c.png").write_bytes(b"no picture")
    ahead = Prefetched(open_source(str(tmp_path)))
    assert ahead.read(5.0) is not None and ahead.read(5.0) is not None
    with pytest.raises(AppError, match="c.png: not an image"):
        ahead.read(5.0)
    ahead.close()


def test_closing_ends_reading_ahead(tmp_path: Path) -> None:
    ahead = Prefetched(DigitsStream())
    assert ahead.read(5.0) is not None
    before = threading.active_count()
    ahead.close()
    assert threading.active_count() < before


# --- stdin -------------------------------------------------------------------------------------


def jpeg(value: int) -> bytes:
    return bytes(cv2.imencode(".jpg", flat(value))[1])


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_pictures_are_found_in_a_stream_however_it_is_cut(size: int) -> None:
    pictures = [jpeg(value) for value in (10, 60, 110)]
    stream = b"\xff--boundary\r\n\xff" + b"\r\n--boundary\r\n".join(pictures) + b"\xff"
    splitter = JpegSplitter()
    found: list[bytes] = []
    for start in range(0, len(stream), size):
        found += splitter.feed(stream[start : start + size])
    assert found == pictures


def test_a_picture_without_an_end_is_given_up() -> None:
    splitter = JpegSplitter()
    assert splitter.feed(jpeg(1)[:-2]) == []
    for _ in range(33):
        assert splitter.feed(bytes(1 << 20)) == []
    assert splitter.feed(jpeg(2)) == [jpeg(2)]


def test_motion_jpeg_on_stdin() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        source = MjpegInput(pipe)
        assert source.read(0.01) is None, "nothing has come yet"
        os.write(writing, jpeg(40) + b"\xff\xd8\xffdamaged\xff\xd9" + jpeg(80))
        values = []
        for _ in range(3):
            frame = source.read(5.0)
            values.append(None if frame is None else round(float(frame.image.mean())))
        assert values == [40, None, 80]
        assert source.losses == {"capture": 1}
        os.close(writing)
        with pytest.raises(EndOfSource):
            source.read(5.0)
