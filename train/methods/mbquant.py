"""MBQuant (Zhong et al., Pattern Recognition 2025): joint training of all levels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from train.branches import MultiBranchNet
from train.quantizers import BranchConv


def calibrate(network: MultiBranchNet, images: Tensor, weight_sigmas: float) -> None:
    """Start all clipping ranges from data, before the first quantised step.

    Weights: +- ``weight_sigmas`` standard deviations of the branch's whole weight tensor.
    Activations: minimum, and three sigma of a half-normal distribution, each layer on activations
    that already passed the quantised layers before it. Batch normalisation starts from the
    full-precision gamma and beta and uses batch statistics meanwhile.
    """
    network.train()
    for norm in network.norms():
        norm.start_from_full_precision()
    for conv in network.convolutions():
        conv.calibrate_weights(weight_sigmas)
        conv.calibrating = True
    with torch.no_grad():
        features = network.stem(images)
        for bits in network.bits:
            network.classify(features, bits)
    for conv in network.convolutions():
        conv.calibrating = False


def backward(
    network: MultiBranchNet,
    images: Tensor,
    labels: Tensor,
    distillation: bool,
    dtype: torch.dtype = torch.float32,
) -> dict[int, Tensor]:
    """Accumulate the gradients of every level for one batch; returns each level's loss.

    Levels run from the highest down. The highest learns from labels; the others from the mean of
    cross-entropy with the labels and with the detached softmax of the highest (in-place
    distillation). Gradients are summed over levels; the shared stem runs once.
    """
    features = network.stem(images)
    leaf = features.detach().requires_grad_()
    losses: dict[int, Tensor] = {}
    teacher: Tensor | None = None
    for bits in sorted(network.bits, reverse=True):
        logits = network.classify(leaf.to(dtype), bits)
        loss = _loss(logits, labels, teacher)
        if teacher is None and distillation:
            teacher = logits.detach().softmax(1)
        loss.backward()  # type: ignore[no-untyped-call]
        losses[bits] = loss.detach()
    features.backward(leaf.grad)
    return losses


def backward_full_precision(
    network: MultiBranchNet,
    images: Tensor,
    labels: Tensor,
    distillation: bool,
    dtype: torch.dtype = torch.float32,
) -> dict[int, Tensor]:
    """The same with quantisers off, for pretraining: each branch runs once for all levels."""
    logits = network.classify_full_precision(network.stem(images).to(dtype))
    top = max(logits)
    teacher = logits[top].detach().softmax(1) if distillation else None
    losses = {b: _loss(z, labels, None if b == top else teacher) for b, z in logits.items()}
    total = torch.stack(list(losses.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    return {b: loss.detach() for b, loss in losses.items()}


def _loss(logits: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    hard = F.cross_entropy(logits, labels)
    if teacher is None:
        return hard
    return 0.5 * hard + 0.5 * F.cross_entropy(logits, teacher)


def guard(network: MultiBranchNet) -> None:
    """To be called after every optimiser step: keeps every clipping range open."""
    for conv in network.convolutions():
        conv.guard_ranges()


@torch.no_grad()
def copy_full_precision(
    network: MultiBranchNet, state: dict[str, Tensor], noise: float, source: torch.Generator
) -> None:
    """Start every branch from one full-precision network of the same body.

    ``state`` uses the names ``conv1, bn1, layerK.I.conv1, ..., fc``. Parameter-free shortcuts have
    no counterpart, so the 1x1 projections keep their random start. A share ``noise`` (in variance)
    of every convolution is fresh noise of the tensor's own scale: branches that start equal and are
    always used together would otherwise stay equal for ever.
    """
    network.stem.conv.weight.copy_(state["conv1.weight"])
    network.classifier.weight.copy_(state["fc.weight"])
    network.classifier.bias.copy_(state["fc.bias"])
    _copy_norm(network.stem.bn, state, "bn1")
    per_stage = len(network.branches[0].blocks) // 3  # type: ignore[arg-type]
    for body in network.branches:
        for index, block in enumerate(body.blocks):  # type: ignore[arg-type]
            prefix = f"layer{index // per_stage + 1}.{index % per_stage}"
            for name in ("conv1", "conv2"):
                conv: BranchConv = getattr(block, name)
                weight = state[f"{prefix}.{name}.weight"]
                fresh = torch.randn(weight.shape, generator=source) * weight.std()
                mixed = (1.0 - noise) ** 0.5 * weight + noise**0.5 * fresh
                conv.weight.copy_(mixed)
            _copy_norm(block.bn1.norms["full"], state, f"{prefix}.bn1")
            _copy_norm(block.bn2.norms["full"], state, f"{prefix}.bn2")


def _copy_norm(norm: torch.nn.BatchNorm2d, state: dict[str, Tensor], prefix: str) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).copy_(state[f"{prefix}.{name}"])
