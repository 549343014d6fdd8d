"""The annotated video plays whatever happened to its writer; crops are sorted by answer."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stream_servers import flat
from test_sinks import record

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.sinks.pictures import CropSink, VideoSink, annotated
from edge_app.sources import Frame


def frame(value: int, height: int = 240, width: int = 320) -> Frame:
    return Frame(flat(value, height, width), "bgr", 0.0, 0.0)


def played(path: Path) -> list[tuple[float, np.ndarray]]:
    """Times in seconds and pictures."""
    capture = cv2.VideoCapture(str(path))
    assert capture.isOpened()
    found = []
    while True:
        good, image = capture.read()
        if not good:
            return found
        found.append((capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, image))


TIMES = [0.0, 0.1, 0.2, 1.7, 1.8, 7.0, 40.5]


def test_every_picture_has_its_own_time(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mkv")
    for index, seconds in enumerate(TIMES):
        sink.frame(record(seq=index, wall_time=1e9 + seconds), frame(30 * index))
    found = played(tmp_path / "out.mkv")
    assert len(found) == len(TIMES), "all of it, although the writer goes on"
    sink.close()
    assert [seconds for seconds, _ in found] == pytest.approx(TIMES, abs=2e-3)
    for index, (_, image) in enumerate(found):
        assert image.shape == (240, 320, 3)
        assert abs(float(np.median(image)) - 30 * index) < 4


def test_a_file_that_was_cut_anywhere_plays_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    sink = VideoSink(path)
    for index in range(20):
        sink.frame(record(seq=index, wall_time=1e9 + index), frame(10 * index))
    sink.close()
    content = path.read_bytes()
    for share in (0.3, 0.55, 0.8):
        path.write_bytes(content[: int(share * len(content))])
        assert 20 * share - 4 <= len(played(path)) <= 20 * share + 1


def test_a_clock_that_goes_back_does_not_spoil_the_video(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mkv")
    for seconds in (0.0, 1.0, -86400.0, 1.5):
        sink.frame(record(wall_time=1e9 + seconds), frame(90))
    sink.close()
    times = [seconds for seconds, _ in played(tmp_path / "out.mkv")]
    assert len(times) == 4 and times == sorted(set(times))


def test_a_camera_may_change_its_size(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mkv")
    sink.frame(record(wall_time=1e9), frame(90))
    sink.frame(record(wall_time=1e9 + 1), frame(90, 480, 640))
    sink.close()
    assert [image.shape for _, image in played(tmp_path / "out.mkv")] == [(240, 320, 3)] * 2


def test_the_annotation_is_drawn_on_a_copy_and_small_pictures_are_enlarged() -> None:
    small = Frame(flat(0, 8, 8), "rgb", 0.0, 0.0)
    drawn = annotated(record(), small)
    assert drawn.shape == (240, 240, 3)
    assert drawn.max() == 255, "letters"
    assert small.image.max() == 0
    plain = annotated(record(label="a"), frame(100))
    assert (plain != annotated(record(label="b"), frame(100))).any()
    assert (plain != annotated(record(label="a", bits=2), frame(100))).any()


def test_colours_keep_their_order(tmp_path: Path) -> None:
    red = np.zeros((240, 320, 3), np.uint8)
    red[..., 0] = 200
    sink = VideoSink(tmp_path / "out.mkv")
    sink.frame(record(), Frame(red, "rgb", 0.0, 0.0))
    sink.close()
    ((_, image),) = played(tmp_path / "out.mkv")
    assert np.median(image[..., 2]) > 190 and np.median(image[..., 0]) < 10


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "out.mp4", "must end in .mkv"), (tmp_path / "a/b.mkv", "No")):
        with pytest.raises(AppError, match=message) as raised:
            VideoSink(path)
        assert raised.value.exit_code == EXIT_USAGE
    (tmp_path / "full.mkv").symlink_to("/dev/full")
    sink = VideoSink(tmp_path / "full.mkv")
    with pytest.raises(AppError, match="cannot write: No space"):
        sink.frame(record(), frame(1))
    sink.close()
    (tmp_path / "file").touch()
    with pytest.raises(AppError, match="--save-crops"):
        CropSink(tmp_path / "file", 8, 8)


def test_crops_are_sorted_by_answer_and_rare(tmp_path: Path) -> None:
    sink = CropSink(tmp_path / "crops", 32, 32)
    for index in range(40):
        label = "a/b" if index % 2 else "cat"
        sink.frame(record(label=label, seq=index, wall_time=1e9 + index * 0.1), frame(90, 40, 90))
    found = sorted(path.relative_to(tmp_path / "crops") for path in tmp_path.rglob("*.jpg"))
    assert {path.parts[0] for path in found} == {"a_b", "cat"}
    assert len(found) == 8, "one a second for each"
    assert cv2.imread(str(tmp_path / "crops" / found[0])).shape == (40, 40, 3)


def test_a_killed_run_leaves_a_video_that_plays(tmp_path: Path, start_edge_app: Any) -> None:
    path = tmp_path / "out.mkv"
    process = start_edge_app("run", "--camera", "test:bars", "--save", path)
    limit = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < 500_000:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(played(path)) >= 3
