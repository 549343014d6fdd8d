"""`edge-app run`: opens what the user asked for, in an order in which mistakes show early, runs
the pipeline over it, and closes everything again."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.memory import share_heap, steady_memory
from edge_app.signals import StopRequest
from edge_app.sources import TEST_DIGITS, Source, open_source

if TYPE_CHECKING:
    from edge_app.clock import RealClock
    from edge_app.governor import Event, Policy, Resolved
    from edge_app.pipeline import Limits, Pipeline
    from edge_app.sensors import SensorSource
    from edge_app.serve import About, Hub
    from edge_app.sinks import Sink
    from edge_app.sinks.overlapped import Overlapped
    from edge_app.sinks.statistics import Statistics
    from edge_app.state_file import StateFile
    from native_ops import Program

DEFAULT_MODELS = {TEST_DIGITS: "digits"}
CAMERA_MODEL = "cifar10-resnet20"
STALE_DEADLINES = 2.0
"""A live frame older than so many deadlines tells of a moment that has passed."""
REPLAY_SPEED = 60.0
REPLAY_SETTINGS = ("throttle.slowdown=100",)
"""How slow this machine is says nothing about the one that was recorded."""
REPLAY_SHARE = 0.9
"""Of --duration in which a replayed trace plays through, so that its end is seen too."""


@dataclass(frozen=True)
class RunOptions:
    """What `edge-app run` was asked for; the names are those of its options."""

    camera: str | None = None
    model: str | None = None
    policy: Path | None = None
    preset: str = "balanced"
    settings: tuple[str, ...] = ()
    fixed_bits: int | None = None
    max_frames: int | None = None
    duration: float | None = None
    target_fps: float | None = None
    jsonl: str | None = None
    sysroot: Path = field(default_factory=lambda: Path("/"))
    replay_sensors: str | None = None
    replay_speed: float | None = None
    threads: int = 1
    memory: str = "normal"
    device: str = "cpu"
    mqtt: str | None = None
    state: Path | None = None
    jsonl_max_mb: float | None = None
    save: Path | None = None
    save_crops: Path | None = None
    give_up: float = 60.0
    realtime: bool = False
    serve: str | None = None
    serve_token: str | None = None


def run(options: RunOptions) -> int:
    """Run to the end and return the exit code. AppError for whatever the user can mend."""
    share_heap(give_back=options.memory == "low")
    stop = StopRequest()
    stop.install()
    with contextlib.ExitStack() as resources:
        return _run(options, stop, resources)


def _run(options: RunOptions, stop: StopRequest, resources: contextlib.ExitStack) -> int:
    from edge_app.governor import Governor, GovernorLoop, resolve
    from edge_app.policy.oddities import oddities
    from edge_app.policy.watcher import PolicyWatcher

    def load() -> Resolved:
        replayed = REPLAY_SETTINGS if options.replay_sensors is not None else ()
        return resolve(options.policy, options.preset, (*replayed, *options.settings))

    # What is left to do when the model's memory is free again.
    last = resources.enter_context(contextlib.ExitStack())
    resolved = load()
    policy = resolved.policy
    sensors, clock = open_sensors(options)
    uri = TEST_DIGITS if options.camera is None else options.camera
    source = open_frames(uri, options)
    resources.callback(source.close)

    from edge_app.journal import Journal
    from edge_app.models import branches_of
    from edge_app.pipeline import Pipeline
    from edge_app.service.notify import Notifier, ServiceSink
    from edge_app.sinks.overlapped import Overlapped
    from edge_app.sinks.statistics import Statistics
    from edge_app.switching import (
        ON_THE_CPU,
        costs_of,
        follower,
        levels_of,
        watch_device,
    )
    from edge_app.why import WhyServer

    model, installed = open_chosen_model(options, uri)
    resources.callback(model.close)
    model.on_device_lost = lambda reason: _say(f"{reason}{ON_THE_CPU}")
    if options.device != "cpu":
        _say(f"device {model.device}: {model.device_reason}")
    limits = _limits(options, model, policy)
    first = _first_level(options, model, policy)
    costs = costs_of(model, options, policy, first)
    governor = Governor(policy, model.levels, costs, clock)
    levels = levels_of(model, first, costs, governor)
    store = _store(options)
    if store is not None:
        governor.restore(store.load())
    statistics = Statistics(model.levels)
    name = installed or Path(model.path).stem

    def noticed(event: Event) -> None:
        pipeline.noticed(event)

    overlapped = Overlapped(_outputs(options, source, model, name, noticed), drop=source.live)
    about = {"model": name, "source": source.name, "policy": policy.name}
    journal = Journal(about)
    why = WhyServer(journal.to_json)
    resources.callback(why.close)
    if why.problem:
        _say(f"edge-app why cannot ask this process: {why.problem}")
    sinks: list[Sink] = [statistics, journal.sink(stop), overlapped]

    def losses() -> Counter[str]:
        return pipeline.losses() + Counter(output=overlapped.lost)

    if options.serve is not None:
        from edge_app.serve import About

        about_run = About(
            model=about["model"],
            model_path=str(model.path),
            source=source.name,
            branches=branches_of(model),
            journal=journal.to_json,
            policy=lambda: governor.policy,
            losses=losses,
            status=lambda: source.status,
            reload=stop.ask_reload,
            target_fps=options.target_fps,
            speed=clock.speed,
        )
        hub = _open_page(about_run, options, resources)
        sensors = hub.watched(sensors)
        sinks.append(hub)
    pipeline = Pipeline(
        source, model, branches_of(model), governor, clock, sinks, limits, stop, levels=levels
    )
    watch_device(model, pipeline, governor, options)
    notifier = Notifier()
    if notifier.present:
        sinks.append(ServiceSink(notifier, lambda: source.status, lambda: governor.paused))
    if installed is not None:
        sinks.append(follower(installed, model, options, pipeline, governor, resources))
    loop = GovernorLoop(
        governor,
        sensors,
        clock,
        pipeline.decided,
        PolicyWatcher(load, clock, resolved),
        store,
        pipeline.noticed,
        stop.take_reload,
    )
    completed = False
    try:
        for problem in oddities(resolved, loop.start(), datetime.now().astimezone()):
            # What is odd about a preset on this device is not the user's doing.
            if resolved.given_by_user(problem):
                _say(str(problem))
        if levels is not None and options.fixed_bits is None:
            levels.prepare(governor.first_level)
        resources.enter_context(steady_memory())
        pipeline.run()
        completed = True
    finally:
        loop.stop()
        # Printed even if a sink fails in its last write.
        if completed or statistics.frames:
            last.callback(_summarize, statistics, pipeline, overlapped, limits)
        with contextlib.ExitStack() as closing:
            for sink in sinks:
                closing.callback(sink.close)
    return stop.exit_code


def _open_page(about: About, options: RunOptions, resources: contextlib.ExitStack) -> Hub:
    """Serve the page of ``--serve``; the hub is what feeds it."""
    from edge_app.serve import Hub, open_page

    hub = Hub(about)
    assert options.serve is not None
    page = open_page(hub, options.serve, options.serve_token)
    resources.callback(page.close)
    _say(page.greeting())
    return hub


def _summarize(
    statistics: Statistics, pipeline: Pipeline, overlapped: Overlapped, limits: Limits
) -> None:
    from edge_app.sinks.summary import print_summary

    losses = pipeline.losses() + Counter(output=overlapped.lost)
    print_summary(statistics, pipeline.seconds, limits.fixed_bits is not None, losses)


def open_chosen_model(options: RunOptions, uri: str) -> tuple[Program, str | None]:
    """The model to run, and its name in this device's store if it comes from there."""
    from edge_app.models import find, in_store, is_shipped, open_model
    from edge_app.store import Store, default_store

    name = options.model or DEFAULT_MODELS.get(uri, CAMERA_MODEL)
    installed = in_store(find(name))
    if installed is not None:
        try:
            rolled_back = Store(default_store()).started(installed)
        except AppError as error:
            # A store of somebody else's, installed by root: it can be run and not be counted.
            rolled_back = f"{installed}: its trial is not counted: {error.message}"
        if rolled_back:
            _say(rolled_back)
    path = find(name)
    model = open_model(str(path), options.threads, options.memory, options.device)
    if installed is None and not is_shipped(path):
        _say(f"{path} is not signed; run it only if you trust where it comes from")
    return model, installed


def _first_level(options: RunOptions, model: Program, policy: Policy) -> int:
    """The level of the first frame: the governor begins at its lowest."""
    if options.fixed_bits is not None:
        return options.fixed_bits
    permitted = policy.levels.min_bits
    return min((bits for bits in model.levels if bits >= permitted), default=model.levels[-1])


def _outputs(
    options: RunOptions,
    source: Source,
    model: Program,
    name: str,
    noticed: Callable[[Event], None],
) -> list[Sink]:
    """Everything that the user asked to have written or shown."""
    from edge_app.sinks.jsonl import JsonLines
    from edge_app.sinks.pictures import CropSink, VideoSink

    outputs: list[Sink] = []
    if options.jsonl is not None:
        outputs.append(JsonLines(options.jsonl, _bytes(options.jsonl_max_mb)))
    if options.save is not None:
        outputs.append(VideoSink(options.save))
    if options.save_crops is not None:
        height, width, _ = model.input_shape
        outputs.append(CropSink(options.save_crops, height, width))
    if options.mqtt is not None:
        from edge_app.mqtt import MqttSink, parse_address
        from edge_app.state_file import default_state_path

        directory = default_state_path().parent
        outputs.append(MqttSink(parse_address(options.mqtt), directory, name, noticed))
    _say(f"model {name} | source {source.name} | sensors {_sensor_text(options)}")
    _warn_of_unknown_classes(source.classes, model.labels)
    outputs.append(_progress(options))
    return outputs


def open_frames(uri: str, options: RunOptions) -> Source:
    """The source, read ahead where its frames wait for us anyway."""
    from edge_app.sources.live import Patience

    source = open_source(uri, Patience(give_up_s=options.give_up), options.realtime)
    if source.live or source.nominal_fps is not None or options.realtime:
        return source
    from edge_app.sources.prefetch import Prefetched

    return Prefetched(source)


def _bytes(megabytes: float | None) -> int | None:
    return None if megabytes is None else int(megabytes * 1e6)


def _store(options: RunOptions) -> StateFile | None:
    """Where the governor's memory is kept. What a recording taught is not worth keeping."""
    from edge_app.state_file import StateFile, default_state_path

    if options.state is not None:
        return StateFile(options.state)
    live = options.replay_sensors is None and options.sysroot == Path("/")
    return StateFile(default_state_path()) if live else None


def _limits(options: RunOptions, model: Program, policy: Policy) -> Limits:
    from edge_app.pipeline import Limits

    if options.fixed_bits is not None and options.fixed_bits not in model.levels:
        levels = ", ".join(str(bits) for bits in model.levels)
        raise AppError(
            f"--fixed-bits {options.fixed_bits}: {model.path} has {levels} bits", EXIT_USAGE
        )
    return Limits(
        max_frames=options.max_frames,
        duration_s=options.duration,
        target_fps=options.target_fps,
        fixed_bits=options.fixed_bits,
        full_interval_s=1.0 / policy.frame.target_fps if policy.frame.target_fps > 0 else 0.0,
        stale_after_s=STALE_DEADLINES * policy.frame.deadline_ms * 1e-3,
    )


def open_sensors(options: RunOptions) -> tuple[SensorSource, RealClock]:
    """This machine's sensors, or a recording of some machine's with a clock of its speed."""
    from edge_app.clock import RealClock
    from edge_app.recordings import find_trace, open_recording, open_root
    from edge_app.sensors import SysfsSensors
    from edge_app.sensors.guard import GuardedSensors

    if options.replay_sensors is None:
        if options.replay_speed is not None:
            raise AppError("--replay-speed needs --replay-sensors", EXIT_USAGE)
        clock = RealClock()
        root = open_root(options.sysroot, clock)
        return GuardedSensors(SysfsSensors(root, clock), clock), clock
    trace = find_trace(options.replay_sensors)
    speed = options.replay_speed
    if speed is None:
        length = open_recording(trace, RealClock()).seconds
        speed = replay_speed(length, options.duration)
    clock = RealClock(speed)
    return open_recording(trace, clock), clock


def replay_speed(trace_s: float, duration_s: float | None) -> float:
    """How much faster than real a trace is played: through it in 0.9 of the run's duration if
    that is known, 60 times otherwise. Never slower than real."""
    if not duration_s or trace_s <= 0:
        return REPLAY_SPEED
    return max(1.0, trace_s / (REPLAY_SHARE * duration_s))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _sensor_text(options: RunOptions) -> str:
    if options.replay_sensors is not None:
        return f"replayed from {options.replay_sensors}"
    return "of this machine" if options.sysroot == Path("/") else f"below {options.sysroot}"


def _warn_of_unknown_classes(classes: tuple[str, ...], labels: tuple[str, ...]) -> None:
    unknown = [name for name in classes if name not in labels]
    if classes and len(unknown) == len(classes):
        _say("accuracy is not measured: no class of the source is among the model's labels")
    elif unknown:
        _say(f"accuracy leaves out what the model has no label for: {', '.join(unknown)}")


def _progress(options: RunOptions) -> Sink:
    from edge_app.sinks.progress import LiveLine, PlainLines

    # Records on the same terminal would tear the live line apart.
    torn = options.jsonl == "-" and sys.stdout.isatty()
    return LiveLine() if sys.stderr.isatty() and not torn else PlainLines(_say)
