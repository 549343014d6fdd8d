"""`edge-app model`: models that are installed on this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge_app.store import Store

app = typer.Typer(no_args_is_help=True, help="Install, switch and take back models.")

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="Where models are kept on this device."),
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", metavar="PUB", help="A minisign public key to trust, too.")
]


def _store(path: Path | None) -> Store:
    from edge_app.store import Store, default_store

    return Store(default_store() if path is None else path)


@app.command("list")
def list_models(store: StoreOption = None) -> None:
    """Installed models, their versions, and which are in use."""
    opened = _store(store)
    entries = opened.entries()
    if not entries:
        print(f"none in {opened.root}; edge-app models lists those that come with the program")
    for entry in entries:
        print(
            f"{entry.name:<24} version {entry.version:<6} {entry.role or '-':<9} {entry.object[:16]}"
        )


@app.command()
def install(
    bundle: Annotated[Path, typer.Argument(help="A directory or .tar from edge-app model pack.")],
    store: StoreOption = None,
    key: KeyOption = None,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Also a version below the current one.")
    ] = False,
    use: Annotated[
        bool, typer.Option("--use/--no-use", help="Switch to it, on trial for a minute of work.")
    ] = True,
) -> None:
    """Check a bundle's signature, hash, version and outputs; keep it; switch to it."""
    opened = _store(store)
    entry, warnings = opened.install(bundle, key, allow_downgrade)
    for warning in warnings:
        print(f"{entry.name}: warning: {warning}")
    print(f"{entry.name} version {entry.version} is installed")
    if use:
        opened.use(entry.name, entry.version)
        print(f"edge-app run --model {entry.name} runs it; a running one switches by itself")


@app.command()
def use(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", help="[default: the newest]")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Switch to an installed version; a running edge-app follows between two frames."""
    entry = _store(store).use(name, version)
    print(f"{entry.name} is version {entry.version} now")


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME")], store: StoreOption = None
) -> None:
    """Go back to the version before."""
    entry = _store(store).rollback(name)
    print(f"{entry.name} is version {entry.version} again")


@app.command()
def verify(store: StoreOption = None) -> None:
    """Check everything that is installed again: signatures, hashes, outputs."""
    from edge_app.errors import EXIT_MODEL

    opened = _store(store)
    problems = opened.check()
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(EXIT_MODEL)
    print(f"{len(opened.entries())} installed, all in order")


@app.command()
def pack(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .pte file or a model's name.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The bundle to make.")],
    name: Annotated[str, typer.Option("--name", help="What devices call it.")],
    version: Annotated[int, typer.Option("--version", min=1, help="Grows with every release.")],
) -> None:
    """Make a bundle with golden outputs; sign it with minisign -Sm DIR/manifest.json."""
    from edge_app.store.packing import pack as pack_bundle

    pack_bundle(model, out, name, version)
