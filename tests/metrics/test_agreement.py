"""Agreement of runs, against values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.metrics import agreement

#          cells:  0  1  2  3  4  5  6  7
REFERENCE = np.array([0, 0, 0, 0, 1, 1, 2, 2])
SAME = np.array([1, 1, 1, 1, 0, 0, 2, 2])
JOINED = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SPLIT = np.array([0, 0, 0, 3, 1, 1, 2, 2])
PART = np.array([0, 0, -1, -1, 1, 1, -1, -1])


def columns(*runs):
    return np.stack(runs, axis=1)


def test_numbers():
    found = agreement(columns(SAME, JOINED, SPLIT, PART), REFERENCE)
    nan = np.nan
    np.testing.assert_allclose(
        found.jaccard,
        # of four cells three are left; of two and two together half
        [[1, 1, 3 / 4, 1], [1, 1 / 2, 1, 1], [1, 1 / 2, 1, nan]],
    )
    np.testing.assert_allclose(found.mean_jaccard, [15 / 16, 7 / 8, 5 / 6])
    np.testing.assert_allclose(found.found, [1, 3 / 4, 2 / 3])
    assert found.stable.tolist() == [True, True, True]
    assert found.n_clusters.tolist() == [3, 2, 4, 2]
    # sorted 0.75 1 1 1 and 0.5 1 1: quantiles lie between the lowest two
    np.testing.assert_allclose(found.interval[0], [0.75 + 0.25 * 0.075, 1])
    np.testing.assert_allclose(found.interval[2], [0.5 + 0.5 * 0.05, 1])
    assert found.adjusted_rand[0] == found.adjusted_rand[3] == 1
    # pairs of the same cluster: 8 in the reference, 12 in the run, 8 in both, of 28
    expected = 8 * 12 / 28
    assert found.adjusted_rand[1] == pytest.approx((8 - expected) / (10 - expected))


def test_alignment_and_vote():
    found = agreement(columns(SAME, JOINED, SPLIT, PART), REFERENCE)
    assert found.aligned[:, 0].tolist() == REFERENCE.tolist()
    # of two equally good ones the lower number
    assert found.aligned[:, 1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    # a piece still stands for the whole
    assert found.aligned[:, 2].tolist() == REFERENCE.tolist()
    assert found.aligned[:, 3].tolist() == [0, 0, -1, -1, 1, 1, -1, -1]
    assert found.consensus.tolist() == REFERENCE.tolist()
    assert found.ambiguity.dtype == np.float32
    np.testing.assert_allclose(found.ambiguity, [0, 0, 0, 0, 0, 0, 1 / 3, 1 / 3], rtol=1e-6)


def test_a_tie_is_for_the_reference():
    other = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    found = agreement(columns(REFERENCE, other), REFERENCE)
    assert found.consensus[3] == 0
    assert found.ambiguity[3] == 0.5
    swapped = np.where(REFERENCE == 0, 1, np.where(REFERENCE == 1, 0, 2))
    turned = np.array([1, 1, 1, 0, 0, 0, 2, 2])
    # although 1 is not the lowest number
    assert agreement(columns(swapped, turned), swapped).consensus[3] == 1


def test_an_invented_cluster_is_exposed():
    """The reference cuts a population at random, no run does."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [300, 100])
    runs = columns(*(np.where(rng.random(400) < 0.01, 1 - truth, truth) for _ in range(6)))
    invented = np.where((truth == 0) & (rng.random(400) < 0.4), 2, truth)
    found = agreement(runs, invented)
    assert found.stable.tolist() == [False, True, False]
    assert found.found[2] == 0
    # nobody is given to it, and nobody is in doubt
    assert 2 not in found.consensus
    assert (found.consensus == truth).all()


def test_a_cluster_that_one_run_invents():
    invented = np.array([0, 0, 3, 3, 1, 1, 2, 2])
    found = agreement(columns(REFERENCE, SAME, invented, REFERENCE))
    assert found.reference_run == 0
    # it is no row of the table, and does not change the vote
    assert found.jaccard.shape == (3, 4)
    assert found.consensus.tolist() == REFERENCE.tolist()
    # ties of the inventor are for the first
    assert found.jaccard[0, 2] == 0.5


def test_without_a_reference():
    found = agreement(columns(JOINED, SAME, REFERENCE))
    assert found.reference_run == 1
    assert found.reference.tolist() == SAME.tolist()
    # it is not compared with itself
    assert np.isnan(found.jaccard[:, 1]).all()
    np.testing.assert_allclose(found.jaccard[:, 2], 1)
    assert found.adjusted_rand[1] == 1


def test_cells_of_no_run():
    runs = columns(PART, PART)
    found = agreement(runs, REFERENCE)
    assert found.consensus.tolist() == [0, 0, -1, -1, 1, 1, -1, -1]
    assert np.isnan(found.ambiguity[[2, 3, 6, 7]]).all()
    # a cluster that was in no run was not shown to be stable
    assert np.isnan(found.mean_jaccard[2])
    assert np.isnan(found.found[2])
    assert np.isnan(found.interval[2]).all()
    assert not found.stable[2]


def test_cells_without_a_reference():
    reference = np.where(REFERENCE == 2, -1, REFERENCE)
    found = agreement(columns(SAME, JOINED), reference)
    # {6, 7} of the first run shares nothing with the reference
    assert found.aligned[:, 0].tolist() == [0, 0, 0, 0, 1, 1, -1, -1]
    # one of two runs says nothing that the other says
    assert found.consensus.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(found.ambiguity[6:], 0.5)
    # the index is one of the cells of both
    np.testing.assert_allclose(found.jaccard, 1)


@pytest.mark.parametrize(
    ("runs", "reference", "message"),
    [
        (columns(SAME), None, "at least 2 runs, got 1"),
        (columns(SAME, np.full(8, -1)), None, "Run 1 has no cluster"),
        (SAME, None, "2-dimensional"),
        (columns(SAME, SAME) * 1.0, None, "integers"),
        (columns(SAME, SAME), REFERENCE[:7], "7 cells"),
        (columns(SAME, SAME), np.full(8, -1), "no cluster"),
        (columns(SAME, PART), np.where(PART < 0, 0, -1), "Run 1 shares no cell"),
    ],
)
def test_errors(runs, reference, message):
    with pytest.raises(ValueError, match=message):
        agreement(runs, reference)
