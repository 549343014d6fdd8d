"""Every method on every network memorises 64 images: ``python tests/train/overfit.py``.

Prints a row for each pair: accuracy of every level, steps, seconds of this thread's CPU time.
``--method`` and ``--network`` choose some. Exit code 1: a level that should know all 64 images does not.

A network that computes something else than its gradients say does not get there; ``test_overfit.py`` runs
the quick pairs. Large networks have a quarter of their width.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import torch
from small_networks import build, digits, narrowed
from torch import Tensor

from train import methods
from train.branches import MultiBranchNet
from train.networks import NETWORKS
from train.optimizers import clip_gradients, decay
from train.recipe import MethodRecipe

METHODS = {
    "mbquant": MethodRecipe(weight_sigmas=1.494),
    "mbquant-234": MethodRecipe(bits=(2, 3, 4), weight_sigmas=1.494),
    "dedicated": MethodRecipe("dedicated", (2,), weight_sigmas=1.494),
    "any-precision": MethodRecipe("any-precision"),
    "adabits-centre": MethodRecipe("adabits"),
    "adabits-floor": MethodRecipe("adabits", quantizer="floor"),
    "hot-swap": MethodRecipe(
        "hot-swap", (1, 2, 3, 4, 5, 6, 7, 8), activation_ranges="least-squares"
    ),
}


PRETRAINING = 40
"""Steps with quantisers off. From random weights deep networks and 1 bit take far longer, or for ever."""
STEPS = 1000
LEARNING_RATE = 0.03
RANGES_LEARNING_RATE = 1e-3
CLIP_NORM = 5.0
"""Of the weights' gradients, which otherwise grow to a million in deep networks at 1 bit."""
SETTLING = {("hot-swap", "mobilenetv1"): 200}
"""Steps over which rates fall to zero, as in recipes; then only the classifier learns. Elsewhere rates stay,
so that only a body that learns gets there. Through 27 layers without shortcuts codes of 1 and 2 bits flip
for as long as weights move, and the last layer sees other features in every step."""


@dataclass(frozen=True)
class Outcome:
    """Attributes: accuracy (0..1) of each level after so many steps, with the batch's own statistics."""

    accuracy: dict[int, float]
    steps: int
    seconds: float


def able(method: str, network: str) -> tuple[int, ...]:
    """Levels that can memorise: all but 2 bits of the floor quantiser (docs/training.md shows why)."""
    bits = METHODS[method].bits
    return tuple(b for b in bits if b >= 4) if method == "adabits-floor" else bits


def memorise(method: str, network: str) -> Outcome:
    """Train a pair as recipes do, until every level that can knows every image, or steps run out."""
    recipe = METHODS[method]
    with narrowed(network) as side:
        images, labels = digits(64, side)
        net = build(recipe, network, side)
    chosen, levels = methods.find(recipe), able(method, network)
    start = time.thread_time()
    model = torch.optim.SGD(net.model_parameters(), lr=LEARNING_RATE, momentum=0.9)
    for _ in range(PRETRAINING):
        model.zero_grad()
        methods.backward_full_precision(net, images, labels, chosen)
        model.step()
    model.state.clear()
    methods.calibrate(net, images, recipe.weight_sigmas, recipe.activation_ranges)
    settling = SETTLING.get((method, network), 0)
    ranges = torch.optim.Adam([{"params": net.range_parameters()}], lr=RANGES_LEARNING_RATE)
    for step in range(STEPS):
        if step < settling:
            share = decay("cosine", step / settling)
            model.param_groups[0]["lr"] = LEARNING_RATE * share
            ranges.param_groups[0]["lr"] = RANGES_LEARNING_RATE * share
        elif step == settling > 0:
            model = torch.optim.SGD(net.classifier.parameters(), lr=LEARNING_RATE, momentum=0.9)
        model.zero_grad()
        ranges.zero_grad()
        methods.backward(net, images, labels, chosen)
        if step >= settling > 0:
            net.branches.zero_grad()
            net.stem.zero_grad()
        clip_gradients(net, CLIP_NORM)
        model.step()
        ranges.step()
        methods.guard(net)
        if step % 5 == 4:
            right = _right(net, images, labels)
            if all(right[b] == 1.0 for b in levels):
                break
    return Outcome(right, step + 1, time.thread_time() - start)


def _right(net: MultiBranchNet, images: Tensor, labels: Tensor) -> dict[int, float]:
    """Accuracy of each level with the statistics of the batch, as in training."""
    net.train()
    with torch.no_grad():
        features = net.stem(images)
        return {
            bits: float((net.classify(features, bits).argmax(1) == labels).float().mean())
            for bits in net.bits
        }


def main() -> int:
    """Run the pairs that the arguments choose."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for network in options.network or NETWORKS:
        for method in options.method or METHODS:
            outcome = memorise(method, network)
            right = {b: outcome.accuracy[b] for b in able(method, network)}
            failed += min(right.values()) < 1.0
            levels = "  ".join(f"{b}b {100 * a:.0f} %" for b, a in outcome.accuracy.items())
            print(
                f"{network:12} {method:15} {outcome.steps:4} steps {outcome.seconds:5.0f} s  {levels}",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
