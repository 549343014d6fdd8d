"""The governor on devices made of equations, and on recordings, with a clock that runs at once.

``command`` is `edge-app policy simulate`. The controller is the one that runs on a device; only
what it senses and how time passes are made up here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def command(
    *,
    trace: str | None = None,
    device: str | None = None,
    hours: float | None = None,
    policies: Sequence[str] = (),
    until: str | None = None,
    ambient: str | None = None,
    seed: int = 1,
    model: str | None = None,
    plot: Path | None = None,
    json: Path | None = None,
    log: Path | None = None,
    baselines: bool = True,
) -> None:
    """Compare policies, and baselines with them, and print a table.

    ``trace``: a recording instead of a simulated device. ``policies``: files or presets; none:
    the default one. ``until``: HH:MM, for every policy. ``ambient``: deg C, or ``FROM..TO`` over
    the whole time. ``model``: whose levels and accuracies count. ``plot``, ``json``, ``log``:
    files to write; ``json`` ``-`` prints to stdout instead of the table. AppError for what the
    user can mend.
    """
    from edge_app.governor.simulation.compare import Request, compare

    compare(
        Request(
            trace=trace,
            device=device,
            hours=hours,
            policies=tuple(policies),
            until=until,
            ambient=ambient,
            seed=seed,
            model=model,
            baselines=baselines,
        ),
        plot=plot,
        json_file=json,
        log=log,
    )
