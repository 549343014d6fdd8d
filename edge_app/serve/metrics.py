"""The metrics, collected when somebody asks.

Named by Prometheus's conventions: an application prefix, base units, units in the plural at the
end, ``_total`` for counters, ratios from 0 to 1. A registry of our own, without the default
collectors: what they tell of the process, the machine's exporter tells too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edge_app.sensors import Quality
from edge_app.serve.hub import Histogram, Hub
from edge_app.serve.limits import heat_limits
from edge_app.serve.sensors_view import rows

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
RESULTS = {
    "capture": "dropped_capture",
    "stale": "dropped_stale",
    "deadline": "dropped_deadline",
    "shed": "shed",
}
"""Reasons of ``Pipeline.losses`` as values of the label ``result``."""


class Metrics(Collector):
    """Everything that the hub knows, as text for Prometheus."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The text format 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        # Nothing is collected before the pipeline runs.
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, in a fixed order."""
        yield from self._frames()
        yield from self._level()
        yield from self._device()
        yield from self._source()

    def _frames(self) -> Iterator[Metric]:
        hub, counts = self._hub, self._hub.counts
        info = GaugeMetricFamily(
            "edge_app_build_info",
            "What runs: always 1.",
            labels=("version", "model", "model_sha", "policy", "policy_sha"),
        )
        policy = hub.about.policy()
        info.add_metric(
            (
                version("edge-app"),
                hub.about.model,
                file_sha(hub.about.model_path),
                policy.name,
                short_sha(policy.model_dump_json().encode()),
            ),
            1.0,
        )
        yield info

        frames = CounterMetricFamily(
            "edge_app_frames",
            "Frames of the source by what became of them: classified (ok), never read (capture), "
            "replaced by a newer one (stale), too old when their turn came (deadline), left out by "
            "the governor's frame rate (shed).",
            labels=("result",),
        )
        frames.add_metric(("ok",), counts.frames)
        for reason, result in RESULTS.items():
            frames.add_metric((result,), counts.losses.get(reason, 0))
        yield frames
        yield CounterMetricFamily(
            "edge_app_outputs_dropped",
            "Results that an output was too slow to take.",
            value=counts.losses.get("output", 0),
        )
        yield _histogram(
            HistogramMetricFamily(
                "edge_app_frame_latency_seconds", "From a frame's capture to its result."
            ),
            {(): hub.latency},
        )
        yield _histogram(
            HistogramMetricFamily(
                "edge_app_stage_duration_seconds",
                "Time of a frame in each stage.",
                labels=("stage",),
            ),
            {(stage,): histogram for stage, histogram in hub.stages.items()},
        )
        yield CounterMetricFamily(
            "edge_app_deadline_missed",
            "Frames whose inference took longer than the policy's deadline.",
            value=counts.deadline_missed,
        )
        yield _gauge(
            "edge_app_deadline_seconds",
            "What 95 % of inferences should not exceed; 0: no deadline.",
            hub.deadline_s,
        )
        if hub.frame_at is not None:
            yield _gauge(
                "edge_app_last_frame_timestamp_seconds",
                "When the newest result was made, in seconds since the epoch.",
                hub.wall() - (hub.now() - hub.frame_at),
            )

    def _level(self) -> Iterator[Metric]:
        hub, counts = self._hub, self._hub.counts
        decision, record = hub.decision_newest, hub.record
        if record is not None:
            yield _gauge(
                "edge_app_branches", "Branches that the newest frame ran.", len(record.branches)
            )
            yield _gauge("edge_app_level_bits", "Bits that the newest frame ran.", record.bits)
        by_branches = CounterMetricFamily(
            "edge_app_branch_frames", "Frames by the branches that they ran.", labels=("branches",)
        )
        for branches in sorted({len(members) for members in hub.about.branches.values()}):
            by_branches.add_metric((str(branches),), counts.branch_frames[branches])
        yield by_branches
        if decision is not None:
            ceiling = GaugeMetricFamily(
                "edge_app_ceiling_branches", "Branches that each cap allows.", labels=("cap",)
            )
            for cap, bits in decision.caps.items():
                ceiling.add_metric((cap,), len(hub.about.branches.get(bits, ())))
            yield ceiling
            binding = GaugeMetricFamily(
                "edge_app_ceiling_binding",
                "1 for the cap that holds the level, 0 for the others.",
                labels=("cap",),
            )
            for cap in decision.caps:
                binding.add_metric((cap,), float(cap == decision.cause))
            yield binding
            yield _gauge(
                "edge_app_paused", "1 while the device is too hot for any frame.", decision.paused
            )
            yield _gauge(
                "edge_app_slowdown_ratio",
                "How many times its profiled time a frame takes.",
                decision.slowdown,
            )
        changes = CounterMetricFamily(
            "edge_app_ceiling_changes",
            "Changes of level or frame rate.",
            labels=("direction", "cause"),
        )
        for (direction, cause), count in sorted(dict(counts.changes).items()):
            changes.add_metric((direction, cause), count)
        yield changes
        escalations = CounterMetricFamily(
            "edge_app_escalations",
            "Frames that were run again at a higher level.",
            labels=("reason",),
        )
        escalations.add_metric(("margin",), counts.escalations)
        yield escalations
        yield _gauge(
            "edge_app_policy_reload_success",
            "1 unless the newest policy file was refused.",
            hub.policy_accepted,
        )

    def _device(self) -> Iterator[Metric]:
        hub, sample, decision = self._hub, self._hub.sample, self._hub.decision_newest
        sensors = [row for row in rows(sample) if not row.absent]
        zones = len(sample.zones) if sample else 0
        temperature = GaugeMetricFamily(
            "edge_app_temperature_celsius", "Of each thermal zone.", labels=("zone",)
        )
        for row in sensors[:zones]:
            if row.reading.ok and row.reading.value is not None:
                temperature.add_metric((row.key,), row.reading.value)
        yield temperature
        if decision is not None and decision.forecast_c is not None:
            yield _gauge(
                "edge_app_temperature_forecast_celsius",
                "Of the zone nearest to its limit, as far ahead as the policy looks.",
                decision.forecast_c,
            )
            limits = heat_limits(hub)
            yield _gauge(
                "edge_app_thermal_headroom_ratio",
                "1 where heat begins to count, 0 at the temperature to keep to, negative above.",
                (limits.control_c - decision.forecast_c) / (limits.control_c - limits.on_c),
            )
        if decision is not None and decision.battery_charge is not None:
            yield _gauge(
                "edge_app_battery_charge_ratio", "Charge of the battery.", decision.battery_charge
            )
        if decision is not None and decision.battery_end_s is not None:
            yield _gauge(
                "edge_app_battery_budget_seconds",
                "Until the policy's reserve is reached if nothing changes.",
                decision.battery_end_s,
            )
        if decision is not None and decision.until_s is not None:
            yield _gauge(
                "edge_app_battery_until_seconds",
                "For how long the policy wants the battery to last.",
                decision.until_s,
            )
        if sample is not None:
            power = GaugeMetricFamily("edge_app_power_watts", "Measured.", labels=("source",))
            sources = (("battery", sample.battery.power), ("device", sample.power))
            for name, reading in sources:
                if reading.ok and reading.value is not None:
                    power.add_metric((name,), reading.value)
            yield power
            if sample.power.quality is not Quality.ABSENT:
                yield CounterMetricFamily(
                    "edge_app_energy_joules",
                    "Of the device since the start, as far as it was measured.",
                    value=hub.counts.joules,
                )
        up = GaugeMetricFamily(
            "edge_app_sensor_up", "1 if the sensor's value can be believed.", labels=("sensor",)
        )
        quality = GaugeMetricFamily(
            "edge_app_sensor_quality",
            "1 for the state that the sensor is in.",
            labels=("sensor", "state"),
        )
        disbelieved = () if decision is None else decision.distrusted
        for row in sensors:
            # The reading is sound as far as the sensors can tell; the governor knows better.
            distrusted = row.reading.ok and row.key in disbelieved
            up.add_metric((row.key,), float(row.reading.ok and not distrusted))
            quality.add_metric((row.key, "distrusted"), float(distrusted))
            for state in Quality:
                if state is not Quality.ABSENT:
                    quality.add_metric((row.key, state.value), float(row.reading.quality is state))
        yield up
        yield quality

    def _source(self) -> Iterator[Metric]:
        status = self._hub.status
        if status is not None:
            yield _gauge("edge_app_source_up", "1 while frames come.", status.state == "up")
            yield CounterMetricFamily(
                "edge_app_source_reconnects",
                "How often the source was opened again.",
                value=status.reconnects,
            )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _histogram(
    family: HistogramMetricFamily, histograms: dict[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    for labels, histogram in histograms.items():
        totals = list(accumulate(histogram.counts))
        bounds = [f"{bound:g}" for bound in histogram.bounds] + ["+Inf"]
        family.add_metric(labels, list(zip(bounds, totals, strict=True)), histogram.sum)
    return family


@cache
def file_sha(path: str) -> str:
    """The beginning of a file's SHA-256; empty if it cannot be read."""
    try:
        return short_sha(Path(path).read_bytes())
    except OSError:
        return ""


def short_sha(content: bytes) -> str:
    """The first 12 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]
