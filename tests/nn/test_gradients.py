"""Straightened images and the directions of their edges."""

from __future__ import annotations

import math

import pytest
import torch

from scmoe.nn import affine_images, oriented_gradients, straighten

SHAPE = (32, 32)


def bar(down=16.0, right=16.0, length=8.0, width=2.0):
    """A soft upright stroke."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    inside = ((rows - down) / length) ** 4 + ((columns - right) / width) ** 2
    return (-inside).exp().reshape(1, -1)


def moments(x):
    image = x.view(*SHAPE)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    mass = image.sum()
    down, right = (image * rows).sum() / mass, (image * columns).sum() / mass
    slant = (image * (rows - down) * (columns - right)).sum() / mass
    return float(down), float(right), float(slant)


def inner(features):
    """Strength of each direction away from the margins, where an image ends in an edge."""
    return features.view(8, 8, 8)[:, 2:6, 2:6].square().sum((1, 2))


def test_a_slanted_stroke_is_put_upright():
    slanted = affine_images(bar(), SHAPE, torch.tensor([[1.0, 0.4, 0.0], [0.0, 1.0, 0.0]]))
    assert abs(moments(slanted)[2]) > 3
    upright = straighten(slanted, SHAPE)
    assert abs(moments(upright)[2]) < 0.2
    torch.testing.assert_close(upright, straighten(bar(), SHAPE), atol=0.08, rtol=0)


def test_the_centre_of_mass_is_moved_to_the_middle():
    down, right, _ = moments(straighten(bar(down=12, right=20), SHAPE))
    assert abs(down - 15.5) < 0.1
    assert abs(right - 15.5) < 0.1


def test_an_image_without_ink_stays_empty():
    empty = torch.zeros(2, 1024)
    assert torch.equal(straighten(empty, SHAPE), empty)
    assert torch.equal(oriented_gradients(empty, SHAPE), torch.zeros(2, 8 * 64))


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_directions_of_an_edge(turn):
    """An edge that brightens to the right, turned by quarters: one direction of the eight."""
    ramp = torch.sigmoid(torch.arange(32.0) - 15.5).expand(32, 32)
    image = torch.rot90(ramp, -turn)  # clockwise, and down is positive
    strength = inner(oriented_gradients(image.reshape(1, -1), SHAPE))
    assert strength.argmax() == 2 * turn
    assert strength[2 * turn] > 0.99 * strength.sum()


def test_an_edge_between_two_directions_counts_for_both():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    angle = math.radians(22.5)
    away = (columns - 15.5) * math.cos(angle) + (rows - 15.5) * math.sin(angle)
    share = inner(oriented_gradients(torch.sigmoid(away).reshape(1, -1), SHAPE))
    torch.testing.assert_close(share[0], share[1], rtol=0.1, atol=0)
    assert share[:2].sum() > 0.98 * share.sum()


def test_length_and_small_moves():
    """Features have length 1, and a pixel to the side changes them far less than the image."""
    x, moved = bar(), bar(right=17)
    first, second = oriented_gradients(x, SHAPE), oriented_gradients(moved, SHAPE)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(1))
    pixels = torch.cosine_similarity(x, moved)
    assert (first * second).sum() > 1 - (1 - pixels) / 2


def test_brightness_does_not_matter():
    torch.testing.assert_close(
        oriented_gradients(bar(), SHAPE), oriented_gradients(0.3 * bar(), SHAPE)
    )


def test_channels_are_averaged():
    x = bar()
    rgb = x.unsqueeze(2).expand(-1, -1, 3).reshape(1, -1)
    torch.testing.assert_close(
        oriented_gradients(rgb, (32, 32, 3)), oriented_gradients(x, SHAPE), rtol=1e-5, atol=1e-5
    )
    assert straighten(rgb, (32, 32, 3)).shape == rgb.shape


def test_rows_of_another_length():
    for function in (straighten, oriented_gradients):
        with pytest.raises(ValueError, match="rows of 1024 values"):
            function(torch.zeros(2, 100), SHAPE)
