"""The slow loop: a thread that reads the sensors and lets the governor decide."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edge_app.clock import Clock
from edge_app.errors import EXIT_SENSOR, AppError
from edge_app.governor.controller import Decision, Governor
from edge_app.sensors import Sample, SensorSource

PERIOD_S = 1.0

log = logging.getLogger(__name__)


class GovernorLoop:
    """Samples once per second of ``clock`` and hands each decision to ``on_decision``.

    ``on_decision`` is called from the loop's thread, and for the first decision from ``start``.
    """

    def __init__(
        self,
        governor: Governor,
        sensors: SensorSource,
        clock: Clock,
        on_decision: Callable[[Decision], None],
    ) -> None:
        self._governor = governor
        self._sensors = sensors
        self._clock = clock
        self._on_decision = on_decision
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="governor", daemon=True)

    def start(self) -> None:
        """Decide once, then go on in a thread.

        AppError (exit code 6) if a sensor that the policy requires is not there.
        """
        sample = self._sensors.sample()
        require(self._governor, sample)
        self._on_decision(self._governor.step(sample))
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it does not matter whether it runs."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        due = self._clock.now() + PERIOD_S
        try:
            while not self._clock.wait(self._stop, due - self._clock.now()):
                self._on_decision(self._governor.step(self._sensors.sample()))
                # After a delay go on from now: decisions in a burst help nobody.
                due = max(due + PERIOD_S, self._clock.now())
        except Exception as error:
            log.exception("the governor has stopped; only the lowest level runs from here on")
            self._on_decision(self._governor.fail_safe(f"the governor has stopped: {error}"))


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
