"""Reading records back and drawing them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.plotting import Series, plot_run, read_records, rolling_accuracy, stretches


def line(**changes: Any) -> str:
    record = {
        "schema": "edge-app/frame/1",
        "governor_time_s": 0.0,
        "bits": 8,
        "cause": "none",
        "temperature_c": 50.0,
        "battery": None,
        "correct": True,
    }
    return json.dumps(record | changes) + "\n"


def test_rolling_accuracy_is_of_the_newest_labelled_frames() -> None:
    result = rolling_accuracy([True, None, False, True, True, True, True], 4)
    assert result == pytest.approx([1.0, 1.0, 0.5, 2 / 3, 0.75, 0.75, 1.0])
    assert rolling_accuracy([None, None], 4) == [None, None]
    assert rolling_accuracy([True] * 3, 40) == [None] * 3


def test_stretches_are_alike_in_bits_and_cause() -> None:
    series = Series(bits=[8, 8, 4, 4, 4], causes=["none", "none", "thermal", "thermal", "load"])
    assert stretches(series) == [(0, 2, 8, "none"), (2, 4, 4, "thermal"), (4, 5, 4, "load")]


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(line() + line(governor_time_s=1.5, bits=4) + line()[:30])
    series = read_records(path)
    assert series.seconds == [0.0, 1.5]
    assert series.bits == [8, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no records"),
        (line() + "nonsense\n", "run.jsonl:2: not a record"),
        (line(schema="edge-app/frame/9"), "run.jsonl:1: .*schema is"),
        ('{"schema": "edge-app/frame/1"}\n', "run.jsonl:1: .*governor_time_s"),
        ("[]\n", "run.jsonl:1: not a record"),
    ],
)
def test_what_is_no_record_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(content)
    with pytest.raises(AppError, match=message) as raised:
        read_records(path)
    assert raised.value.exit_code == EXIT_USAGE


def test_missing_input_and_unwritable_output(tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"absent\.jsonl: cannot be read"):
        plot_run(tmp_path / "absent.jsonl", tmp_path / "run.png")
    (tmp_path / "run.jsonl").write_text(line())
    with pytest.raises(AppError, match=r"run\.png: cannot be written"):
        plot_run(tmp_path / "run.jsonl", tmp_path / "nowhere" / "run.png")


def test_the_picture_shows_levels_in_the_colour_of_their_cause(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    lines = []
    for second in range(120):
        hot = 40 <= second < 80
        lines.append(
            line(
                governor_time_s=float(second),
                bits=2 if hot else 8,
                cause="battery" if hot else "none",
                temperature_c=50 + 20 * math.sin(second / 20),
                battery=0.9 - second / 1000,
                correct=second % 10 != 0,
            )
        )
    (tmp_path / "run.jsonl").write_text("".join(lines))
    plot_run(tmp_path / "run.jsonl", tmp_path / "run.png")
    image = cv2.imread(str(tmp_path / "run.png"))
    assert image is not None and image.shape[1] > 900

    def pixels(red: int, green: int, blue: int) -> int:
        distance = np.abs(image.astype(int) - [blue, green, red]).max(axis=-1)
        return int((distance < 12).sum())

    # Orange is used by nothing but the levels under the battery's cap (and their legend).
    assert pixels(0xE6, 0x9F, 0x00) > 100
    assert pixels(0xCC, 0x79, 0xA7) == 0
