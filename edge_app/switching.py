"""What changes under a run that goes on: the version of an installed model, the device it runs on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from edge_app.governor import Event
from edge_app.models import branches_of
from edge_app.profiles.measuring import profile_for
from edge_app.profiles.readiness import Readiness
from edge_app.store import Store, default_store
from edge_app.store.follow import Follower

if TYPE_CHECKING:
    from edge_app.governor import Governor, Policy
    from edge_app.governor.energy import Profile
    from edge_app.pipeline import Pipeline
    from edge_app.session import RunOptions
    from edge_app.sinks import Sink
    from native_ops import Program

ON_THE_CPU = "; going on on the CPU"


def costs_of(model: Program, options: RunOptions, policy: Policy, first: int) -> Profile:
    """What the levels cost here; ``first`` runs first, and others may be estimated."""
    return profile_for(model, options.threads, options.memory, policy.energy, first=first)


def levels_of(model: Program, first: int, costs: Profile, governor: Governor) -> Readiness | None:
    """What prepares levels when they are wanted; None for a GPU, which has them all."""
    if model.device != "cpu":
        return None
    active_w = governor.policy.energy.active_w
    return Readiness(
        model, first, costs, active_w, governor.replace_profile, lambda: governor.slowdown
    )


def _take_up(model: Program, pipeline: Pipeline, governor: Governor, options: RunOptions) -> None:
    """Go on with a model as it runs now, at the level that runs."""
    first = governor.level if options.fixed_bits is None else options.fixed_bits
    costs = costs_of(model, options, governor.policy, first)
    governor.replace_profile(costs)
    pipeline.switch(model, branches_of(model), levels_of(model, first, costs, governor))


def watch_device(
    model: Program, pipeline: Pipeline, governor: Governor, options: RunOptions
) -> None:
    """When the model's GPU goes away, say so and tell the governor what its levels cost now."""

    def lost(reason: str) -> None:
        pipeline.noticed(Event("device_lost", f"{reason}{ON_THE_CPU}"))
        _take_up(model, pipeline, governor, options)

    model.on_device_lost = lost


def follower(
    name: str,
    model: Program,
    options: RunOptions,
    pipeline: Pipeline,
    governor: Governor,
    resources: contextlib.ExitStack,
) -> Sink:
    """What switches to another version of an installed model while it runs."""
    running = [model]
    resources.callback(lambda: running[0].close())

    def switch(program: Program) -> str:
        if program.levels != model.levels:
            program.close()
            return "it has other levels; start edge-app again to use it"
        watch_device(program, pipeline, governor, options)
        _take_up(program, pipeline, governor, options)
        # Between two frames: nobody runs the old one any more.
        running[0].close()
        running[0] = program
        return ""

    def say(kind: str, text: str) -> None:
        pipeline.noticed(Event(kind, text))

    how = options.threads, options.memory, options.device
    return Follower(Store(default_store()), name, Path(model.path), how, switch, say)
