"""Where tables and sentences for people are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(**options: Any) -> Console:
    """A rich console that leaves text as it is: no emoji for ``:names:`` in paths and labels, no
    colours for numbers. ``options`` are those of rich's ``Console``."""
    from rich.console import Console

    return Console(emoji=False, highlight=False, **options)
