"""What the governor did lately and why, for whoever asks while it runs."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from edge_app.record import rfc3339
from edge_app.sinks import Listener

if TYPE_CHECKING:
    from edge_app.governor import Decision, Event
    from edge_app.signals import StopRequest

FORMAT = "edge-app/why/1"
REMEMBERED = 50


class Journal:
    """The newest decision and the last changes and events, in constant memory.

    ``to_json`` may be called from any thread. ``about`` says what
    runs (model, source, policy), as it is to be shown.
    """

    def __init__(self, about: dict[str, str]) -> None:
        self._about = about
        self._lock = threading.Lock()
        self._decision: Decision | None = None
        self._since = time.time()
        self._history: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    def add(self, decision: Decision) -> None:
        """Take note of a decision."""
        now = time.time()
        with self._lock:
            first, self._decision = self._decision is None, decision
            for event in decision.events:
                self._history.append({"t": rfc3339(now), "event": event.kind, "text": event.text})
            if decision.changed:
                self._history.append(
                    {
                        "t": rfc3339(now),
                        "event": "level",
                        "text": f"{decision.previous_bits} -> {decision.bits} bits "
                        f"({decision.cause}): {decision.why}",
                    }
                )
            if first or decision.changed:
                self._since = now

    def note(self, kind: str, text: str) -> None:
        """Take note of something that is not a decision: a policy file that was refused."""
        with self._lock:
            self._history.append({"t": rfc3339(time.time()), "event": kind, "text": text})

    def sink(self, stop: StopRequest) -> JournalSink:
        """What feeds this journal from a run, and prints it when ``stop`` is told to (SIGUSR1)."""
        return JournalSink(self, stop)

    def to_json(self) -> dict[str, Any]:
        """The state that ``edge-app why`` prints."""
        with self._lock:
            decision = self._decision
            return {
                "format": FORMAT,
                "pid": os.getpid(),
                **self._about,
                "since": rfc3339(self._since),
                "decision": None if decision is None else decision.to_json(),
                "history": list(self._history),
            }


class JournalSink(Listener):
    """Takes note of decisions and notices in the order in which the other sinks hear of them."""

    def __init__(self, journal: Journal, stop: StopRequest) -> None:
        self._journal = journal
        self._stop = stop

    def decision(self, decision: Decision) -> None:
        self._journal.add(decision)

    def notice(self, event: Event) -> None:
        self._journal.note(event.kind, event.text)

    def tick(self) -> None:
        if self._stop.take_dump():
            print(json.dumps(self._journal.to_json(), ensure_ascii=False), file=sys.stderr)
