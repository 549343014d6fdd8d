"""`edge-app sensors list` and `watch`: what every sensor says, once or once a second."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_app.clock import RealClock
from edge_app.console import plain_console
from edge_app.errors import EXIT_OK
from edge_app.recordings import open_root
from edge_app.signals import StopRequest

if TYPE_CHECKING:
    from rich.table import Table

    from edge_app.sensors.listing import Listed

PERIOD_S = 1.0
FIRST_LOOK_S = 0.3
"""Load and power are differences, so that there must be a first reading before the one shown."""

SLICE_S = 0.1
SOURCES_SHOWN = 2
NARROW = ("value", "quality", "trips")
FINE = ("V", "A", "W")
STYLES = {"ok": "green", "absent": "dim", "stale": "yellow"}


def list_sensors(sysroot: Path, as_json: bool) -> int:
    """Print every sensor once, to stdout."""
    from edge_app.sensors.guard import GuardedRoot
    from edge_app.sensors.listing import SensorList

    clock = RealClock()
    root = GuardedRoot(open_root(sysroot, clock), clock)
    sensors = SensorList(root, clock)
    rows = sensors.read()
    if root.is_this_machine:
        clock.sleep(FIRST_LOOK_S)
        rows = sensors.read()
    if as_json:
        for row in rows:
            print(json.dumps(row.to_json(), ensure_ascii=False))
        return EXIT_OK

    plain_console().print(_table(rows))
    return EXIT_OK


def watch_sensors(sysroot: Path, duration_s: float | None) -> int:
    """Show every sensor once a second until the time is over or a signal comes.

    A table that changes in place, or one line a second if stdout is no terminal.
    """
    from edge_app.sensors.guard import GuardedRoot
    from edge_app.sensors.listing import SensorList

    stop = StopRequest()
    stop.install()
    clock = RealClock()
    sensors = SensorList(GuardedRoot(open_root(sysroot, clock), clock), clock)

    def samples(show: Callable[[Sequence[Listed]], None]) -> None:
        due = 0.0
        while not stop.requested:
            show(sensors.read())
            due = max(due + PERIOD_S, clock.now())
            if duration_s is not None and due > duration_s:
                return
            while clock.now() < due and not stop.requested:
                clock.sleep(min(SLICE_S, due - clock.now()))

    if not sys.stdout.isatty():
        samples(lambda rows: print(f"{clock.now():8.1f} s  {_line(rows)}", flush=True))
        return stop.exit_code
    from rich.live import Live

    with Live(console=plain_console(), auto_refresh=False) as live:
        samples(lambda rows: live.update(_table(rows), refresh=True))
    return stop.exit_code


def _table(rows: Sequence[Listed]) -> Table:
    from rich import box
    from rich.console import JustifyMethod
    from rich.table import Table
    from rich.text import Text

    from edge_app.sensors.root import printable

    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("sensor", "value", "quality", "trips", "source"):
        justify: JustifyMethod = "right" if heading == "value" else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=heading in NARROW)
    for row in rows:
        trips = ", ".join(f"{name} {celsius:g}" for name, celsius in row.trips.items())
        # Recordings come from strangers, who must not steer the terminal.
        origin = "\n".join(
            printable(part) for part in (*_shortened(row.sources), row.detail) if part
        )
        cells = (printable(row.name), _value(row), row.quality.value, trips, origin)
        style = STYLES.get(row.quality.value, "red")
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _shortened(sources: Sequence[str]) -> list[str]:
    """A file for each of many CPUs says nothing new."""
    if len(sources) <= SOURCES_SHOWN:
        return list(sources)
    return [sources[0], f"and {len(sources) - 1} more like it"]


def _value(row: Listed) -> str:
    if row.value is None:
        return ""
    if not row.unit:
        return "yes" if row.value else "no"
    if row.unit.startswith("of "):
        return f"{row.value:g} {row.unit}"
    return f"{row.value:.{2 if row.unit in FINE else 1}f} {row.unit}"


def _line(rows: Sequence[Listed]) -> str:
    """What there is, in one line."""
    from edge_app.sensors.root import printable

    parts = []
    for row in rows:
        if row.quality.value == "absent":
            continue
        doubt = "" if row.quality.value == "ok" else f"({row.quality.value})"
        parts.append(" ".join(filter(None, (row.name, _value(row), doubt))))
    return printable(" | ".join(parts))
