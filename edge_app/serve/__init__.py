"""`edge-app run --serve`: metrics for Prometheus, health, state and a page to look at, over HTTP.

``Hub`` is told everything, as a sink is, and only keeps the newest. ``open_page`` starts the server
in a thread of its own that reads from the hub; nothing that a client does is waited for by the
pipeline. Imported only with ``--serve``.
"""

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.serve.hub import About, Hub

try:
    from edge_app.serve.server import Page, open_page
except ModuleNotFoundError as error:
    raise AppError(
        f"--serve needs the package {error.name}, which is not installed: "
        "pip install prometheus-client",
        EXIT_USAGE,
    ) from None

__all__ = ["About", "Hub", "Page", "open_page"]
