"""Model files: what runs, what is refused, and that nothing crashes the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import native_ops
from export import integer, program
from native_ops import ModelError, Program, _native, container
from native_ops.peer import roofline

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)


def metadata(network: integer.IntegerNetwork) -> dict[str, Any]:
    height, width = network.input_size
    return {
        "levels": {
            str(bits): {"branches": level.branches} for bits, level in network.levels.items()
        },
        "labels": network.labels,
        "input": {"height": height, "width": width},
    }


@pytest.fixture(scope="module")
def network(random_network: Callable[..., integer.IntegerNetwork]) -> integer.IntegerNetwork:
    return random_network(3, widths=(12, 20))


@pytest.fixture(scope="module")
def contents(network: integer.IntegerNetwork) -> bytes:
    return program.lower(network, metadata(network))


@pytest.fixture
def model(contents: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "model.pte"
    path.write_bytes(contents)
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Program.open(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_every_instruction_set_has_a_roofline() -> None:
    assert tuple(_native.rooflines()) == native_ops.isa_available()
    assert all(roofline(isa) > 0 for isa in native_ops.isa_available())


@pytest.mark.parametrize("isa", native_ops.isa_available())
@pytest.mark.parametrize("low_memory", [False, True], ids=["prepared", "low-memory"])
@pytest.mark.parametrize(
    ("threads", "split"),
    [(1, ""), *((count, split) for count in (2, 3) for split in ("tiles", "branches"))],
)
def test_every_level_gives_the_oracles_logits(
    network: integer.IntegerNetwork,
    model: Path,
    threads: int,
    split: str,
    low_memory: bool,
    isa: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGE_NATIVE_SPLIT", split)
    with Program.open(model, threads, low_memory, isa) as opened:
        assert opened.levels == (2, 4, 6, 8)
        assert opened.input_shape == (8, 8, 3)
        assert opened.labels == network.labels
        for bits in opened.levels:
            expected = integer.run(network, bits, IMAGES)
            actual = np.stack([opened.run(bits, image) for image in IMAGES])
            np.testing.assert_array_equal(actual, expected)
            assert len(np.unique(actual, axis=0)) > 1, "logits that ignore the image prove nothing"


def test_operators_alone_give_the_same_logits(
    network: integer.IntegerNetwork, model: Path, tmp_path: Path
) -> None:
    """The reference path: a program whose levels no delegate claimed."""
    packed = program.pack_weights(network)
    modules = {f"bits{b}": program.LevelModule(network, b, packed) for b in network.levels}
    constants = {"edge_format": program.FORMAT, "edge_metadata": json.dumps(metadata(network))}
    path = tmp_path / "operators.pte"
    contents = program.lower_modules(modules, (8, 8), constants, delegate=False)
    path.write_bytes(container.seal(contents))
    with Program.open(path) as slow, Program.open(model) as fast:
        for bits in network.levels:
            for image in IMAGES[:2]:
                np.testing.assert_array_equal(slow.run(bits, image), fast.run(bits, image))
        assert slow.profile(2, IMAGES[0]) == []


def test_profile_names_every_layer(network: integer.IntegerNetwork, model: Path) -> None:
    with Program.open(model) as opened:
        for bits, level in network.levels.items():
            layers = opened.profile(bits, IMAGES[0])
            convolutions = [t for t in layers if t.layer.startswith("conv")]
            assert len(convolutions) == sum(1 for _ in level.convolutions())
            assert {t.branch for t in convolutions} == set(level.branches)
            assert all(t.macs > 0 and t.microseconds > 0 for t in convolutions)
            assert layers[-1].layer == "head"


@pytest.mark.parametrize("threads", [2, 3, 6])
def test_branches_run_side_by_side(
    network: integer.IntegerNetwork, model: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are threads, equally many on each; the rest is split by tiles."""
    monkeypatch.setenv("EDGE_NATIVE_SPLIT", "branches")
    with Program.open(model, threads) as opened:
        for bits, level in network.levels.items():
            layers = opened.profile(bits, IMAGES[0])
            branches = level.branches
            lanes = min(len(branches), threads)
            expected = branches[: len(branches) // lanes * lanes] if lanes > 1 else ()
            assert {t.branch for t in layers if t.beside} - {0} == set(expected)
            for layer in layers:
                assert layer.threads == (1 if layer.beside else threads)


def test_a_split_that_is_none_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_NATIVE_SPLIT", "rows")
    with Program.open(model, threads=2) as opened, pytest.raises(ModelError, match="nor branches"):
        opened.run(2, IMAGES[0])


def test_branches_side_by_side_take_bounded_memory(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than every thread with an arena of its own would; and it is given back."""
    held = {}
    for split in ("tiles", "branches"):
        monkeypatch.setenv("EDGE_NATIVE_SPLIT", split)
        # Of a table without a choice of kernels: another kernel has another scratch.
        with Program.open(model, threads=2, isa="portable") as opened:
            opened.run(8, IMAGES[0])
            held[split] = _native.workspace_bytes()
        assert _native.workspace_bytes() == 0
    assert 0 < held["tiles"] <= held["branches"] <= 2 * held["tiles"]


def test_with_low_memory_runs_take_turns_in_one_workspace(model: Path) -> None:
    def work(opened: Program, runs: int) -> None:
        for _ in range(runs):
            np.testing.assert_array_equal(opened.run(8, IMAGES[0]), expected)

    with Program.open(model, low_memory=True) as one, Program.open(model, low_memory=True) as other:
        expected = one.run(8, IMAGES[0])
        held = _native.workspace_bytes()
        with ThreadPoolExecutor(2) as workers:
            for ended in [workers.submit(work, program, 3000) for program in (one, other)]:
                ended.result()
        assert _native.workspace_bytes() == held > 0
    assert _native.workspace_bytes() == 0


def test_levels_share_prepared_weights_and_give_them_back(model: Path) -> None:
    assert _native.prepared_bytes() == 0
    with Program.open(model) as opened:
        assert _native.prepared_bytes() == 0, "nothing is prepared for a level that never ran"
        opened.run(8, IMAGES[0])
        held = _native.prepared_bytes()
        with Program.open(model) as again:
            again.run(8, IMAGES[0])
            assert _native.prepared_bytes() == held
        assert _native.prepared_bytes() == held
    assert _native.prepared_bytes() == 0
    with Program.open(model, low_memory=True) as opened:
        opened.run(8, IMAGES[0])
        assert _native.prepared_bytes() < held


def test_levels_alternate_without_influence(model: Path) -> None:
    """Levels share their activation memory; what one leaves there must not reach the next."""
    with Program.open(model) as opened:
        alone = {bits: opened.run(bits, IMAGES[0]) for bits in opened.levels}
        for bits in (8, 2, 6, 2, 4, 8):
            opened.run(14 - bits if 14 - bits in alone else 2, IMAGES[1])
            np.testing.assert_array_equal(opened.run(bits, IMAGES[0]), alone[bits])


def test_threads_may_share_a_program(model: Path) -> None:
    with Program.open(model, threads=2) as opened:
        expected = {bits: opened.run(bits, IMAGES[0]) for bits in opened.levels}
        wrong: list[int] = []

        def work(bits: int) -> None:
            for _ in range(50):
                if not np.array_equal(opened.run(bits, IMAGES[0]), expected[bits]):
                    wrong.append(bits)

        workers = [threading.Thread(target=work, args=(bits,)) for bits in opened.levels * 2]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert wrong == []


def test_instruction_sets_agree(model: Path) -> None:
    code = (
        "import sys, numpy as np, native_ops\n"
        "program = native_ops.Program.open(sys.argv[1])\n"
        "image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)\n"
        "print(native_ops.isa_selected(), *(program.run(b, image).tobytes().hex() for b in (2, 8)))"
    )
    seen = {}
    for isa in native_ops.isa_available():
        environment = {**os.environ, "EDGE_NATIVE_ISA": isa}
        result = subprocess.run(
            [sys.executable, "-c", code, str(model)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        selected, *logits = result.stdout.split()
        assert selected == isa
        seen[isa] = logits
    assert all(logits == seen["portable"] for logits in seen.values())


def test_unknown_instruction_set_is_an_error(model: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", f"import native_ops; native_ops.Program.open({str(model)!r})"],
        check=False,
        env={**os.environ, "EDGE_NATIVE_ISA": "sse9"},
        capture_output=True,
        text=True,
    )
    assert "ValueError: EDGE_NATIVE_ISA: 'sse9' is not" in result.stderr
    assert "choose from portable" in result.stderr


def test_wrong_arguments_are_named(model: Path) -> None:
    with Program.open(model) as opened:
        with pytest.raises(ValueError, match="no level of 5 bits; choose from 2, 4, 6, 8"):
            opened.run(5, IMAGES[0])
        with pytest.raises(ValueError, match=r"uint8 images of shape \(8, 8, 3\), got float32"):
            opened.run(2, IMAGES[0].astype(np.float32))
        with pytest.raises(ValueError, match=r"got uint8 \(8, 7, 3\)"):
            opened.run(2, IMAGES[0, :, :7])
    with pytest.raises(ValueError, match="closed"):
        opened.run(2, IMAGES[0])
    with pytest.raises(ValueError, match="threads"):
        Program.open(model, threads=0)
    with pytest.raises(
        ValueError, match="'sse9' is not an instruction set .* choose from portable"
    ):
        Program.open(model, isa="sse9")


def test_missing_and_foreign_files(tmp_path: Path, contents: bytes) -> None:
    refused(tmp_path / "nothing.pte", "No such file")
    refused(tmp_path, "directory")
    path = tmp_path / "file.pte"
    for data, message in [
        (b"", "too few"),
        (b"GIF89a" * 100, "not a model file"),
        (contents[: -container.TRAILER_BYTES], "without the trailer"),
        (contents + b"\0", "trailer"),
    ]:
        path.write_bytes(data)
        refused(path, message)


def test_programs_that_are_sealed_but_wrong(tmp_path: Path) -> None:
    """A right trailer around something else; ExecuTorch itself has to refuse it."""
    path = tmp_path / "file.pte"
    for data in (b"not a flatbuffer" * 50, bytes(range(256)) * 4):
        path.write_bytes(container.seal(data))
        refused(path, "does not load")


def test_other_versions(tmp_path: Path, network: integer.IntegerNetwork, contents: bytes) -> None:
    path = tmp_path / "file.pte"
    trailer = bytearray(contents[-container.TRAILER_BYTES :])
    trailer[8] = container.VERSION + 1
    path.write_bytes(contents[: -container.TRAILER_BYTES] + trailer)
    refused(path, "layout version 2, this build reads version 1")

    modules = {"bits2": program.LevelModule(network, 2, program.pack_weights(network))}
    text = json.dumps(metadata(network))

    def write(**constants: Any) -> None:
        path.write_bytes(container.seal(program.lower_modules(modules, (8, 8), constants)))

    write(edge_format=2, edge_metadata=text)
    refused(path, "format 2, this build reads format 1")
    write(edge_format=1)
    refused(path, "edge_metadata")
    write(edge_format=1, edge_metadata="{}")
    refused(path, "metadata lacks 'levels'")
    write(edge_format=1, edge_metadata="nonsense")
    refused(path, "export the model again")
    write(edge_format=1, edge_metadata=text)
    refused(path, r"has the levels \[2\] and describes \[2, 4, 6, 8\]")


CHILD = """
import sys
from pathlib import Path
from native_ops import ModelError, Program
import numpy as np

contents, scratch, kind = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), sys.argv[3]

def variants():
    if kind == "truncated":
        for length in range(len(contents)):
            yield contents[:length]
    else:
        random = np.random.default_rng(1)
        for position in random.integers(0, len(contents), 3000):
            changed = bytearray(contents)
            changed[position] ^= 1 << int(random.integers(8))
            yield bytes(changed)

refused = 0
for data in variants():
    scratch.write_bytes(data)
    try:
        Program.open(scratch)
    except ModelError:
        refused += 1
    else:
        sys.exit("a damaged file was accepted")
print(refused)
"""


@pytest.mark.parametrize("kind", ["truncated", "flipped"])
def test_damage_is_always_refused(model: Path, contents: bytes, tmp_path: Path, kind: str) -> None:
    """Every truncation, and thousands of flipped bits, in a process of their own."""
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(model), str(tmp_path / "damaged.pte"), kind],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == (len(contents) if kind == "truncated" else 3000)


def test_etdump_holds_every_layer_of_every_level(
    network: integer.IntegerNetwork, model: Path, tmp_path: Path
) -> None:
    from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc

    with Program.open(model) as opened:
        dump = deserialize_from_etdump_flatcc(opened.trace(IMAGES[0]))
    found = []
    for run in dump.run_data:  # one for each method that is loaded, and one for each that runs
        events = [event.profile_event for event in run.events or [] if event.profile_event]
        layers = [e for e in events if "conv" in (e.name or e.delegate_debug_id_str or "")]
        assert all(event.end_time > event.start_time for event in layers)
        found.append(len(layers))
    wanted = [sum(1 for _ in level.convolutions()) for level in network.levels.values()]
    assert [count for count in found if count] == wanted
