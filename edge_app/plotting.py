"""Pictures: of a recorded run (`edge-app log plot`), and of times (`edge-app bench --plot`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.record import SCHEMA

ACCURACY_WINDOW = 200

# Okabe and Ito's colours: told apart by colour-blind people too.
CAUSE_COLOURS = {
    "thermal": "#D55E00",
    "battery": "#E69F00",
    "deadline": "#CC79A7",
    "load": "#56B4E9",
    "failsafe": "#000000",
    "policy": "#0072B2",
}
FREE_COLOUR = "#009E73"


@dataclass
class Series:
    """Columns of a run's records, one entry a frame; ``None`` where a record has none."""

    seconds: list[float] = field(default_factory=list)
    bits: list[int] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    temperature: list[float | None] = field(default_factory=list)
    battery: list[float | None] = field(default_factory=list)
    correct: list[bool | None] = field(default_factory=list)


def read_records(path: Path) -> Series:
    """Read what ``run --jsonl`` wrote. AppError (exit code 2) names the line that is not such a
    record; a last line without its end, as after a power cut, is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AppError(f"{path}: cannot be read: {error}", EXIT_USAGE) from None
    series = Series()
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            if record["schema"] != SCHEMA:
                raise ValueError(f"schema is {record['schema']!r}, not {SCHEMA!r}")
            series.seconds.append(float(record["governor_time_s"]))
            series.bits.append(int(record["bits"]))
            series.causes.append(str(record["cause"]))
            series.temperature.append(record["temperature_c"])
            series.battery.append(record["battery"])
            series.correct.append(record["correct"])
        except (ValueError, KeyError, TypeError) as error:
            raise AppError(
                f"{path}:{number}: not a record of edge-app run --jsonl: {error}", EXIT_USAGE
            ) from None
    if not series.seconds:
        raise AppError(f"{path}: holds no records", EXIT_USAGE)
    return series


def rolling_accuracy(correct: list[bool | None], window: int) -> list[float | None]:
    """Share of right answers among the last ``window`` labelled frames, at each frame; None until
    a quarter of the window is there."""
    result: list[float | None] = []
    recent: list[bool] = []
    for answer in correct:
        if answer is not None:
            recent.append(answer)
            del recent[:-window]
        enough = len(recent) >= max(1, window // 4)
        result.append(sum(recent) / len(recent) if enough else None)
    return result


def plot_run(records: Path, output: Path) -> None:
    """Draw level, temperature with battery, and accuracy over time into ``output``.

    AppError (exit code 2) if the records cannot be read, matplotlib is missing, or ``output``
    cannot be written.
    """
    series = read_records(records)
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(
        3, 1, sharex=True, figsize=(9, 6.5), height_ratios=(2, 2, 1.5), layout="constrained"
    )
    unit, factor = ("s", 1.0) if series.seconds[-1] - series.seconds[0] < 300 else ("min", 60.0)
    times = [second / factor for second in series.seconds]
    _draw_levels(axes[0], times, series)
    _draw_sensors(axes[1], times, series)
    _draw_accuracy(axes[2], times, series)
    axes[-1].set_xlabel(f"time of the sensors in {unit}")
    save_figure(figure, output)


def plot_benchmark(report: dict[str, Any], output: Path) -> None:
    """Draw the times of ``edge-app bench`` into ``output``, a panel for each network.

    Bars are medians, whiskers reach from the shortest time to the 90th percentile. AppError (exit code
    2) if matplotlib is missing or ``output`` cannot be written.
    """
    networks = report["networks"]
    figure, axes = load_pyplot().subplots(
        1, len(networks), squeeze=False, figsize=(1 + 3.5 * len(networks), 4), layout="constrained"
    )
    for panel, network in zip(axes[0], networks, strict=True):
        rows = network["sides"]
        medians = [row["median_us"] / 1e3 for row in rows]
        below = [(row["median_us"] - row["min_us"]) / 1e3 for row in rows]
        above = [(row["p90_us"] - row["median_us"]) / 1e3 for row in rows]
        colours = ["#009E73" if row["bits"] else "#999999" for row in rows]
        panel.bar(range(len(rows)), medians, color=colours, yerr=(below, above), capsize=3)
        panel.set_xticks(range(len(rows)), [row["side"] for row in rows], rotation=45, ha="right")
        panel.set_title("{network} at {input[1]}x{input[0]}".format(**network))
    axes[0][0].set_ylabel("time of one image in ms")
    figure.suptitle(f"{report['cpu']}, {report['threads']} thread(s), {report['created'][:10]}")
    save_figure(figure, output)


def load_pyplot() -> Any:
    """matplotlib without a display; AppError where it is not installed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise AppError(
            "plotting needs matplotlib, which a device does without: pip install edge-app[server]",
            EXIT_USAGE,
        ) from None
    return pyplot


def save_figure(figure: Any, output: Path) -> None:
    """Write a picture and let go of it; AppError (exit code 2) if it cannot be written."""
    try:
        figure.savefig(output, dpi=130)
    except (OSError, ValueError) as error:
        raise AppError(f"{output}: cannot be written: {error}", EXIT_USAGE) from None
    finally:
        load_pyplot().close(figure)


def stretches(series: Series) -> list[tuple[int, int, int, str]]:
    """(first frame, frame after the last, bits, cause) of frames alike in bits and cause."""
    result: list[tuple[int, int, int, str]] = []
    for index, (bits, cause) in enumerate(zip(series.bits, series.causes, strict=True)):
        if result and result[-1][2:] == (bits, cause):
            result[-1] = (result[-1][0], index + 1, bits, cause)
        else:
            result.append((index, index + 1, bits, cause))
    return result


def _draw_levels(axes: Any, times: list[float], series: Series) -> None:
    axes.step(times, series.bits, where="post", color="0.75", linewidth=1)
    named: set[str] = set()
    for first, after, bits, cause in stretches(series):
        label = "not limited" if cause == "none" else cause
        axes.hlines(
            bits,
            times[first],
            times[min(after, len(times) - 1)],
            colors=CAUSE_COLOURS.get(cause, FREE_COLOUR),
            linewidth=5,
            label=None if label in named else label,
        )
        named.add(label)
    axes.set_ylabel("level in bits")
    axes.set_yticks(sorted(set(series.bits)))
    axes.margins(y=0.2)
    axes.legend(title="limited by", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _gaps(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _draw_sensors(axes: Any, times: list[float], series: Series) -> None:
    axes.plot(times, _gaps(series.temperature), color="#D55E00")
    axes.set_ylabel("temperature in °C", color="#D55E00")
    battery = axes.twinx()
    charge = [None if value is None else value * 100 for value in series.battery]
    battery.plot(times, _gaps(charge), color="#0072B2", linestyle="--")
    battery.set_ylabel("battery in %", color="#0072B2")
    battery.set_ylim(0, 100)


def _draw_accuracy(axes: Any, times: list[float], series: Series) -> None:
    rolling = rolling_accuracy(series.correct, ACCURACY_WINDOW)
    axes.plot(times, _gaps([None if v is None else v * 100 for v in rolling]), color="#009E73")
    axes.set_ylabel(f"accuracy in %\n(last {ACCURACY_WINDOW} frames)")
    if all(value is None for value in rolling):
        axes.text(0.5, 0.5, "the source has no labels", transform=axes.transAxes, ha="center")
