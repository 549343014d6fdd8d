"""The benchmark runs both sides; what it measures is nobody's test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from export import bench
from train.networks import NETWORKS, PlainNet

MODELS = Path(__file__).parents[2] / "edge_app" / "assets" / "models"


def test_every_level_stands_beside_the_baseline() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "export.bench", str(MODELS / "digits.pte"), "--rounds", "10"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    for name in ("XNNPACK int8", "2 bits", "4 bits", "6 bits", "8 bits"):
        line = next(line for line in result.stdout.splitlines() if name in line)
        assert float(line.split("│")[3]) > 0
    for detail in ("thread(s)", "kernels", "commit"):
        assert detail in result.stdout


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "export.bench", str(tmp_path / "none.pte")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "none.pte: No such file" in result.stderr


def test_the_baseline_is_the_network_of_one_branch() -> None:
    network = PlainNet(NETWORKS["resnet20"], 10)
    weights = sum(
        m.weight.numel() for m in network.body.modules() if isinstance(m, torch.nn.Conv2d)
    )
    assert weights == 269_824, "as many as one branch of the multi-branch network"
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_sides_take_turns_and_warm_up_calls_do_not_count() -> None:
    calls: list[str] = []
    seconds = bench.measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 5)
    assert calls == ["a", "b"] * (bench.WARM_UP + 5)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 5, "b": 5}
    assert np.all(np.concatenate(list(seconds.values())) > 0)
