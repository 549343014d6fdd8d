"""Dedicated networks ("Ind."): one level, and as many 2-bit branches as it needs.

How the published columns above 2 bits were trained is not stated; with the quantisers of MBQuant it
can only be this.
"""

from __future__ import annotations

import dataclasses

from train.methods import mbquant

METHOD = dataclasses.replace(
    mbquant.METHOD,
    name="dedicated",
    title="Ind.",
    source="one network for each bit-width, quantisers of MBQuant",
    teacher="none",
    soft=0.0,
    topology=lambda recipe: mbquant.topology(dataclasses.replace(recipe, selection="serial")),
)
