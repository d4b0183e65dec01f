"""Results in an AnnData: slots that are written together, and the provenance of a record."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key
from scmoe._core.rows import Rows

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from anndata import AnnData
    from scipy.sparse import csr_matrix


CLUSTERING_RECORD = {"params", "markers", "version"}
"""Entries of the record of a clustering."""


def check_key(adata: AnnData, key: str, parts: set[str] = CLUSTERING_RECORD) -> None:
    """Raise ValueError for a name whose slots were not written by scmoe.

    ``parts`` are the entries by which a record is known as one that may be replaced.
    """
    check_free(
        adata,
        key,
        parts,
        ("uns", Key.uns.result(key)),
        ("obs", Key.obs.labels(key)),
        ("obsm", Key.obsm.latent(key)),
        ("obsm", Key.obsm.proba(key)),
        ("obsm", Key.obsm.state(key)),
        ("obsm", Key.obsm.votes(key)),
        ("obs", Key.obs.outlier(key)),
        ("obs", Key.obs.arm_consensus(key)),
        ("obs", Key.obs.entropy(key)),
    )


def check_free(
    adata: AnnData, key: str, parts: set[str], record: tuple[str, str], *others: tuple[str, str]
) -> None:
    """Raise ValueError if one of the slots, each a place and a name, was not written by scmoe.

    The first slot is that of the record; if it has all ``parts``, the others are free too.
    """
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"`key_added` must be a name without '/', got {key!r}.")
    there = adata.uns.get(record[1])
    if isinstance(there, Mapping) and parts <= set(there):
        return
    taken = [
        f'.{place}["{name}"]' for place, name in (record, *others) if name in getattr(adata, place)
    ]
    if taken:
        raise ValueError(
            f"`key_added={key!r}` would overwrite {' and '.join(taken)}, which was not written "
            "here; choose another name, or delete it."
        )


def find_model(adata: AnnData, key: str, name: str = "adata") -> Mapping[str, Any]:
    """Return the record of a clustering with its model.

    Raises
    ------
    KeyError
        No such clustering, or a record without a model.
    ValueError
        Cells of two clusterings were joined.
    """
    record = clustering_record(adata, key, name)
    if "model" not in record:
        raise KeyError(
            f"Did not find a model in `{name}.uns[{key!r}]`: run `scmoe.tl.cluster({name})` "
            "first, or name its `key_added` as `key`."
        )
    return record


def write(*slots: tuple[MutableMapping, str, Any]) -> None:
    """Write all slots or none, even if Ctrl-C interrupts between two of them.

    Each slot is a mapping, a key and a value; None deletes what an earlier run may have written.
    """
    before = [(place, key, place.get(key)) for place, key, _ in slots]
    try:
        for place, key, value in slots:
            if value is not None:
                place[key] = value
            elif key in place:
                del place[key]
    except BaseException:
        for place, key, value in before:
            if value is not None:
                place[key] = value
            elif key in place:
                del place[key]
        raise


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
"""Libraries that can change a result."""


class DataHash:
    """SHA-256 of the names of the markers and of the hashes of blocks of cells, in order.

    Parameters
    ----------
    shape
        Shape of all values, cells x markers.
    names
        Names of the markers.
    """

    def __init__(self, shape: tuple[int, int], names: Sequence[str]):
        self._digest = hashlib.sha256(repr((shape, [str(name) for name in names])).encode())

    def add(self, of_block: bytes) -> None:
        """Add the hash of the next block of rows, as :func:`block_hash` gives it."""
        self._digest.update(of_block)

    def hex(self) -> str:
        """Return the hash as text."""
        return self._digest.hexdigest()


def block_hash(x: np.ndarray) -> bytes:
    """Return the SHA-256 of values as float32, row by row."""
    return hashlib.sha256(_bytes(x)).digest()


def _bytes(x: np.ndarray) -> memoryview:
    return np.ascontiguousarray(x, dtype="<f4").data


def data_hash(x: np.ndarray, names: Sequence[str]) -> str:
    """Return the hash of :class:`DataHash` for values that are in memory."""
    digest = DataHash(x.shape, names)
    for _, block in Rows(x):
        digest.add(block_hash(block))
    return digest.hex()


def data_hashes(x: np.ndarray, names: Sequence[str]) -> tuple[str, str]:
    """Return the hash of values, and the hash that earlier versions recorded for them."""
    former = DataHash(x.shape, names)
    former.add(_bytes(x))
    return data_hash(x, names), former.hex()


def graph_hash(graph: csr_matrix | None) -> str | None:
    """Return the SHA-256 of the edges and weights (float32) of a graph; None without one."""
    if graph is None:
        return None
    graph = graph.tocsr().sorted_indices()
    digest = hashlib.sha256(repr(graph.shape).encode())
    for part, dtype in ((graph.indptr, "<i8"), (graph.indices, "<i8"), (graph.data, "<f4")):
        digest.update(np.ascontiguousarray(part, dtype=dtype).data)
    return digest.hexdigest()


def manifest(data: str, **more: Any) -> dict[str, Any]:
    """Return what must be equal for a run to reproduce a result.

    Parameters
    ----------
    data
        Hash of the values (:func:`data_hash`).
    **more
        Further entries.

    Returns
    -------
    ``data``, ``versions`` (by library), ``python``, ``platform``, and the further entries. The
    parameters are elsewhere in the record of a result.
    """
    return {
        "data": data,
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        **more,
    }
