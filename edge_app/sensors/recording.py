"""A machine's sensor files as they were and as they changed, in one small file.

JSON Lines, compressed if the name ends in .gz. First the header:

    {"recording": "edge-app/sysfs/1", "made_by": "edge-app 0.1.0", "note": "in its case",
     "wall": "2026-05-01T14:00:00+02:00", "machine": {"arch": "aarch64"}}

Then one row for each file at t = 0, and one for each change after that; ``t`` is in seconds and
never falls. The value is the file's text, the error that reading it gave, or null once the file
is gone:

    [0, "sys/class/thermal/thermal_zone0/temp", "48312"]
    [0, "sys/class/thermal/thermal_zone1/temp", {"errno": "ENODATA"}]
    [7, "sys/class/power_supply/BAT0/capacity", null]

A recording that went to its end closes with ``{"end": 600.0}``; one written by hand need not, and
ends with its last row. Everything but rows and header may be left out. ``RecordedRoot`` plays it
through the very readers that read a live machine.
"""

from __future__ import annotations

import bisect
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from edge_app.clock import Clock
from edge_app.errors import EXIT_USAGE, AppError
from edge_app.sensors.root import Attribute, natural
from edge_app.sensors.sysfs import SysfsSensors
from edge_app.sensors.types import Quality, Sample, SensorStatus

FORMAT = "edge-app/sysfs/1"
MAX_BYTES = 256 * 1024 * 1024
"""Of text. Recordings come from strangers: a small file may unpack to a very large one."""

MAX_LINE = 64 * 1024
MAX_PATH = 512
MAX_SECONDS = 1e9
GZIP_MAGIC = b"\x1f\x8b"
ERROR_NAME = re.compile(r"E[A-Z0-9]{1,30}")
GONE = Attribute(None, "ENOENT")


@dataclass
class _History:
    """What one file gave, and from when on."""

    times: list[float] = field(default_factory=list)
    values: list[Attribute] = field(default_factory=list)

    def at(self, time: float) -> Attribute:
        index = bisect.bisect_right(self.times, time) - 1
        return self.values[index] if index >= 0 else GONE


@dataclass(frozen=True)
class Recording:
    """A recording in memory. ``seconds`` is its length.

    ``complete``: False if the file ends in the middle of something, as after a power cut; what
    is there is sound.
    """

    path: Path
    header: Mapping[str, Any]
    seconds: float
    complete: bool
    _files: Mapping[str, _History]
    _children: Mapping[str, Mapping[str, list[_History]]]

    @property
    def paths(self) -> list[str]:
        """Every file that was there at some time."""
        return natural(self._files)

    @property
    def wall(self) -> datetime | None:
        """Local date and time at t = 0, if the recording says."""
        wall = self.header.get("wall")
        return None if wall is None else datetime.fromisoformat(wall)

    def read(self, path: str, time: float) -> Attribute:
        """What the file gave at ``time``."""
        history = self._files.get(path)
        if history is not None:
            return history.at(time)
        return Attribute(None, "EISDIR") if path in self._children else GONE

    def entries(self, path: str, time: float) -> list[str]:
        """Names in a directory below which there was some file at ``time``."""
        names = self._children.get(path, {})
        return natural(
            name for name, files in names.items() if any(file.at(time) != GONE for file in files)
        )


class RecordedRoot:
    """The files of a recording at the clock's time, which starts with the first look at them."""

    is_this_machine = False

    def __init__(self, recording: Recording, clock: Clock) -> None:
        self.recording = recording
        self._clock = clock
        self._origin: float | None = None

    @property
    def name(self) -> str:
        return f"recording {self.recording.path.name}"

    @property
    def elapsed(self) -> float:
        """Seconds since t = 0 of the recording."""
        now = self._clock.now()
        if self._origin is None:
            self._origin = now
        return now - self._origin

    def read(self, path: str) -> Attribute:
        return self.recording.read(path, self.elapsed)

    def entries(self, path: str) -> list[str]:
        return self.recording.entries(path, self.elapsed)


class RecordedSensors:
    """A ``SensorSource`` that plays a recording through the readers of a live machine.

    The time of day is the recorded one, so that a policy with hours in it decides as it would
    have decided there.
    """

    def __init__(self, recording: Recording, clock: Clock) -> None:
        self.recording = recording
        self._root = RecordedRoot(recording, clock)
        self._sensors = SysfsSensors(self._root, clock)

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.recording.seconds

    @property
    def complete(self) -> bool:
        """Whether it goes to its end; False if the file was cut off."""
        return self.recording.complete

    def sample(self) -> Sample:
        elapsed = self._root.elapsed
        start = self.recording.wall
        wall = None if start is None else start + timedelta(seconds=elapsed)
        return replace(self._sensors.sample(), wall=wall)

    def describe(self) -> list[SensorStatus]:
        recording = self.recording
        note = f"{recording.path.name}, {recording.seconds:.0f} s"
        if recording.header.get("note"):
            note += f": {recording.header['note']}"
        if not recording.complete:
            note += " (cut off: the file has no end)"
        status = SensorStatus("recording", "all sensors", Quality.OK, note)
        return [status, *self._sensors.describe()]


def load_recording(path: Path) -> Recording:
    """Read a recording. AppError (exit code 2) with file and line if it is none.

    A file that was cut off, compressed or not, gives what is whole in it.
    """
    reader = _Reader(path)
    try:
        with path.open("rb") as file:
            for line in reader.lines(file):
                reader.take(line)
    except (OSError, zlib.error) as error:
        raise AppError(f"{path}: the recording cannot be read: {error}", EXIT_USAGE) from None
    return reader.finish()


def read_header(path: Path) -> Mapping[str, Any]:
    """The first line of a recording or a trace, to tell which it is; {} if it is no object."""
    try:
        with path.open("rb") as file:
            text = next(_Reader(path).lines(file), b"")
    except (OSError, zlib.error) as error:
        raise AppError(f"{path}: the recording cannot be read: {error}", EXIT_USAGE) from None
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


class _Reader:
    """Takes in a recording line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line = 0
        self._header: Mapping[str, Any] | None = None
        self._end: float | None = None
        self._newest = 0.0
        self._files: dict[str, _History] = {}
        self._cut_off = False

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Whole lines of a file, unpacked; what a cut left of the last one is dropped."""
        magic = file.read(len(GZIP_MAGIC))
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if magic == GZIP_MAGIC else file
        total = 0
        while True:
            try:
                line: bytes = stream.readline(MAX_LINE)
            except EOFError:
                self._cut_off = True
                return
            if not line:
                return
            self._line += 1
            if len(line) == MAX_LINE:
                raise self._fail("a line is too long")
            total += len(line)
            if total > MAX_BYTES:
                raise AppError(
                    f"{self._path}: more than {MAX_BYTES >> 20} MiB of text; record a shorter "
                    "time, or with a longer --interval",
                    EXIT_USAGE,
                )
            if not line.endswith(b"\n") and not _is_json(line):
                self._cut_off = True
                return
            yield line

    def take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            value = json.loads(line, parse_constant=_reject)
        except (ValueError, RecursionError) as error:
            raise self._fail(f"invalid JSON: {error}") from None
        if self._header is None:
            self._header = self._checked_header(value)
        elif self._end is not None:
            raise self._fail('nothing may follow "end"')
        elif isinstance(value, dict):
            self._end = self._time(value.get("end"), '"end"')
        else:
            self._row(value)

    def _checked_header(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict) or value.get("recording") != FORMAT:
            raise self._fail(f'the first line must be a header with "recording": "{FORMAT}"')
        wall = value.get("wall")
        if wall is not None:
            try:
                start = datetime.fromisoformat(wall)
                # Far from the end of the calendar, so that time may be added.
                if start.tzinfo is None or not 1970 <= start.year <= 9000:
                    raise ValueError
            except (TypeError, ValueError):
                raise self._fail(
                    f'"wall" must be a date and time with its offset from UTC (got {wall!r})'
                ) from None
        return value

    def _row(self, row: Any) -> None:
        if not isinstance(row, list) or len(row) != 3:
            raise self._fail('a row must be [seconds, "path", value]')
        time = self._time(row[0], "a row's first value")
        path, value = row[1], row[2]
        if not isinstance(path, str) or not _is_relative(path):
            raise self._fail(f"the path must be below the root, without .. (got {path!r})")
        history = self._files.setdefault(path, _History())
        if history.times and history.times[-1] == time:
            raise self._fail(f"a second value of {path} at {time:g} s")
        history.times.append(time)
        history.values.append(self._attribute(value))

    def _time(self, value: Any, what: str) -> float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= MAX_SECONDS:
            raise self._fail(f"{what} must be seconds since the start (got {value!r})")
        if value < self._newest:
            raise self._fail(f"t {value:g} comes before {self._newest:g}, which is above it")
        self._newest = float(value)
        return self._newest

    def _attribute(self, value: Any) -> Attribute:
        if value is None:
            return GONE
        if isinstance(value, str):
            return Attribute(value.strip("\0 \t\n"))
        if isinstance(value, dict) and set(value) == {"errno"}:
            error = value["errno"]
            if isinstance(error, str) and ERROR_NAME.fullmatch(error):
                return Attribute(None, error)
        raise self._fail(
            f'the value must be a text, {{"errno": "ENODATA"}} or null (got {value!r})'
        )

    def finish(self) -> Recording:
        if self._header is None:
            what = "cut off before its header ends" if self._cut_off else "it is empty"
            raise AppError(f"{self._path}: not a sensor recording: {what}", EXIT_USAGE)
        if not self._files and self._end is None:
            raise self._fail("no row follows the header")
        children: dict[str, dict[str, list[_History]]] = {}
        for path, history in self._files.items():
            *parents, _ = pieces = path.split("/")
            for depth in range(len(parents) + 1):
                directory = children.setdefault("/".join(pieces[:depth]), {})
                directory.setdefault(pieces[depth], []).append(history)
        for path in self._files.keys() & children.keys():
            raise self._fail(f"{path} is both a file and a directory")
        return Recording(
            self._path, self._header, self._newest, not self._cut_off, self._files, children
        )

    def _fail(self, what: str) -> AppError:
        return AppError(f"{self._path}:{self._line}: not a sensor recording: {what}", EXIT_USAGE)


def _is_relative(path: str) -> bool:
    parts = path.split("/")
    return len(path) <= MAX_PATH and all(part not in ("", ".", "..") for part in parts)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _reject(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
