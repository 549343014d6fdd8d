"""What a quantised training step costs beside a plain one: ``python -m train bench [RECIPE]``.

Both sides run in this process, in turn: plain, quantised, plain, plain, quantised, plain, ... so that
a machine whose speed drifts slows both. A step is forward, backward and optimiser, on random images of
the recipe's size and batch; the plain side is one full-precision branch of the same network, of
PyTorch's own layers, with the same batch, memory layout, precision and optimiser. Nothing is taken off
either side. Compilation happens in the warm-up.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from train import accelerator, methods
from train.accelerator import Replayed, Step
from train.allocator import keep_freed_memory
from train.branches import MultiBranchNet
from train.data import generator
from train.distributed import World
from train.engine import commit
from train.loaders import IMAGENET_MEAN, IMAGENET_STD
from train.networks import NETWORKS, PlainNet
from train.optimizers import build_optimizers, clip_gradients
from train.quantizers import FULL_PRECISION, compile_quantizers
from train.recipe import Recipe, RecipeError, load_recipe

DEFAULT = ("cifar10-resnet20", ["train.precision=float32"])
WARM_UP = 2
_CLASSES = {"cifar100": 100, "imagenet": 1000}

PARTS = {
    "convolutions": ("aten::conv2d", "ConvolutionBackward0"),
    "quantisers": ("ClipUniform", "ClipUniformBackward"),
    "normalisation": (
        "aten::batch_norm",
        "NativeBatchNormBackward0",
        "CudnnBatchNormBackward0",
    ),
}
"""Events of PyTorch's profiler, none of which contains another."""


class Sides:
    """The two steps of a recipe: each call of ``quantised`` and ``plain`` trains once.

    Attributes:
        passes: branches that run in a quantised step, over all levels.

    Raises:
        RecipeError: options that do not go together.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        size = {"digits": 8, "cifar10": 32, "cifar100": 32}.get(
            recipe.data.dataset, recipe.data.size
        )
        classes = _CLASSES.get(recipe.data.dataset, 10)
        if recipe.train.compile:
            compile_quantizers()
        source = generator(recipe.seed)
        shape = (recipe.data.batch, 3, size, size)
        self.images = torch.randint(0, 256, shape, generator=source, dtype=torch.uint8)
        self.labels = torch.randint(0, classes, (recipe.data.batch,), generator=source)
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        self.recipe, self.device = recipe, device
        self.dtype = getattr(torch, recipe.train.precision)
        self.network = self._network(classes, size)
        self.passes = sum(len(branches) for branches in self.network.selection.values())
        self.optimizers = build_optimizers(recipe, self.network)
        self.plain_network = PlainNet(NETWORKS[recipe.network.name], classes).to(device)
        self.plain_network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = self.optimizers["weights"]
        self.plain_optimizer = type(weights)(self.plain_network.parameters(), **weights.defaults)
        self._backward: Step = self._eager_backward
        self._plain_backward: Step = self._eager_plain_backward

    def _network(self, classes: int, size: int) -> MultiBranchNet:
        labels = tuple(map(str, range(classes)))
        network = methods.build(self.recipe, labels, (size, size), IMAGENET_MEAN, IMAGENET_STD).to(
            self.device
        )
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        options = self.recipe.method
        methods.calibrate(network, self.images, options.weight_sigmas, options.activation_ranges)
        return network

    def quantised(self) -> None:
        """One step of the recipe's method."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        losses = self._backward(self.images, self.labels)
        clip_gradients(self.network, self.recipe.train.clip_norm)
        self.optimizers["weights"].step()
        methods.balanced_step(self.network, self.optimizers["ranges"], self.recipe.method.balance)
        methods.guard(self.network)
        torch.stack(list(losses.values())).tolist()  # training looks at every loss, too

    def plain(self) -> None:
        """One step of the plain network."""
        self.plain_optimizer.zero_grad(set_to_none=True)
        losses = self._plain_backward(self.images, self.labels)
        self.plain_optimizer.step()
        losses[FULL_PRECISION].item()

    def record(self) -> None:
        """From now on, replay the passes of both sides as CUDA graphs."""
        batch = self.images, self.labels
        self._backward = Replayed(self._eager_backward, self.network, *batch)
        self._plain_backward = Replayed(self._eager_plain_backward, self.plain_network, *batch)

    def _eager_backward(self, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        method = methods.find(self.recipe.method)
        return methods.backward(self.network, images, labels, method, self.dtype)

    def _eager_plain_backward(self, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        pixels = images.contiguous(memory_format=torch.channels_last).float() / 255.0
        # A recording outlives the cast weights that autocast would keep for the next call.
        with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32, False):
            logits: Tensor = self.plain_network(pixels)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return {FULL_PRECISION: loss.detach()}

    def seconds(self, step: Callable[[], None]) -> tuple[float, float]:
        """Wall time of one step, the device's work included, and time of all the CPU's threads."""
        self._wait()
        start = time.perf_counter(), time.process_time()
        step()
        self._wait()
        return time.perf_counter() - start[0], time.process_time() - start[1]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


Times = list[tuple[float, float]]
"""(wall, CPU) seconds of steps."""


def measure(sides: Sides, rounds: int) -> tuple[Times, Times]:
    """Every quantised and every plain step, ``rounds`` and twice as many."""
    for _ in range(WARM_UP):
        sides.quantised()
        sides.plain()
    quantised: Times = []
    plain: Times = []
    for _ in range(rounds):
        plain.append(sides.seconds(sides.plain))
        quantised.append(sides.seconds(sides.quantised))
        plain.append(sides.seconds(sides.plain))
    return quantised, plain


def shares(sides: Sides) -> dict[str, float]:
    """Share (0..1) of one quantised step that each of ``PARTS`` and the rest take.

    On a GPU these are shares of the time in which it computes.
    """
    gpu = sides.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    sides.quantised()
    with profile(activities=activities) as recorded:
        total, _ = sides.seconds(sides.quantised)
    events = recorded.key_averages()

    def seconds(event: object, own: bool = False) -> float:
        kind = "device" if gpu else "cpu"
        value: float = getattr(event, f"{'self_' if own else ''}{kind}_time_total")
        return value * 1e-6

    if gpu:
        total = sum(seconds(event, own=True) for event in events)
    found = {
        part: sum(seconds(event) for event in events if event.key in names) / total
        for part, names in PARTS.items()
    }
    return found | {"rest": 1.0 - sum(found.values())}


def _ninetieth(values: list[float]) -> float:
    return statistics.quantiles(values, n=10, method="inclusive")[-1] if values[1:] else values[0]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _report(sides: Sides, quantised: Times, plain: Times) -> list[str]:
    recipe = sides.recipe
    ratio, cpu_ratio = (
        statistics.median(q[clock] for q in quantised) / statistics.median(p[clock] for p in plain)
        for clock in (0, 1)
    )
    levels = " ".join(map(str, recipe.method.bits))
    accelerator = (
        torch.cuda.get_device_name(sides.device) if sides.device.type == "cuda" else "none"
    )
    lines = [
        f"{recipe.method.name} {levels} on {recipe.network.name}, batch {recipe.data.batch}, "
        f"{recipe.train.precision}, quantisers {'compiled' if recipe.train.compile else 'eager'}"
        f"{', both sides as CUDA graphs' if recipe.train.cuda_graph else ''}",
        f"ratio           {ratio:.2f}  ({sides.passes} branch passes, {ratio / sides.passes:.2f} each)",
        f"CPU time ratio  {cpu_ratio:.2f}  (without waiting for other programs, or for a GPU)",
    ]
    for name, times in (("quantised step", quantised), ("plain step", plain)):
        wall = [t[0] for t in times]
        lines.append(
            f"{name:15} median {statistics.median(wall):.4f} s, p90 {_ninetieth(wall):.4f} s,"
            f" {len(wall)} steps"
        )
    lines += [
        f"CPU             {_processor()}, {torch.get_num_threads()} threads",
        f"accelerator     {accelerator}",
        f"torch           {torch.__version__}",
        f"commit          {commit()}",
    ]
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure, print; returns the exit code (0 done, 2 bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m train bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recipe", nargs="?", help=f"a recipe file or name (default: {DEFAULT[0]} in float32)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key"
    )
    parser.add_argument("--rounds", type=int, default=10, help="quantised steps to time")
    parser.add_argument(
        "--profile", action="store_true", help="also print what the step's time goes to"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    keep_freed_memory()  # as training does, for both sides
    overrides = options.set if options.recipe else [*DEFAULT[1], *options.set]
    try:
        recipe = load_recipe(options.recipe or DEFAULT[0], overrides)
        device = World().device()
        accelerator.prepare(device)
        accelerator.check(recipe.train, device)
        sides = Sides(recipe, device)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = shares(sides) if options.profile else {}  # of passes that are not replayed
    if recipe.train.cuda_graph:
        sides.record()
    print("\n".join(_report(sides, *measure(sides, options.rounds))))
    if found:
        print(
            "".join(f"{part:15} {share:6.1%} of the step\n" for part, share in found.items()),
            end="",
        )
        served = 1.0 - found["quantisers"]
        print(f"quantisers cost {found['quantisers'] / served:.1%} of the passes they serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
