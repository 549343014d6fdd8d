"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 60.0
"""Far more than anything takes: a bound against hanging, not a measurement."""


def wait_for(condition: Callable[[], Any]) -> Any:
    """What ``condition`` gives as soon as it is true."""
    limit = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < limit, "nothing happened in a minute"
        time.sleep(0.02)
    return found
