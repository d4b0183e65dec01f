"""Batches carry the similarity of their own cells."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from groups import Groups
from scvi import REGISTRY_KEYS

from scmoe.model import MoESimVAE
from scmoe.similarity import (
    MAX_DENSE,
    CoAssociation,
    DensityTree,
    Graph,
    Knn,
    Pairs,
    Similarity,
    Target,
    Threshold,
)
from scmoe.similarity._density_tree import DensityTreeTarget
from scmoe.train import BATCH_KEYS, InMemory, SimilarBatches, check_shares, copied, split_cells
from scmoe.train._similar_batches import BLOCK, weighted


@pytest.fixture(params=["as given", "shuffled"])
def cells(request, linked):
    """The cells in another order than their graph was built in, too."""
    if request.param == "shuffled":
        return linked[np.random.default_rng(5).permutation(600)].copy()
    return linked


def trainer(rank=0, n_devices=1):
    return SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        world_size=n_devices,
        global_rank=rank,
    )


def batches_for(
    adata, similarity, *, train_size=1.0, batch_size=128, rank=0, n_devices=1, **kwargs
):
    target = similarity.bind(adata, adata.X)
    n, rng = adata.n_obs, np.random.default_rng(0)
    data = {REGISTRY_KEYS.X_KEY: torch.from_numpy(adata.X), "row": torch.arange(n)}
    split = split_cells(target.cells, n, train_size, None, rng)
    batches = SimilarBatches(data, split, batch_size, target=target, rng=rng, **kwargs)
    batches.trainer = trainer(rank, n_devices)
    batches.setup("fit")
    return batches, target


def rows(batch):
    return batch["row"].numpy()


def squared(batch):
    """The similarity of all pairs."""
    n = len(batch["row"])
    return batch[BATCH_KEYS.SIMILARITY].numpy().reshape(n, n)


@pytest.mark.parametrize(
    "similarity", [CoAssociation(), Graph(), Knn(use_rep="X"), Threshold(use_rep="X")]
)
def test_similarity_belongs_to_the_cells(cells, similarity):
    made, target = batches_for(cells, similarity)
    loader = made.train_dataloader()
    batches = list(loader)
    by_chance = isinstance(similarity, Knn | Threshold)
    assert len(batches) == len(loader) == (4 if by_chance else 5)
    for batch in batches:
        index = rows(batch)
        np.testing.assert_array_equal(batch[REGISTRY_KEYS.X_KEY], cells.X[index])
        np.testing.assert_array_equal(squared(batch), target.dense(index))
        assert BATCH_KEYS.PAIRS not in batch
    if by_chance:
        # left to chance: no cell twice, in another order every time
        seen = np.concatenate([rows(b) for b in batches])
        assert len(set(seen)) == len(seen) == 512
        assert list(seen) != sorted(seen)
        assert list(seen) != list(np.concatenate([rows(b) for b in loader]))


def test_similarity_of_the_batch_follows_the_populations(cells):
    batches, _ = batches_for(cells, CoAssociation())
    population = cells.obs["population"].cat.codes.to_numpy()
    for batch in batches.train_dataloader():
        similar = squared(batch) > 0
        own = population[rows(batch)]
        assert (own[:, None] == own[None])[similar].mean() > 0.97


def test_graph_batches_follow_edges(linked):
    batches = list(batches_for(linked, Graph(), batch_size=40)[0].train_dataloader())
    assert len(batches) == 15
    drawn = np.mean([(b[BATCH_KEYS.SIMILARITY] > 0).sum() / 40 - 1 for b in batches])
    graph, rng = linked.obsp["connectivities"], np.random.default_rng(0)
    sample = [rng.permutation(600)[:40] for _ in range(50)]
    by_chance = np.mean([graph[i][:, i].nnz / 40 for i in sample])
    assert drawn > 1.5 * by_chance


def test_graph_batches_of_a_part_of_the_cells(linked):
    batches, target = batches_for(linked, Graph(), train_size=0.5)
    train = set(batches.train_idx)
    assert len(train) == 300
    for batch in batches.train_dataloader():
        assert train.issuperset(rows(batch))
        np.testing.assert_array_equal(batch[REGISTRY_KEYS.X_KEY], linked.X[rows(batch)])
        np.testing.assert_array_equal(squared(batch), target.dense(rows(batch)))


def test_validation_batches_have_their_similarity(linked):
    batches, target = batches_for(linked, CoAssociation(), train_size=0.7)
    found = list(batches.val_dataloader())
    np.testing.assert_array_equal(np.concatenate([rows(b) for b in found]), batches.val_idx)
    assert [len(rows(b)) for b in found] == [128, 52]
    for batch in found:
        np.testing.assert_array_equal(squared(batch), target.dense(rows(batch)))


@pytest.mark.parametrize("similarity", [Graph(), Knn(use_rep="X")])
def test_large_batches_list_pairs(linked, similarity):
    import anndata as ad
    from scipy import sparse

    graph = linked.obsp["connectivities"]
    large = ad.concat([linked, linked], index_unique="-")
    large.X = large.X + np.random.default_rng(0).normal(scale=1e-3, size=large.shape)
    large.X = large.X.astype(np.float32)
    large.obsp["connectivities"] = sparse.block_diag([graph, graph], format="csr")
    batches, target = batches_for(large, similarity, batch_size=MAX_DENSE + 1)
    batch = next(iter(batches.train_dataloader()))
    index = rows(batch)
    assert len(index) == MAX_DENSE + 1
    left, right = batch[BATCH_KEYS.PAIRS].numpy()
    dense = target.dense(index)
    np.testing.assert_array_equal(batch[BATCH_KEYS.SIMILARITY], dense[left, right])
    assert batch[BATCH_KEYS.WEIGHT].shape == batch[BATCH_KEYS.SIMILARITY].shape
    assert batch[BATCH_KEYS.WEIGHT].dtype == batch[BATCH_KEYS.SIMILARITY].dtype == torch.float32


@pytest.mark.parametrize("size", [MAX_DENSE + 1, 100, 3])
def test_blocks_of_a_batch(linked, size):
    """Where the device can answer, blocks of cells are compared; the first cells fill up."""
    import anndata as ad

    large = ad.concat([linked, linked], index_unique="-")
    target = DensityTreeTarget(None, np.eye(5, dtype=np.float32)[np.arange(1200) % 5])
    similarity = SimpleNamespace(bind=lambda *_: target)
    batches, _ = batches_for(large, similarity, batch_size=size, started=size < MAX_DENSE)
    batch = next(iter(batches.train_dataloader()))
    found, index = batch[BATCH_KEYS.SIMILARITY].numpy(), rows(batch)
    block = min(BLOCK, size)
    assert found.shape == (-(-size // block), block, block)
    assert found.dtype == np.float32
    index = np.r_[index, index[:block]][: len(found) * block].reshape(-1, block)
    for answer, cells in zip(found, index, strict=True):
        np.testing.assert_array_equal(answer, target.dense(cells))


@pytest.mark.parametrize(
    "similarity", [DensityTree(), CoAssociation(), CoAssociation(majority=False)]
)
def test_the_device_says_what_numpy_says(linked, similarity):
    target = similarity.bind(linked, linked.X)
    pairs = np.random.default_rng(0).integers(0, 600, (2, 5000))
    pairs = pairs[:, pairs[0] != pairs[1]]
    left, right = torch.from_numpy(np.ascontiguousarray(target.traits))[pairs]
    found = target.alike(left, right)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, target.at(np.arange(600), pairs), atol=1e-6)
    blocks = target.alike(left[:6, None], right[None, :7])
    np.testing.assert_allclose(blocks[2, 2], found[2], atol=1e-6)
    assert blocks.shape == (6, 7)


def test_batches_of_a_model_that_has_started(blobs):
    """Small groups come more often, and what a cell stands for makes up for it."""
    made, target = batches_for(blobs, Groups(), started=True, train_size=0.9)
    batches = [batch for _ in range(40) for batch in made.train_dataloader()]
    index = np.concatenate([rows(batch) for batch in batches])
    frequency = np.concatenate([batch[BATCH_KEYS.FREQUENCY] for batch in batches])
    group = target.membership.argmax(1)
    size = np.bincount(group[made.train_idx])
    drawn = np.bincount(group[index]) / len(index)
    np.testing.assert_allclose(drawn, size**0.5 / (size**0.5).sum(), atol=0.01)
    np.testing.assert_allclose(frequency.mean(), 1, atol=0.01)
    stood_for = np.bincount(group[index], weights=frequency) / len(index)
    np.testing.assert_allclose(stood_for, size / len(made.train_idx), atol=0.01)
    assert set(index) == set(made.train_idx)
    batch = batches[0]
    np.testing.assert_array_equal(batch[BATCH_KEYS.GROUPS], target.membership[index[:128]])
    # a target that only numpy can be asked about
    left, right = batch[BATCH_KEYS.PAIRS].numpy()
    dense = target.dense(index[:128])
    np.testing.assert_array_equal(batch[BATCH_KEYS.SIMILARITY], dense[left, right])
    for batch in made.val_dataloader():
        assert BATCH_KEYS.FREQUENCY not in batch
        np.testing.assert_array_equal(batch[BATCH_KEYS.GROUPS], target.membership[rows(batch)])


def test_draws_by_weight_and_never_what_has_none():
    weight = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    torch.manual_seed(0)
    drawn = torch.cat(list(weighted(torch.arange(5) + 10, weight, 1000, 10)))
    assert set(drawn.tolist()) == {11, 13}
    assert float((drawn == 13).float().mean()) == pytest.approx(0.75, abs=0.02)


def test_copies_for_arms_are_of_training_batches():
    x = torch.arange(10.0)[:, None]
    cells = InMemory(
        {REGISTRY_KEYS.X_KEY: x},
        [np.arange(7), np.arange(7, 10), np.arange(0)],
        3,
        training={BATCH_KEYS.TAUGHT: torch.arange(10)},
        change=copied(lambda values, index: values + 100 * index[:, None], 2),
    )
    cells.trainer = trainer()
    cells.setup("fit")
    batches = list(cells.train_dataloader())
    assert [len(batch[REGISTRY_KEYS.X_KEY]) for batch in batches] == [3, 3]
    for batch in batches:
        values = batch[REGISTRY_KEYS.X_KEY]
        assert values.max() < 7
        torch.testing.assert_close(batch[BATCH_KEYS.TAUGHT], values.long()[:, 0])
        torch.testing.assert_close(batch[BATCH_KEYS.ARMS], (101 * values).expand(2, -1, -1))
    (batch,) = cells.val_dataloader()
    assert batch.keys() == {REGISTRY_KEYS.X_KEY}
    assert copied(None, 2) is None
    loader = cells.train_dataloader()
    cells.teardown("fit")
    assert not loader.data
    assert not cells.data


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
        split_cells(target.cells, 10, train_size, validation_size, np.random.default_rng(seed))
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


@pytest.mark.parametrize(
    ("similarity", "started"), [(Knn(use_rep="X"), False), (DensityTree(), True)]
)
def test_devices_share_a_batch(linked, similarity, started):
    parts = [
        batches_for(
            linked, similarity, batch_size=2 * BLOCK, started=started, rank=rank, n_devices=2
        )[0]
        for rank in (0, 1)
    ]
    generator = torch.Generator().set_state(parts[0].generator.get_state())
    drawn = [list(part.train_dataloader()) for part in parts]
    # what one device would draw in batches twice as large
    one = batches_for(linked, similarity, batch_size=4 * BLOCK, started=started)[0]
    one.generator = generator
    whole = list(one.train_dataloader())
    assert len(drawn[0]) == len(drawn[1]) == len(whole) == (5 if started else 4)
    for left, right, both in zip(*drawn, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate([rows(left), rows(right)]), rows(both))
        if started:
            blocks = [b[BATCH_KEYS.SIMILARITY] for b in (left, right, both)]
            assert torch.equal(torch.cat(blocks[:2]), blocks[2])
    # noise that they add is not the same
    assert parts[0].rng.random() != parts[1].rng.random()


def test_devices_draw_neighbours_of_their_own(linked):
    parts = [
        batches_for(linked, Graph(), batch_size=50, rank=rank, n_devices=2)[0] for rank in (0, 1)
    ]
    drawn = [[rows(b) for b in part.train_dataloader()] for part in parts]
    assert [len(part.train_dataloader()) for part in parts] == [len(d) for d in drawn] == [6, 6]
    for left, right in zip(*drawn, strict=True):
        assert len(left) == len(right) == 50
        assert set(left) != set(right)
