"""What all methods share: joint training of every level on every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from train.branches import MultiBranchNet, SwitchableBatchNorm
from train.methods.spec import Method
from train.networks import BasicBlock, Body
from train.networks.resnet import PreActivationBlock
from train.quantizers import FULL_PRECISION, MIN_RANGE, QuantizedConv


def calibrate(
    network: MultiBranchNet,
    images: Tensor | None,
    weight_sigmas: float,
    activation_ranges: str = "three-sigma",
) -> None:
    """Start all clipping ranges from data, before the first quantised step.

    Weights: +- ``weight_sigmas`` standard deviations of the branch's whole weight tensor.
    Activations: minimum, and three sigma of a half-normal distribution ("three-sigma") or as many as
    leave the level's codes the least squared error ("least-squares"), each layer on activations that
    already passed the quantised layers before it. Batch normalisation starts from the
    full-precision gamma and beta and uses batch statistics meanwhile. Without images, activation
    ranges keep the method's constants.
    """
    network.train()
    for norm in network.norms():
        norm.start_from_full_precision()
    for conv in network.convolutions():
        conv.calibrate_weights(weight_sigmas)
    if images is None:
        return
    for conv in network.convolutions():
        conv.calibrating = activation_ranges
    with torch.no_grad():
        features = network.stem(images)
        for bits in network.bits:
            network.classify(features, bits)
    for conv in network.convolutions():
        conv.calibrating = ""


def backward(
    network: MultiBranchNet,
    images: Tensor,
    labels: Tensor,
    method: Method,
    dtype: torch.dtype = torch.float32,
    guide: Tensor | None = None,
    classify_last: Callable[[Tensor, int], Tensor] | None = None,
) -> dict[int, Tensor]:
    """Accumulate the gradients of every level for one batch; returns each level's loss.

    Levels run from the highest down. The highest learns from labels, the others also from the
    detached softmax of the method's teacher. Gradients are summed over levels; the shared stem runs
    once, and its gradient is computed with the last level's.

    Args:
        images: ``[N, 3, H, W]`` in 0..255; labels: int64 ``[N]``.
        dtype: of the bodies' activations.
        guide: class probabilities ``[N, classes]`` of an external teacher: the highest level then
            learns from it as well, and the others from the mean of both teachers.
        classify_last: runs the lowest level in place of ``network.classify``; what wraps it sees a
            graph that reaches the stem.
    """
    features = network.stem(images)
    leaf = features.detach().requires_grad_()
    features.register_hook(lambda grad: grad if leaf.grad is None else grad + leaf.grad)
    losses: dict[int, Tensor] = {}
    teacher: Tensor | None = None
    levels = sorted(network.bits, reverse=True)
    for bits in levels:
        last = bits == levels[-1]
        classify = classify_last if last and classify_last else network.classify
        logits = classify((features if last else leaf).to(dtype), bits)
        loss = _loss(logits, labels, _target(teacher, guide), method.soft or 0.5)
        if method.teacher == "next" or (method.teacher == "highest" and teacher is None):
            teacher = logits.detach().softmax(1)
        loss.backward()  # type: ignore[no-untyped-call]
        losses[bits] = loss.detach()
    return losses


def backward_full_precision(
    network: MultiBranchNet,
    images: Tensor,
    labels: Tensor,
    method: Method,
    dtype: torch.dtype = torch.float32,
    classify: Callable[[Tensor], dict[int, Tensor]] | None = None,
) -> dict[int, Tensor]:
    """The same with quantisers off, for pretraining: each branch runs once for all levels."""
    logits = (classify or network.classify_full_precision)(network.stem(images).to(dtype))
    top = max(logits)
    teacher = None if method.teacher == "none" else logits[top].detach().softmax(1)
    losses: dict[int, Tensor] = {}
    distinct: dict[tuple[tuple[int, bool], ...], Tensor] = {}
    for bits in sorted(logits, reverse=True):
        # Levels that run the same branches are one network without their quantisers, with one loss.
        subset = tuple((j, network.is_half(j, bits)) for j in network.selection[bits])
        if subset not in distinct:
            target = None if bits == top else teacher
            distinct[subset] = _loss(logits[bits], labels, target, 0.5)
        losses[bits] = distinct[subset].detach()
    total = torch.stack(list(distinct.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    return losses


def _target(teacher: Tensor | None, guide: Tensor | None) -> Tensor | None:
    if teacher is None or guide is None:
        return guide if teacher is None else teacher
    return 0.5 * (teacher + guide)


def _loss(logits: Tensor, labels: Tensor, target: Tensor | None, soft: float) -> Tensor:
    hard = F.cross_entropy(logits, labels)
    if target is None:
        return hard
    return (1.0 - soft) * hard + soft * F.cross_entropy(logits, target)


@torch.no_grad()
def guard(network: MultiBranchNet) -> None:
    """To be called after every optimiser step: keeps every clipping range open."""
    ranges = [pair for conv in network.convolutions() for pair in conv.ranges()]
    lower, upper = [pair[0] for pair in ranges], [pair[1] for pair in ranges]
    # All at once: hundreds of tiny tensors, each a kernel or two on a GPU.
    torch._foreach_maximum_(upper, torch._foreach_add(lower, MIN_RANGE))


@torch.no_grad()
def balanced_step(
    network: MultiBranchNet, optimizer: torch.optim.Optimizer, balance: float
) -> None:
    """Step the quantisers' optimiser, each level with a learning rate of its own.

    From the highest level down, every two bits multiply the update of what belongs to one level by
    ``balance``: at low bit-widths the quantisers' gradients are about ten times larger (Double
    Rounding, arXiv 2502.01199). Adam undoes a scale of its gradients, so updates are scaled instead.
    """
    if balance == 1.0:
        optimizer.step()
        return
    top = max(network.bits)
    own = [
        (parameter, conv.bits)
        for conv in network.convolutions()
        for parameter in conv.level_parameters()
    ]
    before = [parameter.clone() for parameter, _ in own]
    optimizer.step()
    for (parameter, bits), old in zip(own, before, strict=True):
        factors = torch.tensor([balance ** ((top - b) / 2) for b in bits], device=old.device)
        factors = factors.reshape(-1, *[1] * (old.ndim - 1))
        parameter.copy_(old + factors * (parameter - old))


@torch.no_grad()
def copy_full_precision(
    network: MultiBranchNet, state: dict[str, Tensor], noise: float, source: torch.Generator
) -> None:
    """Start every branch from one full-precision network of the same body.

    ``state`` uses the names ``conv1, bn1, layerK.I.conv1, ..., fc``. Parameter-free shortcuts have
    no counterpart, so the 1x1 projections keep their random start, and so do half branches'
    normalisations. A share ``noise`` (in variance) of every convolution is fresh noise of the
    tensor's own scale: branches that start equal and are always used together would otherwise stay
    equal for ever.

    Raises:
        KeyError, RuntimeError: tensors that are missing or of another shape.
    """
    copies = network.stem.conv.out_channels // network.stem_channels
    network.stem.conv.weight.copy_(state["conv1.weight"].repeat(copies, 1, 1, 1))
    network.classifier.weight.copy_(state["fc.weight"])
    network.classifier.bias.copy_(state["fc.bias"])
    if network.stem.bn is not None:
        _copy_norm(network.stem.bn, state, "bn1", copies)
    for body in network.branches:
        for block, prefix in _stages(body):
            for name in ("conv1", "conv2"):
                conv = getattr(block, name)
                weight = state[f"{prefix}.{name}.weight"]
                mixed = weight
                if noise > 0:
                    fresh = torch.randn(weight.shape, generator=source) * weight.std()
                    mixed = (1.0 - noise) ** 0.5 * weight + noise**0.5 * fresh
                conv.weight.copy_(mixed)
            # In pre-activation order a normalisation follows another tensor than in the source.
            if isinstance(block, BasicBlock):
                for name in ("bn1", "bn2"):
                    norm = cast(SwitchableBatchNorm, getattr(block, name))
                    _copy_norm(norm.select(FULL_PRECISION), state, f"{prefix}.{name}")


def _stages(body: torch.nn.Module) -> Iterator[tuple[BasicBlock | PreActivationBlock, str]]:
    """Blocks with the names that ``layerK.I`` gives them: a stage begins where the width changes."""
    stage, index, width = 0, 0, 0
    for block in cast(Body, body).blocks:
        if not isinstance(block, (BasicBlock, PreActivationBlock)):
            raise RuntimeError("only residual networks have names to start from")
        shape = cast(QuantizedConv, block.conv1).shape
        if shape.out_channels != width:
            stage, index, width = stage + 1, 0, shape.out_channels
        yield block, f"layer{stage}.{index}"
        index += 1


def _copy_norm(
    norm: torch.nn.BatchNorm2d, state: dict[str, Tensor], prefix: str, copies: int = 1
) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).copy_(state[f"{prefix}.{name}"].repeat(copies))
