"""Similarity = the edges of the user's neighbour graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from scmoe._core.cells import check_sparse
from scmoe.similarity._base import Pairs, Similarity, Target, edges_at, from_edges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

SEED_SHARE = 4
"""One cell in this many of a batch is drawn at random; the rest are its neighbours."""


def neighbour_graph(adata: AnnData, neighbors_key: str | None) -> sparse.csr_matrix:
    """The symmetric graph of ``sc.pp.neighbors``, checked.

    Parameters
    ----------
    adata
        The cells.
    neighbors_key
        As in scanpy: the record in ``.uns`` that names the graph in ``.obsp``; None for
        ``.obsp["connectivities"]``.

    Returns
    -------
    ``(n_obs, n_obs)`` float32, weights in [0, 1], empty diagonal.

    Raises
    ------
    KeyError
        No such record or graph.
    ValueError
        The graph is not square over the cells, has indices beyond them, weights that are negative
        or no finite numbers, or no edge at all.
    """
    slot = graph_slot(adata, neighbors_key)
    return check_graph(adata.obsp[slot], adata.n_obs, f"`.obsp[{slot!r}]`")


def graph_slot(adata: AnnData, neighbors_key: str | None) -> str:
    """Where scanpy put the graph in ``.obsp``; KeyError where there is none."""
    if neighbors_key is None:
        slot = "connectivities"
    elif isinstance(adata.uns.get(neighbors_key), Mapping):
        slot = adata.uns[neighbors_key].get("connectivities_key", "connectivities")
    else:
        raise KeyError(
            f"Did not find {neighbors_key!r} in `.uns`: run "
            f"`sc.pp.neighbors(adata, key_added={neighbors_key!r})` first."
        )
    if not isinstance(slot, str) or slot not in adata.obsp:
        raise KeyError(f"Did not find {slot!r} in `.obsp`: run `sc.pp.neighbors(adata)` first.")
    return slot


def check_graph(graph, n_obs: int, name: str) -> sparse.csr_matrix:
    """Validate a graph and bring it into one form: see ``neighbour_graph``."""
    if getattr(graph, "shape", None) != (n_obs, n_obs):
        raise ValueError(
            f"{name} has shape {getattr(graph, 'shape', None)}, but a graph over these cells "
            f"must be {(n_obs, n_obs)}."
        )
    check_sparse(graph, name)
    graph = graph if sparse.issparse(graph) else np.asarray(graph)
    if graph.dtype.kind not in "bifu":
        raise ValueError(f"{name} holds {graph.dtype} values; the weights of a graph are numbers.")
    with np.errstate(over="ignore"):
        graph = sparse.csr_matrix(graph, dtype=np.float32)
    if not np.isfinite(graph.data).all():
        raise ValueError(f"{name} holds NaN or infinite weights.")
    if graph.nnz and graph.data.min() < 0:
        raise ValueError(f"{name} holds negative weights; a similarity cannot be negative.")
    graph = graph.maximum(graph.T).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    if graph.nnz == 0:
        raise ValueError(f"{name} has no edge between two different cells.")
    if graph.data.max() > 1:
        graph.data /= graph.data.max()
    return graph


@dataclass(frozen=True, kw_only=True)
class Graph(Similarity):
    """Cells are as similar as the neighbour graph says: its weights, and 0 without an edge.

    A random mini-batch of a large data set holds almost no edges (15 neighbours, 100,000
    cells, batches of 256: 0.04 for a cell), so batches are drawn along edges: a quarter of
    a batch is random, the rest are neighbours of those cells.

    Parameters
    ----------
    neighbors_key
        As in scanpy; None takes ``.obsp["connectivities"]``.
    obsp
        Any cells x cells matrix of similarities in ``.obsp`` instead, dense or sparse; not
        together with ``neighbors_key``. Weights above 1 are divided by the largest, and of
        the two weights of a pair the larger counts.
    """

    neighbors_key: str | None = None
    obsp: str | None = None

    def __post_init__(self):
        if self.obsp is not None and self.neighbors_key is not None:
            raise ValueError("You can't specify both `obsp` and `neighbors_key`.")

    @property
    def needs_graph(self) -> bool:
        """Whether it looks at the neighbour graph of scanpy."""
        return self.obsp is None

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> GraphTarget:
        """Look the graph up.

        Raises
        ------
        KeyError
            ``obsp`` is not there; else as ``neighbour_graph`` does.
        ValueError
            As ``neighbour_graph`` does.
        """
        if self.obsp is not None:
            if self.obsp not in adata.obsp:
                raise KeyError(
                    f"Did not find {self.obsp!r} in `.obsp`, which holds {list(adata.obsp)}."
                )
            name = f"`.obsp[{self.obsp!r}]`"
            return GraphTarget(check_graph(adata.obsp[self.obsp], adata.n_obs, name))
        return GraphTarget(neighbour_graph(adata, self.neighbors_key))


class GraphTarget(Target):
    """Edges of a graph, ``(n_obs, n_obs)`` sparse."""

    def __init__(self, graph: sparse.csr_matrix):
        self.graph = graph

    def _block(self, cells: np.ndarray) -> sparse.csr_matrix:
        """Edges in the batch; two copies of one cell are joined with weight 1."""
        block = self.graph[cells][:, cells]
        unique, number = np.unique(cells, return_inverse=True)
        if len(unique) < len(cells):
            ones = np.ones(len(cells), np.float32)
            member = sparse.csr_matrix((ones, (np.arange(len(cells)), number)))
            block = block.maximum(member @ member.T).tocsr()
            block.setdiag(0)
            block.eliminate_zeros()
        return block

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Weights among the cells of the batch, 1 on the diagonal."""
        block = self._block(cells).toarray()
        np.fill_diagonal(block, 1.0)
        return block

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Weights of some pairs."""
        return edges_at(self.graph, cells[pairs])

    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Every edge in the batch, and random pairs for the others."""
        return from_edges(self._block(cells), rng)

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Random seeds and their neighbours, filled up with further random cells."""
        n = len(cells)
        all_cells = n == self.graph.shape[0] and (cells == np.arange(n)).all()
        graph = self.graph if all_cells else self.graph[cells][:, cells]
        batch_size = min(batch_size, n)
        for _ in range(-(-n // batch_size)):
            seeds = rng.choice(n, max(batch_size // SEED_SHARE, 1), replace=False)
            degree = graph.indptr[seeds + 1] - graph.indptr[seeds]
            seeds_linked = seeds[degree > 0]
            n_drawn = batch_size // len(seeds) - 1
            drawn = rng.random((len(seeds_linked), n_drawn)) * degree[degree > 0][:, None]
            neighbours = graph.indices[graph.indptr[seeds_linked][:, None] + drawn.astype(int)]
            batch = np.unique(np.concatenate([seeds, neighbours.ravel()]))
            if len(batch) < batch_size:
                some = rng.choice(n, min(2 * batch_size, n), replace=False)
                rest = np.setdiff1d(some, batch)
                batch = np.concatenate([batch, rng.permutation(rest)[: batch_size - len(batch)]])
            yield batch
