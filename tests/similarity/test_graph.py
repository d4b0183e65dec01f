"""The neighbour graph as similarity, and batches drawn along its edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import scmoe
from scmoe.similarity import Graph, check_graph, stored_graph
from scmoe.similarity._graph import GraphTarget


@pytest.fixture(scope="module")
def large():
    """20,000 cells in groups of 50, each cell linked to 15 others of its group."""
    rng = np.random.default_rng(0)
    n, k, size = 20_000, 15, 50
    name = rng.permutation(n)
    cell = np.repeat(np.arange(n), k)
    partner = cell // size * size + rng.integers(0, size, n * k)
    graph = sparse.csr_matrix(
        (np.ones(n * k, np.float32), (name[cell], name[partner])), shape=(n, n)
    )
    graph = graph.maximum(graph.T)
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def partners(graph, batch):
    """Linked partners of a cell within its batch."""
    return graph[batch][:, batch].nnz / len(batch)


def test_dense_is_the_slice_of_the_graph(linked):
    cells = np.random.default_rng(0).permutation(600)[:200]
    expected = linked.obsp["connectivities"].toarray()[np.ix_(cells, cells)]
    np.fill_diagonal(expected, 1)
    np.testing.assert_array_equal(Graph().bind(linked, linked.X).dense(cells), expected)


def test_batches_follow_the_edges(large):
    target, rng = GraphTarget(large), np.random.default_rng(0)
    n = large.shape[0]
    batches = list(target.batches(np.arange(n), 256, rng))
    assert len(batches) == -(-n // 256)
    for batch in batches:
        assert len(batch) == len(np.unique(batch)) == 256
        assert batch.min() >= 0
        assert batch.max() < n
    drawn = np.mean([partners(large, b) for b in batches])
    by_chance = np.mean([partners(large, rng.permutation(n)[:256]) for _ in batches])
    assert by_chance < 0.5
    assert drawn > 1.5
    assert drawn > 5 * by_chance


def test_every_cell_comes_up_about_as_often(large):
    target, rng = GraphTarget(large), np.random.default_rng(0)
    n, n_epochs = large.shape[0], 20
    count = np.zeros(n)
    for _ in range(n_epochs):
        for batch in target.batches(np.arange(n), 256, rng):
            count[batch] += 1
    # the last batch is full, so an epoch draws a few more than all cells
    assert count.mean() == pytest.approx(n_epochs, rel=0.02)
    assert (count == 0).mean() < 0.001
    assert count.max() < 4 * n_epochs


def test_batches_differ_and_repeat_with_the_seed(large):
    target, cells = GraphTarget(large), np.arange(large.shape[0])
    first, again, other = (
        next(target.batches(cells, 64, np.random.default_rng(seed))) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


@pytest.mark.parametrize("n", [5000, 20_000])
def test_batches_are_positions_in_the_cells_that_train(large, n):
    rng = np.random.default_rng(0)
    cells = rng.permutation(20_000)[:n]
    for batch in GraphTarget(large).batches(cells, 128, rng):
        assert len(np.unique(batch)) == 128
        assert batch.max() < n
        assert partners(large, cells[batch]) > 0.5


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 599, 600, 1000])
def test_any_batch_size(linked, batch_size):
    rng = np.random.default_rng(0)
    batches = list(Graph().bind(linked, linked.X).batches(np.arange(600), batch_size, rng))
    assert len(batches) == -(-600 // min(batch_size, 600))
    for batch in batches:
        assert len(batch) == len(np.unique(batch)) == min(batch_size, 600)


def test_cells_without_neighbours_are_drawn_too():
    graph = sparse.csr_matrix(
        (np.ones(2, np.float32), ([0, 1], [1, 0])), shape=(100, 100), dtype=np.float32
    )
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        for batch in GraphTarget(graph).batches(np.arange(100), 10, rng):
            assert len(np.unique(batch)) == 10
            seen.update(batch.tolist())
    assert len(seen) == 100


def test_neighbors_key(linked):
    graph = linked.obsp["connectivities"]
    linked.obsp["mine_connectivities"] = graph * 0.5
    linked.uns["mine"] = {"connectivities_key": "mine_connectivities"}
    cells = np.arange(50)
    mine = Graph(neighbors_key="mine").bind(linked, linked.X).dense(cells)
    default = Graph().bind(linked, linked.X).dense(cells)
    off = ~np.eye(50, dtype=bool)
    np.testing.assert_allclose(mine[off], 0.5 * default[off])


def test_any_matrix_of_obsp(linked):
    linked.obsp["dense"] = linked.obsp["mine"].toarray()
    cells = np.arange(50)
    expected = linked.obsp["mine"].toarray()[:50, :50]
    np.fill_diagonal(expected, 1)
    for key in ("mine", "dense"):
        np.testing.assert_array_equal(
            Graph(obsp=key).bind(linked, linked.X).dense(cells), expected
        )
    del linked.obsp["connectivities"]
    assert not Graph(obsp="mine").needs_graph
    assert Graph().needs_graph
    Graph(obsp="mine").bind(linked, linked.X)
    with pytest.raises(KeyError, match=r"'yours' in `\.obsp`.*'mine'"):
        Graph(obsp="yours").bind(linked, linked.X)
    linked.obsp["dense"][3, 4] = np.nan
    with pytest.raises(ValueError, match=r"`\.obsp\['dense'\]`.*NaN"):
        Graph(obsp="dense").bind(linked, linked.X)


def test_copies_of_a_cell_share_its_edges(linked):
    graph = linked.obsp["connectivities"].toarray()
    cells = np.array([5, 80, 5, 7, 80])
    expected = graph[np.ix_(cells, cells)]
    expected[cells[:, None] == cells] = 1
    target = Graph().bind(linked, linked.X)
    np.testing.assert_array_equal(target.dense(cells), expected)
    rows, s, _ = target.listed(cells, np.random.default_rng(0))
    np.testing.assert_array_equal(s, expected[rows[0], rows[1]])
    assert {(0, 2), (2, 0), (1, 4), (4, 1)} <= set(map(tuple, rows.T))


def test_missing_graph(blobs):
    with pytest.raises(KeyError, match=r"'connectivities'.*sc\.pp\.neighbors\(adata\)"):
        stored_graph(blobs, None)
    with pytest.raises(KeyError, match=r"'mine'.*sc\.pp\.neighbors\(adata, key_added='mine'\)"):
        stored_graph(blobs, "mine")
    blobs.uns["mine"] = {"connectivities_key": "gone"}
    with pytest.raises(KeyError, match=r"'gone'.*sc\.pp\.neighbors"):
        stored_graph(blobs, "mine")


def edges(*triples, n=4):
    rows, columns, values = zip(*triples, strict=True)
    return sparse.csr_matrix((values, (rows, columns)), shape=(n, n), dtype=np.float64)


@pytest.mark.parametrize(
    ("graph", "match"),
    [
        (edges((0, 1, 1.0), n=5), r"shape \(5, 5\).*must be \(4, 4\)"),
        (sparse.csr_matrix((4, 3)), r"shape \(4, 3\).*must be \(4, 4\)"),
        (np.ones(4), r"shape \(4,\).*must be \(4, 4\)"),
        ([[0, 1], [1, 0]], r"must be \(4, 4\)"),
        (edges((0, 1, -0.1)), "negative"),
        (edges((0, 1, np.nan)), "NaN or infinite"),
        (edges((0, 1, np.inf)), "NaN or infinite"),
        (sparse.csr_matrix((4, 4)), "no edge"),
        (edges((0, 0, 1.0), (2, 2, 1.0)), "no edge"),
    ],
)
def test_graphs_that_are_none(graph, match):
    with pytest.raises(ValueError, match=match) as error:
        check_graph(graph, 4, "`.obsp['mine']`")
    assert "`.obsp['mine']`" in str(error.value)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.coo_array, sparse.csc_array, np.array])
def test_graph_is_brought_into_one_form(form):
    given = edges((0, 1, 2.0), (1, 0, 1.0), (1, 2, 4.0), (3, 3, 9.0))
    given = form(given.toarray())
    graph = check_graph(given, 4, "graph")
    expected = np.zeros((4, 4))
    expected[[0, 1], [1, 0]] = 0.5
    expected[[1, 2], [2, 1]] = 1.0
    np.testing.assert_array_equal(graph.toarray(), expected)
    assert graph.dtype == np.float32
    assert graph.nnz == 4


def test_graph_that_is_given_stays_as_it_is():
    given = edges((0, 1, 2.0), (2, 2, 1.0)).astype(np.float32)
    before = given.copy()
    check_graph(given, 4, "graph")
    assert (given != before).nnz == 0
    assert given.nnz == before.nnz


# ----------------------------------------------------------------------------------------
# graphs out of anybody's file


def raw(kind=sparse.csr_matrix, n=600, **parts):
    """A matrix with one entry a row, as a reader makes it that does not look at the parts."""
    matrix = kind((n, n), dtype=np.float32)
    matrix.data = np.ones(n, np.float32)
    matrix.indices = np.roll(np.arange(n, dtype=np.int32), 1)
    matrix.indptr = np.arange(n + 1, dtype=np.int32)
    for name, part in parts.items():
        setattr(matrix, name, part)
    return matrix


def with_one(array, value, at=5):
    array = array.copy()
    array[at] = value
    return array


GOOD = raw()
DAMAGED = {
    "beyond": {"indices": with_one(GOOD.indices, 10**6)},
    "one beyond": {"indices": with_one(GOOD.indices, 600)},
    "negative": {"indices": with_one(GOOD.indices, -1)},
    "floats": {"indices": GOOD.indices.astype(float)},
    "falling": {"indptr": with_one(GOOD.indptr, 300)},
    "starts late": {"indptr": with_one(GOOD.indptr, 1, at=0)},
    "ends beyond": {"indptr": with_one(GOOD.indptr, 10**6, at=-1)},
    "few rows": {"indptr": GOOD.indptr[:-3]},
    "few indices": {"indices": GOOD.indices[:-3]},
    "few values": {"data": GOOD.data[:-3]},
    "no rows": {"indptr": GOOD.indptr[:0]},
}


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("parts", DAMAGED.values(), ids=DAMAGED)
def test_indices_beyond_the_cells(kind, parts):
    assert check_graph(raw(kind), 600, "it").nnz == 1200
    with pytest.raises(ValueError, match=r"it is a damaged sparse matrix.*\(600, 600\)"):
        check_graph(raw(kind, **parts), 600, "it")


@pytest.mark.parametrize(
    ("graph", "match"),
    [
        (raw(data=with_one(GOOD.data, np.nan)), "NaN or infinite"),
        (raw(data=GOOD.data.astype(float) * 1e300), "NaN or infinite"),
        (raw(data=-GOOD.data), "negative"),
        (raw(n=599), "has shape"),
        (np.full((600, 600), "a"), "<U1 values"),
        (np.full((600, 600), None), "object values"),
        (np.eye(600) * 1j, "complex128 values"),
    ],
)
def test_weights_of_no_graph(graph, match):
    with pytest.raises(ValueError, match=match):
        check_graph(graph, 600, "it")


def doors(adata):
    """All that looks at the cells of a user."""
    values = adata.X
    yield lambda: scmoe.tl.cluster(adata, progress=False)
    yield lambda: scmoe.tl.cluster(adata, obsp="connectivities", progress=False)
    yield lambda: scmoe.tl.stability(adata, key=None, n_runs=2, model="moe-vae", how="subsets")
    yield lambda: scmoe.tl.n_clusters(adata, progress=False)
    yield lambda: scmoe.tl.assign(adata, adata)
    yield lambda: scmoe.model.MoESimVAE.setup_anndata(adata)
    yield lambda: scmoe.pp.marker_prior(adata, {"a": {"CD3": 1}, "b": {"CD4": 1}})
    assert adata.X is values


@pytest.mark.parametrize("place", ["obsp", "layers", "obsm"])
def test_every_door_is_guarded(linked, place):
    slot = "connectivities" if place == "obsp" else "x"
    n = linked.n_vars if place == "layers" else 600
    matrix = sparse.csr_matrix((600, n), dtype=np.float32)
    matrix.data, matrix.indptr = GOOD.data, GOOD.indptr
    matrix.indices = np.full(600, 10**6, np.int32)
    getattr(linked, place)[slot] = matrix
    columns = list(linked.obs)
    for door in doors(linked):
        with pytest.raises(ValueError, match=rf"`\.{place}\['{slot}'\]` is a damaged sparse"):
            door()
    assert list(linked.obs) == columns


def test_counts_beyond_the_genes(linked):
    matrix = sparse.csr_matrix(linked.X.round())
    matrix.indices = matrix.indices + 10**6
    linked.X = matrix
    assert scmoe.similarity.Graph().bind(linked, None).graph.nnz
    for read in (
        lambda: scmoe.model.CplMixVAE.setup_anndata(linked, counts=True),
        lambda: scmoe.similarity.umap(linked),
        lambda: scmoe.pl.markers(linked, key="population"),
        lambda: scmoe.pp.arcsinh(linked, 5),
    ):
        with pytest.raises(ValueError, match="is a damaged sparse matrix"):
            read()
