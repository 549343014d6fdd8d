"""The benchmark of training steps runs and prints what it should; its figures are not judged."""

from __future__ import annotations

import re

import pytest
import torch

from train import bench
from train.recipe import load_recipe


def test_prints_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["digits", "--set", "data.batch=8", "--rounds", "2", "--profile"]
    assert bench.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "mbquant 2 4 6 8 on resnet8, batch 8, float32, quantisers eager" in printed
    fields = dict(re.findall(r"^(ratio|CPU time ratio) +([\d.]+) ", printed, re.M))
    steps = re.findall(
        r"^(\w+) step +median ([\d.]+) s, p90 ([\d.]+) s, (\d+) steps", printed, re.M
    )
    assert [(name, count) for name, _, _, count in steps] == [("quantised", "2"), ("plain", "4")]
    for _, median, ninetieth, _ in steps:
        assert 0 < float(median) <= float(ninetieth)
    medians = [float(median) for _, median, _, _ in steps]
    assert float(fields["ratio"]) == pytest.approx(medians[0] / medians[1], rel=0.1)
    assert float(fields["CPU time ratio"]) > 0
    assert "(10 branch passes" in printed
    assert f"{torch.get_num_threads()} threads" in printed and torch.__version__ in printed
    assert re.search(r"^commit +\w+", printed, re.M) and "accelerator" in printed
    parts = re.findall(r"^(\w+) +([\d.]+)% of the step", printed, re.M)
    assert [part for part, _ in parts] == ["convolutions", "quantisers", "normalisation", "rest"]
    assert sum(float(share) for _, share in parts) == pytest.approx(100, abs=0.3)
    assert all(float(share) > 0 for _, share in parts)
    cost = re.search(r"quantisers cost ([\d.]+)% of the passes", printed)
    quantisers = float(parts[1][1])
    assert cost and float(cost[1]) == pytest.approx(100 * quantisers / (100 - quantisers), abs=0.2)


def test_both_sides_train() -> None:
    recipe = load_recipe("digits", ["data.batch=8", "train.precision=bfloat16"])
    sides = bench.Sides(recipe, torch.device("cpu"))
    for network, step in (
        (sides.network, sides.quantised),
        (sides.plain_network, sides.plain),
    ):
        before = [p.clone() for p in network.parameters()]
        step()
        moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
        # Full-precision normalisations and untrained ranges keep still in a quantised step.
        assert sum(moved) > len(moved) / 2
    body = sum(p.numel() for p in sides.plain_network.body.parameters() if p.ndim == 4)
    convolutions = list(sides.network.convolutions())
    assert body * 4 == sum(conv.weight.numel() for conv in convolutions)


def test_bad_input_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["nothing"]) == 2
    assert "no such recipe" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench.main(["--rounds", "0"])
    assert "--rounds: expected 1 or more" in capsys.readouterr().err
