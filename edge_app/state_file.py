"""The governor's memory between two runs: a small JSON file, replaced as a whole."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

FORMAT = "edge-app/governor-state/1"

log = logging.getLogger(__name__)


def default_state_path() -> Path:
    """Where a service manager says, else in the user's directory for state."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.partition(":")[0]) / "governor.json"
    home = os.environ.get("XDG_STATE_HOME")
    base = Path(home) if home else Path.home() / ".local" / "state"
    return base / "edge-app" / "governor.json"


class StateFile:
    """Loads and saves. A disk that is full or read-only is reported once and does not stop a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._complained = False

    def load(self) -> dict[str, Any]:
        """What was saved last; empty if there is nothing, or nothing that can be read."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s is not used: %s", self.path, error)
            return {}
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            log.warning("%s is not used: it is not of the format %s", self.path, FORMAT)
            return {}
        state = content.get("governor")
        return state if isinstance(state, dict) else {}

    def save(self, state: dict[str, Any]) -> None:
        """Write beside the file and rename: whoever reads finds the old state or the new one."""
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({"format": FORMAT, "governor": state}), encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            if not self._complained:
                self._complained = True
                log.warning(
                    "%s: the governor's state cannot be saved: %s", self.path, error.strerror
                )
