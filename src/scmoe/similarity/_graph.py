"""The neighbour graph of scanpy: read it, check it, and use its edges as similarity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from scmoe._core.cells import check_sparse
from scmoe._core.settings import NOTHING, TEXT, setting
from scmoe.similarity._base import Similarity
from scmoe.similarity._target import Pairs, Target, edges_at, pairs_of_edges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

SEED_SHARE = 4
"""One in this many cells of a batch is drawn at random; the others are neighbours of these."""


def stored_graph(adata: AnnData, neighbors_key: str | None) -> sparse.csr_matrix:
    """Read the graph of ``sc.pp.neighbors``, check it, and make it symmetric.

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
        The graph has the wrong shape, damaged indices, negative weights, weights that are not
        finite numbers, or no edge at all.
    """
    slot = graph_slot(adata, neighbors_key)
    return check_graph(adata.obsp[slot], adata.n_obs, f"`.obsp[{slot!r}]`")


def graph_slot(adata: AnnData, neighbors_key: str | None) -> str:
    """Return the key of the graph in ``.obsp``; raise KeyError if there is no such graph."""
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
    """Check a graph and convert it to the form that :func:`stored_graph` returns."""
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
    """The similarity of two cells is the weight of their edge, 0 without an edge.

    A random mini-batch of a large data set holds almost no edges (with 15 neighbours, 100,000
    cells and batches of 256, 0.04 for each cell), so batches are drawn along edges: a quarter of
    the cells of a batch are random, the others are neighbours of these.

    Parameters
    ----------
    neighbors_key
        As in scanpy; None reads ``.obsp["connectivities"]``.
    obsp
        Key of any cells x cells matrix of similarities in ``.obsp``, dense or sparse, in place of
        the graph; not together with ``neighbors_key``. If a weight is above 1, all are divided by
        the largest. Of the two weights of a pair the larger one is used.
    """

    neighbors_key: str | None = setting(TEXT | NOTHING, None)
    obsp: str | None = setting(TEXT | NOTHING, None)

    def __post_init__(self):
        super().__post_init__()
        if self.obsp is not None and self.neighbors_key is not None:
            raise ValueError("You can't specify both `obsp` and `neighbors_key`.")

    @property
    def needs_graph(self) -> bool:
        """Whether the similarity reads the neighbour graph of scanpy."""
        return self.obsp is None

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> GraphTarget:
        """Read the graph.

        Raises
        ------
        KeyError
            No such record or matrix.
        ValueError
            The matrix has the wrong shape, damaged indices, negative weights, weights that are
            not finite numbers, or no edge at all.
        """
        if self.obsp is not None:
            if self.obsp not in adata.obsp:
                raise KeyError(
                    f"Did not find {self.obsp!r} in `.obsp`, which holds {list(adata.obsp)}."
                )
            name = f"`.obsp[{self.obsp!r}]`"
            return GraphTarget(check_graph(adata.obsp[self.obsp], adata.n_obs, name))
        return GraphTarget(stored_graph(adata, self.neighbors_key))


class GraphTarget(Target):
    """The edges of a graph, ``(n_obs, n_obs)`` sparse."""

    def __init__(self, graph: sparse.csr_matrix):
        self.graph = graph

    def _block(self, cells: np.ndarray) -> sparse.csr_matrix:
        """Return the edges in the batch; two copies of one cell are joined with weight 1."""
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
        """Return the weights among the cells of the batch, 1 on the diagonal."""
        block = self._block(cells).toarray()
        np.fill_diagonal(block, 1.0)
        return block

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return the weights of some pairs."""
        return edges_at(self.graph, cells[pairs])

    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Return every edge in the batch, and random pairs for the pairs without an edge."""
        return pairs_of_edges(self._block(cells), rng)

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Draw random cells and their neighbours, filled up with further random cells."""
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
            neighbors = graph.indices[graph.indptr[seeds_linked][:, None] + drawn.astype(int)]
            batch = np.unique(np.concatenate([seeds, neighbors.ravel()]))
            if len(batch) < batch_size:
                some = rng.choice(n, min(2 * batch_size, n), replace=False)
                rest = np.setdiff1d(some, batch)
                batch = np.concatenate([batch, rng.permutation(rest)[: batch_size - len(batch)]])
            yield batch
