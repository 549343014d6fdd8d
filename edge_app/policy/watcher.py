"""Notices that a policy has changed on disk, and reads it again.

The files are looked at, not subscribed to: `stat` of a handful of files every two seconds costs
nothing, sees editors that rename a new file into place, and needs no further package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_app.clock import Clock
from edge_app.policy.layers import Resolved, Stamp
from edge_app.policy.model import Policy
from edge_app.policy.problems import PolicyError
from edge_app.policy.text import differences

LOOK_EVERY_S: Final = 2.0


@dataclass(frozen=True)
class Reloaded:
    """A new policy that is in order. ``diff``: one line for each changed key."""

    policy: Policy
    diff: tuple[str, ...]
    resolved: Resolved


@dataclass(frozen=True)
class Rejected:
    """What is on disk is no policy; the old one stays."""

    error: PolicyError


class PolicyWatcher:
    """Watches all files that ``load`` reads, or would read if they were there.

    ``current``: what the program started with. Without it ``load`` is called once here, and its
    PolicyError is the caller's. For use from one thread.
    """

    def __init__(
        self, load: Callable[[], Resolved], clock: Clock, current: Resolved | None = None
    ) -> None:
        self._load = load
        self._clock = clock
        self._current = load() if current is None else current
        self._seen: Mapping[Path, Stamp] = self._current.stamps
        self._looked = clock.now()
        self._said = ""

    @property
    def current(self) -> Resolved:
        """The newest policy that was in order."""
        return self._current

    def poll(self, force: bool = False) -> Reloaded | Rejected | None:
        """Look whether something has changed, at most every two seconds; never raises.

        None: nothing that matters to the policy, or mistakes that were reported before.
        ``force``: read now, whatever the files look like, and say so: a policy that is the same
        is then Reloaded with an empty ``diff``, and mistakes are Rejected again.
        """
        now = self._clock.now()
        if not force and now - self._looked < LOOK_EVERY_S:
            return None
        self._looked = now
        # Before reading: a change while it is read is then seen the next time.
        stamps = self._current.sources.stamps()
        if not force and stamps == self._seen:
            return None
        self._seen = stamps
        try:
            resolved = self._load()
        except PolicyError as error:
            return self._rejected(error, force)
        self._said = ""
        changed = differences(self._current.policy, resolved.policy)
        self._current = resolved
        if not changed and not force:
            return None
        return Reloaded(resolved.policy, changed, resolved)

    def _rejected(self, error: PolicyError, force: bool) -> Rejected | None:
        said, self._said = self._said, error.message
        return None if said == error.message and not force else Rejected(error)
