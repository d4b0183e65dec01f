"""Cells to try things on: published ones, and a simulated plate."""

from ._published import bodenmiller, levine32_balanced, multicenter, samusik_ramp
from ._simulate import population_labels, simulate_plate

__all__ = [
    "bodenmiller",
    "levine32_balanced",
    "multicenter",
    "population_labels",
    "samusik_ramp",
    "simulate_plate",
]
