"""`edge-app policy simulate`: the same day under several policies, side by side."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_app.clock import ManualClock
from edge_app.errors import EXIT_MODEL, EXIT_USAGE, AppError
from edge_app.governor import load_policy, presets
from edge_app.governor.caps import thermal_limits
from edge_app.governor.controller import Governor
from edge_app.governor.simulation.baselines import Controller, baselines
from edge_app.governor.simulation.devices import Device, find_device
from edge_app.governor.simulation.replay import Obeys, replay
from edge_app.governor.simulation.run import DecisionLog, Observer, Run, Scenario, simulate
from edge_app.policy.model import Policy
from edge_app.recordings import find_trace, open_recording
from edge_app.sensors import Zone, absent

DEFAULT_DEVICE = "pi5-passive"
DEFAULT_HOURS = 4.0
MOST_HOURS = 240.0
MODEL = "cifar10-resnet20"
CELSIUS = (-40.0, 85.0)


@dataclass(frozen=True)
class Request:
    """What `edge-app policy simulate` was asked for; see ``simulation.command``."""

    trace: str | None = None
    device: str | None = None
    hours: float | None = None
    policies: tuple[str, ...] = ()
    until: str | None = None
    ambient: str | None = None
    seed: int = 1
    model: str | None = None
    baselines: bool = True


def compare(
    request: Request,
    plot: Path | None = None,
    json_file: Path | None = None,
    log: Path | None = None,
) -> None:
    """Run the comparison and write what was asked for. AppError for what the user can mend."""
    policies = {name: _load(name, request.until) for name in request.policies or ("balanced",)}
    if log is not None and len(policies) > 1:
        raise AppError("--log holds one policy's decisions; give one --policy", EXIT_USAGE)
    title, note, runs, decisions = run_all(request, policies)
    if log is not None:
        _write(log, decisions[0].text)
    report = {"simulation": title, "note": note, "runs": [run.summary() for run in runs]}
    if json_file is not None:
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        if str(json_file) == "-":
            print(text, end="")
        else:
            _write(json_file, text)
    if json_file is None or str(json_file) != "-":
        from edge_app.governor.simulation.table import print_table

        print_table(title, note, runs)
    if plot is not None:
        from edge_app.governor.simulation.picture import draw

        draw(title, runs, plot)


def run_all(
    request: Request, policies: Mapping[str, Policy]
) -> tuple[str, str, list[Run], list[DecisionLog]]:
    """Title, caveat, one run for each policy and baseline, and each policy's decisions."""
    accuracy, macs = _model(request.model or MODEL)
    hours = _hours(request)
    device = _device(request, hours, macs)
    first = next(iter(policies.values()))
    zone = Zone("", absent(""), device.passive_c, device.critical_c)
    control_c = thermal_limits(zone, first.thermal).control_c
    play: Play
    if request.trace is None:
        title = f"{device.name}, {hours:g} h, seed {request.seed}: {device.what}"
        note = "simulated; the device's figures are assumptions, none was measured"
        made_of = {"device": device.name, "hours": hours}
        scenario = Scenario(device, hours, request.seed, control_c=control_c)
        play = partial(_play_device, scenario, accuracy)
    else:
        title = f"recording {request.trace}"
        note = (
            "open loop: temperature, battery and load are as recorded, whatever is decided; "
            f"time and energy of a frame are those of the simulated {device.name}"
        )
        path = find_trace(request.trace, "--trace ")
        made_of = {"trace": path.name}
        obeys = Governor(first, device.levels, device.profile(), ManualClock()).obeys
        play = partial(_play_recording, path, device, obeys, control_c, accuracy)
    runs, logs = [], []
    for name, policy in policies.items():
        clock = ManualClock()
        log = DecisionLog(**made_of, policy=policy.name, seed=request.seed)
        governor = Governor(policy, device.levels, device.profile(), clock)
        runs.append(play(name, governor, clock, (log,)))
        logs.append(log)
    if request.baselines:
        fps = first.frame.target_fps
        for name, baseline in baselines(device.levels, fps, control_c).items():
            runs.append(play(name, baseline, ManualClock(), ()))
    return title, note, runs, logs


Play = Callable[[str, Controller, ManualClock, Sequence[Observer]], Run]
"""Runs one governor under a name, with its clock."""


def _play_device(
    scenario: Scenario,
    accuracy: Mapping[int, float],
    name: str,
    controller: Controller,
    clock: ManualClock,
    observers: Sequence[Observer],
) -> Run:
    return simulate(name, controller, scenario, clock, accuracy, observers)


def _play_recording(
    path: Path,
    device: Device,
    obeys: Obeys,
    control_c: float,
    accuracy: Mapping[int, float],
    name: str,
    controller: Controller,
    clock: ManualClock,
    observers: Sequence[Observer],
) -> Run:
    recording = open_recording(path, clock)
    profile = device.profile()
    return replay(
        name, controller, recording, clock, profile, obeys, control_c, accuracy, observers
    )


def _load(name: str, until: str | None) -> Policy:
    """The policy that ``name`` means: a preset, or a file."""
    overrides = []
    if until is not None:
        overrides.append(f"battery.until={_time_of_day(until)}")
    if name in presets():
        return load_policy(None, name, overrides)
    path = Path(name).expanduser()
    if not path.exists():
        known = ", ".join(presets())
        raise AppError(
            f"--policy {name}: no such file, and no preset; presets: {known}", EXIT_USAGE
        )
    return load_policy(path, overrides=overrides)


def _time_of_day(text: str) -> str:
    try:
        return datetime.time.fromisoformat(text).replace(tzinfo=None).isoformat()
    except ValueError:
        raise AppError(
            f"--until {text}: must be a time of day, for example 18:00", EXIT_USAGE
        ) from None


def _hours(request: Request) -> float:
    if request.trace is not None and request.hours is not None:
        raise AppError("--hours: a recording has its own length; leave it out", EXIT_USAGE)
    hours = DEFAULT_HOURS if request.hours is None else request.hours
    if not 0 < hours <= MOST_HOURS:
        raise AppError(f"--hours {hours:g}: must be above 0, at most {MOST_HOURS:g}", EXIT_USAGE)
    return hours


def _device(request: Request, hours: float, macs: Mapping[int, float]) -> Device:
    """The device with the model's levels: the highest takes the device's time for a frame, the
    others as much of it as they have of its multiplications."""
    device = find_device(request.device or DEFAULT_DEVICE)
    most = max(macs.values())
    device = replace(device, shares={bits: count / most for bits, count in macs.items()})
    if request.ambient is None:
        return device
    if request.trace is not None:
        raise AppError("--ambient: a recording has its own; leave it out", EXIT_USAGE)
    before, dots, after = request.ambient.partition("..")
    try:
        start = float(before)
        end = float(after) if dots else start
    except ValueError:
        raise AppError(
            f"--ambient {request.ambient}: must be °C or FROM..TO, for example 25..35", EXIT_USAGE
        ) from None
    low, high = CELSIUS
    if not (low <= start <= high and low <= end <= high):
        raise AppError(
            f"--ambient {request.ambient}: must be within {low:g}..{high:g} °C", EXIT_USAGE
        )
    return replace(device, ambient=((0.0, start), (hours, end)))


def _model(name: str) -> tuple[dict[int, float], dict[int, float]]:
    """Accuracy and multiplications of each level by the model's metadata."""
    from edge_app.models import open_model

    with open_model(name) as program:
        try:
            levels = {int(bits): level for bits, level in program.metadata["levels"].items()}
            accuracy = {bits: float(level["accuracy"]) for bits, level in levels.items()}
            macs = {bits: float(level["macs"]) for bits, level in levels.items()}
        except (KeyError, TypeError, ValueError):
            raise AppError(
                f"model {name}: its metadata does not give accuracy and macs of each level; "
                "export the model again",
                EXIT_MODEL,
            ) from None
    return accuracy, macs


def _write(path: Path, text: str) -> None:
    """Beside its place first, then renamed."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    except OSError as error:
        raise AppError(f"{path}: cannot be written: {error.strerror}", EXIT_USAGE) from None
