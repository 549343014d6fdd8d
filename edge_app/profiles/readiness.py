"""Levels are prepared when they are wanted for the first time, while frames go on at another one.

Preparing chooses a kernel for each layer and transforms weights: seconds for a large network on a
small board, and memory that a level which never runs need not take. How long a level takes is
estimated until it has run.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from edge_app.governor.energy import LevelCost, Profile
from edge_app.profiles.measuring import ramp

if TYPE_CHECKING:
    from edge_app.pipeline import Model

    class Preparable(Model, Protocol):
        """A model whose levels can be prepared while others run."""

        def prepare(self, bits: int) -> None: ...


RUNS = 5
"""Runs of a level whose median replaces the estimate of what it takes."""


class Readiness:
    """Which levels of ``model`` can run at once, and the profile as it becomes known.

    Made before the first frame: prepares ``first``, the level that it runs at. ``refined`` takes a
    better profile than ``profile``, which says itself what of it is ``estimated``; ``slowdown``
    tells how many times its profile a frame takes at present, so that a slow moment is not taken
    for what the level costs. The frame loop calls ``nearest`` and ``ran``.
    """

    def __init__(
        self,
        model: Preparable,
        first: int,
        profile: Profile,
        active_w: float,
        refined: Callable[[Profile], None],
        slowdown: Callable[[], float],
    ) -> None:
        self._model = model
        self._profile = profile
        self._active_w = active_w
        self._refined = refined
        self._slowdown = slowdown
        self._times: dict[int, list[float]] = {bits: [] for bits in profile.estimated}
        self._preparing: threading.Thread | None = None
        self._ready: set[int] = set()
        self.prepare(first)

    def prepare(self, bits: int) -> None:
        """Wait for a level to be prepared: before the first frame, or between two models."""
        if bits not in self._ready:
            self._model.run(bits, ramp(self._model))
            self._ready.add(bits)

    def nearest(self, wanted: int) -> int:
        """``wanted`` if it can run without a stall. Otherwise it is prepared from now on, and the
        highest level below it that can run does, or the lowest of all."""
        if wanted in self._ready:
            return wanted
        if self._preparing is None or not self._preparing.is_alive():
            self._preparing = threading.Thread(
                target=self._prepare, args=(wanted,), name=f"prepare {wanted} bits"
            )
            self._preparing.start()
        ready = set(self._ready)
        return max((bits for bits in ready if bits < wanted), default=min(ready))

    def ran(self, bits: int, seconds: float) -> None:
        """A run at ``bits`` took ``seconds``."""
        times = self._times.get(bits)
        if times is None:
            return
        times.append(seconds)
        if len(times) < RUNS:
            return
        del self._times[bits]
        taken = statistics.median(times) / max(1.0, self._slowdown())
        levels = {**self._profile.levels, bits: LevelCost(taken, self._active_w * taken)}
        known = self._profile.estimated - {bits}
        self._profile = replace(self._profile, levels=levels, estimated=known)
        self._refined(self._profile)

    def _prepare(self, bits: int) -> None:
        # What fails here fails in the frame loop as well, where it is dealt with.
        with contextlib.suppress(RuntimeError, ValueError):
            self._model.prepare(bits)
        self._ready.add(bits)
