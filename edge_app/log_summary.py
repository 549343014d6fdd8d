"""`edge-app log summarize`: what a recorded run came to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_app.console import plain_console
from edge_app.errors import EXIT_USAGE, AppError
from edge_app.record import SCHEMA
from edge_app.sinks.statistics import Distribution

PERCENTILES = (50, 90, 95, 99)


@dataclass
class Level:
    """What happened at one level."""

    frames: int = 0
    labelled: int = 0
    correct: int = 0
    infer_ms: Distribution = field(default_factory=Distribution)


@dataclass
class Summary:
    """A run in numbers. Times in milliseconds; ``missing``: numbers of frames that are not there,
    because a line was left out or a file is not among those that were read."""

    frames: int = 0
    first: str = ""
    last: str = ""
    missing: int = 0
    escalated: int = 0
    agreed: int = 0
    damaged: int = 0
    levels: dict[int, Level] = field(default_factory=dict)
    causes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    age_ms: Distribution = field(default_factory=Distribution)
    hottest_c: float | None = None
    lowest_battery: float | None = None
    _next: int | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Take in one line."""
        self.frames += 1
        self.first = self.first or record["t"]
        self.last = record["t"]
        if self._next is not None and record["seq"] > self._next:
            self.missing += record["seq"] - self._next
        self._next = record["seq"] + 1
        level = self.levels.setdefault(record["bits"], Level())
        level.frames += 1
        level.infer_ms.add(record["latency_ms"]["infer"] / 1e3)
        self.age_ms.add(record["latency_ms"]["age"] / 1e3)
        if record["correct"] is not None:
            level.labelled += 1
            level.correct += record["correct"]
        if record["escalated_from"] is not None:
            self.escalated += 1
            self.agreed += record["agreed"] is True
        self.causes[record["cause"]] += 1
        self.labels[record["label"]] += 1
        heat, battery = record["temperature_c"], record["battery"]
        if heat is not None:
            self.hottest_c = heat if self.hottest_c is None else max(heat, self.hottest_c)
        if battery is not None:
            low = self.lowest_battery
            self.lowest_battery = battery if low is None else min(battery, low)

    def to_json(self) -> dict[str, Any]:
        """The numbers, for programs."""
        return {
            "frames": self.frames,
            "first": self.first,
            "last": self.last,
            "missing": self.missing,
            "damaged": self.damaged,
            "escalated": self.escalated,
            "agreed": self.agreed,
            "age_ms": _percentiles(self.age_ms),
            "levels": {
                str(bits): {
                    "frames": level.frames,
                    "accuracy": level.correct / level.labelled if level.labelled else None,
                    "infer_ms": _percentiles(level.infer_ms),
                }
                for bits, level in sorted(self.levels.items())
            },
            "causes": dict(self.causes.most_common()),
            "labels": dict(self.labels.most_common()),
            "hottest_c": self.hottest_c,
            "lowest_battery": self.lowest_battery,
        }


def _percentiles(distribution: Distribution) -> dict[str, float | None]:
    found = {f"p{percent}": distribution.percentile(percent) for percent in PERCENTILES}
    return {name: None if value is None else round(value * 1e3, 4) for name, value in found.items()}


def summary_of(paths: Sequence[Path]) -> Summary:
    """Of all lines of ``paths``. A damaged last line (the run was killed, or goes on) is counted.

    AppError (exit code 2) with file and line for what is no record.
    """
    summary = Summary()
    for path in paths:
        for number, line, last in _lines(path):
            try:
                record = json.loads(line)
                if record["schema"] != SCHEMA:
                    raise KeyError(f"schema {record['schema']!r}, not {SCHEMA!r}")
                summary.add(record)
            except (ValueError, KeyError, TypeError) as error:
                if last and isinstance(error, ValueError):
                    summary.damaged += 1
                    continue
                raise AppError(
                    f"{path}:{number}: not a record of edge-app run --jsonl: {error}", EXIT_USAGE
                ) from None
    return summary


def _lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Number and text of each line, and whether it is the last and has no end."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line, not line.endswith("\n")
    except OSError as error:
        raise AppError(f"{path}: {error.strerror}", EXIT_USAGE) from None


def summarize(paths: Sequence[Path], as_json: bool) -> None:
    """Print the summary to stdout."""
    summary = summary_of(paths)
    if as_json:
        print(json.dumps(summary.to_json(), ensure_ascii=False, indent=2))
        return
    from rich.box import SIMPLE
    from rich.table import Table

    console = plain_console()
    console.print(f"{summary.frames} frames, {summary.first} to {summary.last}")
    if summary.missing or summary.damaged:
        console.print(f"not there: {summary.missing}; cut off: {summary.damaged}")
    if not summary.frames:
        return
    table = Table(box=SIMPLE)
    for name in ("bits", "frames", "share", "accuracy", "p50 ms", "p90 ms", "p95 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for bits, level in sorted(summary.levels.items()):
        accuracy = f"{level.correct / level.labelled:.2%}" if level.labelled else "-"
        times = [f"{value:.3g}" for value in _percentiles(level.infer_ms).values() if value]
        share = f"{level.frames / summary.frames:.1%}"
        table.add_row(str(bits), str(level.frames), share, accuracy, *times)
    console.print(table)
    age = ", ".join(
        f"{name} {value:.3g}" for name, value in _percentiles(summary.age_ms).items() if value
    )
    console.print(f"age of results in ms: {age}")
    if summary.escalated:
        same = summary.agreed / summary.escalated
        console.print(f"run again: {summary.escalated}, the same answer in {same:.0%}")
    console.print("held by: " + ", ".join(f"{k} {v}" for k, v in summary.causes.most_common()))
    console.print("answers: " + ", ".join(f"{k} {v}" for k, v in summary.labels.most_common(10)))
    if summary.hottest_c is not None:
        console.print(f"hottest: {summary.hottest_c:.1f} °C")
    if summary.lowest_battery is not None:
        console.print(f"lowest battery: {summary.lowest_battery:.0%}")
