"""Recorded sensors on this device: making them, finding them by name or path, opening them."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_app.errors import EXIT_USAGE, AppError

if TYPE_CHECKING:
    from edge_app.clock import Clock
    from edge_app.sensors import Sample, SensorStatus
    from edge_app.sensors.recorder import Progress
    from edge_app.sensors.root import Root

SUFFIX = ".jsonl"
REPORT_S = 30.0
"""How often a recording says how far it is if nobody watches it at a terminal."""


class RecordedSource(Protocol):
    """A ``SensorSource`` with an end."""

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        ...

    @property
    def complete(self) -> bool:
        """False if the file was cut off."""
        ...

    def sample(self) -> Sample: ...
    def describe(self) -> list[SensorStatus]: ...


def open_recording(path: Path, clock: Clock) -> RecordedSource:
    """What plays ``path``, which is a recording of sensor files or a trace of their values.

    AppError (exit code 2) with file and line if it is neither.
    """
    from edge_app.sensors.recording import FORMAT, RecordedSensors, load_recording, read_header
    from edge_app.sensors.trace import TRACE_FORMAT, TraceSensors

    header = read_header(path)
    if "recording" in header:
        return RecordedSensors(load_recording(path), clock)
    if "trace" in header:
        return TraceSensors(path, clock)
    raise AppError(
        f"{path}:1: neither a recording nor a trace of sensors: the first line must say "
        f'"recording": "{FORMAT}" or "trace": "{TRACE_FORMAT}"',
        EXIT_USAGE,
    )


def open_root(sysroot: Path, clock: Clock) -> Root:
    """This machine, a copy of its files below a directory, or a recording of them."""
    why = "no such directory"
    try:
        if sysroot.is_file():
            from edge_app.sensors.recording import RecordedRoot, load_recording

            return RecordedRoot(load_recording(sysroot), clock)
        if sysroot.is_dir():
            from edge_app.sensors.root import SysRoot

            return SysRoot(sysroot)
    except OSError as error:
        why = error.strerror or str(error)
    raise AppError(
        f"--sysroot {sysroot}: {why}; give one that holds 'sys' and 'proc', or a recording",
        EXIT_USAGE,
    )


@dataclass(frozen=True)
class RecordOptions:
    """What `edge-app sensors record` was asked for; the names are those of its options."""

    out: Path
    duration: float = 600.0
    interval: float = 1.0
    note: str = ""
    sysroot: Path = field(default_factory=lambda: Path("/"))


def record_sensors(options: RecordOptions) -> int:
    """Record until the time is over or a signal comes, and return the exit code.

    Progress and the size go to stderr.
    """
    from edge_app.clock import RealClock
    from edge_app.sensors.guard import GuardedRoot
    from edge_app.sensors.recorder import record
    from edge_app.signals import StopRequest

    clock = RealClock()
    root = GuardedRoot(open_root(options.sysroot, clock), clock)
    stop = StopRequest()
    stop.install()
    reporter = _Reporter(options)
    try:
        recorded = record(
            root,
            clock,
            options.out,
            duration_s=options.duration,
            interval_s=options.interval,
            note=options.note,
            stopping=lambda: stop.requested,
            progress=reporter,
        )
    finally:
        reporter.close()
    early = ", ended early" if recorded.interrupted else ""
    _say(
        f"{options.out}: {recorded.seconds:.0f} s{early}, {recorded.samples} samples of "
        f"{recorded.files} files, {_size(recorded.size)}"
    )
    return stop.exit_code


class _Reporter:
    """Says how far a recording is: in one line that changes, or now and then in a new one."""

    def __init__(self, options: RecordOptions) -> None:
        self._options = options
        self._live = sys.stderr.isatty()
        self._said = 0.0

    def __call__(self, progress: Progress) -> None:
        text = (
            f"recording: {progress.seconds:.0f} of {self._options.duration:g} s, "
            f"{progress.samples} samples of {progress.files} files"
        )
        if self._live:
            print(f"\r\x1b[K{text} (Ctrl-C ends it)", end="", file=sys.stderr, flush=True)
        elif progress.samples == 1 or progress.seconds - self._said >= REPORT_S:
            self._said = progress.seconds
            _say(text)

    def close(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _size(size: int) -> str:
    return f"{size} bytes" if size < 10_000 else f"{size / 1024:.0f} KiB"


def traces_directory() -> Path:
    """Where the traces that come with the package are."""
    return Path(str(resources.files("edge_app"))) / "assets" / "traces"


def find_trace(name: str, option: str = "--replay-sensors ") -> Path:
    """The file that ``name`` means: a shipped trace or a path.

    AppError with exit code 2 says what there is instead; ``option`` is where the name was given.
    """
    known = {path.stem: path for path in sorted(traces_directory().glob(f"*{SUFFIX}"))}
    if name in known:
        return known[name]
    why = "no such trace or file"
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return path
    except OSError as error:
        why = error.strerror or str(error)
    except RuntimeError as error:  # of a home directory that nobody has
        why = str(error)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"shipped are: {', '.join(known) or 'none'}"
    raise AppError(f"{option}{name}: {why}; {hint}", EXIT_USAGE)
