"""`edge-app profile`: measures, stores and prints."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from edge_app.clock import RealClock
from edge_app.console import plain_console
from edge_app.errors import EXIT_OK, EXIT_USAGE, AppError
from edge_app.governor.energy import STATED_MODEL
from edge_app.models import open_model
from edge_app.policy.model import Energy
from edge_app.profiles.measuring import measure, to_profile
from edge_app.profiles.store import StoredProfile, default_directory, store
from edge_app.sensors.root import SysRoot


@dataclass(frozen=True)
class ProfileOptions:
    """As given on the command line."""

    model: str
    threads: str
    memory: str
    seconds: float
    json: bool


def run(options: ProfileOptions) -> int:
    """Measure with every number of threads, store the profiles, print them to stdout."""
    counts = thread_counts(options.threads, os.cpu_count() or 1)
    profiles = []
    for threads in counts:
        with open_model(options.model, threads, options.memory) as program:
            names = ", ".join(str(bits) for bits in program.levels)
            s = "s" * (threads > 1)
            _say(f"{program.path.stem}: {names} bits, {threads} thread{s}, ", end="")
            _say(f"{options.seconds * (1 + len(program.levels)):.0f} s")
            profiles.append(
                measure(program, threads, options.memory, options.seconds, SysRoot(), RealClock())
            )
        path = store(profiles[-1], default_directory())
        _say(f"stored in {path}")
    if options.json:
        documents: list[dict[str, Any]] = [profile.model_dump(mode="json") for profile in profiles]
        print(json.dumps(documents, indent=2))
    else:
        _print(profiles)
    return EXIT_OK


def thread_counts(text: str, cpus: int) -> list[int]:
    """``1,2,4`` as numbers, each once. AppError (exit code 2) if they are none, or more than there
    are CPUs."""
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise AppError(
            f"--threads {text}: give numbers with commas, as in 1,2,4", EXIT_USAGE
        ) from None
    if counts[0] < 1 or counts[-1] > cpus:
        raise AppError(f"--threads {text}: choose from 1 to {cpus}", EXIT_USAGE)
    return counts


def _print(profiles: list[StoredProfile]) -> None:
    terminal = sys.stdout.isatty()
    console = plain_console(width=None if terminal else 120)
    first = profiles[0]
    title = f"{first.model} on {first.conditions.cpu}, {first.conditions.isa}"
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("threads", justify="right")
    table.add_column("bits", justify="right")
    for name in ("median ms", "p90 ms", "spread", "runs", "mJ"):
        table.add_column(name, justify="right")
    stated = False
    for profile in profiles:
        costs = to_profile(profile, Energy())
        stated = stated or costs.source == STATED_MODEL
        for level in profile.levels:
            sign = "~" if costs.source == STATED_MODEL else ""
            table.add_row(
                str(profile.conditions.threads),
                str(level.bits),
                f"{level.median_s * 1e3:.3f}",
                f"{level.p90_s * 1e3:.3f}",
                f"{level.spread:.0%}",
                str(level.runs),
                f"{sign}{costs.levels[level.bits].joules * 1e3:.2f}",
            )
    console.print(table)
    for line in _notes(first, stated):
        console.print(line, markup=False, soft_wrap=True)
    for profile in profiles:
        for warning in profile.warnings:
            threads = profile.conditions.threads
            s = "s" * (threads > 1)
            console.print(f"warning: {threads} thread{s}: {warning}", markup=False, soft_wrap=True)


def _notes(profile: StoredProfile, stated: bool) -> list[str]:
    lines = [f"memory {profile.conditions.memory}; frequency governor {profile.governor}"]
    if profile.energy_source:
        part = "" if profile.whole_device else ", which is a part of the device"
        lines.append(
            f"energy from {profile.energy_source}{part}; {profile.idle_w or 0.0:.2f} W idle"
        )
    if stated:
        energy = Energy()
        lines.append(
            f"~ joules by the stated model, {energy.active_w:g} W while a frame runs "
            "(energy.active_w in the policy): nothing here measures them"
        )
    return lines


def _say(text: str, end: str = "\n") -> None:
    """Progress, which is not part of the result."""
    print(text, file=sys.stderr, flush=True, end=end)
