"""`edge-app service`: a unit for systemd."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Run as a service of systemd.")

UserOption = Annotated[bool, typer.Option("--user", help="A service of this user, without root.")]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def install(
    context: typer.Context,
    user: UserOption = False,
    show: Annotated[bool, typer.Option("--show", help="Print the unit, change nothing.")] = False,
) -> None:
    """Write the unit. What follows -- are the options of edge-app run.

    For example: sudo edge-app service install -- --camera /dev/video0 --give-up 0
    """
    from edge_app.service.unit import ServiceOptions
    from edge_app.service.unit import install as install_unit

    install_unit(ServiceOptions(tuple(context.args), user, show))


@app.command()
def status(user: UserOption = False) -> None:
    """Whether it runs, how often it was restarted, and what holds its level."""
    from edge_app.service.unit import status as print_status

    raise typer.Exit(print_status(user))
