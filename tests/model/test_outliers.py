"""How far cells are from the training cells."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.model._outliers import OWNER, Outliers, with_owner


def fitted(cells, expert=None):
    outliers = Outliers(cells.shape[1])
    outliers.fit(cells, np.zeros(len(cells), int) if expert is None else expert)
    return outliers


def score(outliers, cells):
    """Scores of cells of the first cluster."""
    return outliers.score(cells, np.zeros(len(cells), int))


def line(n):
    """Cells at 0, 1, 2, ... on a line."""
    return np.arange(n, dtype=np.float32)[:, None]


def test_distance_is_that_of_the_fifth_neighbour():
    outliers = fitted(line(100))
    distance = outliers.distance(np.array([[-10], [50.5], [99]], np.float32), np.zeros(3, int))
    # five below and above 50.5: 50, 51, 49, 52 and then 48 at 2.5; 99 itself does not count
    np.testing.assert_allclose(distance, [14, 2.5, 5], rtol=1e-6)


def test_score_is_a_share_of_the_training_cells():
    outliers = fitted(line(1000))
    # all cells but the ends have their fifth neighbour at a distance of 3
    middle = score(outliers, line(1000)[100:900])
    assert len(np.unique(middle)) == 1
    assert 0.4 < middle[0] < 0.6
    assert score(outliers, np.array([[-2.0]], np.float32))[0] > 0.99
    assert score(outliers, np.array([[-1e6]], np.float32))[0] == 1
    assert score(outliers, line(1)).dtype == np.float32


def test_a_stated_share_of_like_cells_is_above_a_threshold():
    rng = np.random.default_rng(0)
    cells, new = rng.normal(size=(2, 4000, 3)).astype(np.float32)
    scored = score(fitted(cells), new)
    for share in (0.01, 0.05, 0.2):
        assert (scored > 1 - share).mean() == pytest.approx(share, abs=0.25 * share + 0.002)


def test_foreign_cells_score_high():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(2000, 3)).astype(np.float32)
    assert (score(fitted(cells), cells[:200] + 6) > 0.99).all()


def test_rare_clusters_give_more_than_their_share_of_landmarks():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(20_000, 2)).astype(np.float32)
    expert = np.zeros(20_000, int)
    expert[:200] = 1
    cells[:200] += 100
    outliers = fitted(cells, expert)
    rare = (outliers.landmarks[:, 0] > 50).sum().item()
    # in proportion to the root of their sizes it would be 3000 / (1 + 99 ** .5) = 274, all 200
    assert 100 < rare <= 200


def test_landmarks_are_those_of_the_cluster_of_a_cell():
    cells, expert = np.concatenate([line(100), line(100) + 1000]), np.repeat([0, 1], 100)
    outliers, cell = fitted(cells, expert), np.full((3, 1), 50.5, np.float32)
    # the nearest five of 1000, 1001, ... are as far as 1004; a third cluster has no landmarks
    distance = outliers.distance(cell, np.array([0, 1, 2]))
    np.testing.assert_allclose(distance, [2.5, 953.5, 2.5])


def test_few_landmarks_of_a_cluster_do_not_decide_alone():
    cells, expert = np.concatenate([line(400), line(10) + 1000]), np.repeat([0, 1], [400, 10])
    distance = fitted(cells, expert).distance(np.array([[50.5]], np.float32), np.array([1]))
    np.testing.assert_allclose(distance, 2.5)


def test_landmarks_of_earlier_versions_have_no_clusters():
    saved = fitted(np.concatenate([line(100), line(100) + 1000])).state_dict()
    saved = {f"outliers.{name}": tensor for name, tensor in saved.items() if name != "owner"}
    assert not with_owner(saved)[OWNER].any()
    assert with_owner(saved)[OWNER].shape == saved["outliers.landmarks"].shape[:1]


def test_few_cells():
    outliers = fitted(line(3))
    np.testing.assert_allclose(outliers.distance(line(3), np.zeros(3, int)), [2, 1, 2], rtol=1e-6)
    assert np.isfinite(score(outliers, line(3))).all()


def test_any_number_of_cells_fits_any_state():
    state = fitted(line(30)).state_dict()
    other = fitted(line(5000))
    other.load_state_dict(state)
    np.testing.assert_array_equal(score(other, line(9)), score(fitted(line(30)), line(9)))


def test_again_with_fewer_cells_forgets_the_others():
    outliers = fitted(line(100))
    outliers.fit(line(10), np.zeros(10, int))
    np.testing.assert_array_equal(outliers.landmarks[:11], np.append(line(10), [[0]], axis=0))


def test_quantiles_of_markers():
    outliers = fitted(line(65))
    np.testing.assert_allclose(outliers.markers[:, 0], np.arange(65))
