"""Makes a bundle of a model, where models are published."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.models import open_model
from edge_app.store.bundle import MANIFEST, MODEL, NAME, describe


def pack(model: str, out: Path, name: str, version: int) -> None:
    """Write ``out`` with the model and its manifest, and say how to sign it.

    AppError (exit code 2) if ``out`` exists or the name is none.
    """
    if not NAME.fullmatch(name):
        raise AppError(f"--name {name}: use a-z, 0-9, dot and dash", EXIT_USAGE)
    if out.exists():
        raise AppError(f"--out {out}: exists; give another directory", EXIT_USAGE)
    with open_model(model) as program:
        manifest = describe(program, name, version)
        beside = out.with_name(f".{out.name}.new")
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            shutil.copyfile(program.path, beside / MODEL)
            (beside / MANIFEST).write_bytes(manifest.to_json())
            beside.rename(out)
        except OSError as error:
            raise AppError(f"--out {out}: {error.strerror}", EXIT_USAGE) from None
    print(f"{out}: {name} version {version}; sign it: minisign -Sm {out / MANIFEST}")
