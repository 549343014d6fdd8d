"""Decisions as lines of a log."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from governor_samples import (
    NOON,
    make_governor,
    make_sample,
    make_zone,
    no_battery,
    run,
)

from edge_app.governor import Decision, Event
from edge_app.sensors import Quality, Sample


def test_decision_as_json() -> None:
    governor = make_governor()
    decision = governor.step(replace(make_sample(1.0004, 66.234, 0.35), wall=NOON))
    shown = decision.to_json()
    assert list(shown) == [
        "t",
        "bits",
        "fps",
        "rung",
        "changed",
        "previous_bits",
        "paused",
        "cause",
        "caps",
        "reasons",
        "why",
        "next_raise_s",
        "temperature_c",
        "forecast_c",
        "slowdown",
        "battery",
        "battery_end_s",
        "until_s",
        "distrusted",
        "events",
    ]
    assert shown["t"] == 1.0 and shown["bits"] == 6 and shown["fps"] == 30.0 and shown["rung"] == 4
    assert shown["cause"] == "battery" and shown["temperature_c"] == 66.23
    assert shown["caps"] == decision.caps and shown["why"] == decision.why
    assert list(decision.reasons) == list(decision.caps) == list(shown["reasons"])
    assert decision.reasons["battery"] == decision.why
    assert decision.reasons["policy"] == "policy balanced allows 8 bits"
    assert shown["changed"] is False and shown["previous_bits"] == 6 and shown["paused"] is False
    assert shown["next_raise_s"] is None and shown["slowdown"] == 1.0
    assert shown["forecast_c"] == 66.23 and shown["battery"] == 0.35
    assert shown["distrusted"] == [] and shown["events"] == []


def test_numbers_of_the_log_are_rounded_to_what_they_mean() -> None:
    decision = Decision(
        time=1.23456,
        bits=4,
        rung=3,
        changed=True,
        previous_bits=6,
        cause="thermal",
        caps={"thermal": 4},
        why="hot",
        next_raise_s=12.3456,
        temperature_c=61.23456,
        battery_charge=0.123456,
        fps=14.98765,
        paused=True,
        forecast_c=65.4321,
        slowdown=1.23456,
        battery_end_s=1234.56,
        until_s=2345.67,
        distrusted=("cpu",),
        events=(Event("paused", "too hot"),),
        reasons={"thermal": "hot"},
    )
    assert list(decision.to_json().values()) == [
        1.235,
        4,
        14.988,
        3,
        True,
        6,
        True,
        "thermal",
        {"thermal": 4},
        {"thermal": "hot"},
        "hot",
        12.3,
        61.23,
        65.43,
        1.235,
        0.1235,
        1235.0,
        2346.0,
        ["cpu"],
        [{"kind": "paused", "text": "too hot"}],
    ]


def test_same_samples_give_the_same_bytes() -> None:
    def log() -> str:
        governor = make_governor()

        def sample(t: float) -> Sample:
            celsius = 60.0 + 20.0 * math.sin(t / 50.0)
            return make_sample(t, None if 200 < t < 230 else celsius, 1.0 - t / 1000.0)

        lines = (decision.to_json() for decision in run(governor, sample, 0, 600))
        return "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)

    assert log() == log()


def test_blind_decisions_have_no_temperature() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 5)
    lost = governor.step(Sample(5.0, (make_zone(None, 5.0, Quality.MISSING),), no_battery(5.0)))
    assert lost.temperature_c is None and lost.forecast_c is None
