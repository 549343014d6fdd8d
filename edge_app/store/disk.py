"""The store on disk: whole at every instant, whatever kills its writer.

objects/HASH/{model.pte, manifest.json, manifest.json.minisig}   never changed
names/NAME/current -> ../../objects/HASH                         what NAME means
names/NAME/previous -> ../../objects/HASH                        what a rollback goes back to
names/NAME/trial.json                                            while current has yet to prove itself
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_app.errors import EXIT_MODEL, EXIT_USAGE, AppError
from edge_app.store.bundle import (
    MANIFEST,
    MODEL,
    SIGNATURE,
    Manifest,
    check_file,
    check_outputs,
)
from edge_app.store.minisign import PublicKey, read_public_key, read_signature, verify

SYSTEM_KEYS = Path("/etc/edge-app/keys.d")
TRIAL_STARTS = 3
"""So many starts without a minute of good work, and the model before it is used again."""
LARGEST_BYTES = 1 << 31


def default_store() -> Path:
    """Where a service manager says, else in the user's directory for data."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.partition(":")[0]) / "models"
    home = os.environ.get("XDG_DATA_HOME")
    base = Path(home) if home else Path.home() / ".local" / "share"
    return base / "edge-app" / "models"


@dataclass(frozen=True)
class Entry:
    """One installed model. ``role``: ``current``, ``previous``, ``trial`` (current, not proven yet)
    or empty (kept, and can be used)."""

    name: str
    version: int
    object: str
    role: str
    path: Path


class Store:
    """The models below ``root``. Every change holds a lock, so that two commands take turns."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._names = root / "names"

    # Reading -----------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All installed models by name, newest version first."""
        found = []
        for folder in sorted(self._objects.glob("[0-9a-f]*")):
            manifest = self.manifest(folder.name)
            roles = [
                role
                for role in ("current", "previous")
                if self._link(manifest.name, role) == folder.name
            ]
            role = roles[0] if roles else ""
            if role == "current" and self._trial(manifest.name).exists():
                role = "trial"
            found.append(Entry(manifest.name, manifest.version, folder.name, role, folder / MODEL))
        return sorted(found, key=lambda entry: (entry.name, -entry.version))

    def manifest(self, identifier: str) -> Manifest:
        """Of the object ``identifier``. AppError (exit code 5) if it is damaged."""
        path = self._objects / identifier / MANIFEST
        try:
            content = path.read_bytes()
        except OSError as error:
            raise AppError(f"{path}: {error.strerror}", EXIT_MODEL) from None
        return Manifest.parse(content, str(path))

    def current(self, name: str) -> Path | None:
        """The model file that ``name`` means, or None if none of that name is installed."""
        identifier = self._link(name, "current")
        return None if identifier is None else self._objects / identifier / MODEL

    def currents(self) -> dict[str, Path]:
        """Every name that means something, with its model file."""
        names = sorted(folder.name for folder in self._names.glob("*"))
        found = {name: self.current(name) for name in names}
        return {name: path for name, path in found.items() if path is not None}

    def keys(self, extra: Path | None = None) -> list[PublicKey]:
        """The keys that are trusted: those of the system, of this store, and ``extra``."""
        paths = [*SYSTEM_KEYS.glob("*.pub"), *(self.root / "keys.d").glob("*.pub")]
        return [read_public_key(path) for path in sorted(paths) + ([extra] if extra else [])]

    # Changing ----------------------------------------------------------------------------------

    def install(
        self, bundle: Path, key: Path | None = None, allow_downgrade: bool = False
    ) -> tuple[Entry, list[str]]:
        """Check a bundle and keep it; nothing uses it yet. Installing it again changes nothing.

        Checked: the signature, the hash, that the version is not below the current one, and that
        every level gives the outputs that it gave where it was published. AppError (exit code 5)
        says what failed. Returns also what is odd but no reason to refuse.
        """
        with self._locked(), tempfile.TemporaryDirectory(dir=self.root, prefix=".install-") as work:
            folder = _unpacked(bundle, Path(work))
            with _told_of(bundle, folder):
                content = _read(folder / MANIFEST)
                verify(content, read_signature(folder / SIGNATURE), self.keys(key))
                manifest = Manifest.parse(content, str(folder / MANIFEST))
                check_file(folder / MODEL, manifest)
                self._refuse_downgrade(manifest, allow_downgrade)
                warnings = check_outputs(folder / MODEL, manifest)
            identifier = hashlib.sha256(content).hexdigest()
            target = self._objects / identifier
            if not target.exists():
                fresh = Path(work) / identifier
                fresh.mkdir()
                for file in (MODEL, MANIFEST, SIGNATURE):
                    shutil.copyfile(folder / file, fresh / file)
                    (fresh / file).chmod(0o444)
                    _sync(fresh / file)
                _sync(fresh)
                self._objects.mkdir(exist_ok=True)
                fresh.rename(target)
                _sync(self._objects)
            return Entry(manifest.name, manifest.version, identifier, "", target / MODEL), warnings

    def use(self, name: str, version: int | None = None, trial: bool = True) -> Entry:
        """Let ``name`` mean this version (the newest if none is given), on trial.

        AppError (exit code 5) if it is not installed or damaged.
        """
        with self._locked():
            candidates = [entry for entry in self.entries() if entry.name == name]
            if version is not None:
                candidates = [entry for entry in candidates if entry.version == version]
            if not candidates:
                which = name if version is None else f"{name} version {version}"
                raise AppError(f"{which} is not installed; edge-app model list", EXIT_MODEL)
            chosen = candidates[0]
            check_file(chosen.path, self.manifest(chosen.object))
            before = self._link(name, "current")
            if before == chosen.object:
                return chosen
            if trial and before is not None:
                self._write_trial(name, 0)
            if before is not None:
                self._point(name, "previous", before)
            self._point(name, "current", chosen.object)
            return chosen

    def rollback(self, name: str) -> Entry:
        """Let ``name`` mean what it meant before. AppError (exit code 5) if there is nothing."""
        with self._locked():
            return self._roll_back(name)

    def _roll_back(self, name: str) -> Entry:
        before, now = self._link(name, "previous"), self._link(name, "current")
        if before is None:
            raise AppError(f"{name}: there is no version to go back to", EXIT_MODEL)
        manifest = self.manifest(before)
        check_file(self._objects / before / MODEL, manifest)
        self._point(name, "current", before)
        if now is not None:
            self._point(name, "previous", now)
        self._trial(name).unlink(missing_ok=True)
        return Entry(name, manifest.version, before, "current", self._objects / before / MODEL)

    def started(self, name: str) -> str:
        """A run begins with the current model of ``name``. Counts the starts of one on trial; after
        three without ``proven`` the model before it is current again, and the text says so."""
        with self._locked():
            starts = self._starts(name)
            if starts is None:
                return ""
            if starts < TRIAL_STARTS:
                self._write_trial(name, starts + 1)
                return ""
            failed = self._link(name, "current")
            entry = self._roll_back(name)
            wrong = "it" if failed is None else f"version {self.manifest(failed).version}"
            return (
                f"{name}: {wrong} was started {TRIAL_STARTS} times and never worked for a minute; "
                f"version {entry.version} is used again"
            )

    def proven(self, name: str) -> None:
        """The current model of ``name`` has worked: its trial is over."""
        with self._locked():
            self._trial(name).unlink(missing_ok=True)

    def check(self) -> list[str]:
        """Everything again: signatures, hashes, outputs, links. One text for each problem."""
        problems = []
        for folder in sorted(self._objects.glob("[0-9a-f]*")):
            try:
                content = _read(folder / MANIFEST)
                verify(content, read_signature(folder / SIGNATURE), self.keys())
                manifest = Manifest.parse(content, str(folder / MANIFEST))
                if hashlib.sha256(content).hexdigest() != folder.name:
                    raise AppError(
                        f"{folder}: its name is not the hash of its manifest", EXIT_MODEL
                    )
                check_file(folder / MODEL, manifest)
                check_outputs(folder / MODEL, manifest)
            except AppError as error:
                problems.append(error.message)
        for link in sorted(self._names.glob("*/*")):
            if link.is_symlink() and not link.exists():
                problems.append(f"{link}: leads nowhere")
        return problems

    # Parts -------------------------------------------------------------------------------------

    def _refuse_downgrade(self, manifest: Manifest, allowed: bool) -> None:
        identifier = self._link(manifest.name, "current")
        if identifier is None or allowed:
            return
        current = self.manifest(identifier).version
        if manifest.version < current:
            raise AppError(
                f"{manifest.name}: version {manifest.version} is older than the current {current}; "
                "--allow-downgrade installs it all the same",
                EXIT_MODEL,
            )

    def _link(self, name: str, role: str) -> str | None:
        try:
            return Path(os.readlink(self._names / name / role)).name
        except OSError:
            return None

    def _point(self, name: str, role: str, identifier: str) -> None:
        folder = self._names / name
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{role}.{os.getpid()}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(Path("..") / ".." / "objects" / identifier)
        beside.replace(folder / role)
        _sync(folder)

    def _trial(self, name: str) -> Path:
        return self._names / name / "trial.json"

    def _starts(self, name: str) -> int | None:
        """Starts on trial so far; None if the current model is not on trial."""
        try:
            return int(json.loads(self._trial(name).read_text())["starts"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _write_trial(self, name: str, starts: int) -> None:
        path = self._trial(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(json.dumps({"starts": starts}))
        _sync(beside)
        beside.replace(path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise AppError(
                f"{self.root}: {error.strerror}; --store names another", EXIT_USAGE
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise AppError(f"{self.root}: {error}", EXIT_MODEL) from None
        finally:
            os.close(lock)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AppError(f"{path}: {error.strerror}", EXIT_MODEL) from None


@contextlib.contextmanager
def _told_of(bundle: Path, folder: Path) -> Iterator[None]:
    """What is wrong in ``folder`` is said of the archive: nobody can look where it was unpacked."""
    try:
        yield
    except AppError as error:
        text = (
            error.message
            if folder == bundle
            else error.message.replace(f"{folder}/", f"{bundle}: ")
        )
        raise AppError(text, error.exit_code) from None


def _unpacked(bundle: Path, work: Path) -> Path:
    """The folder with a bundle's three files."""
    if bundle.is_dir():
        return bundle
    if not bundle.is_file():
        raise AppError(f"{bundle}: no such bundle (a directory or a .tar)", EXIT_USAGE)
    import tarfile  # not in every run that opens a model

    folder = work / "unpacked"
    folder.mkdir()
    try:
        with tarfile.open(bundle) as archive:
            for member in archive:
                name = Path(member.name).name
                # By name, into one folder: no path of the archive's is ever used.
                if name not in (MODEL, MANIFEST, SIGNATURE) or not member.isfile():
                    continue
                if member.size > LARGEST_BYTES:
                    raise AppError(f"{bundle}: {name} is too large", EXIT_MODEL)
                source = archive.extractfile(member)
                assert source is not None
                with (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise AppError(f"{bundle}: not a bundle: {error}", EXIT_MODEL) from None
    return folder


def _sync(path: Path) -> None:
    """On the disk before anything that relies on it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
