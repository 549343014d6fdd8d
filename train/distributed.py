"""Several processes train one network: ``torchrun --nproc-per-node N -m train RECIPE``.

Every process draws the same global batch (``data.batch`` images) and takes its own slice of it. Batch
normalisation uses the statistics of the global batch, and DistributedDataParallel averages the
gradients, so N processes compute what one computes, up to the order in which floats are added.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from train.branches import MultiBranchNet
from train.quantizers import FULL_PRECISION

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; the first compilation of a large network is slow."""


@dataclass(frozen=True)
class World:
    """The processes that train together; one process alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that prints and writes files."""
        return self.rank == 0

    def device(self) -> torch.device:
        """The accelerator of this process, or the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local_rank) if self.size > 1 else torch.device("cuda")

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, the same bits in each; changes ``values``."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: object) -> bool:
        """Whether every process has an equal ``value``."""
        if self.size == 1:
            return True
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return all(v == value for v in values)

    @torch.no_grad()
    def copy_from_first(self, module: nn.Module) -> None:
        """Give every process the parameters and buffers of the first."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


@contextmanager
def join() -> Iterator[World]:
    """The world that torchrun describes in the environment, or one process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    device = world.device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # torchrun may keep one store for all attempts to run the workers: without a prefix of its own, a
    # restarted worker finds the address of one that is gone.
    store, rank, _ = next(rendezvous("env://", timeout=TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(f"attempt {attempt}", store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    try:
        yield world
    finally:
        dist.destroy_process_group()


class _Synchronised(torch.autograd.Function):
    """Normalisation of ``[N, C, H, W]`` by the statistics of all processes' batches.

    torch.nn.SyncBatchNorm has kernels for accelerators only; this is the same in plain operators.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the output, and mean, biased variance and number of elements of all batches."""
        wide = x if x.dtype == torch.float64 else x.float()
        count = float(x.numel() // x.shape[1])
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        # E[x^2] - E[x]^2 would lose the variance of a large mean in float32, but not in float64.
        variance, mean = variance.double(), mean.double()
        moments = torch.stack([mean, variance + mean**2, torch.ones_like(mean)]) * count
        dist.all_reduce(moments)
        total = moments[2, 0]
        mean = moments[0] / total
        variance = (moments[1] / total - mean**2).clamp_min(0.0)
        mean, variance = mean.to(wide.dtype), variance.to(wide.dtype)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), total)
        ctx.mark_non_differentiable(mean, variance, total)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, total = ctx.saved_tensors
        grad = grads[0].to(mean.dtype)
        normalised = (x.to(mean.dtype) - mean[:, None, None]) * inverse[:, None, None]
        sums = torch.stack([grad.sum((0, 2, 3)), (grad * normalised).sum((0, 2, 3))])
        grad_bias, grad_weight = sums.clone()  # of this process: averaged with all gradients
        dist.all_reduce(sums)
        means = (sums / total.to(sums.dtype))[:, :, None, None]
        grad_x = (grad - means[0] - normalised * means[1]) * (weight * inverse)[:, None, None]
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


class _SynchronisedOnCpu(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose batch in training mode is that of all processes."""

    synchronised = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[N, C, H, W]``."""
        if not (self.training and self.synchronised):
            return super().forward(x)
        result, mean, variance, count = _Synchronised.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps
        )
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            assert self.running_mean is not None and self.running_var is not None
            self.num_batches_tracked += 1
            # Without momentum: the mean over all batches since the last reset.
            share = self.momentum
            if share is None:
                share = 1.0 / float(self.num_batches_tracked)
            unbiased = variance * (count / (count - 1)).to(variance.dtype)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(unbiased, share)
        output: Tensor = result
        return output


class _SynchronisedOnCuda(nn.SyncBatchNorm, nn.BatchNorm2d):
    """torch's own, which still is a ``nn.BatchNorm2d`` to the rest of the code."""

    synchronised = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[N, C, H, W]``."""
        return super().forward(x) if self.synchronised else nn.BatchNorm2d.forward(self, x)


def synchronise_norms(network: nn.Module, device: torch.device) -> None:
    """Replace every ``nn.BatchNorm2d`` by one that normalises over the global batch.

    Parameters and buffers stay the same tensors under the same names.
    """
    kind = _SynchronisedOnCuda if device.type == "cuda" else _SynchronisedOnCpu
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                replacement = kind(norm.num_features, norm.eps, norm.momentum)
                replacement._parameters.update(norm._parameters)
                replacement._buffers.update(norm._buffers)
                setattr(parent, name, replacement.train(norm.training))


@contextmanager
def unsynchronised(network: nn.Module) -> Iterator[None]:
    """Within it each process normalises by its own batch, without waiting for the others."""
    norms = [
        m for m in network.modules() if isinstance(m, _SynchronisedOnCpu | _SynchronisedOnCuda)
    ]
    for norm in norms:
        norm.synchronised = False
    try:
        yield
    finally:
        for norm in norms:
            norm.synchronised = True


class _Levels(nn.Module):
    """What DistributedDataParallel wraps: one level on features that reach back to the stem."""

    def __init__(self, network: MultiBranchNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, bits: int) -> Any:
        if bits == FULL_PRECISION:
            return self.network.classify_full_precision(features)
        return self.network.classify(features, bits)


def averaging(network: MultiBranchNet) -> Callable[..., Any]:
    """A function like ``network.classify`` whose backward pass also averages all gradients.

    A step accumulates the gradients of its levels on ``network`` directly and runs the last level
    through this function, on features that are attached to the stem. Parameters that only earlier
    levels used, or none, are not waited for.
    """
    with warnings.catch_warnings():
        # The option has a new name that older versions of PyTorch do not know.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            _Levels(network), find_unused_parameters=True, broadcast_buffers=False
        )
