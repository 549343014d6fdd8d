"""Any-Precision DNNs (Yu et al., AAAI 2021, arXiv 1911.07346): one set of full-precision weights.

Weights are rounded to the requested bit-width when they are used, activations are clipped to 0..u, a
constant of each layer and level. Each level below the highest learns from the softmax of the next higher
one. Residual networks are in pre-activation order: clipped after its normalisation, a residual stream
would lose its sum.

The publication has u = 1 (without calibration it is 1 here). On a network that was trained in full
precision this clips a sixth of all activations, so that even 8 bits begin as another network; without
shortcuts gradients then grow from layer to layer towards the image, and the first steps drive the front
layers where neither tanh nor clip lets a gradient through. Calibration starts u where the clip changes
little. In the published form that is a start of the normalisation, gamma and beta divided by u.
"""

from __future__ import annotations

from torch import Tensor

from train.branches import Topology
from train.methods.spec import Method, round_straight_through, squash
from train.quantizers import FULL_PRECISION, QuantizedConv, largest_code
from train.recipe import MethodRecipe


class AnyPrecisionConv(QuantizedConv):
    """Weights ``(2 q / L - 1) E`` with ``q = round(L v)`` and E their mean magnitude.

    The output is in real units, since in pre-activation order it is added to a stream before any
    normalisation. No gradient passes through E, and u is not trained.
    """

    trains_lower = trains_upper = False

    def forward(self, x: Tensor, bits: int) -> Tensor:
        mean = self.weight.detach().abs().mean()
        if bits <= FULL_PRECISION:
            # Published as well, as the mode of 32 bits: with plain weights the scale would be another.
            return self._convolve(x, (2.0 * squash(self.weight) - 1.0) * mean, half=False)
        accumulator = super().forward(x, bits)
        unit = self.act_upper[self.bits.index(bits)] / largest_code(bits) ** 2
        scale = mean * unit
        return accumulator * scale.to(accumulator.dtype)

    def integer_weight(self, bits: int) -> Tensor:
        levels = float(largest_code(bits))
        return 2.0 * round_straight_through(squash(self.weight) * levels) - levels

    @staticmethod
    def weight_unit(bits: int) -> float:
        return float(largest_code(bits))


def topology(recipe: MethodRecipe) -> Topology:
    """One branch for all levels; normalisation sees real units."""
    selection: dict[int, tuple[int, ...]] = {b: (1,) for b in recipe.bits}
    return Topology(AnyPrecisionConv, lambda bits: 1.0, selection, preactivation=True)


METHOD = Method(
    name="any-precision",
    title="APN",
    source="Yu et al., AAAI 2021",
    bits=tuple(range(1, 9)),
    teacher="next",
    soft=1.0,
    topology=topology,
)
