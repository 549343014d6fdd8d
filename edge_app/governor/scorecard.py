"""What the governor is held to, measured now: one line for each bar.

    python -m edge_app.governor.scorecard [--json] [--only WORD]

Exit code 1 if a bar is missed. Heat, batteries and faults are simulated (the plants' figures are
assumptions), the governor's own cost is measured on this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from edge_app.console import plain_console
from edge_app.governor.simulation.bars import (
    Bar,
    calmer_than_baselines,
    false_alarms,
    hot_soak,
    lying_thermometer,
    reactions,
)
from edge_app.governor.simulation.cost import own_cost
from edge_app.governor.simulation.endurance import (
    impossible_declared,
    until_met,
    until_met_by_noise,
)

TOPICS: dict[str, Callable[[], Iterator[Bar]]] = {
    "soak": hot_soak,
    "baselines": calmer_than_baselines,
    "reactions": reactions,
    "lying": lying_thermometer,
    "healthy": false_alarms,
    "until": until_met,
    "noise": until_met_by_noise,
    "impossible": impossible_declared,
    "cost": own_cost,
}


def measure(topics: list[str]) -> list[Bar]:
    """All bars of ``topics``, which takes up to minutes."""
    return [bar for topic in topics for bar in TOPICS[topic]()]


def print_bars(bars: list[Bar], seconds: float) -> None:
    """A table for people."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title="Governor scorecard", title_justify="left", box=SIMPLE)
    for column in ("topic", "case", "measured", "bar", ""):
        table.add_column(column, overflow="fold")
    for bar in bars:
        verdict = "[green]pass[/]" if bar.passed else "[bold red]FAIL[/]"
        table.add_row(bar.topic, bar.case, bar.measured, bar.bar, verdict)
    console = plain_console()
    if not console.is_terminal:
        console.width = max(console.width, 150)
    console.print(table)
    missed = sum(not bar.passed for bar in bars)
    console.print(
        f"{len(bars) - missed} of {len(bars)} bars met in {seconds:.0f} s. Heat, batteries and "
        "faults are simulated; costs are this machine's."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge_app.governor.scorecard")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--only", action="append", choices=list(TOPICS), help="only these bars; may be repeated"
    )
    arguments = parser.parse_args(argv)
    begin = time.monotonic()
    bars = measure(arguments.only or list(TOPICS))
    if arguments.json:
        print(json.dumps([asdict(bar) for bar in bars], indent=2, ensure_ascii=False))
    else:
        print_bars(bars, time.monotonic() - begin)
    return 0 if all(bar.passed for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
