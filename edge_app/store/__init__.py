"""Models that were installed on this device: checked before they are used, switched as a whole, taken
back when they do not work.

A bundle is a directory, or a .tar of it, with ``model.pte``, ``manifest.json`` and
``manifest.json.minisig``. The store keeps every bundle below the hash of its manifest and never
changes it; which one a name means is a link that is renamed into place.
"""

from edge_app.store.bundle import MANIFEST_FORMAT, Manifest
from edge_app.store.disk import Store, default_store

__all__ = ["MANIFEST_FORMAT", "Manifest", "Store", "default_store"]
