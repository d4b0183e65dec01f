"""Random changes as a user asks for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scmoe import estimate
from scmoe.estimate import _augmentation, augmentation
from scmoe.nn import ImageAugment, NeighborAugment


def cells(n=50, d=4):
    return np.random.default_rng(0).random((n, d)).astype(np.float32)


def test_none():
    assert augmentation(False, cells(), None, 0) is None


def test_of_images():
    made = augmentation({"rotation": 30, "flip": True}, cells(), (2, 2), 0)
    assert isinstance(made, ImageAugment)
    assert made.amounts == {"rotation": 30, "zoom": 0.1, "shift": 0.1, "flip": True}
    assert augmentation(True, cells(), (2, 2), 0).amounts["rotation"] == 10


def test_of_cells():
    x = cells()
    made = augmentation({"n_neighbors": 3, "share": 1.0}, x, None, 0)
    assert isinstance(made, NeighborAugment)
    assert made.share == 1
    distances = ((x[:, None] - x) ** 2).sum(2)
    expected = distances.argsort(1)[:, 1:4]
    np.testing.assert_array_equal(made.neighbors, expected)
    assert augmentation(True, x, None, 0).neighbors.shape == (50, 15)
    # of few cells all others are neighbours
    assert augmentation(True, x[:5], None, 0).neighbors.shape == (5, 4)


def test_neighbours_of_cells_on_another_scale():
    x = cells()
    values = x * np.float32([1, 1, 1, 1000])
    made = augmentation({"n_neighbors": 3}, x, None, 0, values=values)
    np.testing.assert_array_equal(made.neighbors, augmentation(True, x, None, 0).neighbors[:, :3])
    np.testing.assert_array_equal(made.x, values)


@pytest.mark.slow
def test_many_cells(monkeypatch):
    monkeypatch.setattr(_augmentation, "EXACT_NEIGHBORS", 100)
    x = cells(600)
    found = _augmentation.nearest(x, 5, 0)
    assert found.shape == (600, 5)
    exact = ((x[:, None] - x) ** 2).sum(2).argsort(1)[:, 1:6]
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, exact, strict=True)]) > 0.95
    assert not (found == np.arange(600)[:, None]).any()
    torch.testing.assert_close(
        torch.from_numpy(found), torch.from_numpy(_augmentation.nearest(x, 5, 0))
    )


@pytest.mark.parametrize(
    ("augment", "shape", "match"),
    [
        ({"angle": 3}, (2, 2), r"no 'angle'; of images there is 'flip', 'rotation'"),
        ({"rotation": 3}, None, r"no 'rotation'; of cells there is 'n_neighbors', 'share'"),
        ({"share": 2}, None, "share"),
        ({"zoom": 1}, (2, 2), "zoom"),
        ({"n_neighbors": 0}, None, "n_neighbors"),
        ({"n_neighbors": 2.5}, None, "n_neighbors"),
    ],
)
def test_bad_amounts(augment, shape, match):
    with pytest.raises(ValueError, match=match):
        estimate.augmentation(augment, cells(), shape, 0)
