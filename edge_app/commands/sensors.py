"""`edge-app sensors`: what this machine's sensors say, now and as a recording."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What the sensors say; recording and replaying it.",
)


def _finite(value: float | None) -> float | None:
    """The option parser takes "inf" for a number within any bounds."""
    if value is not None and not isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


EXIT_CODES = """\b
Exit codes:
  0    done, or ended by SIGTERM
  1    the recording cannot be written to its end
  2    wrong usage, or a file that is no recording
  130  ended by Ctrl-C; what was recorded until then is whole
"""

Sysroot = Annotated[
    Path,
    typer.Option(
        "--sysroot", metavar="DIR", help="Read sys and proc below DIR, or from a recording."
    ),
]


@app.command("list")
def list_(
    sysroot: Sysroot = Path("/"),
    json: Annotated[bool, typer.Option("--json", help="One JSON object a sensor.")] = False,
) -> None:
    """Every sensor: value, quality, trip points, files."""
    from edge_app.watching import list_sensors

    raise typer.Exit(list_sensors(sysroot, json))


@app.command(epilog=EXIT_CODES)
def watch(
    sysroot: Sysroot = Path("/"),
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration", min=0.0, callback=_finite, metavar="S", help="End after S seconds."
        ),
    ] = None,
) -> None:
    """The same once a second, until Ctrl-C."""
    from edge_app.watching import watch_sensors

    raise typer.Exit(watch_sensors(sysroot, duration))


@app.command(epilog=EXIT_CODES)
def record(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The recording; compressed if it ends in .gz."
        ),
    ],
    duration: Annotated[
        float,
        typer.Option(
            "--duration", min=0.0, callback=_finite, metavar="S", help="Record S seconds."
        ),
    ] = 600.0,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            min=0.1,
            callback=_finite,
            metavar="S",
            help="Seconds from sample to sample.",
        ),
    ] = 1.0,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="What a reader should know of it.")
    ] = "",
    sysroot: Sysroot = Path("/"),
) -> None:
    """Record the sensors' files, to attach to a bug report.

    Holds what the governor reads and the files beside it, with the errors that reading them gives. No
    serial numbers, addresses or names of the machine. Look into it before you send it: it is text.
    """
    from edge_app.recordings import RecordOptions, record_sensors

    options = RecordOptions(out, duration, interval, note, sysroot)
    raise typer.Exit(record_sensors(options))


@app.command(epilog=EXIT_CODES)
def replay(
    recording: Annotated[
        str | None,
        typer.Argument(metavar="[RECORDING]", help="A recording, or a shipped trace's name."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy", "-p", metavar="FILE", help="Also what the governor decides by it."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="The same for a shipped policy.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Single keys, as thermal.control_c=75."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|PATH",
            help="Whose levels to decide on.  [default: digits]",
        ),
    ] = None,
    frame_ms: Annotated[
        float,
        typer.Option(
            "--frame-ms",
            min=0.001,
            callback=_finite,
            metavar="MS",
            help="What a frame takes at the highest level on the recorded machine; lower levels take "
            "less, in proportion to their bits.",
        ),
    ] = 10.0,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            min=0.1,
            callback=_finite,
            metavar="S",
            help="Seconds from sample to sample.",
        ),
    ] = 1.0,
    speed: Annotated[
        float | None,
        typer.Option(
            "--speed",
            min=0.001,
            callback=_finite,
            metavar="X",
            help="Wait, so that it plays X times as fast as it was.  [default: do not wait]",
        ),
    ] = None,
    sysroot: Annotated[
        Path | None,
        typer.Option(
            "--sysroot",
            metavar="DIR",
            help="Instead of a recording: the one moment of a copy of sys and proc below DIR.",
        ),
    ] = None,
) -> None:
    """Play a recording, also through the governor.

    Prints JSON lines, the same ones every time: {"sample": ...} and, with --policy, --preset or --set,
    {"decision": ...}.
    """
    from edge_app.replaying import ReplayOptions
    from edge_app.replaying import replay as play

    options = ReplayOptions(
        recording,
        sysroot,
        policy,
        preset,
        tuple(overrides or ()),
        model,
        frame_ms,
        interval,
        speed,
    )
    raise typer.Exit(play(options))
