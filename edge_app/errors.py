"""The one exception type that ends the program with a message instead of a traceback."""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_BUG: Final = 1
EXIT_USAGE: Final = 2
EXIT_SOURCE_UNAVAILABLE: Final = 3
EXIT_SOURCE_LOST: Final = 4
EXIT_MODEL: Final = 5
EXIT_SENSOR: Final = 6
EXIT_INTERRUPTED: Final = 130


class AppError(Exception):
    """A problem the user can act on.

    ``message`` says what is wrong, where, and what to do; it is printed as it is. ``exit_code``
    is one of the ``EXIT_*`` constants of this module.
    """

    def __init__(self, message: str, exit_code: int = EXIT_BUG) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
