"""Models on the device: only what is signed and works, and a store that is whole at every instant."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from edge_app.errors import EXIT_MODEL, EXIT_USAGE, AppError
from edge_app.models import find
from edge_app.store import Manifest, Store
from edge_app.store.bundle import MANIFEST, MODEL, SIGNATURE, check_outputs
from edge_app.store.disk import TRIAL_STARTS
from edge_app.store.minisign import read_public_key, read_signature, verify
from edge_app.store.packing import pack

pytestmark = pytest.mark.skipif(
    shutil.which("minisign") is None and not os.environ.get("CI"),
    reason="needs apt-get install minisign",
)


def minisign(*arguments: object) -> None:
    subprocess.run(["minisign", *map(str, arguments)], check=True, capture_output=True, input=b"")


class Publisher:
    """Somebody with a key who publishes bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public, self.secret = folder / "key.pub", folder / "key.sec"
        minisign("-G", "-W", "-f", "-p", self.public, "-s", self.secret)

    def sign(self, path: Path, *options: str) -> None:
        minisign("-S", "-s", self.secret, "-m", path, *options)

    def bundle(self, version: int, model: str = "digits", name: str = "digits") -> Path:
        path = self.folder / f"{name}-{version}"
        if not path.exists():
            pack(model, path, name, version)
            self.sign(path / MANIFEST)
        return path


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("publisher"))


@pytest.fixture
def store(tmp_path: Path, publisher: Publisher) -> Store:
    store = Store(tmp_path / "store")
    (store.root / "keys.d").mkdir(parents=True)
    shutil.copy(publisher.public, store.root / "keys.d")
    return store


# --- signatures --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-l",)])
def test_signatures_of_the_real_minisign(
    publisher: Publisher, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"some content")
    publisher.sign(file, *options)  # -l: the old kind, over the file itself
    key = read_public_key(publisher.public)
    signature = read_signature(tmp_path / "file.minisig")
    assert verify(b"some content", signature, [key]) == key
    assert key.name in publisher.public.read_text()
    with pytest.raises(AppError, match="does not fit"):
        verify(b"some Content", signature, [key])


def test_the_trusted_comment_is_signed_too(publisher: Publisher, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    publisher.sign(file, "-t", "version 3")
    path = tmp_path / "file.minisig"
    path.write_text(path.read_text().replace("version 3", "version 4"))
    with pytest.raises(AppError, match="does not fit") as raised:
        verify(b"x", read_signature(path), [read_public_key(publisher.public)])
    assert raised.value.exit_code == EXIT_MODEL


def test_a_key_that_is_not_trusted_is_named(publisher: Publisher, tmp_path: Path) -> None:
    other = Publisher(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    other.sign(tmp_path / "file")
    with pytest.raises(AppError, match=read_public_key(other.public).name):
        verify(b"x", read_signature(tmp_path / "file.minisig"), [read_public_key(publisher.public)])


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"untrusted comment: x\nAAAA\n", b"a\nb\nc\nd\n"]
)
def test_what_is_no_key_and_no_signature(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for read in (read_public_key, read_signature):
        with pytest.raises(AppError) as raised:
            read(path)
        assert raised.value.exit_code == EXIT_MODEL


# --- installing --------------------------------------------------------------------------------


def test_install_use_update_and_roll_back(store: Store, publisher: Publisher) -> None:
    first, warnings = store.install(publisher.bundle(1))
    assert warnings == [] or "times what the publisher" in warnings[0]
    assert store.current("digits") is None, "installed is not used"
    store.use("digits")
    assert store.current("digits") == first.path
    store.install(publisher.bundle(2))
    store.use("digits", 2)
    assert [(e.version, e.role) for e in store.entries()] == [(2, "trial"), (1, "previous")]
    store.proven("digits")
    assert [(e.version, e.role) for e in store.entries()] == [(2, "current"), (1, "previous")]
    assert store.rollback("digits").version == 1
    assert [(e.version, e.role) for e in store.entries()] == [(2, "previous"), (1, "current")]
    assert store.check() == []
    assert sorted(p.name for p in first.path.parent.iterdir()) == sorted(
        (MODEL, MANIFEST, SIGNATURE)
    )


def test_installing_twice_changes_nothing(store: Store, publisher: Publisher) -> None:
    once, _ = store.install(publisher.bundle(1))
    before = once.path.stat().st_ino
    again, _ = store.install(publisher.bundle(1))
    assert again == once and once.path.stat().st_ino == before


def test_a_tar_is_a_bundle_and_its_paths_are_not_trusted(
    store: Store, publisher: Publisher, tmp_path: Path
) -> None:
    archive = tmp_path / "bundle.tar"
    with tarfile.open(archive, "w") as tar:
        for file in (MODEL, MANIFEST, SIGNATURE):
            tar.add(publisher.bundle(1) / file, f"../../../evil/{file}")
        tar.add(publisher.public, "../../outside.pub")
    store.install(archive)
    assert not (tmp_path / "outside.pub").exists() and not (tmp_path / "evil").exists()
    for content in (b"", b"no archive", archive.read_bytes()[:2000]):
        damaged = tmp_path / "damaged.tar"
        damaged.write_bytes(content)
        with pytest.raises(AppError) as raised:
            store.install(damaged)
        assert raised.value.exit_code == EXIT_MODEL


def test_a_downgrade_needs_to_be_asked_for(store: Store, publisher: Publisher) -> None:
    store.install(publisher.bundle(2))
    store.use("digits")
    with pytest.raises(AppError, match="version 1 is older than the current 2.*--allow-downgrade"):
        store.install(publisher.bundle(1))
    store.install(publisher.bundle(1), allow_downgrade=True)
    assert store.use("digits", 1).version == 1


def changed(publisher: Publisher, tmp_path: Path, **changes: Any) -> Path:
    """Version 1 with other things in its manifest, signed by the publisher."""
    path = tmp_path / "changed"
    shutil.copytree(publisher.bundle(1), path)
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | changes))
    publisher.sign(path / MANIFEST)
    return path


def test_a_model_that_computes_something_else_is_refused(
    store: Store, publisher: Publisher, tmp_path: Path
) -> None:
    golden = json.loads((publisher.bundle(1) / MANIFEST).read_text())["golden"]
    golden["4"][2][7] += 0.1
    with pytest.raises(AppError, match="4 bits give other outputs here"):
        store.install(changed(publisher, tmp_path, golden=golden))
    assert store.entries() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "not the file that its manifest describes"),
        ({"size": 5}, "not the file that its manifest describes"),
        ({"format": "edge-app/model/9"}, "its format is"),
        ({"name": "../escape"}, "is not made of"),
        ({"golden": {}}, "its levels are not those"),
        ({"golden": {"2": [[1.0]]}}, "wrong shape"),
        ({"version": "x"}, "not a manifest"),
    ],
)
def test_a_signed_manifest_may_still_be_wrong(
    store: Store, publisher: Publisher, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AppError, match=message) as raised:
        store.install(changed(publisher, tmp_path, **changes))
    assert raised.value.exit_code == EXIT_MODEL


def test_one_changed_byte_is_found(store: Store, publisher: Publisher, tmp_path: Path) -> None:
    for name in (MODEL, MANIFEST):
        path = tmp_path / f"bundle-{name}"
        shutil.copytree(publisher.bundle(1), path)
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)
        with pytest.raises(AppError) as raised:
            store.install(path)
        assert raised.value.exit_code == EXIT_MODEL
    entry, _ = store.install(publisher.bundle(1))
    entry.path.chmod(0o644)
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    assert len(store.check()) == 1
    with pytest.raises(AppError, match="SHA-256"):
        store.use("digits")


def test_slow_is_a_warning(publisher: Publisher) -> None:
    folder = publisher.bundle(1)
    manifest = Manifest.parse((folder / MANIFEST).read_bytes(), "")
    times = {isa: dict.fromkeys(ms, 1e-6) for isa, ms in manifest.latency_ms.items()}
    warnings = check_outputs(folder / MODEL, Manifest(**(vars(manifest) | {"latency_ms": times})))
    assert len(warnings) == len(manifest.golden) and "bits take" in warnings[0]


# --- the trial ---------------------------------------------------------------------------------


def test_a_model_that_never_works_is_taken_back(store: Store, publisher: Publisher) -> None:
    store.install(publisher.bundle(1))
    store.use("digits")
    store.install(publisher.bundle(2))
    store.use("digits")
    for _ in range(TRIAL_STARTS):
        assert store.started("digits") == ""
    assert "version 2 was started 3 times" in store.started("digits")
    assert [(e.version, e.role) for e in store.entries()] == [(2, "previous"), (1, "current")]
    assert store.started("digits") == "", "what is proven is not on trial"


def test_the_first_model_has_nothing_to_go_back_to(store: Store, publisher: Publisher) -> None:
    store.install(publisher.bundle(1))
    store.use("digits")
    for _ in range(2 * TRIAL_STARTS):
        assert store.started("digits") == ""
    with pytest.raises(AppError, match="no version to go back to"):
        store.rollback("digits")


# --- killed at any instant ---------------------------------------------------------------------

CHURN = """
import sys
from pathlib import Path
from edge_app.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for bundle in sys.argv[2:]:
        entry, _ = store.install(Path(bundle), allow_downgrade=True)
        store.use(entry.name, entry.version)
        store.started(entry.name)
    store.rollback(entry.name)
"""


def test_killed_at_any_instant_the_store_is_whole(store: Store, publisher: Publisher) -> None:
    store.install(publisher.bundle(1))
    store.use("digits")
    pauses = random.Random(5)
    bundles = [str(publisher.bundle(version)) for version in (1, 2, 3)]
    for _ in range(25):
        process = subprocess.Popen(
            [sys.executable, "-c", CHURN, str(store.root), *bundles],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(pauses.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        current = store.current("digits")
        assert current is not None and current.is_file()
        assert store.check() == []
        find("digits", store=store)


def test_what_is_wrong_with_an_archive_is_said_of_the_archive(
    store: Store, publisher: Publisher, tmp_path: Path
) -> None:
    """Where it was unpacked is gone by the time that somebody reads the message."""
    shutil.copytree(publisher.bundle(1), tmp_path / "odd")
    (tmp_path / "odd" / MANIFEST).write_text("{}")
    archive = tmp_path / "odd.tar"
    with tarfile.open(archive, "w") as bundle:
        bundle.add(tmp_path / "odd", "odd")
    with pytest.raises(AppError) as raised:
        store.install(archive)
    assert raised.value.message.startswith(f"{archive}: {MANIFEST}.minisig: the signature does not")


# --- commands ----------------------------------------------------------------------------------


def test_the_commands(tmp_path: Path, publisher: Publisher, edge_app: Any) -> None:
    where = ("--store", tmp_path / "store")
    out = tmp_path / "out"
    packed = edge_app("model", "pack", "digits", "--name", "mine", "--version", 1, "-o", out)
    assert packed.returncode == 0, packed.stderr
    refused = edge_app("model", "install", out, *where)
    assert refused.returncode == EXIT_MODEL and ".minisig" in refused.stderr
    publisher.sign(out / MANIFEST)
    untrusted = edge_app("model", "install", out, *where)
    assert untrusted.returncode == EXIT_MODEL and "not trusted here" in untrusted.stderr
    done = edge_app("model", "install", out, *where, "--key", publisher.public)
    assert done.returncode == 0, done.stderr
    assert "mine" in edge_app("model", "list", *where).stdout
    assert edge_app("model", "rollback", "mine", *where).returncode == EXIT_MODEL
    assert edge_app("model", "use", "other", *where).returncode == EXIT_MODEL
    unverified = edge_app("model", "verify", *where)
    assert unverified.returncode == EXIT_MODEL, "the key was trusted for one command only"
    again = edge_app("model", "pack", "digits", "--name", "mine", "--version", 1, "-o", out)
    assert again.returncode == EXIT_USAGE and "exists" in again.stderr
