"""Two gloo processes under torchrun against one process, with the same global batch.

This file is also the program that torchrun starts for the checks below.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist

from train import distributed, methods
from train.data import Batches, load_dataset
from train.engine import build_network
from train.quantizers import FULL_PRECISION
from train.recipe import load_recipe

ROOT = Path(__file__).parents[2]


def torchrun(*arguments: str, restarts: int = 0) -> list[str]:
    """The command that starts two processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return [*launcher, f"--max-restarts={restarts}", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def _norms(world: distributed.World) -> None:
    """Outputs, gradients and running statistics are those of one process with the whole batch."""
    source = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    # Mean and spread of integer accumulators; later batches follow other statistics.
    batches = [100.0 + 20.0 * (n + 1) * draw(6, 3, 4, 5) for n in range(3)]
    targets = [draw(6, 3, 4, 5) for _ in range(3)]
    for momentum in (0.1, None):
        whole = nn.Sequential(nn.BatchNorm2d(3, 1e-3, momentum)).double()
        with torch.no_grad():
            whole[0].weight.copy_(draw(3))
            whole[0].bias.copy_(draw(3))
        parts = copy.deepcopy(whole)
        distributed.synchronise_norms(parts, torch.device("cpu"))
        parts.double()
        assert isinstance(parts[0], nn.BatchNorm2d) and type(parts[0]) is not nn.BatchNorm2d
        for batch, target in zip(batches, targets, strict=True):
            x, slice_ = batch.clone().requires_grad_(), world.share(batch).clone().requires_grad_()
            output, part = whole(x), parts(slice_)
            (output * target).sum().backward()
            (part * world.share(target)).sum().backward()
            torch.testing.assert_close(part, world.share(output))
            assert x.grad is not None
            torch.testing.assert_close(slice_.grad, world.share(x.grad))
        for parameter, expected in zip(parts.parameters(), whole.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(world.sum(parameter.grad), expected.grad)
        torch.testing.assert_close(parts.state_dict(), whole.state_dict())
        with distributed.unsynchronised(parts):
            whole.train(), torch.testing.assert_close(parts(batches[0]), whole(batches[0]))
        if world.first:  # nobody else comes: a collective would hang
            parts.eval(), parts(batches[0])
        parts.train()


def _gradients(world: distributed.World) -> None:
    """Every gradient is the mean over processes of what each accumulated, bit for bit."""
    recipe = load_recipe("digits", ["data.batch=32"])
    dataset = load_dataset(recipe.data, "train")
    network = build_network(recipe, dataset)
    images, labels = Batches(dataset, recipe.data, recipe.seed, torch.device("cpu")).get(0, 0)
    method = methods.find(recipe.method)
    methods.calibrate(network, images, recipe.method.weight_sigmas)
    distributed.synchronise_norms(network, torch.device("cpu"))
    averaging = distributed.averaging(network)
    images, labels = world.share(images), world.share(labels)

    def collect() -> dict[str, Tensor]:
        found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        network.zero_grad()
        return found

    for _ in range(2):  # the second time, DistributedDataParallel knows its buckets
        methods.backward(network, images, labels, method)
        own = collect()
        methods.backward(network, images, labels, method, classify_last=averaging)
        averaged = collect()
        assert own.keys() == averaged.keys() and any(".norms.8." in name for name in own)
        for name, grad in own.items():
            assert torch.equal(averaged[name], world.sum(grad / 2)), name
        methods.backward_full_precision(network, images, labels, method)
        own = collect()
        full = partial(averaging, bits=FULL_PRECISION)
        methods.backward_full_precision(network, images, labels, method, classify=full)
        averaged = collect()
        assert own.keys() == averaged.keys() and not any(".norms.8." in name for name in own)
        for name, grad in own.items():
            assert torch.equal(averaged[name], world.sum(grad / 2)), name


def test_norms_and_gradients_equal_one_process() -> None:
    command = torchrun(__file__)
    result = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    with distributed.join() as this_world:
        assert this_world.size == 2 and dist.get_backend() == "gloo"
        _norms(this_world)
        _gradients(this_world)
