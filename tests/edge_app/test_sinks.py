"""Records, statistics, progress lines and the summary."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor import Decision
from edge_app.record import FrameRecord, rfc3339
from edge_app.sinks.jsonl import JsonLines
from edge_app.sinks.progress import REPORT_EVERY_S, LiveLine, PlainLines, Status, change_text
from edge_app.sinks.statistics import Distribution, Statistics
from edge_app.sinks.summary import print_summary
from edge_app.sources import Frame

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "edge_app/assets/schema/frame.schema.json").read_text()
)

FRAME = Frame(np.zeros((8, 8, 3), np.uint8), "rgb", 0.0, 0.0)


def record(**changes: Any) -> FrameRecord:
    values: dict[str, Any] = {
        "wall_time": 1_738_324_800.1234,
        "mono_ns": 5,
        "seq": 0,
        "source": "test:digits",
        "bits": 8,
        "branches": (1, 2, 3, 4),
        "ceiling_bits": 8,
        "cause": "none",
        "capture_s": 1e-5,
        "preprocess_s": 2e-5,
        "infer_s": 3e-4,
        "age_s": 1e-3,
        "temperature_c": 51.5,
        "battery": 0.75,
        "label": "seven",
        "class_index": 7,
        "probability": 0.9375,
        "margin": 0.9,
        "escalated_from": None,
        "agreed": None,
        "truth": 7,
        "governor_time_s": 12.0,
    }
    return FrameRecord(**(values | changes))


def decision(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "time": 75.0,
        "bits": 4,
        "rung": 2,
        "changed": True,
        "previous_bits": 8,
        "cause": "thermal",
        "caps": {"thermal": 4, "battery": 8},
        "why": "cpu-thermal 79 °C of 80",
        "next_raise_s": None,
        "temperature_c": 79.0,
        "battery_charge": None,
    }
    return Decision(**(values | changes))


# --- records -----------------------------------------------------------------------------------


def test_the_schema_itself_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "changes", [{}, {"temperature_c": None, "battery": None, "truth": None}, {"truth": 3}]
)
def test_records_follow_the_schema_and_say_everything(changes: dict[str, Any]) -> None:
    json_record = record(**changes).to_json()
    jsonschema.validate(json_record, SCHEMA)
    assert set(json_record) == set(SCHEMA["properties"])


def test_a_record_is_right_wrong_or_unknown() -> None:
    assert record().correct is True
    assert record(truth=3).correct is False
    assert record(truth=None).correct is None


def test_times_are_utc_with_milliseconds() -> None:
    assert rfc3339(1_738_324_800.1234) == "2025-01-31T12:00:00.123Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_lines_are_whole_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    sink = JsonLines(str(path))
    for seq in range(3):
        sink.frame(record(seq=seq, label="größer"), FRAME)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        assert len(lines) == seq + 1
        assert json.loads(lines[-1])["seq"] == seq and lines[-1].endswith("\n")
    sink.close()
    assert json.loads(lines[0])["label"] == "größer"


def test_records_that_cannot_be_written_end_with_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="No such file or directory; give a file in") as raised:
        JsonLines(str(tmp_path / "nowhere" / "run.jsonl"))
    assert raised.value.exit_code == EXIT_USAGE
    if Path("/dev/full").exists():
        sink = JsonLines("/dev/full")
        with pytest.raises(AppError, match="/dev/full: cannot write: No space left"):
            sink.frame(record(), FRAME)
        sink.close()


# --- statistics --------------------------------------------------------------------------------


def test_percentiles_are_within_a_percent_and_memory_stays_bounded() -> None:
    values = np.random.default_rng(3).lognormal(-6, 1.5, 20_000)
    distribution = Distribution()
    for value in values:
        distribution.add(float(value))
    for percent in (1, 50, 90, 99, 100):
        exact = np.percentile(values, percent, method="inverted_cdf")
        assert distribution.percentile(percent) == pytest.approx(exact, rel=0.0101)
    assert len(distribution._bins) < 1000


def test_percentiles_of_nothing_and_of_nearly_nothing() -> None:
    distribution = Distribution()
    assert distribution.percentile(50) is None
    distribution.add(0.0)
    assert distribution.percentile(50) == pytest.approx(1e-6, rel=0.02)


def test_accuracy_counts_only_frames_with_a_truth() -> None:
    statistics = Statistics((2, 8))
    for truth in (7, 7, 3, None):
        statistics.frame(record(truth=truth), FRAME)
    assert statistics.frames == 4
    assert statistics.levels[8].accuracy == pytest.approx(2 / 3)
    assert statistics.levels[2].accuracy is None


def test_changes_are_counted_by_cause() -> None:
    statistics = Statistics((4, 8))
    statistics.decision(decision(changed=False))
    for _ in range(3):
        statistics.decision(decision())
    statistics.decision(decision(cause="battery"))
    assert statistics.changes == {(8, 4, "thermal"): 3, (8, 4, "battery"): 1}


# --- what people see ---------------------------------------------------------------------------


def test_the_status_names_level_cause_sensors_rate_and_latency() -> None:
    now = 0.0
    status = Status(lambda: now)
    for seq in range(5):
        now = seq * 0.25
        truth = 3 if seq == 0 else 7
        status.add_frame(record(seq=seq, cause="thermal", bits=4, truth=truth))
    status.decision = decision(battery_charge=0.5)
    assert status.text() == (
        "4 bits (thermal) | 79.0 °C | battery 50% | 4.0 fps | 0.30 ms | accuracy 80.0% | "
        "frame 4: seven 94%"
    )
    now = 60.0
    assert "| 0.0 fps |" in status.text()


def test_the_status_leaves_out_an_unknown_accuracy() -> None:
    status = Status(lambda: 0.0)
    status.add_frame(record(truth=None))
    assert "accuracy" not in status.text()


def test_the_status_without_sensors_or_frames_says_so() -> None:
    assert Status().text() == "starting | no temperature | no battery | 0.0 fps"


def test_changes_are_told_with_their_cause() -> None:
    assert change_text(decision()) == "  1:15  8 -> 4 bits (thermal): cpu-thermal 79 °C of 80"
    same = decision(previous_bits=4)
    assert change_text(same) == "  1:15  4 bits, rung 2 (thermal): cpu-thermal 79 °C of 80"


def test_without_a_terminal_there_is_a_line_every_ten_seconds_and_one_a_change() -> None:
    now = 0.0
    lines: list[str] = []
    progress = PlainLines(lines.append, lambda: now)
    for step in range(251):
        now = step * 0.1
        progress.frame(record(seq=step), FRAME)
        progress.tick()
    assert len(lines) == 25 // REPORT_EVERY_S
    progress.decision(decision(changed=False))
    assert len(lines) == 2
    progress.decision(decision())
    assert lines[2].endswith("8 -> 4 bits (thermal): cpu-thermal 79 °C of 80")


def test_on_a_terminal_the_line_is_redrawn_and_changes_stay() -> None:
    from rich.console import Console

    screen = io.StringIO()
    line = LiveLine(Console(file=screen, force_terminal=True, width=120))
    line.frame(record(), FRAME)
    line.decision(decision())
    line.close()
    text = screen.getvalue()
    assert "8 bits | " in text
    assert "8 -> 4 bits (thermal)" in text
    assert text.count("\n") < 6


def test_the_summary_has_levels_accuracy_latency_and_causes() -> None:
    statistics = Statistics((2, 8))
    for truth in (7, 7, 7, 3):
        statistics.frame(record(truth=truth), FRAME)
    statistics.decision(decision())
    file = io.StringIO()
    print_summary(statistics, 2.0, fixed=False, losses={"stale": 3}, file=file)
    text = file.getvalue()
    assert "4 frames in 2.0 s (2.0 a second)" in text
    assert "75.00% of 4" in text
    assert "thermal" in text and "stale 3" in text
    for heading in ("p50 ms", "p90 ms", "p99 ms"):
        assert heading in text


def test_the_summary_counts_what_was_run_again() -> None:
    statistics = Statistics((2, 8))
    statistics.frame(record(), FRAME)
    statistics.frame(record(escalated_from=2, agreed=True), FRAME)
    statistics.frame(record(escalated_from=2, agreed=False), FRAME)
    file = io.StringIO()
    print_summary(statistics, 1.0, fixed=False, losses={}, file=file)
    text = " ".join(file.getvalue().split())
    assert "higher level: 2 (66.7%), of which 50% gave the same answer" in text


def test_records_go_to_a_new_file_by_size_and_no_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    sink = JsonLines(str(path), largest=2000)
    for seq in range(100):
        sink.frame(record(seq=seq), FRAME)
    sink.close()
    files = [path.with_name(f"run.jsonl.{number}") for number in range(5, 0, -1)] + [path]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    found = []
    for file in files:
        assert 0 < file.stat().st_size <= 2000
        found += [json.loads(line)["seq"] for line in file.read_text().splitlines()]
    assert found == list(range(found[0], 100)), "the newest, in order and without a gap"


def test_the_summary_of_a_quiet_fixed_run() -> None:
    file = io.StringIO()
    print_summary(Statistics((2, 8)), 0.0, fixed=True, losses={}, file=file)
    text = file.getvalue()
    assert "0 frames" in text
    assert "The level was fixed" in text
    assert "changed nothing" in text
