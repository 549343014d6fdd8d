"""The slow loop: a thread that reads the sensors, follows the policy's files and lets the governor
decide. All of the governor's input and output is here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from edge_app.clock import Clock
from edge_app.errors import EXIT_SENSOR, AppError
from edge_app.governor.controller import Governor
from edge_app.governor.decision import Decision, Event
from edge_app.sensors import Sample, SensorSource

if TYPE_CHECKING:
    from edge_app.policy.watcher import PolicyWatcher

PERIOD_S = 1.0
SAVE_EVERY_S = 10.0

log = logging.getLogger(__name__)


class StateStore(Protocol):
    """Where the governor's memory survives a restart."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep ``state``. Never raises."""
        ...


class GovernorLoop:
    """Samples once per second of ``clock`` and hands each decision to ``on_decision``.

    ``on_decision`` and ``on_notice`` are called from the loop's thread, and for the first decision
    from ``start``. ``watcher`` follows the policy's files; ``store`` is given the governor's state
    every ten seconds, whenever the rung changes, and at the end. ``reload`` is asked whether
    somebody wants the policy's files read at once.
    """

    def __init__(
        self,
        governor: Governor,
        sensors: SensorSource,
        clock: Clock,
        on_decision: Callable[[Decision], None],
        watcher: PolicyWatcher | None = None,
        store: StateStore | None = None,
        on_notice: Callable[[Event], None] = lambda event: None,
        reload: Callable[[], bool] = lambda: False,
    ) -> None:
        self._governor = governor
        self._sensors = sensors
        self._clock = clock
        self._on_decision = on_decision
        self._watcher = watcher
        self._store = store
        self._on_notice = on_notice
        self._saved_at = clock.now()
        self._reload = reload
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="governor", daemon=True)

    def start(self) -> Sample:
        """Decide once, then go on in a thread. Returns what was decided upon.

        AppError (exit code 6) if a sensor that the policy requires is not there.
        """
        sample = self._sensors.sample()
        require(self._governor, sample)
        self._on_decision(self._governor.step(sample))
        self._thread.start()
        return sample

    def stop(self) -> None:
        """End the thread; it does not matter whether it runs."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        if self._store is not None:
            self._store.save(self._governor.state())

    def _run(self) -> None:
        due = self._clock.now() + PERIOD_S
        try:
            while not self._clock.wait(self._stop, due - self._clock.now()):
                self._follow_policy()
                decision = self._governor.step(self._sensors.sample())
                self._on_decision(decision)
                self._save(decision.changed)
                # After a delay go on from now: decisions in a burst help nobody.
                due = max(due + PERIOD_S, self._clock.now())
        except Exception as error:
            log.exception("the governor has stopped; only the lowest level runs from here on")
            self._on_decision(self._governor.fail_safe(f"the governor has stopped: {error}"))

    def _follow_policy(self) -> None:
        if self._watcher is None:
            return
        from edge_app.policy.watcher import Rejected, Reloaded

        outcome = self._watcher.poll(self._reload())
        if isinstance(outcome, Reloaded):
            try:
                self._governor.replace_policy(outcome.policy)
            except AppError as error:
                # A sound policy that permits none of this model's levels.
                self._reject(error)
                return
            changes = "; ".join(outcome.diff) or "nothing has changed"
            self._on_notice(Event("policy_changed", changes))
        elif isinstance(outcome, Rejected):
            self._reject(outcome.error)

    def _reject(self, error: AppError) -> None:
        self._on_notice(Event("policy_rejected", f"the old policy stays: {error.message}"))

    def _save(self, now_at_once: bool) -> None:
        now = self._clock.now()
        if self._store is not None and (now_at_once or now - self._saved_at >= SAVE_EVERY_S):
            self._saved_at = now
            self._store.save(self._governor.state())


def require(governor: Governor, sample: Sample) -> None:
    """AppError (exit code 6) if a sensor that the policy requires gives nothing."""
    policy = governor.policy
    if policy.thermal.required and not any(
        governor.obeys(zone.name) and zone.reading.ok for zone in sample.zones
    ):
        seen = ", ".join(zone.name for zone in sample.zones) or "none"
        raise AppError(
            f"policy {policy.name} requires a thermal sensor (thermal.zones = "
            f"{list(policy.thermal.zones)}), but none gives a temperature; zones here: {seen}. "
            "Name one of them, or set thermal.required = false",
            EXIT_SENSOR,
        )
    if policy.battery.required and not sample.battery.charge.ok:
        raise AppError(
            f"policy {policy.name} requires a battery, but none gives its charge; set "
            "battery.required = false to run without",
            EXIT_SENSOR,
        )
