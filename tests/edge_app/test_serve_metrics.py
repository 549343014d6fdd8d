"""The metrics: their names by Prometheus's conventions, and their values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from governor_samples import make_battery, make_zone, ok
from prometheus_client.parser import text_string_to_metric_families
from serve_rig import Rig

from edge_app.governor import Event
from edge_app.sensors import Quality, Reading, Sample
from edge_app.serve.metrics import Metrics
from edge_app.sources import SourceStatus

ROOT = Path(__file__).parents[2]
BASE_UNITS = (
    "seconds",
    "celsius",
    "bits",
    "branches",
    "joules",
    "watts",
    "ratio",
    "info",
    "frames",
    "changes",
    "escalations",
    "reconnects",
    "missed",
    "dropped",
)
STATES = ("up", "paused", "binding", "quality", "success")
"""Gauges of 0 and 1."""
FORBIDDEN = ("milli", "percent", "minutes", "hours", "_ms", "fahrenheit", "_fps", "kilo", "mega")


def values(rig: Rig) -> dict[str, float]:
    """Every sample by name and labels, as a scrape sees it."""
    return {
        sample.name
        + "".join(f"[{value}]" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(Metrics(rig.hub).text().decode())
        for sample in family.samples
    }


def busy() -> Rig:
    """A rig in which everything has happened that a metric tells of."""
    rig = Rig()
    rig.losses = {"capture": 1, "stale": 2, "shed": 3, "deadline": 4, "output": 5}
    rig.status = SourceStatus("reconnecting", 7, "gone")
    rig.frame(infer_s=0.04, age_s=0.06)
    rig.frame(seq=1, infer_s=0.2, age_s=0.3, bits=4, branches=(2, 3), escalated_from=2)
    for time in (0.0, 2.0):
        zones = (make_zone(71.5, time), make_zone(40.0, time, name="gpu-thermal"))
        weak = Reading(-273.15, time, Quality.IMPLAUSIBLE, "nvme")
        rig.hub._sampled(
            Sample(
                time,
                (*zones, make_zone(None, time, Quality.MISSING, 'odd "zone"\\')),
                make_battery(0.5, time),
                power=ok(6.0, time, "device"),
                cpu_pressure=weak,
            )
        )
    rig.decide(
        bits=4, caps={"thermal": 4, "battery": 8}, battery_charge=0.5, battery_end_s=3600.0,
        until_s=7200.0, forecast_c=71.5, slowdown=1.25,
    )  # fmt: skip
    rig.hub.tick()
    return rig


@pytest.mark.parametrize("rig", [Rig(), busy()], ids=["at the start", "busy"])
def test_names_and_texts_follow_the_conventions(rig: Rig) -> None:
    families = list(text_string_to_metric_families(Metrics(rig.hub).text().decode()))
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    for family in families:
        assert re.fullmatch(r"edge_app(_[a-z]+)+", family.name)
        assert family.documentation and family.documentation.endswith(".")
        assert not any(word in family.name for word in FORBIDDEN), family.name
        assert family.name.endswith(BASE_UNITS + STATES), family.name
        for sample in family.samples:
            # The parser takes `_total` off the name of a family of counters.
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert not set(sample.labels) & {"le", "quantile", "job", "instance"} or (
                family.type == "histogram"
            )
            for label, value in sample.labels.items():
                assert re.fullmatch(r"[a-z][a-z_]*", label) and family.name != label
                assert value == value.strip()
    assert not [name for name in names if name.startswith(("python_", "process_"))]


def test_a_scrape_has_every_figure() -> None:
    scraped = values(busy())
    expected: dict[str, Any] = {
        "edge_app_frames_total[ok]": 2,
        "edge_app_frames_total[dropped_capture]": 1,
        "edge_app_frames_total[dropped_stale]": 2,
        "edge_app_frames_total[shed]": 3,
        "edge_app_frames_total[dropped_deadline]": 4,
        "edge_app_outputs_dropped_total": 5,
        "edge_app_frame_latency_seconds_count": 2,
        "edge_app_frame_latency_seconds_sum": 0.36,
        "edge_app_frame_latency_seconds_bucket[0.075]": 1,
        "edge_app_frame_latency_seconds_bucket[0.3]": 2,
        "edge_app_frame_latency_seconds_bucket[+Inf]": 2,
        "edge_app_stage_duration_seconds_sum[infer]": 0.24,
        "edge_app_deadline_missed_total": 1,
        "edge_app_deadline_seconds": 0.1,
        "edge_app_branches": 2,
        "edge_app_level_bits": 4,
        "edge_app_branch_frames_total[2]": 1,
        "edge_app_branch_frames_total[4]": 1,
        "edge_app_branch_frames_total[1]": 0,
        "edge_app_ceiling_branches[thermal]": 2,
        "edge_app_ceiling_branches[battery]": 4,
        "edge_app_ceiling_binding[thermal]": 1,
        "edge_app_ceiling_changes_total[thermal][down]": 1,
        "edge_app_escalations_total[margin]": 1,
        "edge_app_temperature_celsius[cpu-thermal]": 71.5,
        "edge_app_temperature_celsius[gpu-thermal]": 40.0,
        "edge_app_temperature_forecast_celsius": 71.5,
        "edge_app_thermal_headroom_ratio": 0.5,
        "edge_app_battery_charge_ratio": 0.5,
        "edge_app_battery_budget_seconds": 3600,
        "edge_app_battery_until_seconds": 7200,
        "edge_app_power_watts[device]": 6.0,
        "edge_app_energy_joules_total": 12.0,
        "edge_app_slowdown_ratio": 1.25,
        "edge_app_sensor_up[cpu-thermal]": 1,
        'edge_app_sensor_up[odd "zone"\\]': 0,
        'edge_app_sensor_quality[odd "zone"\\][missing]': 1,
        "edge_app_sensor_quality[cpu_pressure][implausible]": 1,
        "edge_app_sensor_quality[cpu_pressure][ok]": 0,
        "edge_app_source_up": 0,
        "edge_app_source_reconnects_total": 7,
        "edge_app_policy_reload_success": 1,
    }
    for name, value in expected.items():
        assert scraped[name] == pytest.approx(value), name
    assert 'edge_app_temperature_celsius[odd "zone"\\]' not in scraped
    assert "edge_app_sensor_up[under_voltage]" not in scraped, "absent sensors are no sensors"


def test_a_thermometer_that_the_governor_does_not_believe_is_down() -> None:
    rig = busy()
    assert values(rig)["edge_app_sensor_quality[cpu-thermal][distrusted]"] == 0
    rig.decide(distrusted=("cpu-thermal",))
    scraped = values(rig)
    assert scraped["edge_app_sensor_up[cpu-thermal]"] == 0
    assert scraped["edge_app_sensor_quality[cpu-thermal][distrusted]"] == 1
    assert scraped["edge_app_sensor_up[gpu-thermal]"] == 1


def test_what_runs_is_named_with_the_sums_of_its_files() -> None:
    (name,) = [name for name in values(Rig()) if name.startswith("edge_app_build_info")]
    assert "[digits]" in name and "[balanced]" in name
    assert re.search(r"\[[0-9a-f]{12}\]", name)


def test_counters_never_fall() -> None:
    rig = Rig()
    rig.losses = {"stale": 9}
    rig.hub.tick()
    rig.losses = {"stale": 7, "shed": 2}
    rig.hub._losses_at = 0.0
    rig.hub.tick()
    scraped = values(rig)
    assert scraped["edge_app_frames_total[dropped_stale]"] == 9
    assert scraped["edge_app_frames_total[shed]"] == 2


def test_changes_of_rate_have_a_direction_too() -> None:
    rig = Rig()
    rig.decide(bits=2, rung=1, previous_bits=4)
    rig.decide(bits=2, rung=0, previous_bits=2)
    rig.decide(bits=2, rung=1, previous_bits=2)
    rig.decide(bits=4, rung=2, previous_bits=2, changed=False)
    scraped = values(rig)
    assert scraped["edge_app_ceiling_changes_total[thermal][down]"] == 2
    assert scraped["edge_app_ceiling_changes_total[thermal][up]"] == 1


def test_a_refused_policy_file_raises_an_alert() -> None:
    rig = Rig()
    rig.hub.notice(Event("policy_rejected", "x"))
    assert values(rig)["edge_app_policy_reload_success"] == 0


def test_what_alerts_and_dashboards_name_is_there() -> None:
    families = text_string_to_metric_families(Metrics(busy().hub).text().decode())
    known = {sample.name for family in families for sample in family.samples}
    named = {
        (name, file.name)
        for folder in ("packaging/prometheus", "packaging/grafana")
        for file in (ROOT / folder).iterdir()
        for name in re.findall(r"edge_app_[a-z_]+[a-z]", file.read_text(encoding="utf-8"))
    }
    assert {name for name, file in named if file.endswith(".json")}
    unknown = {(name, file) for name, file in named if name not in known}
    assert unknown == set()


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    for family in text_string_to_metric_families(Metrics(busy().hub).text().decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        row = f"| `{name}` | {family.type} | {', '.join(labels)} |"
        assert row in text, row
        assert family.documentation in text, family.name
