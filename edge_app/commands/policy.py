"""`edge-app policy`: write, check, show, compare, explain and try policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge_app.policy.layers import Resolved
    from edge_app.policy.model import Policy
    from edge_app.policy.problems import Problem
    from edge_app.sensors import Sample

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Work with the governor's policies."
)

EFFECTIVE = "effective"
LAYERS = """\b
A policy is put together from layers, each of which only has the keys that it changes:
  --set KEY=VALUE
  environment                        EDGE_APP_POLICY__THERMAL__CONTROL_C=75
  --policy FILE
  ~/.config/edge-app/policy.toml     ($XDG_CONFIG_HOME)
  /etc/edge-app/policy.d/*.toml      in the order of their names
  --preset NAME
  defaults
"""

PolicyFile = Annotated[
    Path | None, typer.Option("--policy", "-p", metavar="FILE", help="A policy, TOML.")
]
Preset = Annotated[str, typer.Option("--preset", metavar="NAME", help="The shipped policy below.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Single keys, as thermal.control_c=75."),
]
Sysroot = Annotated[
    Path,
    typer.Option(
        "--sysroot", metavar="DIR", help="Read sys and proc below DIR, or from a recording."
    ),
]


@app.command()
def init(
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="Where to write it; - for stdout.")
    ] = "policy.toml",
    preset: Annotated[
        str, typer.Option("--preset", metavar="NAME", help="The shipped policy to start from.")
    ] = "balanced",
    full: Annotated[bool, typer.Option("--full", help="All keys.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a commented policy to start from.

    It has the keys that are worth changing, and those of the preset.
    """
    from edge_app.governor import load_policy
    from edge_app.policy.text import commented

    name = preset if file == "-" else Path(file).stem or preset
    text = commented(load_policy(None, preset), name, full)
    if file == "-":
        typer.echo(text, nl=False)
        return
    _write(Path(file), text, force)
    typer.echo(f"{file}: written, from {preset}. Next: edge-app policy check {file}", err=True)


@app.command()
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="Policies, each for itself.  [default: all layers together]"
        ),
    ] = None,
    preset: Preset = "balanced",
    sysroot: Sysroot = Path("/"),
    json: Annotated[bool, typer.Option("--json", help="For editors: one JSON array.")] = False,
) -> None:
    """Find mistakes, and what is odd on this device.

    Exit code 2 if there is a mistake; warnings alone: 0.
    """
    from edge_app.errors import EXIT_USAGE
    from edge_app.policy.problems import PolicyError

    sample = _sample(sysroot)
    found: list[Problem] = []
    chosen: list[Path | None] = [*files] if files else [None]
    for file in chosen:
        try:
            resolved = _resolve(None, preset) if file is None else _alone(file, preset)
        except PolicyError as error:
            mistakes: list[Problem] = list(error.problems)
        else:
            mistakes = _oddities(resolved, sample)
        found += mistakes
        if json:
            continue
        for problem in mistakes:
            typer.echo(str(problem))
        if not mistakes:
            typer.echo(f"{file or 'the effective policy'}: ok")
    if json:
        from json import dumps

        entries = [problem.as_json() for problem in found]
        typer.echo(dumps(entries, ensure_ascii=False, indent=1))
    if any(problem.severity == "error" for problem in found):
        raise typer.Exit(EXIT_USAGE)


@app.command(epilog=LAYERS)
def show(
    policy: PolicyFile = None,
    preset: Preset = "balanced",
    overrides: Overrides = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="Behind each value, where it comes from.")
    ] = False,
) -> None:
    """Print the effective policy as TOML."""
    from edge_app.policy.text import render

    resolved = _resolve(policy, preset, overrides)
    typer.echo(render(resolved.policy, resolved.origin if origin else None), nl=False)


@app.command()
def diff(
    first: Annotated[
        str | None, typer.Argument(metavar="[A]", help="A file or a preset.  [default: balanced]")
    ] = None,
    second: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="Likewise.  [default: the effective policy]"),
    ] = None,
    preset: Preset = "balanced",
    overrides: Overrides = None,
) -> None:
    """Print what changes from one policy to another.

    With A alone: from balanced to A.
    """
    from edge_app.policy.text import differences

    if first is not None and second is None:
        first, second = "balanced", first
    names = [first or "balanced", second or EFFECTIVE]
    old, new = (_named(name, preset, overrides) for name in names)
    lines = differences(old, new)
    typer.echo(f"from {names[0]} to {names[1]}:" if lines else f"{names[0]} and {names[1]}: equal")
    for line in lines:
        typer.echo(f"  {line}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a policy, for editors."""
    from json import dumps

    from edge_app.policy.schema import json_schema

    typer.echo(dumps(json_schema(), ensure_ascii=False, indent=2))


@app.command()
def explain(
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="As thermal.control_c; a table; or a key's end."),
    ] = None,
    policy: PolicyFile = None,
    preset: Preset = "balanced",
    overrides: Overrides = None,
) -> None:
    """What a key means, its unit, bounds, value and origin.

    Without KEY: all keys.
    """
    from edge_app.policy.keys import find, keys
    from edge_app.policy.problems import PolicyError
    from edge_app.policy.text import explanation, listing

    if key is None:
        typer.echo(listing(keys().values()))
        return
    found = find(key)
    try:
        resolved = _resolve(policy, preset, overrides)
    except PolicyError:
        reason = "not known: there are mistakes, see `edge-app policy show`"
        typer.echo(explanation(found, None, reason))
        return
    typer.echo(explanation(found, resolved.policy, resolved.origin(found.dotted)))


@app.command()
def simulate(
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="NAME|FILE", help="A recording of sensors.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="A simulated device.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", min=0.01, metavar="H", help="How long.")
    ] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", "-p", metavar="FILE|PRESET", help="Again for more of them."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="HH:MM", help="The battery must last so long.")
    ] = None,
    ambient: Annotated[
        str | None, typer.Option("--ambient", metavar="C|FROM..TO", help="°C around the device.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of noise and chance.")] = 1,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Its levels, accuracies.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Other governors beside ours.")
    ] = True,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Draw the curves.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE|-", help="Write the numbers.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Write every decision.")
    ] = None,
) -> None:
    """Compare policies on a recording or a simulated device."""
    from edge_app.governor import simulation

    simulation.command(
        trace=trace,
        device=device,
        hours=hours,
        policies=tuple(policies or ()),
        until=until,
        ambient=ambient,
        seed=seed,
        model=model,
        plot=plot,
        json=json,
        log=log,
        baselines=baselines,
    )


def _resolve(
    policy: Path | None, preset: str = "balanced", overrides: list[str] | None = None
) -> Resolved:
    from edge_app.governor import resolve

    return resolve(policy, preset, overrides or ())


def _alone(file: Path, preset: str) -> Resolved:
    """A file on nothing but the preset: what is wrong elsewhere is not its fault."""
    from edge_app.policy.layers import Sources, load

    return load(Sources(file, preset))


def _named(name: str, preset: str, overrides: list[str] | None) -> Policy:
    """A policy by what the command line calls it."""
    from edge_app.governor import load_policy, presets

    if name == EFFECTIVE:
        return _resolve(None, preset, overrides).policy
    if name in presets():
        return load_policy(None, name)
    return load_policy(Path(name), preset)


def _sample(sysroot: Path) -> Sample:
    from edge_app.clock import RealClock
    from edge_app.recordings import open_root
    from edge_app.sensors import SysfsSensors
    from edge_app.sensors.guard import GuardedRoot

    clock = RealClock()
    return SysfsSensors(GuardedRoot(open_root(sysroot, clock), clock), clock).sample()


def _oddities(resolved: Resolved, sample: Sample) -> list[Problem]:
    from datetime import datetime

    from edge_app.policy.oddities import oddities

    return oddities(resolved, sample, datetime.now().astimezone())


def _write(path: Path, text: str, force: bool) -> None:
    """Beside its place, then renamed: nobody reads half a policy."""
    import os
    import tempfile

    from edge_app.errors import EXIT_USAGE, AppError

    if path.exists() and not force:
        raise AppError(
            f"{path}: is there already; --force replaces it, another name keeps it", EXIT_USAGE
        )
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as beside:
            beside.write(text)
        os.chmod(beside.name, 0o644)
        os.replace(beside.name, path)
    except OSError as error:
        raise AppError(
            f"{path}: cannot be written: {error.strerror}; choose another place", EXIT_USAGE
        ) from None
