"""What a result was made from and with."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._core.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

LIBRARIES = (
    "scmoe",
    "anndata",
    "lightning",
    "numpy",
    "scanpy",
    "scikit-learn",
    "scikit-network",
    "scipy",
    "scvi-tools",
    "torch",
    "umap-learn",
)
"""Those that numbers pass through."""


class DataHash:
    """SHA-256 of the names of the markers and of the hashes of blocks of cells, in their order.

    Parameters
    ----------
    shape
        Of all values, cells x markers.
    names
        Of the markers.
    """

    def __init__(self, shape: tuple[int, int], names: Sequence[str]):
        self._digest = hashlib.sha256(repr((shape, [str(name) for name in names])).encode())

    def add(self, of_block: bytes) -> None:
        """Add the hash of the next block of rows, as :func:`block_hash` gives it."""
        self._digest.update(of_block)

    def hex(self) -> str:
        """The hash as text."""
        return self._digest.hexdigest()


def block_hash(x: np.ndarray) -> bytes:
    """SHA-256 of values as float32, row by row."""
    return hashlib.sha256(_bytes(x)).digest()


def _bytes(x: np.ndarray) -> memoryview:
    return np.ascontiguousarray(x, dtype="<f4").data


def data_hash(x: np.ndarray, names: Sequence[str]) -> str:
    """The hash of :class:`DataHash` of values that are in memory."""
    digest = DataHash(x.shape, names)
    for _, block in Rows(x):
        digest.add(block_hash(block))
    return digest.hex()


def data_hashes(x: np.ndarray, names: Sequence[str]) -> tuple[str, str]:
    """The same, and what it was before blocks had hashes of their own."""
    former = DataHash(x.shape, names)
    former.add(_bytes(x))
    return data_hash(x, names), former.hex()


def graph_hash(graph: csr_matrix | None) -> str | None:
    """SHA-256 of a graph's edges and weights (as float32); None for no graph."""
    if graph is None:
        return None
    graph = graph.tocsr().sorted_indices()
    digest = hashlib.sha256(repr(graph.shape).encode())
    for part, dtype in ((graph.indptr, "<i8"), (graph.indices, "<i8"), (graph.data, "<f4")):
        digest.update(np.ascontiguousarray(part, dtype=dtype).data)
    return digest.hexdigest()


def manifest(data: str, **more: Any) -> dict[str, Any]:
    """What must be equal for a run to give the same result again.

    Parameters
    ----------
    data
        Hash of the values (:func:`data_hash`).
    **more
        What else there is.

    Returns
    -------
    ``data``, ``versions`` (by library), ``python``, ``platform``, and what
    else is given. The parameters are beside it in the record of a result.
    """
    return {
        "data": data,
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        **more,
    }
