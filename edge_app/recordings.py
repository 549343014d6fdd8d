"""Recorded sensor traces on this device: finding them by name or path."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from edge_app.errors import EXIT_USAGE, AppError

SUFFIX = ".jsonl"


def traces_directory() -> Path:
    """Where the traces that come with the package are."""
    return Path(str(resources.files("edge_app"))) / "assets" / "traces"


def find_trace(name: str) -> Path:
    """The file that ``--replay-sensors name`` means: a shipped trace or a path.

    AppError with exit code 2 says what there is instead.
    """
    known = {path.stem: path for path in sorted(traces_directory().glob(f"*{SUFFIX}"))}
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"shipped are: {', '.join(known) or 'none'}"
    raise AppError(f"--replay-sensors {name}: no such trace or file; {hint}", EXIT_USAGE)
