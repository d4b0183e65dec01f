"""Populations of a density tree as a similarity."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from scmoe.similarity import Blend, DensityTree, Labels, Similarity


@pytest.fixture
def target(blobs):
    return DensityTree().bind(blobs, blobs.X)


def test_one_group_for_each_population(blobs, target):
    group = target.membership.argmax(1)
    assert target.tree.n_clusters == 5
    table = np.zeros((5, 5), int)
    np.add.at(table, (blobs.obs["population"].cat.codes, group), 1)
    assert table.max(1).sum() == 600
    # the largest first
    assert list(np.bincount(group)) == [270, 150, 90, 60, 30]


def test_memberships(target):
    assert target.membership.shape == (600, 5)
    assert target.membership.dtype == np.float32
    assert target.membership.min() >= 0
    np.testing.assert_allclose(target.membership.sum(1), 1, rtol=1e-6)


def test_cells_near_a_valley_are_undecided():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (600, 2)), rng.normal([4, 0], 1, (600, 2))])
    x = x.astype(np.float32)
    cells = named(x)
    membership = DensityTree().bind(cells, x).membership
    assert membership.shape[1] == 2
    undecided = membership.max(1) < 0.97
    assert undecided.any()
    assert np.abs(x[undecided, 0] - 2).max() < 0.8


def named(x):
    from anndata import AnnData

    return AnnData(np.asarray(x, np.float32))


def test_same_seed_same_answer_in_any_order(blobs, target):
    order = np.random.default_rng(3).permutation(600)
    again = DensityTree().bind(blobs[order].copy(), blobs.X[order])
    for name, value in target.tree.to_record().items():
        np.testing.assert_array_equal(again.tree.to_record()[name], value)
    np.testing.assert_allclose(again.membership, target.membership[order], rtol=1e-6)


def test_agreement_by_hand(target):
    target.membership = np.array([[1, 0], [0.25, 0.75], [0.5, 0.5]], np.float32)
    expected = [[1, 0.25, 0.5], [0.25, 1, 0.5], [0.5, 0.5, 1]]
    np.testing.assert_allclose(target.dense(np.arange(3)), expected)


def test_cut_at_a_number_of_clusters(blobs, caplog):
    assert DensityTree(n_clusters=3).bind(blobs, blobs.X).tree.n_clusters == 3
    assert "no more than" not in caplog.text
    with caplog.at_level(logging.WARNING, logger="scmoe"):
        assert DensityTree(n_clusters=9).bind(blobs, blobs.X).tree.n_clusters == 5
    assert "no more than 5 populations, not 9" in caplog.text


def test_significance_decides(blobs):
    coarse = DensityTree(significance=12).bind(blobs, blobs.X).tree
    assert 1 <= coarse.n_clusters < 5
    assert (coarse.significance >= 12).all()


def test_one_population():
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    target = DensityTree().bind(named(x), x)
    np.testing.assert_array_equal(target.membership, np.ones((500, 1)))
    assert (target.dense(np.arange(9)) == 1).all()


@pytest.mark.parametrize("n_cells", [2, 23])
def test_few_cells_are_one_population(blobs, n_cells):
    few = blobs[:n_cells].copy()
    assert DensityTree().bind(few, few.X).membership.shape == (n_cells, 1)


# -- batches -------------------------------------------------------------------------------


def plates(blobs, shift):
    """The blobs four times, every other half from a batch in which all markers are brighter."""
    rng = np.random.default_rng(0)
    x = np.concatenate([blobs.X + rng.normal(scale=0.1, size=blobs.shape) for _ in range(4)])
    cells = named(x)
    cells.obs["plate"] = np.where(rng.random(cells.n_obs) < 0.5, "a", "b")
    cells.X[cells.obs["plate"] == "b"] += shift
    cells.obs["population"] = np.tile(blobs.obs["population"].astype(str), 4)
    return cells


def test_what_sets_batches_apart_is_no_valley(blobs):
    cells = plates(blobs, np.float32([0, 0, 0, 0, 0, 0, 0, 3]))
    blind = DensityTree().bind(cells, cells.X).membership.argmax(1)
    assert blind.max() + 1 == 10
    seeing = DensityTree(batch_key="plate").bind(cells, cells.X)
    assert seeing.tree.n_clusters == 5
    group, population = seeing.membership.argmax(1), cells.obs["population"]
    assert all(len(set(group[population == name])) == 1 for name in set(population))


def test_batches_without_effect_change_little(blobs):
    cells = plates(blobs, 0)
    blind, seeing = (DensityTree(batch_key=key).bind(cells, cells.X) for key in (None, "plate"))
    np.testing.assert_array_equal(blind.membership.argmax(1), seeing.membership.argmax(1))


def test_a_shift_as_large_as_the_distance_of_populations():
    """The low population of the second batch lies where the high one of the first is."""
    rng = np.random.default_rng(0)
    high, late = (np.arange(2000) % 2).astype(bool), np.arange(2000) >= 1000
    x = rng.normal(0, 0.5, (2000, 3)).astype(np.float32)
    x[:, 0] += 4 * high + 4 * late
    cells = named(x)
    cells.obs["plate"] = np.where(late, "b", "a")
    group = DensityTree(batch_key="plate").bind(cells, x).membership.argmax(1)
    assert (group == group[0]).mean() == pytest.approx(0.5, abs=0.02)
    assert (group[high] == group[high][0]).mean() > 0.99


def test_a_population_of_one_batch_is_one(blobs):
    cells = plates(blobs, 0)
    cells = cells[(cells.obs["plate"] == "a") | (cells.obs["population"] != "NK")].copy()
    assert DensityTree(batch_key="plate").bind(cells, cells.X).tree.n_clusters == 5


def test_unknown_batches(blobs):
    with pytest.raises(KeyError, match="Did not find the batches 'plate'"):
        DensityTree(batch_key="plate").bind(blobs, blobs.X)
    blobs.obs["plate"] = [None, *"a" * 599]
    with pytest.raises(ValueError, match="missing for 1 of 600 cells"):
        DensityTree(batch_key="plate").bind(blobs, blobs.X)


# -- parameters ----------------------------------------------------------------------------


def test_round_trip():
    similarity = DensityTree(significance=5, depth=0.3, min_cells=20, n_clusters=7)
    similarity = replace(similarity, random_state=3, batch_key="plate")
    assert Similarity.from_dict(similarity.to_dict()) == similarity


def test_blend(linked):
    linked.obs["labels"] = linked.obs["population"].where(np.arange(600) % 3 == 0)
    blend = Blend(DensityTree(), Labels("labels"), weight=0.5).bind(linked, linked.X)
    known = np.flatnonzero(linked.obs["labels"].notna())[:50]
    tree = DensityTree().bind(linked, linked.X)
    same = linked.obs["labels"].to_numpy()[known]
    same = same[:, None] == same[None]
    np.testing.assert_allclose(blend.dense(known), (tree.dense(known) + same) / 2, atol=1e-6)
    # small populations are drawn more often, as by the tree alone
    assert blend.batches(np.arange(600), 64, np.random.default_rng(0)) is not None
