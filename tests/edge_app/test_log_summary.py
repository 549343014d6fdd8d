"""`edge-app log summarize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_sinks import record

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.log_summary import summary_of


def write(path: Path, *changes: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record(**change).to_json()) + "\n" for change in changes))
    return path


def test_numbers_of_a_run(tmp_path: Path) -> None:
    path = write(
        tmp_path / "run.jsonl",
        {"seq": 0, "bits": 8, "infer_s": 0.004},
        {"seq": 1, "bits": 8, "infer_s": 0.004, "truth": 3},
        {"seq": 4, "bits": 2, "infer_s": 0.001, "cause": "thermal", "temperature_c": 80.5},
        {"seq": 5, "bits": 8, "escalated_from": 2, "agreed": False, "truth": None, "battery": 0.2},
    )
    summary = summary_of([path]).to_json()
    assert summary["frames"] == 4 and summary["missing"] == 2 and summary["damaged"] == 0
    assert summary["levels"]["8"]["frames"] == 3 and summary["levels"]["8"]["accuracy"] == 0.5
    assert summary["levels"]["2"]["infer_ms"]["p50"] == pytest.approx(1.0, rel=0.02)
    assert summary["causes"] == {"none": 3, "thermal": 1}
    assert (summary["escalated"], summary["agreed"]) == (1, 0)
    assert (summary["hottest_c"], summary["lowest_battery"]) == (80.5, 0.2)


def test_rotated_files_are_one_run(tmp_path: Path) -> None:
    old = write(tmp_path / "run.jsonl.1", {"seq": 0}, {"seq": 1})
    new = write(tmp_path / "run.jsonl", {"seq": 2})
    summary = summary_of([old, new])
    assert summary.frames == 3 and summary.missing == 0


def test_a_line_that_was_cut_at_the_end_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", {"seq": 0}, {"seq": 1})
    path.write_text(path.read_text()[:-20])
    summary = summary_of([path])
    assert (summary.frames, summary.damaged) == (1, 1)


@pytest.mark.parametrize(
    ("line", "what"),
    [("{}", "schema"), ("nonsense", "Expecting"), ('{"schema": "other/1"}', "other/1"), ("3", "")],
)
def test_what_is_no_record_is_named_by_line(tmp_path: Path, line: str, what: str) -> None:
    path = write(tmp_path / "run.jsonl", {"seq": 0})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(AppError, match=f"run.jsonl:2: not a record.*{what}") as raised:
        summary_of([path])
    assert raised.value.exit_code == EXIT_USAGE


def test_the_command(tmp_path: Path, edge_app: Any) -> None:
    path = tmp_path / "run.jsonl"
    assert edge_app("run", "--max-frames", 25, "--jsonl", path).returncode == 0
    result = edge_app("log", "summarize", path)
    assert result.returncode == 0, result.stderr
    assert "25 frames" in result.stdout and "age of results" in result.stdout
    numbers = json.loads(edge_app("log", "summarize", path, "--json").stdout)
    assert numbers["frames"] == 25 and sum(numbers["labels"].values()) == 25
    missing = edge_app("log", "summarize", tmp_path / "no.jsonl")
    assert missing.returncode == EXIT_USAGE and "No such file" in missing.stderr
