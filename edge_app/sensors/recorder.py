"""Records a machine's sensor files into the format of ``recording``.

``watched`` says what is read. An address that is part of a device's name (Bluetooth batteries) is
replaced.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from edge_app.clock import Clock
from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError
from edge_app.sensors.recording import ERROR_NAME, FORMAT, GONE
from edge_app.sensors.root import Attribute, Root
from edge_app.sensors.watched import reduced, watched_paths

RESCAN_S = 30.0
"""How often devices and files that came since are looked for, and the fixed files read again."""

FLUSH_S = 10.0
"""How much a power cut may cost."""

SLICE_S = 0.1
"""No wait is longer: a request to stop is looked at between."""


ADDRESS = re.compile(
    r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{2}(?:([:_-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}"
)


class Snapshots:
    """The watched files of a root: all of them at first, then what has changed."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._known: dict[str, Attribute] = {}
        self._live: list[str] = []
        self._scanned: float | None = None
        self._addresses: dict[str, str] = {}

    @property
    def files(self) -> int:
        """How many files have been seen."""
        return len(self._known)

    def changes(self, time: float) -> list[tuple[str, Attribute]]:
        """What files give now that did not give it at the last call."""
        if self._scanned is None or time - self._scanned >= RESCAN_S:
            self._scanned = time
            self._live = list(watched_paths(self._root, live_only=True))
            # Files that are no longer there, too: that is how a recording learns it.
            paths = dict.fromkeys([*self._known, *watched_paths(self._root)])
        else:
            paths = dict.fromkeys(self._live)
        changed = []
        for path in paths:
            attribute = reduced(path, self._root.read(path))
            if attribute != self._known.get(path, GONE):
                changed.append((self._anonymous(path), attribute))
            self._known[path] = attribute
        return [
            (path, Attribute(attribute.text and self._anonymous(attribute.text), attribute.error))
            for path, attribute in changed
        ]

    def _anonymous(self, text: str) -> str:
        """``text`` with hardware addresses replaced, each by the same one every time."""

        def other(match: re.Match[str]) -> str:
            address = re.sub("[:_-]", "", match[0]).lower()
            number = self._addresses.setdefault(address, f"{len(self._addresses) + 1:012x}")
            return match[1].join(number[place : place + 2] for place in range(0, 12, 2))

        return ADDRESS.sub(other, text)


def machine() -> dict[str, Any]:
    """What a recording's header says about the machine it runs on."""
    return {
        "arch": platform.machine(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


class RecordingFile:
    """A recording that is being written: to a file beside its place, which gets its name at the
    end. What cannot be replaced, such as a pipe, is written at once.

    AppError (exit code 2) if it cannot be opened, with 1 if it cannot be written to its end.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target
        try:
            if target.is_file() or not target.exists():
                self.path = target.with_name(f"{target.name}.part")
            self._file = self.path.open("wb")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise AppError(
                f"--out {target}: {why}; give a file in a directory that exists and "
                "that you may write to",
                EXIT_USAGE,
            ) from None
        self._stream: BinaryIO | gzip.GzipFile = self._file
        if target.suffix == ".gz":
            # Neither name nor time: the same samples give the same file.
            self._stream = gzip.GzipFile("", "wb", fileobj=self._file, mtime=0)

    def write(self, value: Any) -> None:
        """One line of JSON."""
        line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._guarded(lambda: self._stream.write(line.encode("utf-8", "replace") + b"\n"))

    def flush(self) -> None:
        """From here on what was written survives the end of this program, and a power cut."""

        def flush() -> None:
            self._stream.flush()
            self._sync()

        self._guarded(flush)

    def close(self) -> int:
        """Give the file its name; bytes that it has."""

        def finish() -> None:
            if self._stream is not self._file:
                self._stream.close()
            self._file.flush()
            self._sync()

        self._guarded(finish)
        size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        if self.path != self.target:
            self._guarded(lambda: os.replace(self.path, self.target))
        return size

    def _sync(self) -> None:
        # Pipes and devices cannot be synced.
        if self.path != self.target:
            os.fsync(self._file.fileno())

    def _guarded(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError as error:
            self._abandon()
            kept = f"; what was recorded until then is in {self.path}"
            raise AppError(
                f"{self.target}: cannot be written: {error.strerror}"
                + (kept if self.path != self.target else ""),
                EXIT_BUG,
            ) from None

    def _abandon(self) -> None:
        # Both would try once more to write what could not be written.
        for stream in (self._stream, self._file):
            try:
                stream.close()
            except OSError:
                pass


@dataclass(frozen=True)
class Progress:
    """How far a recording has come: seconds, samples, and files seen."""

    seconds: float
    samples: int
    files: int


@dataclass(frozen=True)
class Recorded(Progress):
    """How it ended; ``size`` in bytes."""

    size: int = 0
    interrupted: bool = False


def record(
    root: Root,
    clock: Clock,
    target: Path,
    *,
    duration_s: float,
    interval_s: float,
    note: str = "",
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Recorded:
    """Record ``root`` from now on into ``target``.

    Ends after ``duration_s``, or soon after ``stopping`` says so; either way the file is whole.
    ``progress`` is called after every sample.
    """
    file = RecordingFile(target)
    header: dict[str, Any] = {"recording": FORMAT, "made_by": f"edge-app {version('edge-app')}"}
    if note:
        header["note"] = note
    header["wall"] = datetime.now().astimezone().isoformat(timespec="seconds")
    if root.is_this_machine:
        header["machine"] = machine()
    file.write(header)
    snapshots = Snapshots(root)
    start = clock.now()
    due = flushed = elapsed = 0.0
    samples = 0
    while True:
        for path, attribute in snapshots.changes(elapsed):
            file.write([round(elapsed, 3), path, _value(attribute)])
        samples += 1
        if samples == 1 or elapsed - flushed >= FLUSH_S:
            flushed = elapsed
            file.flush()
        progress(Progress(elapsed, samples, snapshots.files))
        # After a delay there is no burst of samples to make up for it.
        due = min(max(due + interval_s, clock.now() - start), duration_s)
        if elapsed >= duration_s or _interrupted(clock, start + due, stopping):
            break
        elapsed = clock.now() - start
    interrupted = elapsed < duration_s
    end: dict[str, Any] = {"end": round(elapsed, 3), "samples": samples}
    if interrupted:
        end["interrupted"] = True
    file.write(end)
    return Recorded(elapsed, samples, snapshots.files, file.close(), interrupted)


def _interrupted(clock: Clock, due: float, stopping: Callable[[], bool]) -> bool:
    """Wait until ``due``; True at once if something asks to stop."""
    while not stopping():
        left = due - clock.now()
        if left <= 0:
            return False
        clock.sleep(min(left, SLICE_S))
    return True


def _value(attribute: Attribute) -> str | dict[str, str] | None:
    if attribute.text is not None:
        return attribute.text
    if attribute == GONE:
        return None
    # An error that has no name here has one in the log of the kernel.
    return {"errno": attribute.error if ERROR_NAME.fullmatch(attribute.error) else "EIO"}
