"""Methods on networks memorise 64 images at every level; ``overfit.py`` beside this runs every pair."""

from __future__ import annotations

import pytest
from overfit import METHODS, able, memorise

# Those that take less than a minute.
PAIRS = [(method, network) for network in ("resnet8", "resnet20") for method in METHODS]
PAIRS += [
    (method, network)
    for network in ("resnet18", "vgg11")
    for method in ("mbquant", "mbquant-234", "dedicated", "any-precision", "adabits-centre")
]
PAIRS += [(method, "resnet34") for method in ("mbquant-234", "dedicated", "any-precision")]
PAIRS += [("adabits-floor", "resnet18"), ("dedicated", "mobilenetv1")]


@pytest.mark.parametrize(("method", "network"), PAIRS)
def test_memorises_64_images_at_every_level(method: str, network: str) -> None:
    outcome = memorise(method, network)
    levels = able(method, network)
    right = {bits: outcome.accuracy[bits] for bits in levels}
    assert right == dict.fromkeys(levels, 1.0), f"after {outcome.steps} steps"
