"""The policy: every key, its unit, its default and its bounds.

Layering, files and error messages are in ``layers`` and ``problems``. The defaults are those of the preset
``balanced``; chips throttle at 80..85 °C, so control aims below that.
"""

from __future__ import annotations

from datetime import time
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from pydantic.fields import FieldInfo

SCHEMA: Final = 1
DAY_S: Final = 86400


def _in(unit: str) -> FieldInfo:
    """The unit of a number: shown by `policy explain`, in the JSON Schema and in the reference."""
    info: FieldInfo = Field(json_schema_extra={"unit": unit})
    return info


Bits = Annotated[int, Field(ge=2, le=8), _in("bits")]
Percent = Annotated[FiniteFloat, Field(ge=0, le=100), _in("%")]
Celsius = Annotated[FiniteFloat, Field(ge=0, le=125), _in("°C")]
Seconds = Annotated[FiniteFloat, Field(ge=0, le=DAY_S), _in("s")]
Span = Annotated[FiniteFloat, Field(gt=0, le=DAY_S), _in("s")]
Period = Annotated[FiniteFloat, Field(ge=1, le=DAY_S), _in("s")]
WattHours = Annotated[FiniteFloat, Field(gt=0, le=100000), _in("Wh")]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Table(BaseModel):
    """A table of the policy file: unknown keys are errors, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Levels(Table):
    """Which levels may run at all."""

    min_bits: Bits = Field(2, description="lowest level that may run")
    max_bits: Bits = Field(8, description="highest level that may run")


class Frame(Table):
    """Frame rate and deadline. Energy falls with the bits only if the rate is pinned: a loop
    that runs as fast as it can turns faster frames into more frames, not into fewer joules."""

    target_fps: Annotated[FiniteFloat, _in("frames/s")] = Field(
        30.0, ge=0, le=1000, description="frames a second at full rate; 0: as the source gives them"
    )
    min_fps: Annotated[FiniteFloat, _in("frames/s")] = Field(
        2.5,
        gt=0,
        le=1000,
        description="lowest rate to which frames are shed below the lowest level",
    )
    deadline_ms: Annotated[FiniteFloat, _in("ms")] = Field(
        100.0, ge=0, le=60000, description="95 % of inferences must be done in this; 0: no deadline"
    )


class Confidence(Table):
    """Frames start at a low level, and those of which the network is unsure are run again at the
    highest level that the caps allow."""

    start_bits: Bits = Field(
        8, description="level at which a frame starts; the highest: no frame is run twice"
    )
    escalate_below: FiniteFloat = Field(
        0.15,
        ge=0,
        le=1,
        description="a frame is run again if its two highest probabilities differ by less",
    )
    max_per_s: Annotated[FiniteFloat, _in("runs/s")] = Field(
        3.0, ge=0, le=1000, description="second runs a second that are allowed for long"
    )
    burst: Annotated[int, _in("runs")] = Field(
        10, ge=1, le=10000, description="second runs that are allowed at once after a quiet time"
    )


class Thermal(Table):
    """Heat. Below ``on_c`` the cap does nothing; ``control_c`` is where it aims; at
    ``critical_c`` the lowest rung runs at once; at ``pause_c`` inference stops."""

    zones: Names = Field(
        ("cpu*", "soc*", "tj*", "x86_pkg_temp*", "acpitz*"),
        description="thermal zones to obey, by type; * and ? are wildcards",
    )
    use_trips: bool = Field(
        True, description="stay below the device's own trip points where these are lower"
    )
    on_c: Celsius = Field(65.0, description="temperature from which heat counts")
    control_c: Celsius = Field(78.0, description="temperature not to be exceeded for long")
    critical_c: Celsius = Field(
        88.0, description="temperature at which the lowest rung runs at once"
    )
    pause_c: Celsius = Field(95.0, description="temperature at which inference pauses")
    forecast_s: Annotated[FiniteFloat, _in("s")] = Field(
        15.0, ge=0, le=120, description="how far ahead a rise is extrapolated"
    )
    sustainable_bits: Annotated[FiniteFloat, _in("bits")] = Field(
        4.0,
        gt=0,
        le=8,
        description="power that the cooling is thought to sustain for ever; "
        "the highest rung takes as much as it has bits",
    )
    integral_s: Period = Field(60.0, description="time constant of the integral part")
    max_age_s: Span = Field(5.0, description="an older reading does not count")
    required: bool = Field(False, description="refuse to start without a thermal sensor")


def zone_matches(zone: str, pattern: str) -> bool:
    """Whether one of `thermal.zones` names a zone. Without regard to case, and to the number that
    tells zones of the same type apart (``cpu-thermal#2``)."""
    return fnmatchcase(zone.partition("#")[0].lower(), pattern.lower())


class Throttle(Table):
    """Throttling that the kernel or the firmware does by itself, seen by how much slower
    inference is than it was measured to be."""

    slowdown: Annotated[FiniteFloat, _in("times")] = Field(
        1.2, gt=1, le=100, description="inference slower than profiled by this is throttled"
    )
    after_s: Span = Field(30.0, description="how long it must be so slow")
    step_s: Span = Field(30.0, description="from one step down to the next")


class Tier(Table):
    """Below ``below`` percent of charge, at most ``max_bits``."""

    below: Percent = Field(description="charge below which the tier applies")
    max_bits: Bits = Field(description="highest level while it applies")


Tiers = Annotated[tuple[Tier, ...], Field(strict=False)]


class Battery(Table):
    """Charge, and how long it must last. While it discharges the lowest charge seen counts, so
    that a gauge that bounces back does not raise the level."""

    tiers: Tiers = Field(
        (
            Tier(below=40, max_bits=6),
            Tier(below=20, max_bits=4),
            Tier(below=10, max_bits=2),
        ),
        description="caps by charge, from high to low",
    )
    hysteresis: Annotated[FiniteFloat, _in("percentage points")] = Field(
        2.0, ge=0, le=20, description="above a tier's bound by this it ends"
    )
    on_ac: Literal["ignore", "apply"] = Field(
        "ignore", description="what the tiers do while the battery is not discharging"
    )
    until: time | None = Field(
        None,
        description="local time of day until which the battery must last; absent: no such time",
    )
    reserve: Annotated[FiniteFloat, _in("%")] = Field(
        5.0, ge=0, le=90, description="charge that is never spent for `until`"
    )
    capacity_wh: WattHours | None = Field(
        None, description="what a full battery holds, for one whose driver does not say"
    )
    budget_s: Period = Field(
        10.0, description="from one look at the budget for `until` to the next"
    )
    budget_raise_s: Seconds = Field(
        60.0, description="the budget must have allowed a raise for so long"
    )
    required: bool = Field(False, description="refuse to start without a battery")


class Energy(Table):
    """What is assumed of a device's power as long as nothing has been measured: a frame takes
    ``active_w`` for the time it runs, and the device ``idle_w`` all the time."""

    idle_w: Annotated[FiniteFloat, _in("W")] = Field(
        2.0, ge=0, le=1000, description="power of the device that does nothing"
    )
    active_w: Annotated[FiniteFloat, _in("W")] = Field(
        3.0, gt=0, le=1000, description="power that inference adds while it runs"
    )


class Load(Table):
    """Courtesy to other programs."""

    yield_to_others: bool = Field(True, description="step down while others want the CPU")
    psi_cpu_some_avg10: Percent = Field(
        40.0, description="share of time with a task waiting for a CPU that counts as contention"
    )
    other_load: Percent = Field(
        25.0, description="CPU time that others must use for it to be their contention"
    )
    other_load_alone: Percent = Field(
        75.0, description="the same where the kernel has no pressure stall information"
    )
    step_s: Span = Field(30.0, description="from one step down to the next")


class Stability(Table):
    """Against flapping. Both ways go one step at a time; only a critical temperature and
    blindness go to the bottom at once."""

    lower_dwell_s: Seconds = Field(2.0, description="from one step down to the next")
    raise_dwell_s: Period = Field(
        20.0, description="every cap must have allowed a raise for so long"
    )
    guard_bits: Annotated[FiniteFloat, _in("bits")] = Field(
        0.5, ge=0, le=4, description="spare thermal budget that a raise needs"
    )
    revert_s: Seconds = Field(
        120.0, description="a raise taken back within this doubles the rung's dwell"
    )
    raise_backoff_max_s: Seconds = Field(600.0, description="longest dwell after such doubling")
    forget_s: Seconds = Field(
        1800.0, description="time without a taken-back raise after which the dwells are halved"
    )


class Failsafe(Table):
    """When the governor is blind."""

    no_thermal_sensor_bits: Bits = Field(
        4, description="highest level on a device that has no thermal sensor at all"
    )
    lost_thermal_sensor_bits: Bits = Field(
        2, description="highest level while a sensor that was there is gone or lies"
    )
    after_s: Seconds = Field(10.0, description="how long a sensor may be silent before that")
    recover_s: Seconds = Field(60.0, description="sound readings needed to trust it again")
    battery_step_s: Span = Field(
        600.0, description="one rung lower each time while the battery cannot be read"
    )


class Policy(Table):
    """A complete policy. Read one with ``load_policy``; percentages are 0..100."""

    policy_schema: Literal[1] = Field(SCHEMA, alias="schema", description="version of this format")
    name: str = Field("unnamed", min_length=1, description="shown where a policy is named")
    levels: Levels = Field(default_factory=Levels, description="the range of levels")
    frame: Frame = Field(default_factory=Frame, description="frame rate and deadline")
    confidence: Confidence = Field(
        default_factory=Confidence, description="unsure frames run again, at a higher level"
    )
    thermal: Thermal = Field(default_factory=Thermal, description="heat")
    throttle: Throttle = Field(
        default_factory=Throttle, description="throttling that no thermometer tells of"
    )
    battery: Battery = Field(default_factory=Battery, description="charge, and how long it lasts")
    energy: Energy = Field(
        default_factory=Energy, description="power, as long as it has not been measured"
    )
    load: Load = Field(default_factory=Load, description="other programs")
    stability: Stability = Field(default_factory=Stability, description="against flapping")
    failsafe: Failsafe = Field(default_factory=Failsafe, description="blindness")
