"""Keeps whoever reads sensors going while one of them hangs.

A driver may sit in a read for seconds, or for ever: an I2C bus that is held low, a controller
that does not answer. No time-out reaches a thread inside such a call. So reads are made in threads
that can be given up: the governor's sample by sample, which costs it one thread a second, and those
of commands that show or record every sensor file by file, so that only the one that hangs is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

from edge_app.clock import Clock
from edge_app.sensors.root import Attribute, Root, RootAround
from edge_app.sensors.types import (
    Battery,
    Quality,
    Reading,
    Sample,
    SensorSource,
    SensorStatus,
    Zone,
)
from edge_app.sensors.validators import STALE_AFTER_S

HANGS_AFTER_S = 2.0
HANGS = Attribute(None, "ETIMEDOUT")
"""What a file gives whose read does not return: the kernel's word for it."""
UNSEEN_ZONE = "cpu"
"""The zone that stands for all while not even the first sample could be taken. By this name
policies obey it, so that nothing read is not mistaken for nothing there."""


Result = TypeVar("Result")


class _Job(Generic[Result]):
    """One call in a thread of its own, which may never end."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call = call
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self.done = threading.Event()
        threading.Thread(target=self._run, name="sensors", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # handed on to whoever waits
            self._error = error
        self.done.set()

    def result(self) -> Result:
        """What the call gave or raised. Only once it is done."""
        if self._error is not None:
            raise self._error
        return self._result[0]


class GuardedSensors:
    """``source``, whose ``sample`` returns within 2 s of ``clock``'s time.

    While a read hangs, samples are the last good one with every reading STALE, and after 5 s
    MISSING. At most one read is under way: a source is never asked by two threads. What a read
    gives that took too long is dropped, for it is old; the next sample is a fresh one.

    If the source has a method ``busy_with``, it names the file that is being read, for messages.
    """

    def __init__(self, source: SensorSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._hanging: threading.Event | None = None
        self._since = 0.0
        self._newest: Sample | None = None

    def sample(self) -> Sample:
        with self._lock:
            sample = self._call(self._source.sample)
            now = self._clock.now()
            if sample is None:
                return _unseen(now) if self._newest is None else aged(self._newest, now)
            self._newest = sample
            return sample

    def describe(self) -> list[SensorStatus]:
        with self._lock:
            statuses = self._call(self._source.describe)
            if statuses is not None:
                return statuses
            seconds = self._clock.now() - self._since
            file = getattr(self._source, "busy_with", str)()
            detail = f"a read has not returned for {seconds:.0f} s" + (f": {file}" if file else "")
            return [SensorStatus("sensors", "all of them", Quality.MISSING, detail)]

    def _call(self, call: Callable[[], Result]) -> Result | None:
        """What ``call`` gives, or None if it, or one before it, hangs. Raises what it raises."""
        if self._hanging is not None and not self._hanging.is_set():
            return None
        self._hanging, started = None, self._clock.now()
        job = _Job(call)
        if self._clock.wait(job.done, HANGS_AFTER_S):
            return job.result()
        self._hanging, self._since = job.done, started
        return None


class GuardedRoot(RootAround):
    """``root``, whose reads return within 2 s of ``clock``'s time.

    A file that hangs gives ``ETIMEDOUT``, and does so at once from then on, until that read has come
    back; a directory that hangs is empty. At most one read of each is under way.
    """

    def __init__(self, root: Root, clock: Clock) -> None:
        super().__init__(root)
        self._clock = clock
        self._hanging: dict[str, threading.Event] = {}

    def read(self, path: str) -> Attribute:
        return self._call(path, lambda: self._root.read(path), HANGS)

    def entries(self, path: str) -> list[str]:
        return self._call(path, lambda: self._root.entries(path), [])

    def _call(self, path: str, call: Callable[[], Result], otherwise: Result) -> Result:
        before = self._hanging.get(path)
        if before is not None and not before.is_set():
            return otherwise
        job = _Job(call)
        if self._clock.wait(job.done, HANGS_AFTER_S):
            self._hanging.pop(path, None)
            return job.result()
        self._hanging[path] = job.done
        return otherwise


def _unseen(now: float) -> Sample:
    return Sample(now, (Zone(UNSEEN_ZONE, Reading(None, now, Quality.MISSING, UNSEEN_ZONE)),))


def aged(sample: Sample, now: float) -> Sample:
    """``sample`` as it is worth at ``now`` if nothing newer is known."""

    def old(reading: Reading) -> Reading:
        if reading.quality is Quality.ABSENT:
            return reading
        if now - reading.time > STALE_AFTER_S:
            return Reading(None, now, Quality.MISSING, reading.name)
        fine = reading.quality in (Quality.OK, Quality.STALE)
        return replace(reading, quality=Quality.STALE if fine else reading.quality)

    def readings(values: Sample | Battery) -> dict[str, Any]:
        found = ((field.name, getattr(values, field.name)) for field in fields(values))
        return {name: old(value) for name, value in found if isinstance(value, Reading)}

    battery = replace(sample.battery, **readings(sample.battery))
    if now - sample.time > STALE_AFTER_S:
        battery = replace(battery, discharging=None, on_ac=None)
    return replace(
        sample,
        time=now,
        zones=tuple(replace(zone, reading=old(zone.reading)) for zone in sample.zones),
        battery=battery,
        wall=None if sample.wall is None else sample.wall + timedelta(seconds=now - sample.time),
        **readings(sample),
    )
