"""The governor on a recording.

Open loop: temperature, battery and load are as they were recorded, whatever the governor decides,
so that a table of replays compares decisions and not their consequences. Frames take the times of
a simulated device's profile, and energy is that profile's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edge_app.clock import ManualClock
from edge_app.governor.energy import Profile
from edge_app.governor.simulation.baselines import Controller
from edge_app.governor.simulation.run import SOURCE_FPS, Curves, Observer, Run, Tally, note
from edge_app.recordings import RecordedSource
from edge_app.sensors import Sample

Obeys = Callable[[str], bool]
"""Whether a zone of this name counts."""


def replay(
    name: str,
    controller: Controller,
    recording: RecordedSource,
    clock: ManualClock,
    profile: Profile,
    obeys: Obeys,
    control_c: float,
    accuracy: Mapping[int, float] | None = None,
    observers: Sequence[Observer] = (),
) -> Run:
    """Let ``controller`` decide once a second from the start of ``recording`` to its end.

    ``clock``: of both, at 0. ``control_c``: what the minutes above it are counted against.
    """
    tally, curves = Tally(), Curves()
    begun = 0.0
    for _ in range(int(recording.seconds) + 1):
        now = clock.now()
        sample = recording.sample()
        step = controller.step(sample)
        for observe in observers:
            observe(now, step)
        celsius, charge = _hottest(sample, obeys), sample.battery.charge
        if charge.ok:
            tally.charge = charge.value
        note(curves, now, controller, celsius, charge.value if charge.ok else None)
        tally.seconds += 1
        tally.changes += step.changed
        if celsius is not None:
            tally.peak_c = max(tally.peak_c, celsius)
            tally.above_control_s += celsius > control_c
        tally.throttled_s += sample.throttled.ok and sample.throttled.value == 1.0
        bits, fps = controller.first_level, 0.0
        if not controller.paused:
            shortest = max(controller.frame_interval_s, 1.0 / SOURCE_FPS)
            fps = 1.0 / max(shortest, profile.levels[bits].seconds)
        before, begun = int(begun), begun + fps
        frames = int(begun) - before
        tally.frames += frames
        tally.bits += frames * bits
        if accuracy is not None:
            tally.accuracy += frames * accuracy[bits]
        tally.joules += profile.idle_w + fps * profile.levels[bits].joules
        clock.advance(1.0)
    return Run(name, tally, curves, accuracy)


def _hottest(sample: Sample, obeys: Obeys) -> float | None:
    """Of the zones that count and can be believed."""
    values = [
        zone.reading.value
        for zone in sample.zones
        if obeys(zone.name) and zone.reading.ok and zone.reading.value is not None
    ]
    return max(values, default=None)
