"""Data to try things on: published cells and images, and a simulated plate."""

from ._images import coil20, fashion_mnist, mnist
from ._published import bodenmiller, levine32_balanced, multicenter, samusik_ramp
from ._scrna import human_kidney, pbmc_10x, tabula_muris_kidney
from ._simulate import population_labels, simulate_plate

__all__ = [
    "bodenmiller",
    "coil20",
    "fashion_mnist",
    "human_kidney",
    "levine32_balanced",
    "mnist",
    "multicenter",
    "pbmc_10x",
    "population_labels",
    "samusik_ramp",
    "simulate_plate",
    "tabula_muris_kidney",
]
