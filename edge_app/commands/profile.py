"""`edge-app profile`: what the levels of a model cost here."""

from __future__ import annotations

from typing import Annotated

import typer

EXIT_CODES = """\b
Exit codes:
  0  measured and stored
  1  the profile cannot be written
  2  wrong usage
  5  the model is missing, damaged or of another version
"""


def profile(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name or file.")],
    threads: Annotated[
        str, typer.Option("--threads", metavar="LIST", help="Numbers of threads, as 1,2,4.")
    ] = "1",
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.1, max=3600, metavar="S", help="How long for each level."),
    ] = 5.0,
    memory: Annotated[
        str, typer.Option("--memory", metavar="MODE", help="normal or low, as for edge-app run.")
    ] = "normal",
    json: Annotated[bool, typer.Option("--json", help="The stored profiles, on stdout.")] = False,
) -> None:
    """Measure what each level of a model costs on this machine, for the governor.

    Time per level and, where RAPL, a current monitor or a battery in use can tell, energy. The
    profile is stored below $XDG_CACHE_HOME/edge-app/profiles; edge-app run takes it from there.
    Leave the machine alone meanwhile: what disturbs the measurement is named.
    """
    from edge_app.profiles.table import ProfileOptions, run

    raise typer.Exit(run(ProfileOptions(model, threads, memory, seconds, json)))
