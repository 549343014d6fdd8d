"""What a person sees while it runs: one live line on a terminal, a line now and then otherwise."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_app.console import plain_console
from edge_app.record import FrameRecord
from edge_app.sinks import Listener

if TYPE_CHECKING:
    from rich.console import Console

    from edge_app.governor import Decision, Event
    from edge_app.sources import Frame

REFRESH_S = 0.2
REPORT_EVERY_S = 10.0
RATE_WINDOW_S = 2.0
ACCURACY_WINDOW = 200


class Status:
    """The line's content: the newest frame and decision, the rate of the last two seconds, and
    the accuracy of the last 200 frames whose truth is known."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.record: FrameRecord | None = None
        self.decision: Decision | None = None
        self._now = now
        self._times: deque[float] = deque()
        self._correct: deque[bool] = deque(maxlen=ACCURACY_WINDOW)

    def add_frame(self, record: FrameRecord) -> None:
        self.record = record
        self._times.append(self._now())
        if record.correct is not None:
            self._correct.append(record.correct)
        self._forget()

    def _forget(self) -> None:
        while self._times and self._times[0] < self._now() - RATE_WINDOW_S:
            self._times.popleft()

    @property
    def frames_per_second(self) -> float:
        """Of the frames in the window: intervals over the time they span."""
        self._forget()
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(1e-9, self._times[-1] - self._times[0])

    def text(self) -> str:
        """Level, cause, temperature, battery, rate, latency, accuracy, answer: one line."""
        record, decision = self.record, self.decision
        bits = record.bits if record else decision.bits if decision else None
        cause = record.cause if record else decision.cause if decision else "none"
        parts = ["starting" if bits is None else f"{bits} bits"]
        if cause != "none":
            parts[0] += f" ({cause})"
        temperature = decision.temperature_c if decision else None
        charge = decision.battery_charge if decision else None
        parts.append("no temperature" if temperature is None else f"{temperature:.1f} °C")
        parts.append("no battery" if charge is None else f"battery {charge:.0%}")
        parts.append(f"{self.frames_per_second:.1f} fps")
        if record:
            parts.append(f"{record.infer_s * 1e3:.2f} ms")
            if self._correct:
                parts.append(f"accuracy {sum(self._correct) / len(self._correct):.1%}")
            parts.append(f"frame {record.seq}: {record.label} {record.probability:.0%}")
        return " | ".join(parts)


def change_text(decision: Decision) -> str:
    """One line for a decision that changed something: what, which cap, and why."""
    if decision.bits == decision.previous_bits:
        what = f"{decision.bits} bits, rung {decision.rung}"
    else:
        what = f"{decision.previous_bits} -> {decision.bits} bits"
    return f"{clock_text(decision.time)}  {what} ({decision.cause}): {decision.why}"


def news(decision: Decision) -> list[str]:
    """The lines that a decision is worth: its events, and the change if there is one."""
    lines = [
        f"{clock_text(decision.time)}  {event.kind}: {event.text}" for event in decision.events
    ]
    return [*lines, change_text(decision)] if decision.changed else lines


def clock_text(seconds: float) -> str:
    """Minutes and seconds of the governor's time."""
    minutes, rest = divmod(math.floor(seconds), 60)
    return f"{minutes:3d}:{rest:02d}"


class LiveLine:
    """For a terminal: a line redrawn in place five times a second, changes printed above it."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        self._status = Status()
        self._console = console or plain_console(stderr=True)
        self._drawn = 0.0
        # stdout is left alone: it may carry records.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        self._status.add_frame(record)
        self.tick()

    def decision(self, decision: Decision) -> None:
        self._status.decision = decision
        for text in news(decision):
            self._console.print(self._text(text))

    def notice(self, event: Event) -> None:
        self._console.print(self._text(f"{event.kind}: {event.text}"))

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._drawn >= REFRESH_S:
            self._drawn = now
            line = self._text(self._status.text(), no_wrap=True, overflow="ellipsis")
            self._live.update(line, refresh=True)

    def close(self) -> None:
        self._live.stop()


class PlainLines(Listener):
    """For anything else (a log, a pipe): a line every ten seconds and one for each change."""

    def __init__(
        self, write: Callable[[str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._status = Status(now)
        self._write = write
        self._now = now
        self._reported = now()

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        self._status.add_frame(record)

    def decision(self, decision: Decision) -> None:
        self._status.decision = decision
        for text in news(decision):
            self._write(text)

    def notice(self, event: Event) -> None:
        self._write(f"{event.kind}: {event.text}")

    def tick(self) -> None:
        if self._now() - self._reported >= REPORT_EVERY_S:
            self._reported = self._now()
            self._write(self._status.text())
