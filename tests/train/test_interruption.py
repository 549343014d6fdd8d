"""Runs that end before they are done: kills, signals, time limits, full disks, too little memory."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_networks import SHORT_RUN as SMALL

from train.__main__ import main
from train.checkpoint import CHECKPOINT, TrainingError, write_beside
from train.engine import Paused, Trainer
from train.recipe import load_recipe

OVERRIDES = [part for pair in SMALL for part in ("--set", pair)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    Trainer(load_recipe("digits", SMALL), folder).run()
    return folder


def assert_equal_runs(folder: Path, expected: Path) -> None:
    """Bit for bit: weights, statistics, ranges, and the state of both optimisers."""
    ours, theirs = load_file(folder / CHECKPOINT), load_file(expected / CHECKPOINT)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    files = sorted(path.name for path in folder.iterdir())
    assert set(files) <= {CHECKPOINT, "recipe.toml", "report.json", "curves.png"}, files


def test_killed_at_random_moments(tmp_path: Path, uninterrupted: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train.__main__"])
    checkpoint = tmp_path / CHECKPOINT
    moments = random.Random(4)
    kills = 0
    for _ in range(6):
        run = context.Process(target=main, args=(["digits", "--out", str(tmp_path), *OVERRIDES],))
        written = _written(checkpoint)
        run.start()
        if kills < 4:
            # After one or two checkpoints, at any point of the steps and writes that follow.
            for _ in range(moments.choice([1, 2])):
                while run.is_alive() and _written(checkpoint) == written:
                    time.sleep(0.001)
                written = _written(checkpoint)
            time.sleep(moments.uniform(0.0, 0.05))
            run.kill()
        run.join()
        kills += run.exitcode == -signal.SIGKILL
        assert sum(path.name.endswith(".new") for path in tmp_path.iterdir()) <= 1
        if (tmp_path / "report.json").exists():
            break
    assert kills >= 3
    assert_equal_runs(tmp_path, uninterrupted)


def _written(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def test_sigterm_saves_and_says_so(tmp_path: Path, uninterrupted: Path) -> None:
    overrides = [*OVERRIDES, "--set", "train.checkpoint_minutes=1000"]
    command = [sys.executable, "-m", "train", "digits", "--out", str(tmp_path), *overrides]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    run.stderr.readline()  # the first step
    run.send_signal(signal.SIGTERM)
    messages = run.stderr.read()
    assert run.wait() == 143
    assert "the same command continues" in messages
    assert Trainer(load_recipe("digits", SMALL), tmp_path).progress.step > 0
    assert main(["digits", "--out", str(tmp_path), *OVERRIDES]) == 0
    assert_equal_runs(tmp_path, uninterrupted)


def test_until_stops_at_a_checkpoint(
    tmp_path: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = 0
    while not (tmp_path / "report.json").exists():
        command = ["digits", "--out", str(tmp_path), *OVERRIDES, "--until", "0.004"]
        assert main(command) == 0
        printed = capsys.readouterr()
        pieces += 1
        if not (tmp_path / "report.json").exists():
            assert "the same command continues" in printed.err
            assert "accuracy" not in printed.out
    assert pieces > 2
    assert_equal_runs(tmp_path, uninterrupted)
    assert main(["digits", "--out", str(tmp_path), "--until", "0"]) == 2


def test_full_disk_keeps_the_previous_file(tmp_path: Path) -> None:
    """A real limit on the size of files, which ends a write half-way."""
    program = """
        import resource, sys
        from pathlib import Path
        from train.__main__ import main
        folder = Path(sys.argv[1])
        assert main([*sys.argv[2:], "--until", "0.0001"]) == 0
        before = (folder / "checkpoint.safetensors").read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))
        assert main(sys.argv[2:]) == 1
        assert (folder / "checkpoint.safetensors").read_bytes() == before
    """
    arguments = ["digits", "--out", str(tmp_path), *OVERRIDES]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), *arguments],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "checkpoint.safetensors: cannot be written (File too large)" in result.stderr
    assert sorted(os.listdir(tmp_path)) == [CHECKPOINT, "recipe.toml"]


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / ".file.new").write_bytes(b"left over from a kill, and longer")
    write_beside(path, b"first")
    write_beside(path, b"second")
    assert path.read_bytes() == b"second" and os.listdir(tmp_path) == ["file"]
    with pytest.raises(TrainingError, match="cannot be written .No such file"):
        write_beside(tmp_path / "nowhere" / "file", b"")


def test_too_little_memory_names_a_batch_that_fits(tmp_path: Path) -> None:
    """PyTorch's allocator refuses what batches of more than 100 images need besides; under a limit
    of the process's memory, other allocations than tensors would fail as well."""

    def ask(stem: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if len(inputs[0]) > 100 and torch.is_grad_enabled():
            torch.empty(2**55, dtype=torch.uint8)  # more than there are addresses

    def trainer(batch: int) -> Trainer:
        settings = [*SMALL, "pretrain.epochs=0", f"data.batch={batch}"]
        made = Trainer(load_recipe("digits", settings), tmp_path / str(batch), until=1e-9)
        made.network.stem.register_forward_pre_hook(ask)
        return made

    with pytest.raises(TrainingError) as error:
        trainer(256).run()
    message = str(error.value)
    assert message.startswith(
        "data.batch: a batch of 256 images does not fit into memory in quantised epoch 1, step 1 ("
    )
    assert "; 64 would: --set data.batch=64, " in message
    assert message.endswith(f"The last checkpoint in {tmp_path / '256'} is still good")
    kept = Trainer(load_recipe("digits", [*SMALL, "pretrain.epochs=0"]), tmp_path / "256").progress
    assert (kept.phase, kept.epoch, kept.step) == ("quantised", 0, 0)
    with pytest.raises(Paused):
        trainer(64).run()


def test_too_little_memory_outside_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.methods.calibrate", lambda *_: torch.empty(2**55))
    arguments = ["digits", "--out", str(tmp_path), *OVERRIDES, "--set", "pretrain.epochs=0"]
    assert main(arguments) == 1
    assert "lower data.batch or method.calibration_images" in capsys.readouterr().err


def test_damaged_checkpoint_is_refused(tmp_path: Path, uninterrupted: Path) -> None:
    recipe = load_recipe("digits", SMALL)
    for name in ("recipe.toml", CHECKPOINT):
        (tmp_path / name).write_bytes((uninterrupted / name).read_bytes()[:100_000])
    with pytest.raises(Exception, match="damaged"):
        Trainer(recipe, tmp_path)
