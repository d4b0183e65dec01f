"""Batches carry the similarity of their own cells."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from groups import Groups
from scvi import REGISTRY_KEYS

from scmoe.model import MoESimVAE
from scmoe.similarity import CoAssociation, Graph, Knn, Pairs, Similarity, Target, Threshold
from scmoe.similarity._base import MAX_DENSE
from scmoe.train import BATCH_KEYS, SimilaritySplitter, check_shares, split_cells


@pytest.fixture(params=["as given", "shuffled"])
def cells(request, linked):
    """The cells in another order than their graph was built in, too."""
    if request.param == "shuffled":
        return linked[np.random.default_rng(5).permutation(600)].copy()
    return linked


def splitter_for(adata, similarity, **kwargs):
    MoESimVAE.setup_anndata(adata, similarity=similarity)
    target = similarity.bind(adata, adata.X)
    splitter = SimilaritySplitter(
        MoESimVAE(adata, 5).adata_manager,
        target=target,
        rng=np.random.default_rng(0),
        **{"train_size": 1.0, "batch_size": 128, **kwargs},
    )
    splitter.setup()
    return splitter, target


def filled(splitter):
    """The batches of an epoch as the model gets them."""
    return [splitter.on_before_batch_transfer(b, 0) for b in splitter.train_dataloader()]


def rows(batch):
    return batch[REGISTRY_KEYS.INDICES_KEY].numpy().ravel().astype(int)


@pytest.mark.parametrize(
    "similarity", [CoAssociation(), Graph(), Knn(use_rep="X"), Threshold(use_rep="X")]
)
def test_similarity_belongs_to_the_cells(cells, similarity):
    splitter, target = splitter_for(cells, similarity)
    batches = filled(splitter)
    assert len(batches) == 5
    for batch in batches:
        index = rows(batch)
        np.testing.assert_array_equal(batch[REGISTRY_KEYS.X_KEY], cells.X[index])
        np.testing.assert_array_equal(batch[BATCH_KEYS.SIMILARITY], target.dense(index))
        assert BATCH_KEYS.PAIRS not in batch
    if target.batches(np.arange(600), 128, np.random.default_rng(0)) is None:
        # left to chance: all cells, in another order
        seen = np.concatenate([rows(b) for b in batches])
        assert set(seen) == set(range(600))
        assert list(seen) != sorted(seen)


def test_similarity_of_the_batch_follows_the_populations(cells):
    splitter, _ = splitter_for(cells, CoAssociation())
    population = cells.obs["population"].cat.codes.to_numpy()
    for batch in filled(splitter):
        similar = batch[BATCH_KEYS.SIMILARITY].numpy() > 0
        own = population[rows(batch)]
        assert (own[:, None] == own[None])[similar].mean() > 0.97


def test_subset_of_registered_cells_is_matched_with_its_own_positions(linked):
    # positions written for the whole must not be carried along into the subset
    splitter_for(linked, CoAssociation())
    subset = linked[300:].copy()
    splitter, target = splitter_for(subset, CoAssociation())
    for batch in filled(splitter):
        assert rows(batch).max() < 300
        np.testing.assert_array_equal(batch[REGISTRY_KEYS.X_KEY], subset.X[rows(batch)])
        np.testing.assert_array_equal(batch[BATCH_KEYS.SIMILARITY], target.dense(rows(batch)))


def test_graph_batches_follow_edges(linked):
    splitter, _ = splitter_for(linked, Graph(), batch_size=40)
    batches = filled(splitter)
    assert len(batches) == len(splitter.train_dataloader()) == 15
    drawn = np.mean([(b[BATCH_KEYS.SIMILARITY] > 0).sum() / 40 - 1 for b in batches])
    graph, rng = linked.obsp["connectivities"], np.random.default_rng(0)
    sample = [rng.permutation(600)[:40] for _ in range(50)]
    by_chance = np.mean([graph[i][:, i].nnz / 40 for i in sample])
    assert drawn > 1.5 * by_chance


def test_graph_batches_of_a_part_of_the_cells(linked):
    splitter, target = splitter_for(linked, Graph(), train_size=0.5)
    train = set(splitter.train_idx)
    assert len(train) == 300
    for batch in filled(splitter):
        assert train.issuperset(rows(batch))
        np.testing.assert_array_equal(batch[REGISTRY_KEYS.X_KEY], linked.X[rows(batch)])
        np.testing.assert_array_equal(batch[BATCH_KEYS.SIMILARITY], target.dense(rows(batch)))


def test_validation_batches_have_their_similarity(linked):
    splitter, target = splitter_for(linked, CoAssociation(), train_size=0.8)
    for batch in splitter.val_dataloader():
        full = splitter.on_before_batch_transfer(batch, 0)
        np.testing.assert_array_equal(full[BATCH_KEYS.SIMILARITY], target.dense(rows(full)))


@pytest.mark.parametrize("similarity", [CoAssociation(), Graph(), Knn(use_rep="X")])
def test_large_batches_list_pairs(linked, similarity):
    import anndata as ad
    from scipy import sparse

    graph = linked.obsp["connectivities"]
    large = ad.concat([linked, linked], index_unique="-")
    large.X = large.X + np.random.default_rng(0).normal(scale=1e-3, size=large.shape)
    large.X = large.X.astype(np.float32)
    large.obsp["connectivities"] = sparse.block_diag([graph, graph], format="csr")
    splitter, target = splitter_for(large, similarity, batch_size=MAX_DENSE + 1)
    batch = filled(splitter)[0]
    index = rows(batch)
    assert len(index) == MAX_DENSE + 1
    left, right = batch[BATCH_KEYS.PAIRS].numpy()
    dense = target.dense(index)
    np.testing.assert_array_equal(batch[BATCH_KEYS.SIMILARITY], dense[left, right])
    assert batch[BATCH_KEYS.WEIGHT].shape == batch[BATCH_KEYS.SIMILARITY].shape
    assert batch[BATCH_KEYS.WEIGHT].dtype == batch[BATCH_KEYS.SIMILARITY].dtype == torch.float32


def test_batches_of_a_model_that_has_started(blobs):
    """Small groups come more often, and what a cell stands for makes up for it."""
    splitter, target = splitter_for(blobs, Groups(), started=True)
    splitter.trainer = SimpleNamespace(training=True)
    batches = [batch for _ in range(40) for batch in filled(splitter)]
    index = np.concatenate([rows(batch) for batch in batches])
    frequency = np.concatenate([batch[BATCH_KEYS.FREQUENCY] for batch in batches])
    group = target.membership.argmax(1)
    size = np.bincount(group)
    drawn = np.bincount(group[index]) / len(index)
    np.testing.assert_allclose(drawn, size**0.5 / (size**0.5).sum(), atol=0.01)
    np.testing.assert_allclose(frequency.mean(), 1, atol=0.01)
    stood_for = np.bincount(group[index], weights=frequency) / len(index)
    np.testing.assert_allclose(stood_for, size / 600, atol=0.01)
    batch = batches[0]
    np.testing.assert_array_equal(batch[BATCH_KEYS.GROUPS], target.membership[index[:128]])
    left, right = batch[BATCH_KEYS.PAIRS].numpy()
    dense = target.dense(index[:128])
    np.testing.assert_array_equal(batch[BATCH_KEYS.SIMILARITY], dense[left, right])
    splitter.trainer.training = False
    assert BATCH_KEYS.FREQUENCY not in filled(splitter)[0]


class Nobody(Similarity):
    """Nobody is like anybody."""

    def bind(self, adata, profile, *, progress=False):
        class NobodyTarget(Target):
            def dense(self, cells):
                return np.eye(len(cells), dtype=np.float32)

            def listed(self, cells, rng):
                rows = np.stack([np.arange(len(cells) - 1), np.arange(1, len(cells))])
                zeros = np.zeros(len(cells) - 1, np.float32)
                return Pairs(rows, zeros, zeros + 1)

        return NobodyTarget()


QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def nobody():
    Similarity.registry["Nobody"] = Nobody
    yield Nobody()
    del Similarity.registry["Nobody"]


def test_few_pairs_warn(linked, nobody):
    MoESimVAE.setup_anndata(linked, similarity=nobody)
    model = MoESimVAE(linked, 5)
    with pytest.warns(UserWarning, match=r"similar partners per cell .*too few to learn from"):
        model.train(2, **QUIET)
    np.testing.assert_array_equal(model.history["similar_pairs_train"].to_numpy(), 0)


def test_enough_pairs_do_not_warn_and_are_counted(linked):
    # warnings are errors here
    MoESimVAE.setup_anndata(linked, similarity=Knn(use_rep="X", n_neighbors=5))
    model = MoESimVAE(linked, 5)
    model.train(1, batch_size=100, **QUIET)
    # five neighbours, and those whose neighbour the cell is
    assert 5 <= float(model.history["similar_pairs_train"].iloc[0, 0]) <= 10


# ----------------------------------------------------------------------------------------
# cells that train, that validate, and the others


@pytest.mark.parametrize(
    ("cells", "train_size", "validation_size", "sizes"),
    [
        (None, 1.0, None, (10, 0, 0)),
        (None, 0.75, None, (8, 2, 0)),
        (None, 0.5, 0.25, (5, 2, 3)),
        (None, 0.9, 0.1, (9, 1, 0)),
        ([1, 4, 7, 9], 1.0, None, (4, 0, 6)),
        ([1, 4, 7, 9], 0.5, 0.25, (2, 1, 7)),
    ],
)
def test_shares(nobody, cells, train_size, validation_size, sizes):
    target = nobody.bind(None, None)
    target.cells = None if cells is None else np.array(cells)
    first, again, other = (
        split_cells(target, 10, train_size, validation_size, np.random.default_rng(seed))
        for seed in (0, 0, 1)
    )
    assert tuple(map(len, first)) == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate(first)), np.arange(10))
    assert cells is None or set(cells) >= {*first[0], *first[1]}
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    if train_size == 1:
        np.testing.assert_array_equal(first[0], np.arange(10) if cells is None else cells)
    elif cells is None:
        assert list(first[0]) != list(other[0])


@pytest.mark.parametrize(
    ("train_size", "validation_size"),
    [(0, None), (1.1, None), (-0.5, None), (0.5, -0.1), (0.5, 0.6), (1.0, 0.1)],
)
def test_shares_out_of_range(train_size, validation_size):
    with pytest.raises(ValueError, match="`train_size`"):
        check_shares(train_size, validation_size)
