"""What a GPU needs beyond PyTorch's defaults: the same bits every time, and steps without launches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from train.checkpoint import TrainingError
from train.recipe import OptimRecipe, RecipeError

Step = Callable[[Tensor, Tensor], dict[int, Tensor]]
"""(images, labels) -> losses: the forward and backward pass of a training step."""

WARM_UP = 3
"""Runs before recording, in which libraries choose their kernels and compilers write theirs."""
TOLERANCE = 1e-3


def prepare(device: torch.device) -> None:
    """Make a GPU repeat itself bit for bit, so that a run in pieces is the whole run.

    The stem's 16-bit weights need float32 as it is: TF32 would keep 10 bits of them and of the pixels.
    Bodies are no slower for it, they compute in ``train.precision``.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False


def check(options: OptimRecipe, device: torch.device, processes: int = 1) -> None:
    """Refuse a recipe that needs another machine.

    Raises:
        RecipeError: says which key.
    """
    if options.cuda_graph and (device.type != "cuda" or processes > 1):
        found = f"{processes} processes on {device.type}"
        raise RecipeError(
            f"train.cuda_graph: needs one process on one CUDA device (here: {found}); leave it out"
        )


class Replayed:
    """A training step's forward and backward pass as one CUDA graph.

    A quantised step of a small network is thousands of kernels of a few microseconds each, which
    Python launches more slowly than they run. Recorded once, one call replays them all.

    The recording holds the addresses of parameters, buffers and gradients: these may change in place
    only, as optimisers, running statistics and ``load_state_dict`` do. Warming up leaves no trace in
    the network, so that a run may be recorded again wherever it continues.

    Args:
        step: its gradients go into the parameters; it neither asks the device for values nor brings
            any from the host.
        network: whose parameters and buffers ``step`` changes.
        images, labels: of the first batch; all others have its shape.

    Raises:
        TrainingError: the recording does not repeat what the step itself computes.
    """

    def __init__(self, step: Step, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.clone(), labels.clone()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                network.zero_grad(set_to_none=True)
                step(self.images, self.labels)
        torch.cuda.current_stream().wait_stream(side)
        expected = [p.grad for p in network.parameters()]
        # Without gradients, the backward pass creates those that every replay fills anew.
        network.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        # Another thread may pin the memory of a batch meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.losses = step(self.images, self.labels)
        self.gradients = [(p, p.grad) for p in network.parameters()]
        self.graph.replay()
        if not same_gradients(expected, [gradient for _, gradient in self.gradients]):
            raise TrainingError(
                "train.cuda_graph: the recorded step has other gradients than the step itself; leave it"
                " out (it changes no result, so the same command then continues)"
            )
        network.load_state_dict(before)

    def __call__(self, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        """The step's losses for a batch: tensors that the next call overwrites."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.losses


@torch.no_grad()
def same_gradients(expected: list[Tensor | None], found: list[Tensor | None]) -> bool:
    """Whether the same parameters have gradients, and equal ones up to ``TOLERANCE`` of their norm."""
    for ours, theirs in zip(expected, found, strict=True):
        if ours is None or theirs is None:
            if ours is not theirs:
                return False
        # Written so that a NaN differs.
        elif not (ours - theirs).norm() <= TOLERANCE * ours.norm():
            return False
    return True
