"""The commands and their options; what they do is elsewhere and imported when it is needed, so
that ``edge-app --help`` answers at once also on a slow device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from edge_app.commands import bench, log, sensors
from edge_app.commands import model as model_commands
from edge_app.commands import policy as policy_commands
from edge_app.commands import profile as profile_command
from edge_app.commands import service as service_commands
from edge_app.errors import EXIT_INTERRUPTED, AppError

EXIT_CODES = """\b
Exit codes:
  0    done, or ended by SIGTERM
  1    an error of the program itself, or output that cannot be written
  2    wrong usage or an invalid policy
  3    the source cannot be opened (no camera, no such file)
  4    the source was lost for good
  5    the model is missing, damaged or incompatible
  6    a sensor that the policy requires is missing
  130  ended by Ctrl-C
"""

# What an option means that is given without its value.
VALUES_LEFT_OUT = {"--camera": "default", "-c": "default"}


class RunCommand(TyperCommand):
    """Allows ``--camera`` without a value, which the option parser by itself does not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, fill_in_values(args))


def fill_in_values(args: list[str]) -> list[str]:
    """``args`` with the value for each option of VALUES_LEFT_OUT that stands alone.

    It stands alone at the end or before another option; ``-`` and what follows ``--`` is none.
    """
    filled: list[str] = []
    for index, argument in enumerate(args):
        filled.append(argument)
        following = args[index + 1] if index + 1 < len(args) else None
        alone = following is None or (following.startswith("-") and following != "-")
        if argument in VALUES_LEFT_OUT and alone:
            filled.append(VALUES_LEFT_OUT[argument])
    return filled


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help: it takes half the time of the decorated one.
    rich_markup_mode=None,
    help="Adaptive vision inference under a battery and thermal governor.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"edge-app {version('edge-app')}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command(cls=RunCommand, epilog=EXIT_CODES)
def run(
    camera: Annotated[
        str | None,
        typer.Option(
            "--camera",
            "-c",
            metavar="[SRC]",
            help="Without SRC the first camera; SRC: an index, /dev/videoN, a video file, an "
            "image, a directory of images (class folders give the truth), a pattern in quotes, a "
            ".txt list, - (Motion JPEG on stdin), an http:// or rtsp:// address, pi:0, gst:PIPELINE, "
            "test:digits, test:bars or test:noise. Without --camera: test:digits.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|PATH",
            help="An installed model, the beginning of its name, or a .pte file.  "
            "[default: digits for test:digits, cifar10-resnet20 otherwise]",
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", "-p", metavar="FILE", help="The governor's policy, TOML."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="A shipped policy, of which FILE changes single values: balanced, coolest, longest "
            "or fastest.",
        ),
    ] = "balanced",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one key of the policy: thermal.control_c=72."
        ),
    ] = None,
    fixed_bits: Annotated[
        int | None,
        typer.Option(
            "--fixed-bits", metavar="N", help="Run this level only; the governor just watches."
        ),
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option("--max-frames", min=1, metavar="N", help="End after N frames.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.0, metavar="S", help="End after S seconds.")
    ] = None,
    jsonl: Annotated[
        str | None,
        typer.Option(
            "--jsonl", metavar="PATH|-", help="One JSON object a frame, to a file or to stdout."
        ),
    ] = None,
    jsonl_max_mb: Annotated[
        float | None,
        typer.Option(
            "--jsonl-max-mb",
            min=0.001,
            metavar="MB",
            help="Start a new file after so many megabytes; PATH.1 to PATH.5 are kept.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="MKV", help="The annotated video, with real times."),
    ] = None,
    save_crops: Annotated[
        Path | None,
        typer.Option(
            "--save-crops",
            metavar="DIR",
            help="What the model saw, sorted by its answer, one a second for each.",
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(
            "--serve",
            metavar="HOST:PORT",
            help="A page with the live picture and curves, /metrics for Prometheus, /healthz and "
            "/state.json. :9188 is for this machine only, 0.0.0.0:9188 for everybody who can "
            "reach it.",
        ),
    ] = None,
    serve_token: Annotated[
        str | None,
        typer.Option(
            "--serve-token",
            metavar="TOKEN",
            envvar="EDGE_APP_TOKEN",
            show_envvar=False,
            help="What changes over --serve need.  [default: $EDGE_APP_TOKEN, or a new one that is "
            "printed]",
        ),
    ] = None,
    target_fps: Annotated[
        float | None,
        typer.Option(
            "--target-fps", min=0.001, metavar="FPS", help="No more frames a second than this."
        ),
    ] = None,
    sysroot: Annotated[
        Path, typer.Option("--sysroot", metavar="DIR", help="Read sys and proc below DIR.")
    ] = Path("/"),
    replay_sensors: Annotated[
        str | None,
        typer.Option(
            "--replay-sensors",
            metavar="NAME|PATH",
            help="Take temperature and battery from a recorded trace instead of this machine.",
        ),
    ] = None,
    replay_speed: Annotated[
        float | None,
        typer.Option(
            "--replay-speed",
            min=0.001,
            metavar="X",
            help="How much faster than real the trace is replayed.  [default: so that it plays "
            "through in 0.9 of --duration; 60 without --duration]",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, metavar="N", help="Threads for inference.")
    ] = 1,
    memory: Annotated[
        str,
        typer.Option(
            "--memory",
            metavar="normal|low",
            help="low keeps weights at 2 bits and unpacks them in every frame: slower, smaller.",
        ),
    ] = "normal",
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="cpu; vulkan[:N] for a GPU, the first or number N of those that doctor lists; auto "
            "for a GPU where there is one. A GPU that is lost on the way is replaced by the CPU.",
        ),
    ] = "cpu",
    mqtt: Annotated[
        str | None,
        typer.Option(
            "--mqtt",
            metavar="URL",
            envvar="EDGE_APP_MQTT",
            help="Report to a broker: mqtt://[USER:PASSWORD@]HOST[:PORT][/PREFIX].",
        ),
    ] = None,
    give_up: Annotated[
        float,
        typer.Option(
            "--give-up",
            min=0.0,
            metavar="S",
            help="End with exit code 4 when a live source gave no frame for S seconds; 0: never.",
        ),
    ] = 60.0,
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Play a video file at its own speed, leaving out frames."),
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="Where the governor's memory survives a restart.  [default: "
            "$STATE_DIRECTORY or $XDG_STATE_HOME/edge-app/governor.json]",
        ),
    ] = None,
) -> None:
    """Classify frames as precisely as the device allows.

    The governor picks the bit-width from heat, battery and time.

    Records that you ask for go where you ask; everything else goes to stderr.
    """
    from edge_app import session

    options = session.RunOptions(
        camera=camera,
        model=model,
        policy=policy,
        preset=preset,
        fixed_bits=fixed_bits,
        max_frames=max_frames,
        duration=duration,
        target_fps=target_fps,
        jsonl=jsonl,
        sysroot=sysroot,
        replay_sensors=replay_sensors,
        replay_speed=replay_speed,
        threads=threads,
        memory=memory,
        device=device,
        settings=tuple(settings or ()),
        state=state,
        mqtt=mqtt,
        give_up=give_up,
        jsonl_max_mb=jsonl_max_mb,
        save=save,
        save_crops=save_crops,
        realtime=realtime,
        serve=serve,
        serve_token=serve_token,
    )
    raise typer.Exit(session.run(options))


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An installed model or a file.")],
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Also which kernel each layer gets here, and its time."),
    ] = False,
    memory: Annotated[
        str,
        typer.Option("--memory", metavar="normal|low", help="As for run, together with --kernels."),
    ] = "normal",
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=256, help="As for run, together with --kernels.")
    ] = 1,
) -> None:
    """A model's levels, sizes, accuracy, provenance."""
    from edge_app.inspection import print_model

    print_model(model, kernels, memory, threads)


@app.command()
def models() -> None:
    """List the installed models."""
    from edge_app.inspection import print_models

    print_models()


@app.command()
def why(
    pid: Annotated[
        int | None, typer.Argument(metavar="[PID]", help="Needed only where several run.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The whole state as JSON.")] = False,
) -> None:
    """Ask a running edge-app what holds its level."""
    from edge_app.why import print_why

    print_why(pid, json)


@app.command()
def cameras(
    sysroot: Annotated[
        Path, typer.Option("--sysroot", metavar="DIR", help="Read dev and sys below DIR.")
    ] = Path("/"),
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List video devices: formats, stable names, who holds them."""
    from edge_app.sources.cameras import print_cameras

    print_cameras(sysroot, json)


@app.command()
def doctor(
    sysroot: Annotated[
        Path, typer.Option("--sysroot", metavar="DIR", help="Read sys and proc below DIR.")
    ] = Path("/"),
) -> None:
    """What works here, and what the governor can see."""
    from edge_app.doctor import examine

    raise typer.Exit(examine(sysroot))


# After those above, so that help begins with what is used most.
app.command(epilog=profile_command.EXIT_CODES)(profile_command.profile)
app.command(epilog=bench.EXIT_CODES)(bench.bench)
app.add_typer(policy_commands.app, name="policy")
app.add_typer(sensors.app, name="sensors")
app.add_typer(log.app, name="log")
app.add_typer(model_commands.app, name="model")
app.add_typer(service_commands.app, name="service")


def main() -> None:
    """The program. Ends with one of the exit codes of ``errors``; a traceback is a bug."""
    try:
        app(prog_name="edge-app")
    except AppError as error:
        # Several lines are a list of places in a file, which editors and people jump to.
        several = "\n" in error.message
        print(error.message if several else f"edge-app: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
