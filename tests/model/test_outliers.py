"""How far cells are from the training cells."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.model._outliers import Outliers


def fitted(cells, expert=None):
    outliers = Outliers(cells.shape[1])
    outliers.fit(cells, np.zeros(len(cells), int) if expert is None else expert)
    return outliers


def line(n):
    """Cells at 0, 1, 2, ... on a line."""
    return np.arange(n, dtype=np.float32)[:, None]


def test_distance_is_that_of_the_fifth_neighbour():
    outliers = fitted(line(100))
    distance = outliers.distance(np.array([[-10.0], [50.5], [99.0]], dtype=np.float32))
    # five below and above 50.5: 50, 51, 49, 52 and then 48 at 2.5; 99 itself does not count
    np.testing.assert_allclose(distance, [14, 2.5, 5], rtol=1e-6)


def test_score_is_a_share_of_the_training_cells():
    outliers = fitted(line(1000))
    # all cells but the ends have their fifth neighbour at a distance of 3
    middle = outliers.score(line(1000)[100:900])
    assert len(np.unique(middle)) == 1
    assert 0.4 < middle[0] < 0.6
    assert outliers.score(np.array([[-2.0]], np.float32))[0] > 0.99
    assert outliers.score(np.array([[-1e6]], np.float32))[0] == 1
    assert outliers.score(line(1)).dtype == np.float32


def test_a_stated_share_of_like_cells_is_above_a_threshold():
    rng = np.random.default_rng(0)
    cells, new = rng.normal(size=(2, 4000, 3)).astype(np.float32)
    score = fitted(cells).score(new)
    for share in (0.01, 0.05, 0.2):
        assert (score > 1 - share).mean() == pytest.approx(share, abs=0.25 * share + 0.002)


def test_foreign_cells_score_high():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(2000, 3)).astype(np.float32)
    assert (fitted(cells).score(cells[:200] + 6) > 0.99).all()


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


def test_few_cells():
    outliers = fitted(line(3))
    np.testing.assert_allclose(outliers.distance(line(3)), [2, 1, 2], rtol=1e-6)
    assert np.isfinite(outliers.score(line(3))).all()


def test_any_number_of_cells_fits_any_state():
    state = fitted(line(30)).state_dict()
    other = fitted(line(5000))
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.score(line(9)), fitted(line(30)).score(line(9)))


def test_again_with_fewer_cells_forgets_the_others():
    outliers = fitted(line(100))
    outliers.fit(line(10), np.zeros(10, int))
    np.testing.assert_array_equal(outliers.landmarks[:11], np.append(line(10), [[0]], axis=0))


def test_quantiles_of_markers():
    outliers = fitted(line(65))
    np.testing.assert_allclose(outliers.markers[:, 0], np.arange(65))
