"""Decisions are the same bytes as when somebody last looked at them (see golden_logs.py)."""

from __future__ import annotations

import difflib
import gzip
import json

import golden_logs
import pytest


@pytest.mark.parametrize("name", golden_logs.DAYS)
def test_decides_as_before(name: str) -> None:
    kept = gzip.decompress(golden_logs.path_of(name).read_bytes()).decode()
    new = golden_logs.log_of(name)
    difference = difflib.unified_diff(kept.splitlines(), new.splitlines(), "kept", "new", n=0)
    assert new == kept, (
        "run .venv/bin/python tests/edge_app/golden_logs.py if this is meant:\n"
        + "\n".join(list(difference)[:12])
    )


def test_the_same_day_twice_is_the_same_log() -> None:
    assert golden_logs.log_of("sensor-missing") == golden_logs.log_of("sensor-missing")


def test_every_log_kept_is_of_a_day() -> None:
    kept = {path.name for path in golden_logs.DIRECTORY.iterdir()}
    assert kept == {f"{name}.jsonl.gz" for name in golden_logs.DAYS}


def test_the_days_are_eventful() -> None:
    causes, kinds = set(), set()
    for name in golden_logs.DAYS:
        text = gzip.decompress(golden_logs.path_of(name).read_bytes()).decode()
        rows = [json.loads(line) for line in text.splitlines()[1:]]
        causes |= {row["cause"] for row in rows}
        kinds |= {event["kind"] for row in rows for event in row["events"]}
        times = [row["t"] for row in rows]
        assert times == sorted(set(times))
    assert {"thermal", "battery", "deadline", "failsafe", "none"} <= causes
    assert {"sensor_lost", "sensor_back", "distrusted", "cannot_last", "can_last"} <= kinds
