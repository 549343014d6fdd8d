"""AdaBits (Jin et al., CVPR 2020, arXiv 1912.09666): one set of nested weights for all levels.

The b-bit code of a weight is the upper b bits of its code at the highest bit-width, so only that is
stored. Activations have a trainable upper clip for each layer and level (PACT, arXiv 1805.06085).
Every level learns from labels.

PACT's clip and the range of :class:`train.quantizers.ClipUniform` with its lower end at zero have the
same gradient here: the batch normalisation behind the convolution makes the loss independent of a
scale of its input, which turns the one expression into the other. Stem and classifier stay in full
precision for a comparison of bodies; the published network quantises them to the highest bit-width
and rescales convolutions, which batch normalisation undoes.
"""

from __future__ import annotations

from torch import Tensor

from train.branches import Topology, accumulator_unit
from train.methods.spec import Method, floor_straight_through, squash
from train.quantizers import QuantizedConv
from train.recipe import MethodRecipe


class ClippedActivations(QuantizedConv):
    """A convolution whose activations are clipped to ``0..alpha``, alpha trained for each level."""

    trains_lower = False
    initial_upper = 8.0


class FloorConv(ClippedActivations):
    """Weight codes ``floor(2^b v)``, weights ``2 q / 2^b - 1``: nested, but not centred."""

    def integer_weight(self, bits: int) -> Tensor:
        return self._codes(bits) - 2.0 ** (bits - 1)

    @staticmethod
    def weight_unit(bits: int) -> float:
        return float(2 ** (bits - 1))

    def _codes(self, bits: int) -> Tensor:
        scaled = floor_straight_through(squash(self.weight) * 2.0**bits)
        # Only the largest weight reaches 2^b.
        return scaled.clamp(max=2.0**bits - 1.0)


class CentreConv(FloorConv):
    """The same codes, weights ``(2 q + 1) / 2^b - 1`` in the middle of each step."""

    def integer_weight(self, bits: int) -> Tensor:
        return 2.0 * self._codes(bits) + 1.0 - 2.0**bits

    @staticmethod
    def weight_unit(bits: int) -> float:
        return float(2**bits)


def topology(recipe: MethodRecipe) -> Topology:
    """One branch for all levels, with the floor or the centre quantiser."""
    conv = FloorConv if recipe.quantizer == "floor" else CentreConv
    return Topology(conv, accumulator_unit(conv), {b: (1,) for b in recipe.bits})


METHOD = Method(
    name="adabits",
    title="AdaBits",
    source="Jin et al., CVPR 2020, body only",
    bits=tuple(range(1, 9)),
    teacher="none",
    soft=0.0,
    topology=topology,
)
