"""What changes under a run that goes on: the version of an installed model, the device it runs on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from edge_app.governor import Event
from edge_app.models import branches_of
from edge_app.profiles.measuring import profile_for
from edge_app.store import Store, default_store
from edge_app.store.follow import Follower

if TYPE_CHECKING:
    from edge_app.governor import Governor
    from edge_app.pipeline import Pipeline
    from edge_app.session import RunOptions
    from edge_app.sinks import Sink
    from native_ops import Program

ON_THE_CPU = "; going on on the CPU"


def watch_device(
    model: Program, pipeline: Pipeline, governor: Governor, options: RunOptions
) -> None:
    """When the model's GPU goes away, say so and tell the governor what its levels cost now."""

    def lost(reason: str) -> None:
        pipeline.noticed(Event("device_lost", f"{reason}{ON_THE_CPU}"))
        energy = governor.policy.energy
        governor.replace_profile(profile_for(model, options.threads, options.memory, energy))

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
        energy = governor.policy.energy
        costs = profile_for(program, options.threads, options.memory, energy)
        governor.replace_profile(costs)
        watch_device(program, pipeline, governor, options)
        pipeline.switch(program, branches_of(program))
        # Between two frames: nobody runs the old one any more.
        running[0].close()
        running[0] = program
        return ""

    def say(kind: str, text: str) -> None:
        pipeline.noticed(Event(kind, text))

    how = options.threads, options.memory, options.device
    return Follower(Store(default_store()), name, Path(model.path), how, switch, say)
