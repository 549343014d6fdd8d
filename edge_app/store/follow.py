"""A running program follows its model's name: to another version, and out of a trial."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_app.errors import AppError
from edge_app.models import open_model
from edge_app.record import FrameRecord
from edge_app.sinks import Listener
from edge_app.store.disk import Store

if TYPE_CHECKING:
    from edge_app.sources import Frame
    from native_ops import Program

LOOK_EVERY_S = 2.0
PROVEN_AFTER_S = 60.0


class Follower(Listener):
    """A sink that looks every two seconds what ``name`` means in ``store``.

    Another version is opened in a thread while frames go on, and handed to ``switch`` between two of
    them; ``switch`` says what is wrong if it cannot be used in place of the old one. A model with
    which frames were classified for a minute has proven itself.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        running: Path,
        options: tuple[int, str, str],
        switch: Callable[[Program], str],
        say: Callable[[str, str], None],
    ) -> None:
        """``running``: the file that runs; ``options``: threads, memory and device for ``open_model``;
        ``say``: takes the kind and the text of an event."""
        self._store = store
        self._name = name
        self._running = running
        self._options = options
        self._switch = switch
        self._say = say
        self._looked = time.monotonic()
        self._working_since: float | None = None
        self._proven = False
        self._opened: list[Program | AppError] = []
        self._opening: threading.Thread | None = None

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        now = time.monotonic()
        if self._working_since is None:
            self._working_since = now
        elif not self._proven and now - self._working_since >= PROVEN_AFTER_S:
            self._proven = True
            self._try(lambda: self._store.proven(self._name))

    def tick(self) -> None:
        if self._opening is not None:
            if self._opened:
                self._opening = None
                self._take(self._opened.pop())
            return
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        path = self._store.current(self._name)
        if path is not None and path != self._running:
            self._running = path
            self._opening = threading.Thread(target=self._open, args=(path,), daemon=True)
            self._opening.start()

    def _open(self, path: Path) -> None:
        try:
            self._opened.append(open_model(str(path), *self._options))
        except AppError as error:
            self._opened.append(error)

    def _take(self, opened: Program | AppError) -> None:
        problem = opened.message if isinstance(opened, AppError) else self._switch(opened)
        if problem:
            self._say("model_refused", f"{self._name}: the old version goes on: {problem}")
            return
        self._working_since, self._proven = None, False
        self._try(lambda: self._store.started(self._name))
        self._say("model_switched", f"{self._name}: {self._running.parent.name[:16]} runs now")

    def _try(self, change: Callable[[], object]) -> None:
        """A store that cannot be written is no reason to stop classifying."""
        try:
            change()
        except AppError as error:
            self._say("store_failed", error.message)
