"""Models on this device: finding them by name or path, opening them, and saying what they are."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edge_app.errors import EXIT_MODEL, EXIT_USAGE, AppError

if TYPE_CHECKING:
    from edge_app.store import Store
    from native_ops import Program

SUFFIX = ".pte"


def models_directory() -> Path:
    """Where the models that come with the package are."""
    return Path(str(resources.files("edge_app"))) / "assets" / "models"


def installed(directory: Path | None = None, store: Store | None = None) -> dict[str, Path]:
    """Names of the models that can be run with their files, sorted by name: those that come with the
    package, and those of this device's store, which come before the former."""
    from edge_app.store import Store, default_store

    directory = models_directory() if directory is None else directory
    found = {path.stem: path for path in directory.glob(f"*{SUFFIX}")}
    found |= (Store(default_store()) if store is None else store).currents()
    return dict(sorted(found.items()))


def is_shipped(path: Path) -> bool:
    """Whether it came with the package."""
    return path.resolve().parent == models_directory().resolve()


def in_store(path: Path) -> str | None:
    """The name that means the model file ``path`` in this device's store, None if none does."""
    from edge_app.store import Store, default_store

    names = (name for name, file in Store(default_store()).currents().items() if file == path)
    return next(names, None)


def find(name: str, directory: Path | None = None, store: Store | None = None) -> Path:
    """The file of the model that ``name`` means.

    An installed model's name, the beginning of exactly one name, or a path (anything with a
    slash or with the suffix .pte). AppError with exit code 5 says what there is instead.
    """
    known = installed(directory, store)
    if name in known:
        return known[name]
    if "/" in name or name.endswith(SUFFIX):
        path = Path(name).expanduser()
        if path.is_file():
            return path
        what = "is a directory" if path.is_dir() else "no such file"
        raise AppError(f"{path}: {what}; give a {SUFFIX} file or {_listing(known)}", EXIT_MODEL)
    begins = [candidate for candidate in known if candidate.startswith(name)]
    if len(begins) == 1:
        return known[begins[0]]
    if begins:
        raise AppError(
            f"model '{name}' may be {' or '.join(begins)}; write one of them out", EXIT_MODEL
        )
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise AppError(f"no model '{name}'; {hint}{_listing(known)}", EXIT_MODEL)


def _listing(known: dict[str, Path]) -> str:
    return f"one of: {', '.join(known)}" if known else "a path (no model is installed)"


MEMORY = ("normal", "low")
"""How weights are kept: prepared for the fastest kernels, or packed (slower, for small boards)."""


def open_model(name: str, threads: int = 1, memory: str = "normal", device: str = "cpu") -> Program:
    """Open the model that ``name`` means; ``memory`` is one of MEMORY, ``device`` as for
    ``native_ops.Program.open``.

    AppError with exit code 5 if its file cannot be used, and with 2 if ``threads`` or
    EDGE_NATIVE_ISA or ``device`` ask for what this machine has not, or ``memory`` is none of MEMORY.
    """
    import native_ops

    if memory not in MEMORY:
        raise AppError(f"--memory {memory}: choose {' or '.join(MEMORY)}", EXIT_USAGE)
    path = find(name)
    try:
        return native_ops.Program.open(
            path, threads=threads, low_memory=memory == "low", device=device
        )
    except native_ops.DeviceError as error:
        raise AppError(
            f"--device {device}: {error}; --device cpu runs the same model", EXIT_USAGE
        ) from None
    except native_ops.ModelError as error:
        raise AppError(str(error), EXIT_MODEL) from None
    except ValueError as error:
        raise AppError(str(error), EXIT_USAGE) from None


def branches_of(model: Program) -> dict[int, tuple[int, ...]]:
    """The branches of each level by the model's metadata; AppError (exit code 5) without them."""
    try:
        return {
            bits: tuple(model.metadata["levels"][str(bits)]["branches"]) for bits in model.levels
        }
    except (KeyError, TypeError):
        raise AppError(
            f"{model.path}: its metadata does not say which branches each level runs; "
            "export the model again",
            EXIT_MODEL,
        ) from None
