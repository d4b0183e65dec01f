"""Published cells and images that can be downloaded, and a simulated plate."""

from ._bodenmiller import bodenmiller
from ._images import fashion_mnist, mnist
from ._simulate import population_labels, simulate_plate

__all__ = [
    "bodenmiller",
    "fashion_mnist",
    "mnist",
    "population_labels",
    "simulate_plate",
]
