"""How the program is run in tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

COMMAND = [sys.executable, "-m", "edge_app"]
TIMEOUT_S = 300.0

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """Ours, without what would make the child's output depend on who runs the tests."""
    unwanted = ("FORCE_COLOR", "PYTHONUNBUFFERED")
    return {key: os.environ[key] for key in os.environ if key not in unwanted} | {"COLUMNS": "120"}
