"""Affine changes of images against numpy's turning, shifting and flipping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scmoe.nn import affine_images

IDENTITY = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def images(n, *shape, seed=0):
    return torch.rand(n, math.prod(shape), generator=torch.manual_seed(seed), dtype=torch.float64)


def with_numpy(x, shape, change):
    """The rows of ``x`` after ``change`` of their arrays (n, height, width, ...)."""
    return torch.from_numpy(change(x.numpy().reshape(-1, *shape)).reshape(len(x), -1).copy())


def affine(right, down, a=1.0, b=0.0, c=0.0, d=1.0):
    return torch.tensor([[a, b, right], [c, d, down]], dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3)])
def test_the_identity_changes_nothing(shape):
    x = images(3, *shape)
    torch.testing.assert_close(affine_images(x, shape, IDENTITY), x)
    torch.testing.assert_close(affine_images(x, shape, IDENTITY.expand(3, 2, 3)), x)


@pytest.mark.parametrize("shape", [(7, 7), (6, 6, 3)])
def test_a_quarter_turn(shape):
    # what is drawn at the right comes from the top: the image turns clockwise
    x = images(3, *shape)
    drawn = affine_images(x, shape, affine(0, 0, 0.0, 1.0, -1.0, 0.0))
    expected = with_numpy(x, shape, lambda a: np.rot90(a, -1, axes=(1, 2)))
    torch.testing.assert_close(drawn, expected)


def test_a_quarter_turn_of_an_oblong_image_does_not_distort_it():
    x = torch.zeros(1, 4, 8, dtype=torch.float64)
    x[0, 1:3, 2:6] = 1  # a bar of 2 x 4 in the middle
    drawn = affine_images(x.flatten(1), (4, 8), affine(0, 0, 0.0, 1.0, -1.0, 0.0))
    expected = torch.zeros(4, 8, dtype=torch.float64)
    expected[:, 3:5] = 1
    torch.testing.assert_close(drawn.view(4, 8), expected)


def test_a_shift_is_in_pixels_and_filled_with_0():
    x = images(2, 5, 8, 2)

    def moved(a):
        out = np.zeros_like(a)
        out[:, 1:, :-3] = a[:, :-1, 3:]
        return out

    drawn = affine_images(x, (5, 8, 2), affine(3, -1))
    torch.testing.assert_close(drawn, with_numpy(x, (5, 8, 2), moved))


def test_each_image_has_its_own_matrix():
    x = images(2, 4, 6)
    mirror = affine(0, 0, a=-1.0)
    drawn = affine_images(x, (4, 6), torch.stack([IDENTITY, mirror]))
    torch.testing.assert_close(drawn[0], x[0])
    torch.testing.assert_close(drawn[1], x[1].view(4, 6).flip(1).flatten())


def test_half_a_pixel_is_the_mean_of_two():
    x = torch.tensor([[0.0, 1.0, 0.5, 0.25]])
    drawn = affine_images(x, (1, 4), affine(0.5, 0).float())
    torch.testing.assert_close(drawn, torch.tensor([[0.5, 0.75, 0.375, 0.125]]))


@pytest.mark.parametrize("shape", [(2, 2), (3, 2, 3), (6,)])
def test_matrix_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"`matrix` must have the shape \(2, 3\) or \(4, 2, 3\)"):
        affine_images(images(4, 4, 4), (4, 4), torch.zeros(shape))


def test_rows_of_another_length():
    with pytest.raises(ValueError, match=r"rows of 16 values, got an array of shape \(4, 20\)"):
        affine_images(images(4, 20), (4, 4), IDENTITY)


def test_no_images():
    assert affine_images(images(0, 4, 4), (4, 4), IDENTITY).shape == (0, 16)
