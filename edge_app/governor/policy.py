"""The policy: every key, its unit, its default and its bounds.

Layering, files and error messages are in ``policy_file``. The defaults are those of the preset
``balanced``; chips throttle at 80..85 °C, so control aims below that.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

SCHEMA: Final = 1
DAY_S: Final = 86400

Bits = Annotated[int, Field(ge=2, le=8)]
Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
Celsius = Annotated[FiniteFloat, Field(ge=0, le=125)]
Seconds = Annotated[FiniteFloat, Field(ge=0, le=DAY_S)]
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

    target_fps: FiniteFloat = Field(
        30.0, ge=0, le=1000, description="frames a second at full rate; 0: as the source gives them"
    )
    min_fps: FiniteFloat = Field(
        2.5,
        gt=0,
        le=1000,
        description="lowest rate to which frames are shed below the lowest level",
    )
    deadline_ms: FiniteFloat = Field(
        100.0, ge=0, le=60000, description="95 % of inferences must be done in this; 0: no deadline"
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
    on_c: Celsius = Field(65.0, description="°C from which heat counts")
    control_c: Celsius = Field(78.0, description="°C not to be exceeded for long")
    critical_c: Celsius = Field(88.0, description="°C at which the lowest rung runs at once")
    pause_c: Celsius = Field(95.0, description="°C at which inference pauses")
    forecast_s: FiniteFloat = Field(
        15.0, ge=0, le=120, description="how far ahead a rise is extrapolated"
    )
    sustainable_bits: FiniteFloat = Field(
        4.0, gt=0, le=8, description="bits the cooling is thought to sustain for ever"
    )
    integral_s: FiniteFloat = Field(
        60.0, ge=1, le=DAY_S, description="time constant of the integral part"
    )
    max_age_s: FiniteFloat = Field(
        5.0, gt=0, le=DAY_S, description="an older reading does not count"
    )
    required: bool = Field(False, description="refuse to start without a thermal sensor")


class Tier(Table):
    """Below ``below`` percent of charge, at most ``max_bits``."""

    below: Percent = Field(description="percent of charge below which the tier applies")
    max_bits: Bits = Field(description="highest level while it applies")


Tiers = Annotated[tuple[Tier, ...], Field(strict=False)]


class Battery(Table):
    """Charge. While it discharges the lowest charge seen counts, so that a gauge that bounces
    back does not raise the level."""

    tiers: Tiers = Field(
        (
            Tier(below=40, max_bits=6),
            Tier(below=20, max_bits=4),
            Tier(below=10, max_bits=2),
        ),
        description="caps by charge, from high to low",
    )
    hysteresis: FiniteFloat = Field(
        2.0, ge=0, le=20, description="points above a tier's bound at which it ends"
    )
    on_ac: Literal["ignore", "apply"] = Field(
        "ignore", description="what the tiers do while the battery is not discharging"
    )
    required: bool = Field(False, description="refuse to start without a battery")


class Load(Table):
    """Courtesy to other programs."""

    yield_to_others: bool = Field(True, description="step down while others want the CPU")
    psi_cpu_some_avg10: Percent = Field(
        40.0, description="percent of time with a task waiting for a CPU that counts as contention"
    )
    other_load: Percent = Field(
        25.0, description="percent of CPU time that others must use for it to be their contention"
    )
    other_load_alone: Percent = Field(
        75.0, description="the same where the kernel has no pressure stall information"
    )
    step_s: FiniteFloat = Field(
        30.0, gt=0, le=DAY_S, description="seconds from one step to the next"
    )


class Stability(Table):
    """Against flapping. Lowering is immediate; raising goes one rung at a time."""

    raise_dwell_s: FiniteFloat = Field(
        20.0, ge=1, le=DAY_S, description="every cap must have allowed a raise for so long"
    )
    guard_bits: FiniteFloat = Field(
        0.5, ge=0, le=4, description="spare thermal budget that a raise needs"
    )
    revert_s: Seconds = Field(
        120.0, description="a raise taken back within this doubles the rung's dwell"
    )
    raise_backoff_max_s: Seconds = Field(600.0, description="longest dwell after such doubling")
    forget_s: Seconds = Field(
        1800.0, description="time without a taken-back raise after which the dwells start afresh"
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
    battery_step_s: FiniteFloat = Field(
        600.0,
        gt=0,
        le=DAY_S,
        description="one rung lower each time while the battery cannot be read",
    )


class Policy(Table):
    """A complete policy. Read one with ``load_policy``; percentages are 0..100."""

    policy_schema: Literal[1] = Field(SCHEMA, alias="schema", description="version of this format")
    name: str = Field("unnamed", min_length=1, description="shown where a policy is named")
    levels: Levels = Field(default_factory=Levels, description="the range of levels")
    frame: Frame = Field(default_factory=Frame, description="frame rate and deadline")
    thermal: Thermal = Field(default_factory=Thermal, description="heat")
    battery: Battery = Field(default_factory=Battery, description="charge")
    load: Load = Field(default_factory=Load, description="other programs")
    stability: Stability = Field(default_factory=Stability, description="against flapping")
    failsafe: Failsafe = Field(default_factory=Failsafe, description="blindness")
