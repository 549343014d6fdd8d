"""What comes out: records for machines, a live line and a summary for people.

A sink is told of every frame and of every decision of the governor, always from the pipeline's
thread. stdout belongs to what the user asked to have there; everything for people is on stderr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edge_app.record import FrameRecord

if TYPE_CHECKING:
    from edge_app.governor import Decision, Event
    from edge_app.sources import Frame


class OutputClosed(Exception):
    """Whoever read our output went away (``edge-app ... | head``): stop, without an error."""


class Sink(Protocol):
    """Receives what happens. Methods must return quickly: they run between two frames."""

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        """``frame`` was classified. Raises OutputClosed or AppError if it cannot be passed on."""
        ...

    def decision(self, decision: Decision) -> None:
        """The governor made a decision; most change nothing."""
        ...

    def notice(self, event: Event) -> None:
        """Something happened that people should know of: a policy file that was refused."""
        ...

    def tick(self) -> None:
        """Called at least every 0.1 s, also while no frames come."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Listener:
    """A sink that hears everything and does nothing: sinks say only what they care for."""

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        pass

    def decision(self, decision: Decision) -> None:
        pass

    def notice(self, event: Event) -> None:
        pass

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass
