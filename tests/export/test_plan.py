"""Plans: values that live at the same time never share bytes, and what the engine refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import pytest
import torch
from executorch.exir import to_edge_transform_and_lower

from export import delegate, integer, plan, program

Maker = Callable[..., integer.IntegerNetwork]


@pytest.fixture(scope="module")
def network(random_network: Maker) -> integer.IntegerNetwork:
    return random_network(11, widths=(12, 20, 20))


@pytest.fixture(scope="module")
def plans(network: integer.IntegerNetwork) -> dict[int, plan.Plan]:
    packed = program.pack_weights(network)
    example = (torch.zeros((1, *network.input_size, 3), dtype=torch.uint8),)
    made = {}
    for bits in network.levels:
        module = program.LevelModule(network, bits, packed)
        edge = to_edge_transform_and_lower(torch.export.export(module, example, strict=False))
        made[bits] = delegate.Planner(edge.exported_program()).plan
    return made


def lifetimes(made: plan.Plan) -> Iterator[tuple[int, int, int]]:
    """(value, index of the layer that writes it, index of the last one that reads it)."""
    for value in range(len(made.values)):
        writing = [i for i, layer in enumerate(made.layers) if value in layer.writes()]
        reading = [i for i, layer in enumerate(made.layers) if value in layer.reads()]
        if made.values[value].bytes:
            assert len(writing) == 1
            yield value, writing[0], max(reading)


def in_place(made: plan.Plan) -> set[tuple[int, int]]:
    """(residual, stream) of layers that are the last to read the residual."""
    last = {value: last for value, _, last in lifetimes(made)}
    return {
        (layer.residual, layer.stream)
        for index, layer in enumerate(made.layers)
        if plan.NONE not in (layer.residual, layer.stream) and last[layer.residual] == index
    }


def test_sums_take_the_place_of_what_they_add_to(plans: dict[int, plan.Plan]) -> None:
    for made in plans.values():
        pairs = in_place(made)
        assert pairs
        for residual, stream in pairs:
            assert made.values[residual].offset == made.values[stream].offset
            assert made.values[residual].bytes == made.values[stream].bytes


def test_values_that_live_together_are_disjoint(plans: dict[int, plan.Plan]) -> None:
    for made in plans.values():
        shared, sums = False, in_place(made)
        for (a, a_first, a_last), (b, b_first, b_last) in combinations(lifetimes(made), 2):
            x, y = made.values[a], made.values[b]
            apart = x.offset + x.bytes <= y.offset or y.offset + y.bytes <= x.offset
            together = a_first <= b_last and b_first <= a_last
            assert apart or not together or (a, b) in sums
            shared = shared or not apart
        assert shared, "an arena in which nothing shares bytes was not planned"
        assert made.arena_bytes == max(v.offset + v.bytes for v in made.values)


def test_a_stream_is_quantised_by_who_writes_it(
    network: integer.IntegerNetwork, plans: dict[int, plan.Plan]
) -> None:
    """Convolutions read codes; only what a third quantiser wants is made in a layer of its own."""
    for bits, made in plans.items():
        kinds = [layer.kind for layer in made.layers]
        level = network.levels[bits]
        assert kinds.count(plan.CONV) == sum(1 for _ in level.convolutions())
        assert kinds.count(plan.FORK) == max(0, len(level.branches) - plan.MAX_CODE_OUTPUTS)
        for layer in made.layers:
            if layer.kind == plan.CONV:
                source = made.values[layer.input]
                assert source.kind == plan.CODES and source.border >= layer.pad
                assert layer.highest == 2**bits - 1


def test_branches_are_numbered_as_in_the_network(
    network: integer.IntegerNetwork, plans: dict[int, plan.Plan]
) -> None:
    for bits, made in plans.items():
        numbers = {layer.branch for layer in made.layers if layer.kind == plan.CONV}
        assert numbers == set(network.levels[bits].branches)


def test_levels_share_the_keys_of_their_weights(plans: dict[int, plan.Plan]) -> None:
    assert set(plans[2].keys) <= set(plans[8].keys)
    assert set(plans[4].keys) <= set(plans[6].keys) <= set(plans[8].keys)


def test_placing_is_lowest_first() -> None:
    made = plan.Plan(values=[plan.Value(plan.STREAM, 1, 1, 16) for _ in range(3)])
    for index in range(3):
        reads = plan.NONE if index == 0 else index - 1
        made.layers.append(plan.Layer(plan.FORK, reads, stream=index))
    made.place()
    assert [value.offset for value in made.values] == [0, 64, 0]
    assert made.arena_bytes == 128
    assert np.frombuffer(made.encode()[:8], "S8")[0] == b"MBQPLAN"
